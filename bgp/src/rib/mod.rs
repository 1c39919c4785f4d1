//! The routing information bases of one speaker. Pure: messages leave through a [`Sink`].
//!
//! ```text
//! receive() ─> import policy ─> Table (Adj-RIB-In and Loc-RIB) ─> changed prefixes
//!                                       ^                        │
//!                                       └─────── aggregates <────┤
//!                                                        turn() ─┬> groups: encode once, send to all
//!                                                                └> learned(): best routes for the kernel
//! ```
//! A path carries a pointer to its interned attributes, so a route is a few words; work in a turn
//! is proportional to what changed in it. Adj-RIB-Out is one bit per prefix and group.

pub mod adj_out;
mod aggregate;
pub mod attributes;
pub mod decision;
mod import;
pub mod next_hop;
pub mod path;
pub mod peer;
mod resolution;
mod selection;
pub mod show;
mod slots;
pub mod table;
mod untold;
pub mod why;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use self::adj_out::group::Groups;
use self::aggregate::Aggregates;
use self::attributes::Interner;
use self::next_hop::{NextHops, Reach};
use self::path::Path;
use self::peer::{ImportPolicy, Member, Peer, PeerSetup};
use self::selection::Selection;
use self::table::{Inserted, Key4, Key6, Table, Was};
use self::untold::Untold;
use crate::policy::Rejection;
use crate::speaker::config::Originated;
use crate::types::{ClusterId, Family, LocalPref, PathPrefix, Prefix, RouterId};
use crate::wire::attribute::PathAttributes;
use crate::wire::community::Community;

/// A peer within the RIB: small, dense, reused after [`Rib::remove_peer`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PeerId(pub u32);

impl PeerId {
    /// The source of routes of our own.
    pub const LOCAL: PeerId = PeerId(u32::MAX);

    /// The source of aggregates, which are our own, too.
    pub const AGGREGATE: PeerId = PeerId(u32::MAX - 1);

    pub fn is_own(self) -> bool {
        self == PeerId::LOCAL || self == PeerId::AGGREGATE
    }
}

/// Where encoded messages go. Sending never blocks: a member without room is skipped and catches
/// up from the table when [`Rib::resume`] is called.
pub trait Sink {
    fn has_room(&self, peer: PeerId) -> bool;
    /// One message, or several one behind the other.
    fn send(&mut self, peer: PeerId, messages: &bytes::Bytes);
}

/// What the RIB knows of its speaker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RibConfig {
    pub router_id: RouterId,
    pub cluster_id: ClusterId,
    pub local_addresses: Vec<IpAddr>,
    /// Whether anyone reads [`Rib::learned`].
    pub has_consumer: bool,
    pub decision: decision::Options,
    /// Of routes that came without one, as those of eBGP peers do.
    pub local_pref: LocalPref,
}

/// The best route of a prefix changed: what the kernel should follow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LearnedRoute {
    pub prefix: Prefix,
    /// `None`: no route, or the best is our own.
    pub best: Option<Arc<PathAttributes>>,
    /// Further paths that are as good (multipath), by next hop, each of which is there once and is
    /// not that of `best`. Empty unless configured.
    pub multipath: Vec<Arc<PathAttributes>>,
}

pub struct Rib {
    config: Arc<RibConfig>,
    peers: Vec<Option<Peer>>,
    interner: Interner,
    ipv4: Table<Key4>,
    ipv6: Table<Key6>,
    /// Why a path is not eligible. Only rejected paths have an entry.
    rejections: HashMap<(PeerId, PathPrefix), Rejection>,
    groups: Groups,
    originated: BTreeMap<Prefix, Originated>,
    aggregates: Aggregates,
    next_hops: NextHops,
    untold: Untold,
    /// Between a restart and its end the consumer is told nothing (RFC 4724 §4.1).
    is_deferring: bool,
}

/// Does `$body` with `$table` as the table of `$family`.
macro_rules! with_table {
    ($rib:expr, $family:expr, $table:ident => $body:expr) => {
        match $family {
            Family::Ipv4 => {
                let $table = &mut $rib.ipv4;
                $body
            }
            Family::Ipv6 => {
                let $table = &mut $rib.ipv6;
                $body
            }
        }
    };
}
pub(crate) use with_table;

impl Rib {
    pub fn new(config: RibConfig) -> Rib {
        Rib {
            config: Arc::new(config),
            peers: Vec::new(),
            interner: Interner::default(),
            ipv4: Table::default(),
            ipv6: Table::default(),
            rejections: HashMap::new(),
            groups: Groups::default(),
            originated: BTreeMap::new(),
            aggregates: Aggregates::default(),
            next_hops: NextHops::default(),
            untold: Untold::default(),
            is_deferring: false,
        }
    }

    /// Decides anew where the options of the decision changed. By the rest only new routes are
    /// measured; existing ones keep their verdict until they are sent again.
    pub fn reconfigure(&mut self, config: RibConfig) {
        let is_decided_otherwise =
            self.config.decision != config.decision || self.config.local_pref != config.local_pref;
        self.config = Arc::new(config);
        if is_decided_otherwise {
            self.note_as_needed();
            for family in Family::ALL {
                let selection = selection(&self.peers, &self.next_hops, &self.config);
                with_table!(self, family, table => table.decide_again(|paths| selection.best(paths)));
            }
            // What is used together may be another with the same best path.
            self.tell_all_again();
        }
    }

    /// Makes the routes of our own exactly these.
    pub fn set_originated(&mut self, originated: BTreeMap<Prefix, Originated>) {
        let gone: Vec<Prefix> = self
            .originated
            .keys()
            .filter(|prefix| !originated.contains_key(prefix))
            .copied()
            .collect();
        for prefix in gone {
            self.withdraw_path(PeerId::LOCAL, &prefix.into());
        }
        let mut by_other_interface = HashSet::new();
        for (prefix, route) in &originated {
            match self.originated.get(prefix) {
                Some(was) if was.next_hop == route.next_hop => {
                    if was.interface != route.interface {
                        by_other_interface.insert(*prefix);
                    }
                }
                Some(_) | None => {
                    let attributes = PathAttributes::originated(route.next_hop);
                    let attributes = self.interner.intern(attributes);
                    let path = Path::new(PeerId::LOCAL, 0, attributes);
                    self.insert_path(prefix, path, None);
                }
            }
        }
        self.originated = originated;
        if !by_other_interface.is_empty() {
            self.note_by_other_interface(&HashSet::new(), &by_other_interface);
        }
    }

    /// A session came up: the peer hears everything, then End-of-RIB. Paths kept from an earlier
    /// session stay (stale) until they are announced again or flushed.
    pub fn peer_up(&mut self, id: PeerId, setup: PeerSetup) {
        let index = id.0 as usize;
        if self.peers.len() <= index {
            self.peers.resize_with(index + 1, || None);
        }
        self.leave_group(id);
        let slot = self.groups.join(id, &setup.group);
        // Routes of before are here still, and are judged by what the peer was then.
        let is_another = self.peers[index]
            .as_ref()
            .is_some_and(|peer| peer.setup.is_another_source(&setup));
        let is_judged_otherwise = self.peers[index]
            .as_ref()
            .is_some_and(|peer| peer.setup.import != setup.import);
        match &mut self.peers[index] {
            Some(peer) => peer.restart(setup, slot),
            entry => *entry = Some(Peer::new(setup, slot)),
        }
        self.note_as_needed();
        for family in Family::ALL.into_iter().filter(|_| is_another) {
            let selection = selection(&self.peers, &self.next_hops, &self.config);
            with_table!(self, family, table => table
                .source_changed(id, |paths| selection.best(paths)));
        }
        if is_judged_otherwise {
            self.judge_again(id, |_| true);
        }
        self.begin_catch_up(id);
    }

    /// Says nothing to a peer whose session just came up, until [`Rib::release`]: after a restart
    /// of ours it must not take half a table for the whole.
    pub fn hold(&mut self, id: PeerId) {
        if let Some(peer) = self.peer_mut(id) {
            peer.member = Member {
                is_held: true,
                ..Member::default()
            };
        }
    }

    /// Says the whole table to a peer that was held, with End-of-RIB after it.
    pub fn release(&mut self, id: PeerId) {
        self.release_without_end(id);
        if let Some(peer) = self.peer_mut(id) {
            peer.member.lacks_end = false;
        }
    }

    /// Says the whole table to a peer that was held, and what changes. End-of-RIB, and refreshes, wait
    /// for [`Rib::release`]: the peer goes on using what was not repeated.
    pub fn release_without_end(&mut self, id: PeerId) {
        if self.is_held(id) {
            if let Some(peer) = self.peer_mut(id) {
                peer.member.is_held = false;
                peer.member.lacks_end = true;
            }
            self.begin_catch_up(id);
        }
    }

    /// Whether the peer has the table and waits for its End-of-RIB.
    pub fn lacks_end(&self, id: PeerId) -> bool {
        self.peer(id).is_some_and(|peer| peer.member.lacks_end)
    }

    pub fn is_held(&self, id: PeerId) -> bool {
        self.peer(id).is_some_and(|peer| peer.member.is_held)
    }

    /// A session ended. Routes of `kept` families become stale, all others go.
    pub fn peer_down(&mut self, id: PeerId, kept: &[Family]) {
        self.leave_group(id);
        for family in Family::ALL {
            if kept.contains(&family) {
                self.mark_stale(id, family);
            } else {
                self.remove_paths(id, family, |_| true);
            }
        }
    }

    /// Forgets a peer whose routes are all gone or not wanted any more.
    pub fn remove_peer(&mut self, id: PeerId) {
        self.peer_down(id, &[]);
        if let Some(entry) = self.peers.get_mut(id.0 as usize) {
            *entry = None;
        }
    }

    /// All the peer's routes of a family are in doubt until it announces them again (RFC 7313 §4).
    pub fn mark_stale(&mut self, id: PeerId, family: Family) {
        let marked = with_table!(self, family, table => table.mark_stale(id));
        if let Some(peer) = self.peer_mut(id) {
            peer.count_stale(family, marked);
        }
    }

    /// The peer's stale routes of a family become a last resort for long, but those that must not
    /// (RFC 9494 §4.2).
    pub fn keep_long_lived(&mut self, id: PeerId, family: Family) {
        self.remove_paths(id, family, |path| {
            path.is_stale && path.attributes.communities.contains(&Community::NO_LLGR)
        });
        let (interner, peers) = (&mut self.interner, &self.peers);
        let selection = selection(peers, &self.next_hops, &self.config);
        with_table!(self, family, table => table.change_paths(
            id,
            |path| {
                let communities = &path.attributes.communities;
                if !path.is_stale || communities.contains(&Community::LLGR_STALE) {
                    return false;
                }
                path.attributes = with_llgr_stale(&path.attributes, interner);
                // It stays so when policy judges the path again.
                if let Some(received) = &mut path.received {
                    *received = with_llgr_stale(received, interner);
                }
                true
            },
            |paths| selection.best(paths),
        ));
    }

    /// Removes what the peer did not announce again after its restart (RFC 4724 §4.2), or in its
    /// refresh (RFC 7313 §4).
    pub fn flush_stale(&mut self, id: PeerId, family: Family) {
        self.remove_paths(id, family, |path| path.is_stale);
    }

    /// Replaces a peer's import and export policy. Where the one is another, what the peer sent is
    /// judged again; where the other is, what is said to it is sent again.
    pub fn set_policy(&mut self, id: PeerId, setup: PeerSetup) {
        let Some(peer) = self.peer_mut(id) else {
            return;
        };
        if peer.slot.is_some() && peer.setup.group == setup.group {
            let import = setup.import.clone();
            let was = std::mem::replace(&mut peer.setup, setup);
            if was.import != import {
                self.judge_again(id, |_| true);
            }
        } else {
            self.change_group(id, setup);
        }
    }

    /// Replaces the import policy of a peer, which need not be up, and judges what it sent again.
    pub fn set_import(&mut self, id: PeerId, import: Arc<ImportPolicy>) {
        if let Some(peer) = self.peer_mut(id) {
            peer.setup.import = import;
            self.judge_again(id, |_| true);
        }
    }

    fn change_group(&mut self, id: PeerId, setup: PeerSetup) {
        // The group bit tells what this peer has; leaving loses it, so withdraw what the new
        // policy does not say any more before the table is sent again.
        let mut said = self.advertised(id);
        // What changed since the last turn may be gone from the table and is still with the
        // peer; what it had no room for is in its old member state.
        let changed4 = self.ipv4.changed();
        let changed6 = self.ipv6.changed();
        let add_path = self.peer(id).map(|peer| peer.setup.group.add_path);
        said.extend(
            changed4
                .chain(changed6)
                .filter(|prefix| add_path.is_some_and(|f| !f.contains(prefix.family())))
                .map(PathPrefix::from),
        );
        if let Some(peer) = self.peer_mut(id) {
            said.extend(std::mem::take(&mut peer.member.dirty));
        }
        // A refresh that is under way begins anew: the peer waits for its end.
        let refreshes: Vec<Family> = self.peer(id).map_or(Vec::new(), |peer| {
            let member = &peer.member;
            member
                .refreshing
                .iter()
                .chain(&member.refresh_due)
                .copied()
                .collect()
        });
        let (is_held, lacks_end) = (self.is_held(id), self.lacks_end(id));
        let end_of_rib_due = self.peer_mut(id).map_or(Vec::new(), |peer| {
            std::mem::take(&mut peer.member.end_of_rib_due)
        });
        self.peer_up(id, setup);
        if is_held {
            self.hold(id);
        }
        if let Some(peer) = self.peer_mut(id) {
            peer.member.lacks_end = lacks_end;
            // One that has heard its End-of-RIB hears no other.
            peer.member.end_of_rib_due = end_of_rib_due;
            peer.member.dirty.extend(said);
            // What is said or withdrawn from there need not come from the table besides. What a
            // group with ADD-PATH was told is noted by way of the table.
            let (table, dirty) = (&mut peer.member.table, &peer.member.dirty);
            table.retain(|prefix| !dirty.contains(&PathPrefix::from(*prefix)));
            for family in refreshes {
                peer.member.ask_refresh(family);
            }
        }
    }

    pub fn withdraw(&mut self, id: PeerId, paths: impl Iterator<Item = impl Into<PathPrefix>>) {
        for path in paths {
            self.withdraw_path(id, &path.into());
        }
    }

    /// Between a restart and its end the consumer is told nothing: routes would come and go while
    /// the peers come back one by one.
    pub fn set_deferring(&mut self, is_deferring: bool) {
        self.is_deferring = is_deferring;
    }

    /// Says what changed since the last turn: withdrawals first, then announcements, then what
    /// joining members still miss, as far as the sink has room.
    pub fn turn(&mut self, sink: &mut impl Sink) {
        self.say_changes(sink);
        self.catch_up(sink);
    }

    /// How many prefixes changed since the last turn.
    pub fn changes(&self) -> usize {
        self.ipv4.changes.len() + self.ipv6.changes.len()
    }

    /// The first half of a turn: what changed since the last one.
    pub fn say_changes(&mut self, sink: &mut impl Sink) {
        self.flush_changes(sink);
    }

    /// The second half of a turn: what joining and lagging members still miss.
    pub fn catch_up(&mut self, sink: &mut impl Sink) {
        let waiting: Vec<PeerId> = self
            .groups
            .members()
            .filter(|id| self.peer(*id).is_some_and(|peer| peer.member.is_waiting()))
            .collect();
        for id in waiting {
            self.resume(id, sink);
        }
        if self.interner.purge_if_grown() && self.next_hops.is_tracking() {
            self.track_next_hops();
        }
    }

    /// Best routes the consumer has not heard of, at most `limit`. Empty while deferring, and while
    /// a next hop has not been told of: the best route may not be usable at all.
    pub fn learned(&mut self, limit: usize) -> Vec<LearnedRoute> {
        if !self.can_tell() {
            return Vec::new();
        }
        let prefixes = self.untold.take(limit).into_iter();
        prefixes
            .map(|prefix| LearnedRoute {
                prefix,
                best: self.best_learned(&prefix),
                multipath: self.multipath_learned(&prefix),
            })
            .collect()
    }

    /// Gives all best routes once more by [`Rib::learned`].
    pub fn tell_all_again(&mut self) {
        let prefixes4 = self.ipv4.prefixes();
        let prefixes6 = self.ipv6.prefixes();
        if self.config.has_consumer {
            self.untold.extend(prefixes4.chain(prefixes6));
        }
    }

    /// Gives the best routes of these prefixes once more, as far as there are any.
    pub fn tell_again(&mut self, prefixes: &[Prefix]) {
        if self.config.has_consumer {
            let (ipv4, ipv6) = (&self.ipv4, &self.ipv6);
            let is_known =
                |prefix: &&Prefix| ipv4.get(prefix).is_some() || ipv6.get(prefix).is_some();
            self.untold
                .extend(prefixes.iter().filter(is_known).copied());
        }
    }

    /// Nobody takes what [`Rib::learned`] gives any more.
    pub fn forget_consumer(&mut self) {
        self.config = Arc::new(RibConfig {
            has_consumer: false,
            ..RibConfig::clone(&self.config)
        });
        self.untold = Untold::default();
    }

    pub fn has_learned(&self) -> bool {
        !self.untold.is_empty() && self.can_tell()
    }

    /// Whether there is anything that the consumer has not heard, told now or later.
    pub fn has_untold(&self) -> bool {
        !self.untold.is_empty()
    }

    fn can_tell(&self) -> bool {
        !self.is_deferring && !self.next_hops.is_waiting()
    }

    fn best_learned(&self, prefix: &Prefix) -> Option<Arc<PathAttributes>> {
        let best = match prefix.family() {
            Family::Ipv4 => self.ipv4.best(prefix),
            Family::Ipv6 => self.ipv6.best(prefix),
        };
        best.filter(|path| !path.source.is_own())
            .map(|path| path.attributes.clone())
    }

    /// What is used beside the best route of a prefix.
    fn multipath_learned(&self, prefix: &Prefix) -> Vec<Arc<PathAttributes>> {
        let destination = match prefix.family() {
            _ if !self.config.decision.has_multipath() => None,
            Family::Ipv4 => self.ipv4.get(prefix),
            Family::Ipv6 => self.ipv6.get(prefix),
        };
        let Some(destination) = destination else {
            return Vec::new();
        };
        let used = self.selection().multipath(&destination.paths);
        let beside = used.iter().skip(1);
        beside
            .map(|index| destination.paths[*index].attributes.clone())
            .collect()
    }

    fn selection(&self) -> Selection<'_> {
        selection(&self.peers, &self.next_hops, &self.config)
    }

    pub fn peer(&self, id: PeerId) -> Option<&Peer> {
        self.peers.get(id.0 as usize).and_then(Option::as_ref)
    }

    fn peer_mut(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.peers.get_mut(id.0 as usize).and_then(Option::as_mut)
    }

    fn insert_path(&mut self, prefix: &Prefix, mut path: Path, verdict: Option<Rejection>) {
        path.is_rejected = verdict.is_some();
        let (id, is) = (path.source, Was::of(&path));
        let numbered = PathPrefix {
            prefix: *prefix,
            path_id: path.path_id,
        };
        let family = prefix.family();
        let selection = selection(&self.peers, &self.next_hops, &self.config);
        let inserted = with_table!(self, family, table => {
            table.insert(prefix, path, |paths| selection.best(paths))
        });
        let previous = match inserted {
            Inserted::New => None,
            Inserted::Replaced(was) => Some(was),
            Inserted::InsteadOf { path_id, was } => {
                if let Some(peer) = self.peer_mut(id) {
                    peer.count(family, Some(was), None);
                }
                if !was.accepted {
                    let prefix = *prefix;
                    self.rejections
                        .remove(&(id, PathPrefix { prefix, path_id }));
                }
                None
            }
            Inserted::Refused => return,
        };
        if let Some(peer) = self.peer_mut(id) {
            peer.count(family, previous, Some(is));
        }
        match verdict {
            Some(rejection) => {
                self.rejections.insert((id, numbered), rejection);
            }
            None if previous.is_some_and(|was| !was.accepted) => {
                self.rejections.remove(&(id, numbered));
            }
            None => {}
        }
    }

    fn withdraw_path(&mut self, id: PeerId, path: &PathPrefix) {
        let family = path.prefix.family();
        let selection = selection(&self.peers, &self.next_hops, &self.config);
        let previous = with_table!(self, family, table => {
            table.remove(&path.prefix, id, path.path_id, |paths| selection.best(paths))
        });
        if let Some(peer) = self.peer_mut(id) {
            peer.count(family, previous, None);
        }
        if previous.is_some_and(|was| !was.accepted) {
            self.rejections.remove(&(id, *path));
        }
    }

    /// Removes a peer's paths of a family that `matches`.
    fn remove_paths(&mut self, id: PeerId, family: Family, matches: impl Fn(&Path) -> bool) {
        let paths = with_table!(self, family, table => table.paths_of(id, matches));
        for path in paths {
            self.withdraw_path(id, &path);
        }
    }
}

/// Borrows what it needs only, so that the tables stay free.
fn selection<'a>(
    peers: &'a [Option<Peer>],
    next_hops: &'a NextHops,
    config: &'a RibConfig,
) -> Selection<'a> {
    Selection {
        peers,
        next_hops,
        options: &config.decision,
        local_pref: config.local_pref,
    }
}

fn with_llgr_stale(attributes: &PathAttributes, interner: &mut Interner) -> Arc<PathAttributes> {
    let mut attributes = attributes.clone();
    attributes.add_community(Community::LLGR_STALE);
    interner.intern(attributes)
}

/// Routes of our own go wherever the kernel sends them.
fn is_unresolvable(next_hops: &NextHops, source: PeerId, attributes: &PathAttributes) -> bool {
    !source.is_own() && next_hops.reach(attributes.next_hop.address) == Reach::Unresolvable
}

#[cfg(test)]
mod tests;
