//! What happens to a reflector: its clients' routes, their sessions, and its configuration.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bgp::types::{Asn, Family, LocalPref, Med, Prefix, RouterId};
use bgp::wire::Notification;
use bgp::wire::as_path::AsPath;
use bgp::wire::attribute::{Origin, PathAttributes};
use bgp::wire::community::Community;
use bgp::wire::notification::cease;
use bgp::wire::refresh::RefreshKind;

use crate::client::Habits;
use crate::oracle::router_id;
use crate::setup::{AS, BLOCKS, PER_BLOCK, RANGE, Setup, prefix};
use crate::world::{Loss, OWN_CLUSTER, Reflector, World};

/// How long things take; real minutes are shorter than virtual days.
pub struct Times {
    pub hold_time_secs: u16,
    pub restart_times_secs: &'static [u16],
}

impl<R: Reflector> World<R> {
    /// One event, whatever the dice say.
    pub fn happen(&mut self, times: &Times) {
        let all: Vec<u8> = self.clients.keys().copied().collect();
        let last = self.random.one_of(&all);
        // Nobody could say what came first.
        if self.is_uncertain(&self.clients[&last]) {
            return;
        }
        let client = &self.clients[&last];
        let (is_well, is_up) = (client.is_well(), client.session.is_some());
        let may_connect = self.setup.is_configured(last) && client.held_until.is_none();
        match self.random.below(100) {
            0..=39 if is_well => self.announce_some(last),
            40..=54 if is_well => self.withdraw_some(last),
            55..=59 if is_well => self.refresh(last),
            60..=63 if is_well => self.refresh_by_itself(last),
            64..=67 if is_well => self.crash(last),
            68..=70 if is_well => self.say_goodbye(last),
            71..=73 if is_well => self.fall_silent(last),
            74..=77 if is_up => self.flap(last, times),
            78 if is_well && self.setup.is_ebgp(last) => self.say_too_much(last),
            0..=79 if !is_up && may_connect => self.come_back(last, times),
            80 if !is_up && !may_connect => self.knock_in_vain(last, times),
            81..=82 if !is_up && may_connect => self.come_back_half(last, times),
            83..=84 => self.add_or_remove(),
            85..=86 => self.change_reflection(),
            87..=89 => self.change_import(),
            90..=91 => self.change_export(),
            92 => self.change_maximum(),
            93 => self.change_draining(),
            94 => self.change_decision(),
            95 if !is_up => self.change_routes_while_away(last),
            _ => {}
        }
    }

    pub fn any_habits(&mut self, last: u8, times: &Times) -> Habits {
        let restart = self.random.one_of(times.restart_times_secs);
        let dice = &mut self.random;
        Habits {
            hold_time_secs: times.hold_time_secs,
            restart_time_secs: dice.is(70).then_some(restart),
            has_notification: dice.is(70),
            has_enhanced_refresh: dice.is(60),
            takes_all_paths: !self.setup.is_ebgp(last) && self.random.is(30),
        }
    }

    fn announce_some(&mut self, last: u8) {
        self.note("announcements", last);
        let count = 1 + self.random.below(8);
        let routes: BTreeMap<Prefix, PathAttributes> =
            (0..count).map(|_| self.any_route(last)).collect();
        let now = self.now();
        let client = self.client(last);
        client.routes.extend(routes.clone());
        client.known.extend(routes.clone());
        if let Some(live) = &mut client.session {
            live.announce(&routes, now);
        }
        self.enforce_maximum(last);
    }

    fn withdraw_some(&mut self, last: u8) {
        self.note("withdrawals", last);
        let share = 5 + self.random.below(30);
        let held: Vec<Prefix> = self.client(last).routes.keys().copied().collect();
        let gone: Vec<Prefix> = held.into_iter().filter(|_| self.random.is(share)).collect();
        let now = self.now();
        let client = self.client(last);
        for prefix in &gone {
            client.routes.remove(prefix);
            client.known.remove(prefix);
        }
        if let Some(live) = &mut client.session {
            live.withdraw(&gone, now);
        }
    }

    fn refresh(&mut self, last: u8) {
        self.note("refreshes asked for", last);
        let family = self.random.one_of(&Family::ALL);
        let now = self.now();
        if let Some(live) = &mut self.client(last).session {
            live.refresh(family, RefreshKind::Request, now);
        }
    }

    /// RFC 7313 §4: what it does not repeat between BoRR and EoRR is gone.
    fn refresh_by_itself(&mut self, last: u8) {
        let enhanced = |live: &crate::client::Live| live.habits.has_enhanced_refresh;
        if !self.client(last).session.as_ref().is_some_and(enhanced) {
            return;
        }
        self.note("demarcated refreshes", last);
        let family = self.random.one_of(&Family::ALL);
        // A BoRR that comes within a second of another one is not taken for one.
        self.pass(Duration::from_millis(1500));
        if !self.client(last).is_well() {
            return;
        }
        let held: Vec<Prefix> = self.client(last).routes.keys().copied().collect();
        let left_out: Vec<Prefix> = held
            .into_iter()
            .filter(|prefix| prefix.family() == family && self.random.is(20))
            .collect();
        let now = self.now();
        let client = self.client(last);
        for prefix in &left_out {
            client.routes.remove(prefix);
            client.known.remove(prefix);
        }
        let of_family = client.routes.iter();
        let of_family = of_family
            .filter(|(prefix, _)| prefix.family() == family)
            .map(|(prefix, attributes)| (*prefix, attributes.clone()))
            .collect();
        if let Some(live) = &mut client.session {
            live.refresh(family, RefreshKind::Begin, now);
            live.announce(&of_family, now);
            live.refresh(family, RefreshKind::End, now);
        }
        self.pass(Duration::from_millis(1500));
    }

    fn crash(&mut self, last: u8) {
        self.note("crashes", last);
        drop(self.lose(last, Loss::Connection));
        self.settle();
    }

    /// By Cease, as one that goes for a while or as one that goes for good.
    fn say_goodbye(&mut self, last: u8) {
        self.note("goodbyes", last);
        let is_hard = self.random.is(50);
        let reset = Notification::cease(cease::ADMINISTRATIVE_RESET);
        let (word, how) = match is_hard {
            true => (Notification::hard_reset(&reset), Loss::Hard),
            false => (reset, Loss::Notified),
        };
        let now = self.now();
        if let Some(mut live) = self.lose(last, how) {
            live.notify(&word, now);
        }
        self.settle();
    }

    fn fall_silent(&mut self, last: u8) {
        self.note("silent deaths", last);
        // What was sent until now counts.
        self.settle();
        if let Some(live) = &mut self.client(last).session {
            live.is_silent = true;
        }
    }

    /// A new session in the place of one that is up, or seems so.
    fn flap(&mut self, last: u8, times: &Times) {
        if !self.setup.is_configured(last) {
            return;
        }
        self.note("flaps", last);
        let habits = self.any_habits(last, times);
        let former = self.client(last).session.as_ref();
        let has_restart = former.is_some_and(|live| live.habits.restart_time_secs.is_some());
        if !has_restart && self.random.is(50) {
            // RFC 4271 §6.8: the session that is up stays; RFC 4724 §5 is for those who have it.
            self.knock(last, habits);
        }
        if !has_restart || self.random.is(50) {
            drop(self.lose(last, Loss::Connection));
            self.settle();
        }
        self.connect(last, habits);
        self.announce_all(last);
    }

    fn say_too_much(&mut self, last: u8) {
        let maximum = self.setup.max_prefixes;
        let family = self.random.one_of(&Family::ALL);
        let mut routes = BTreeMap::new();
        while routes.len() <= maximum as usize {
            let block = self.random.below(u64::from(BLOCKS)) as u8;
            let number = 100 + self.random.below(100) as u8;
            let attributes = self.any_attributes(last, family);
            routes.insert(prefix(family, block, number), attributes);
        }
        let now = self.now();
        let client = self.client(last);
        client.known.extend(routes.clone());
        if let Some(live) = &mut client.session {
            live.announce(&routes, now);
        }
        self.enforce_maximum(last);
        assert!(self.client(last).session.is_none(), "it is ended");
    }

    fn come_back(&mut self, last: u8, times: &Times) {
        self.note("returns", last);
        let habits = self.any_habits(last, times);
        self.connect(last, habits);
        self.announce_all(last);
    }

    /// Comes back, repeats half of its routes and is gone again, without End-of-RIB.
    fn come_back_half(&mut self, last: u8, times: &Times) {
        self.note("half restarts", last);
        let habits = self.any_habits(last, times);
        self.connect(last, habits);
        let all = self.client(last).routes.clone();
        let half: BTreeMap<Prefix, PathAttributes> =
            all.into_iter().filter(|_| self.random.is(50)).collect();
        let now = self.now();
        let client = self.client(last);
        client.known.extend(half.clone());
        if let Some(live) = &mut client.session {
            live.announce(&half, now);
        }
        self.settle();
        self.crash(last);
    }

    fn knock_in_vain(&mut self, last: u8, times: &Times) {
        self.note("knocks in vain", last);
        let habits = self.any_habits(last, times);
        self.knock(last, habits);
    }

    fn change_routes_while_away(&mut self, last: u8) {
        self.note("changes while away", last);
        let (prefix, attributes) = self.any_route(last);
        self.client(last).routes.insert(prefix, attributes);
        let all: Vec<Prefix> = self.client(last).routes.keys().copied().collect();
        let gone = self.random.one_of(&all);
        self.client(last).routes.remove(&gone);
    }

    fn add_or_remove(&mut self) {
        let base = Setup::base().listed;
        let all: Vec<u8> = base.keys().copied().collect();
        let last = self.random.one_of(&all);
        if self.is_uncertain(&self.clients[&last]) {
            return;
        }
        match self.setup.listed.remove(&last) {
            Some(_) => {
                self.note("peers removed", last);
                drop(self.lose(last, Loss::Hard));
                let client = self.client(last);
                client.forget();
                client.held_until = None;
            }
            None => {
                self.note("peers added", last);
                self.setup.listed.insert(last, base[&last]);
            }
        }
        self.configure();
    }

    fn change_reflection(&mut self) {
        let inside: Vec<u8> = self
            .setup
            .listed
            .iter()
            .filter(|(_, listed)| listed.asn == AS)
            .map(|(last, _)| *last)
            .collect();
        if inside.is_empty() {
            return;
        }
        self.note("client or not", 0);
        let last = self.random.one_of(&inside);
        if let Some(listed) = self.setup.listed.get_mut(&last) {
            listed.is_client ^= true;
        }
        self.configure();
    }

    fn change_import(&mut self) {
        self.note("import filters changed", 0);
        let block = self.random.below(u64::from(BLOCKS)) as u8;
        let of_setup = match self.random.is(50) {
            true => &mut self.setup.refused,
            false => &mut self.setup.tagged,
        };
        if !of_setup.remove(&block) {
            of_setup.insert(block);
        }
        self.configure();
    }

    fn change_export(&mut self) {
        self.note("export filters changed", 0);
        let block = self.random.below(u64::from(BLOCKS)) as u8;
        if !self.setup.hidden.remove(&block) {
            self.setup.hidden.insert(block);
        }
        self.configure();
    }

    fn change_maximum(&mut self) {
        let outside: Vec<u8> = self.clients.keys().copied().collect();
        let outside: Vec<u8> = outside
            .into_iter()
            .filter(|last| self.setup.is_ebgp(*last))
            .collect();
        let is_uncertain = |last: &u8| self.is_uncertain(&self.clients[last]);
        if outside.iter().any(is_uncertain) {
            return;
        }
        self.note("maximum of prefixes changed", 0);
        let was = self.setup.max_prefixes;
        self.setup.max_prefixes = self.random.one_of(&[25, 50, 55, 60]);
        if self.setup.max_prefixes != was {
            for last in &outside {
                self.client(*last).held_until = None;
            }
        }
        self.configure();
        for last in outside {
            self.enforce_maximum(last);
        }
    }

    fn change_draining(&mut self) {
        self.note("draining or not", 0);
        self.setup.is_draining ^= true;
        self.configure();
    }

    fn change_decision(&mut self) {
        self.note("decision changed", 0);
        self.setup.always_compare_med ^= true;
        self.configure();
    }

    pub fn configure(&mut self) {
        self.settle();
        self.setup.serial = self.setup.serial.wrapping_add(1);
        self.reflector.configure(&self.setup);
        self.settle();
    }

    fn any_route(&mut self, last: u8) -> (Prefix, PathAttributes) {
        let family = self.random.one_of(&Family::ALL);
        let block = self.random.below(u64::from(BLOCKS)) as u8;
        // External peers stay below their maximum.
        let numbers = match self.setup.is_ebgp(last) || self.clients[&last].asn != AS {
            true => PER_BLOCK * 2 / 3,
            false => PER_BLOCK,
        };
        let number = self.random.below(u64::from(numbers)) as u8;
        let attributes = self.any_attributes(last, family);
        (prefix(family, block, number), attributes)
    }

    fn any_attributes(&mut self, last: u8, family: Family) -> PathAttributes {
        let asn = self.clients[&last].asn;
        let is_ebgp = asn != AS;
        let is_other_reflector = !is_ebgp && !RANGE.contains(&last);
        let dice = &mut self.random;
        let host = match dice.is(80) {
            true => last,
            false => 100 + dice.below(4) as u8,
        };
        let next_hop: IpAddr = match family {
            Family::Ipv4 if dice.is(3) => Ipv4Addr::LOCALHOST.into(),
            Family::Ipv4 => Ipv4Addr::new(198, 51, 100, host).into(),
            Family::Ipv6 => format!("2001:db8:ffff::{host:x}")
                .parse()
                .expect("an address"),
        };
        let mut path: Vec<Asn> = (0..dice.below(3))
            .map(|_| Asn(65100 + dice.below(3) as u32))
            .collect();
        if is_ebgp && !dice.is(4) {
            path.insert(0, asn);
        }
        if dice.is(4) {
            path.push(AS);
        }
        let mut attributes = PathAttributes {
            origin: dice.one_of(&[Origin::Igp, Origin::Igp, Origin::Incomplete]),
            as_path: AsPath::sequence(path),
            // Many sets that nobody will say again.
            med: match dice.below(3) {
                0 => None,
                1 => Some(Med(dice.below(3) as u32)),
                _ => Some(Med(dice.below(1 << 32) as u32)),
            },
            local_pref: (!is_ebgp).then(|| LocalPref(dice.one_of(&[100, 100, 100, 90, 110]))),
            ..PathAttributes::originated(next_hop)
        };
        for (percent, community) in [
            (20, Community((AS.0 << 16) | 1)),
            (4, Community::NO_EXPORT),
            (3, Community::NO_ADVERTISE),
            (5, Community::GRACEFUL_SHUTDOWN),
        ] {
            if dice.is(percent) {
                attributes.communities.push(community);
            }
        }
        if is_other_reflector && dice.is(30) {
            let from = 101 + dice.below(3) as u8;
            attributes.originator_id = Some(RouterId(Ipv4Addr::new(192, 0, 2, from)));
            let cluster = bgp::types::ClusterId(Ipv4Addr::new(192, 0, 2, 240));
            attributes.cluster_list = [cluster].into_iter().collect();
            if dice.is(20) {
                attributes.cluster_list.push(OWN_CLUSTER);
            } else if dice.is(20) {
                attributes.originator_id = Some(crate::setup::ROUTER_ID);
            }
        }
        attributes
    }

    /// Everybody up, with the same routes and nothing else, whatever was before.
    pub fn calm_down(&mut self, times: &Times) {
        let serial = self.setup.serial;
        // A maximum that is another one releases who is held down; the old one does so again.
        self.setup = Setup {
            serial,
            max_prefixes: self.setup.max_prefixes + 1,
            ..Setup::base()
        };
        self.configure();
        self.setup.max_prefixes = Setup::base().max_prefixes;
        self.configure();
        let all: Vec<u8> = self.clients.keys().copied().collect();
        for last in all {
            let habits = Habits {
                hold_time_secs: times.hold_time_secs,
                restart_time_secs: None,
                has_notification: false,
                has_enhanced_refresh: true,
                takes_all_paths: last == 20,
            };
            let routes = calm_routes(last, self.clients[&last].asn);
            self.client(last).held_until = None;
            self.client(last).routes = routes;
            drop(self.lose(last, Loss::Connection));
            self.settle();
            self.connect(last, habits);
            self.announce_all(last);
        }
        self.settle();
        self.compare();
    }

    /// Has the client at `last` say one route with `count` attribute sets, one after the other, and
    /// in the end none. Nobody else hears of it.
    pub fn change_one_route(&mut self, last: u8, count: u32, mut look: impl FnMut()) {
        const AT_ONCE: u32 = 8;
        let one = prefix(Family::Ipv4, BLOCKS, 0);
        for number in 0..count {
            let now = self.now();
            let med = self.random.below(1 << 32) as u32;
            let attributes = PathAttributes {
                med: Some(Med(med)),
                local_pref: Some(LocalPref(100)),
                communities: [Community::NO_ADVERTISE].into_iter().collect(),
                ..PathAttributes::originated(Ipv4Addr::new(198, 51, 100, last).into())
            };
            if let Some(live) = &mut self.client(last).session {
                live.announce(&BTreeMap::from([(one, attributes)]), now);
            }
            if number % AT_ONCE == 0 {
                self.settle();
                look();
            }
        }
        let now = self.now();
        if let Some(live) = &mut self.client(last).session {
            live.withdraw(&[one], now);
        }
        self.settle();
    }
}

fn calm_routes(last: u8, asn: Asn) -> BTreeMap<Prefix, PathAttributes> {
    let is_ebgp = asn != AS;
    let numbers = (0..BLOCKS).flat_map(|block| (0..4).map(move |number| (block, number)));
    let route = |(block, number)| {
        let next_hop = Ipv4Addr::new(198, 51, 100, last);
        let attributes = PathAttributes {
            as_path: AsPath::sequence(is_ebgp.then_some(asn)),
            local_pref: (!is_ebgp).then_some(LocalPref(100)),
            med: Some(Med(u32::from(router_id(last).0) % 7)),
            ..PathAttributes::originated(next_hop.into())
        };
        (prefix(Family::Ipv4, block, number), attributes)
    };
    numbers.map(route).collect()
}
