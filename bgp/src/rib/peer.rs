//! What the RIB keeps of each peer.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashSet;

use super::RibConfig;
use super::table::Was;
use crate::policy::import::ImportContext;
use crate::policy::matcher::{self, Direction};
use crate::policy::propagate::{ExportPolicy, RouteSource};
use crate::policy::{Filter, ImportDefault};
use crate::types::{Asn, Family, FamilySet, PathPrefix, Prefix, Role, RouterId};

/// What a session that came up tells the RIB.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerSetup {
    pub address: IpAddr,
    pub router_id: RouterId,
    pub ebgp: bool,
    pub client: bool,
    /// Refreshes are sent between BoRR and EoRR (RFC 7313).
    pub enhanced_route_refresh: bool,
    pub import: Arc<ImportPolicy>,
    pub group: GroupKey,
}

impl PeerSetup {
    /// Whether routes of a peer with `new` are to be preferred, or passed on, otherwise than those
    /// of this one.
    pub fn is_another_source(&self, new: &PeerSetup) -> bool {
        let as_source =
            |setup: &PeerSetup| (setup.ebgp, setup.client, setup.router_id, setup.address);
        as_source(self) != as_source(new)
    }
}

/// Peers with equal keys hear the same messages.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct GroupKey {
    pub export: ExportPolicy,
    /// Negotiated, in the order of [`Family`].
    pub families: Vec<Family>,
    pub four_octet_as: bool,
    pub max_message_len: usize,
    /// Families in which every path is said (RFC 7911).
    pub add_path: FamilySet,
}

/// A peer's import policy, without what belongs to the speaker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImportPolicy {
    pub ebgp: bool,
    pub local_asn: Asn,
    pub remote_asn: Asn,
    pub allow_own_as: u8,
    pub role: Option<Role>,
    pub filters: Vec<Filter>,
    pub default: ImportDefault,
}

impl ImportPolicy {
    /// Whether the interface of a route makes a difference.
    pub fn asks_for_interface(&self) -> bool {
        matcher::asks_for_interface(&self.filters, Direction::Import)
    }

    pub fn context<'a>(&'a self, config: &'a RibConfig) -> ImportContext<'a> {
        ImportContext {
            ebgp: self.ebgp,
            local_asn: self.local_asn,
            remote_asn: self.remote_asn,
            router_id: config.router_id,
            cluster_id: config.cluster_id,
            local_addresses: &config.local_addresses,
            allow_own_as: self.allow_own_as,
            role: self.role,
            filters: &self.filters,
            default: &self.default,
        }
    }
}

/// Routes of one family a peer sent: all, and those that policy accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    pub received: u64,
    pub accepted: u64,
    /// Of those received: kept from before a restart, or in doubt since a refresh began.
    pub stale: u64,
}

/// What a peer as a receiver still has to be told.
#[derive(Debug, Default)]
pub struct Member {
    /// Joined or is being refreshed: prefixes of the table not sent yet.
    pub table: Vec<Prefix>,
    /// Changed while there was no room: sent from the table, whatever it then says. Bounded by the
    /// number of prefixes, or paths with ADD-PATH.
    pub dirty: HashSet<PathPrefix>,
    /// Families whose End-of-RIB follows once `table` is empty.
    pub end_of_rib_due: Vec<Family>,
    /// The family that is being sent again.
    pub refreshing: Option<Family>,
    /// Families to send again once the table is sent, in order, each once: a peer that asks more
    /// often than it reads does not make this grow.
    pub refresh_due: VecDeque<Family>,
    /// Did not have room when it was last written to.
    pub is_lagging: bool,
    /// After a restart of ours: hears nothing until it is released (RFC 4724 §4.1).
    pub is_held: bool,
    /// Released before everybody's End-of-RIB was there, so its own waits.
    pub lacks_end: bool,
}

impl Member {
    pub fn is_waiting(&self) -> bool {
        !self.table.is_empty()
            || !self.dirty.is_empty()
            || !self.end_of_rib_due.is_empty()
            || self.refreshing.is_some()
            || !self.refresh_due.is_empty()
    }

    pub fn ask_refresh(&mut self, family: Family) {
        if !self.refresh_due.contains(&family) {
            self.refresh_due.push_back(family);
        }
    }
}

pub struct Peer {
    pub setup: PeerSetup,
    /// Index of its group; `None` while the session is down.
    pub slot: Option<usize>,
    pub member: Member,
    counts: [Counts; 2],
}

impl Peer {
    pub fn new(setup: PeerSetup, slot: usize) -> Peer {
        Peer {
            setup,
            slot: Some(slot),
            member: Member::default(),
            counts: Default::default(),
        }
    }

    /// A new session of a peer whose routes may still be here.
    pub fn restart(&mut self, setup: PeerSetup, slot: usize) {
        self.setup = setup;
        self.slot = Some(slot);
        self.member = Member::default();
    }

    pub fn counts(&self, family: Family) -> Counts {
        self.counts[family as usize]
    }

    /// Accounts for one path. Each side is `None` for absent, else what it was or is.
    pub fn count(&mut self, family: Family, before: Option<Was>, after: Option<Was>) {
        let counts = &mut self.counts[family as usize];
        counts.received += u64::from(after.is_some());
        counts.received -= u64::from(before.is_some());
        counts.accepted += u64::from(after.is_some_and(|is| is.accepted));
        counts.accepted -= u64::from(before.is_some_and(|was| was.accepted));
        counts.stale += u64::from(after.is_some_and(|is| is.stale));
        counts.stale -= u64::from(before.is_some_and(|was| was.stale));
    }

    /// Accounts for paths that became stale.
    pub fn count_stale(&mut self, family: Family, paths: u64) {
        self.counts[family as usize].stale += paths;
    }

    /// Where this peer's routes come from, as far as passing them on goes.
    pub fn source(&self) -> RouteSource {
        if self.setup.ebgp {
            RouteSource::Ebgp
        } else {
            RouteSource::Ibgp {
                client: self.setup.client,
                router_id: self.setup.router_id,
            }
        }
    }
}
