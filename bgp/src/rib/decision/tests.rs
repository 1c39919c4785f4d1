use super::*;
use crate::wire::as_path::AsPath;
use crate::wire::attribute::Origin;

/// A path as a table row: what differs from the plain one.
#[derive(Clone)]
struct Path {
    attributes: PathAttributes,
    is_local: bool,
    is_ebgp: bool,
    igp_cost: u32,
    router_id: RouterId,
    address: IpAddr,
    path_id: u32,
}

fn path() -> Path {
    Path {
        attributes: PathAttributes::originated([10, 0, 0, 9].into()),
        is_local: false,
        is_ebgp: false,
        igp_cost: 1,
        router_id: RouterId([10, 0, 0, 5].into()),
        address: [10, 0, 0, 5].into(),
        path_id: 0,
    }
}

impl Path {
    fn with(mut self, change: impl FnOnce(&mut Path)) -> Path {
        change(&mut self);
        self
    }

    fn through(self, asns: &[u32]) -> Path {
        self.with(|path| {
            path.attributes.as_path = AsPath::sequence(asns.iter().map(|asn| Asn(*asn)))
        })
    }

    fn med(self, med: u32) -> Path {
        self.with(|path| path.attributes.med = Some(Med(med)))
    }

    fn candidate(&self) -> Candidate<'_> {
        Candidate {
            attributes: &self.attributes,
            local_pref: self.attributes.local_pref.unwrap_or(LocalPref::DEFAULT),
            is_local: self.is_local,
            is_ebgp: self.is_ebgp,
            igp_cost: self.igp_cost,
            router_id: self.router_id,
            address: self.address,
            path_id: self.path_id,
        }
    }
}

fn winner(paths: &[Path]) -> (usize, Option<Step>) {
    let candidates: Vec<Candidate<'_>> = paths.iter().map(Path::candidate).collect();
    let verdict = decide(&candidates, &Options::default()).expect("there are candidates");
    (verdict.best, verdict.deciding_step(verdict.best))
}

#[test]
fn best_path_ladder_order_independent() {
    let id = |last: u8| RouterId([10, 0, 0, last].into());
    let better_and_worse: Vec<(&str, Path, Path, Step)> = vec![
        (
            "own route",
            path().with(|p| p.is_local = true),
            path(),
            Step::Local,
        ),
        (
            "higher local-pref",
            path()
                .with(|p| p.attributes.local_pref = Some(LocalPref(200)))
                .through(&[1, 2, 3]),
            path(),
            Step::LocalPref,
        ),
        (
            "shorter AS path",
            path().through(&[1]),
            path().through(&[1, 2]),
            Step::AsPathLength,
        ),
        (
            "lower origin",
            path(),
            path().with(|p| p.attributes.origin = Origin::Incomplete),
            Step::Origin,
        ),
        (
            "lower MED",
            path().through(&[1]).med(5),
            path().through(&[1]).med(6),
            Step::Med,
        ),
        (
            "missing MED is lowest",
            path().through(&[1]),
            path().through(&[1]).med(1),
            Step::Med,
        ),
        (
            "eBGP",
            path().through(&[1]).with(|p| p.is_ebgp = true),
            path().through(&[1]),
            Step::EbgpOverIbgp,
        ),
        (
            "nearer next hop",
            path().with(|p| p.igp_cost = 0),
            path(),
            Step::IgpCost,
        ),
        (
            "lower router id",
            path().with(|p| p.router_id = id(1)),
            path(),
            Step::RouterId,
        ),
        (
            "originator stands for the peer",
            path().with(|p| p.attributes.originator_id = Some(id(1))),
            path(),
            Step::RouterId,
        ),
        (
            "shorter cluster list",
            path(),
            path().with(|p| {
                p.attributes
                    .cluster_list
                    .push(crate::types::ClusterId([1, 1, 1, 1].into()))
            }),
            Step::ClusterListLength,
        ),
        (
            "lower address",
            path().with(|p| p.address = [10, 0, 0, 1].into()),
            path(),
            Step::PeerAddress,
        ),
    ];
    for (name, better, worse, step) in better_and_worse {
        assert_eq!(
            winner(&[better.clone(), worse.clone()]),
            (0, Some(step)),
            "{name}"
        );
        assert_eq!(
            winner(&[worse, better]),
            (1, Some(step)),
            "{name}, other order"
        );
    }
}

#[test]
fn med_counts_only_within_one_neighbour_as() {
    let paths = [
        path().through(&[1]).med(9),
        path()
            .through(&[2])
            .med(1)
            .with(|p| p.router_id = RouterId([10, 0, 0, 9].into())),
    ];
    assert_eq!(winner(&paths), (0, Some(Step::RouterId)));
}

#[test]
fn med_does_not_depend_on_the_order_of_arrival() {
    // The classic trio: pairwise comparison would give a different winner for each order.
    let id = |last: u8| RouterId([10, 0, 0, last].into());
    let trio = [
        path().through(&[1]).med(10).with(|p| p.router_id = id(3)),
        path().through(&[2]).med(0).with(|p| p.router_id = id(2)),
        path().through(&[1]).med(5).with(|p| p.router_id = id(4)),
    ];
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        let paths = order.map(|index: usize| trio[index].clone());
        assert_eq!(order[winner(&paths).0], 1, "{order:?}");
    }
}

#[test]
fn the_only_path_was_decided_by_nothing() {
    assert_eq!(winner(&[path()]), (0, None));
    assert_eq!(decide(&[], &Options::default()), None);
}

fn used(paths: &[Path], options: &Options) -> Vec<usize> {
    let candidates: Vec<Candidate<'_>> = paths.iter().map(Path::candidate).collect();
    multipath(&candidates, options).to_vec()
}

fn by(last: u8) -> Path {
    path().with(|path| {
        path.attributes.next_hop = IpAddr::from([10, 0, 1, last]).into();
        path.router_id = RouterId([10, 0, 0, last].into());
        path.address = [10, 0, 0, last].into();
    })
}

#[test]
fn med_of_different_ases_is_compared_where_asked() {
    let paths = [by(1).through(&[1]).med(9), by(2).through(&[2]).med(1)];
    let candidates = paths.each_ref().map(Path::candidate);
    for (always_compare_med, best, step) in [(false, 0, Step::RouterId), (true, 1, Step::Med)] {
        let options = Options {
            always_compare_med,
            ..Options::default()
        };
        let verdict = decide(&candidates, &options).expect("there are candidates");
        assert_eq!(
            (verdict.best, verdict.deciding_step(best)),
            (best, Some(step))
        );
    }
}

#[test]
fn several_paths_of_one_peer_are_decided_by_their_identifiers() {
    let paths = [2, 1, 3].map(|id| path().with(|path| path.path_id = id));
    assert_eq!(winner(&paths), (1, Some(Step::PathId)));
}

#[test]
fn paths_that_tie_up_to_the_next_hop_are_used_together() {
    let four = Options {
        max_ebgp_paths: 4,
        max_ibgp_paths: 4,
        ..Options::default()
    };
    let across = Options {
        multipath_across_as: true,
        ..four
    };
    let two = Options {
        max_ibgp_paths: 2,
        ..four
    };
    let ebgp = |path: Path| path.with(|path| path.is_ebgp = true);
    for (name, paths, options, expected) in [
        (
            "off by default",
            vec![by(1), by(2)],
            Options::default(),
            vec![0],
        ),
        ("equal", vec![by(2), by(1)], four, vec![1, 0]),
        (
            "as many as allowed, by next hop",
            vec![by(3), by(1), by(2)],
            two,
            vec![1, 2],
        ),
        (
            "worse next hop",
            vec![by(1), by(2).with(|p| p.igp_cost = 9)],
            four,
            vec![0],
        ),
        (
            "worse LOCAL_PREF",
            vec![
                by(1),
                by(2).with(|p| p.attributes.local_pref = Some(LocalPref(1))),
            ],
            four,
            vec![0],
        ),
        (
            "own route alone",
            vec![by(1).with(|p| p.is_local = true), by(2)],
            four,
            vec![0],
        ),
        (
            "eBGP and iBGP",
            vec![ebgp(by(1).through(&[1])), by(2).through(&[1])],
            four,
            vec![0],
        ),
        (
            "one next hop twice",
            vec![
                by(1),
                by(2).with(|p| p.attributes.next_hop = IpAddr::from([10, 0, 1, 1]).into()),
            ],
            four,
            vec![0],
        ),
        (
            "another neighbour",
            vec![ebgp(by(1).through(&[1])), ebgp(by(2).through(&[2]))],
            four,
            vec![0],
        ),
        (
            "another neighbour, across",
            vec![ebgp(by(1).through(&[1])), ebgp(by(2).through(&[2]))],
            across,
            vec![0, 1],
        ),
        ("nothing", vec![], four, vec![]),
    ] {
        assert_eq!(used(&paths, &options), expected, "{name}");
    }
}
