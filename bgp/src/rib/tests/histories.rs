//! Whatever peers, operators and the kernel do in whatever order, receivers have what they should.

use super::add_path::{D, E, HeardPaths, by, listener, numbered};
use super::*;

const SEEDS: u64 = 1_000;

/// xorshift: the same history for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }

    fn is(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// A peer as it may be configured: D and E hear every path.
fn any_setup(id: PeerId, random: &mut Random) -> PeerSetup {
    let mut setup = if [D, E].contains(&id) {
        listener(id)
    } else {
        client(id)
    };
    setup.client = random.is(70);
    setup.group.export.client = setup.client;
    setup.group.export.is_draining = random.is(40);
    setup.group.export.long_lived = random.is(50);
    if random.is(10) {
        setup.group.export.default = ExportDefault::OwnOnly;
    }
    if random.is(10) {
        let import = Arc::make_mut(&mut setup.import);
        import.default = ImportDefault::Reject;
    }
    setup
}

fn any_attributes(random: &mut Random) -> PathAttributes {
    // 10.0.0.10 and on are the receivers themselves, 10.0.1.x others.
    let mut attributes = match random.below(8) {
        7 => PathAttributes::originated(address(PeerId(2 + random.below(3) as u32))),
        number => by(number as u8 % 4),
    };
    if random.is(10) {
        attributes.add_community(Community::NO_LLGR);
    }
    if random.is(10) {
        attributes.add_community(Community::NO_ADVERTISE);
    }
    attributes
}

type Shown = Vec<(PathPrefix, IpAddr, Vec<Community>)>;

fn shown(path: PathPrefix, attributes: &PathAttributes) -> (PathPrefix, IpAddr, Vec<Community>) {
    let mut communities = attributes.communities.to_vec();
    communities.sort();
    (path, attributes.next_hop.address, communities)
}

#[test]
fn receivers_have_what_they_should_whatever_sessions_and_policies_do() {
    for seed in 0..SEEDS {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let (mut rib, mut heard) = (rib(), HeardPaths::default());
        let everyone = [A, B, C, D, E];
        heard.numbered.extend([D, E]);
        let mut is_up = BTreeSet::new();
        for id in everyone {
            rib.peer_up(id, client(id));
            is_up.insert(id);
        }
        for id in [D, E] {
            rib.peer_down(id, &[]);
            rib.peer_up(id, listener(id));
        }
        for _ in 0..random.below(80) {
            let id = everyone[random.below(5) as usize];
            let text = ["10.9.0.0/16", "10.8.0.0/16", "10.7.0.0/16"][random.below(3) as usize];
            let path = numbered(text, random.below(3) as u32);
            match random.below(20) {
                0..=6 if is_up.contains(&id) => {
                    rib.announce(id, any_attributes(&mut random), [path].into_iter());
                }
                7..=9 if is_up.contains(&id) => rib.withdraw(id, [path].into_iter()),
                10 if !heard.full.remove(&id) => {
                    heard.full.insert(id);
                }
                11 if is_up.remove(&id) => {
                    let kept: &[Family] = if random.is(60) { &[Family::Ipv4] } else { &[] };
                    rib.peer_down(id, kept);
                    heard.tables.remove(&id);
                }
                12 if is_up.insert(id) => {
                    rib.peer_up(id, any_setup(id, &mut random));
                    if random.is(30) {
                        rib.hold(id);
                    }
                }
                13..=14 if is_up.contains(&id) => {
                    for _ in 0..=random.below(2) {
                        rib.set_policy(id, any_setup(id, &mut random));
                    }
                }
                15 => rib.flush_stale(id, Family::Ipv4),
                16 => match is_up.contains(&id) {
                    true => rib.mark_stale(id, Family::Ipv4),
                    false => rib.keep_long_lived(id, Family::Ipv4),
                },
                17 => rib.refresh(id, Family::Ipv4),
                18 => {
                    let next_hop = [10, 0, 1, random.below(4) as u8].into();
                    let reach = match random.is(50) {
                        true => Reach::Unresolvable,
                        false => Reach::Cost(random.below(3) as u32),
                    };
                    rib.set_next_hop_costs([(next_hop, reach.into())].into_iter().collect());
                }
                19 => match random.is(50) {
                    true => rib.release(id),
                    false => rib.release_without_end(id),
                },
                _ => {}
            }
            if random.is(50) {
                rib.turn(&mut heard);
            }
        }
        heard.full.clear();
        for id in everyone {
            rib.release(id);
        }
        rib.turn(&mut heard);
        for id in is_up {
            let mut expected: Shown = rib
                .show_advertised(id, None)
                .iter()
                .map(|(path, _, attributes)| shown(*path, attributes))
                .collect();
            expected.sort();
            let table = heard.tables.get(&id).into_iter().flatten();
            let has: Shown = table.map(|(path, said)| shown(*path, said)).collect();
            assert_eq!(has, expected, "seed {seed}, {id:?}");
            let mut told = rib.advertised(id);
            told.sort();
            let of_group: BTreeSet<PathPrefix> = told.into_iter().collect();
            let lacks = has.iter().find(|(path, ..)| !of_group.contains(path));
            assert_eq!(lacks, None, "seed {seed}, {id:?}: heard and not noted");
        }
    }
}
