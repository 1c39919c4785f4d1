//! Who is a peer: configured ones, those of listen ranges, and how both follow the configuration.

use std::collections::BTreeSet;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use tokio::net::TcpStream;
use tracing::{debug, info, warn};

use super::clock;
use super::config::{PeerConfig, PeerKey, SpeakerConfig};
use super::control::{Control, control_queue};
use super::core::{Core, aggregator, rib_config};
use super::faults::Faults;
use super::listener::{Callers, Listener};
use super::peer::PeerTask;
use super::slot::PeerSlot;
use super::socket::{self, Transport};
use crate::fsm::restart::{HelperConfig, HelperState};
use crate::fsm::session::State;
use crate::policy::matcher::{Direction, of_direction};
use crate::rib::PeerId;
use crate::rib::peer::ImportPolicy;
use crate::types::Prefix;
use crate::wire::Notification;
use crate::wire::notification::cease;
use crate::wire::refresh::{RefreshKind, RouteRefresh};

/// Peers of ranges that are told to leave, and have not ended yet, when one more may be.
const MOST_LEAVING: usize = 64;

impl Core {
    pub(super) fn configure(&mut self, config: SpeakerConfig) {
        if self.stopping.is_some() {
            return;
        }
        let was = std::mem::replace(&mut self.config, config.clone());
        // Restart parameters are those of the start.
        self.config.graceful_restart = was.graceful_restart.clone();
        self.rib.reconfigure(rib_config(&config, self.has_consumer));
        self.follow_listen(&config);
        self.rib.set_originated(config.originated.clone());
        self.rib
            .set_aggregates(&config.aggregates, aggregator(&config));
        self.follow_peers(&config);
        self.departed.retain(|key| may_be_back(&config, key));
    }

    /// A peer's task has ended.
    pub(super) fn keep_departed(&mut self, slot: Box<PeerSlot>) {
        if slot.is_dynamic && may_be_back(&self.config, &slot.key) {
            self.departed.keep(slot);
        }
    }

    /// Listens where `config` says, for those it says.
    pub(super) fn follow_listen(&mut self, config: &SpeakerConfig) {
        self.follow_limits(config);
        let wanted: BTreeSet<SocketAddr> = config.listen.iter().copied().collect();
        self.listeners.retain(|address, _| wanted.contains(address));
        self.problems.retain(|address, _| wanted.contains(address));
        let callers = Callers::by(config);
        for address in wanted {
            match self.listeners.entry(address) {
                Entry::Occupied(listener) => listener.get().admit(callers.clone()),
                Entry::Vacant(entry) => {
                    let inputs = self.inputs.clone();
                    entry.insert(Listener::spawn(address, callers.clone(), inputs));
                }
            }
        }
    }

    /// Starts, changes and ends peers until they are those of `config`.
    pub(super) fn follow_peers(&mut self, config: &SpeakerConfig) {
        if self.stopping.is_some() {
            return;
        }
        for index in 0..self.peers.len() {
            let Some(slot) = &self.peers[index] else {
                continue;
            };
            if slot.is_leaving {
                continue;
            }
            let wanted = if slot.is_dynamic
                && !config
                    .peers
                    .keys()
                    .any(|key| key.address == slot.key.address)
            {
                range_of(config, slot.key.address).map(|(_, template)| template)
            } else {
                config.peers.get(&slot.key)
            };
            match wanted {
                // What the former one said must not outlast it, restarting or not; `Finished` brings
                // the new one.
                Some(wanted) if slot.is_another_in(wanted) => {
                    self.leave(index, Some(Notification::cease(cease::PEER_DECONFIGURED)));
                }
                Some(wanted) => {
                    let wanted = wanted.clone();
                    self.change_peer(index, wanted);
                }
                None => {
                    self.deferral.handle_peer_gone(&slot.key.address);
                    self.adopted.handle_peer_gone(&slot.key.address);
                    self.leave(index, Some(Notification::cease(cease::PEER_DECONFIGURED)));
                }
            }
        }
        let present: BTreeSet<PeerKey> = self.peers.iter().flatten().map(|slot| slot.key).collect();
        for (key, peer) in &config.peers {
            if !present.contains(key) {
                self.add_peer(*key, peer.clone(), false);
            }
        }
    }

    /// Begins with a peer of the configuration that is not there.
    pub(super) fn add_if_listed(&mut self, key: PeerKey) {
        let is_there = self.find(|slot| slot.key == key).is_some();
        if is_there || self.stopping.is_some() {
            return;
        }
        if let Some(config) = self.config.peers.get(&key).cloned() {
            self.add_peer(key, config, false);
        }
    }

    pub(super) fn change_peer(&mut self, index: usize, wanted: PeerConfig) {
        let Some(slot) = self.peers.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let is_new_maximum = slot.config.max_prefixes != wanted.max_prefixes;
        slot.config = wanted.clone();
        let (is_dynamic, address) = (slot.is_dynamic, slot.key.address);
        let is_passive = is_dynamic && !self.is_called_back(&address);
        let mut session = Box::new(self.session_config(&wanted));
        let Some(slot) = self.peers.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        session.passive |= is_passive;
        slot.helper
            .reconfigure(helper_config(&self.config, &wanted));
        let transport = transport(slot.key, &wanted);
        slot.control
            .send(Control::Reconfigure { session, transport });
        if is_new_maximum {
            slot.held_until = None;
            slot.control.send(Control::Release);
        }
        self.follow_policy(index);
        if is_new_maximum {
            let id = PeerId(index as u32);
            self.drop_dynamic_without_routes(id);
            self.enforce_max_prefixes(id);
        }
    }

    /// Has a session that is up do as the configuration now says, for what is said and for what was
    /// heard. The RIB judges by what it was sent; a peer that has route refresh is asked besides.
    fn follow_policy(&mut self, index: usize) {
        let id = PeerId(index as u32);
        let Some(slot) = self.peers.get(index).and_then(Option::as_ref) else {
            return;
        };
        let Some(session) = &slot.session else {
            return self.follow_import_of_kept(index);
        };
        let setup = self.peer_setup(slot, &session.negotiated);
        if session.setup == setup {
            return;
        }
        if session.setup.import != setup.import {
            for family in session.negotiated.families.iter().copied() {
                let refresh = RouteRefresh {
                    family,
                    kind: RefreshKind::Request,
                };
                slot.control.send(Control::RequestRefresh(refresh));
            }
        }
        if let Some(session) = self.peers[index].as_mut().and_then(|s| s.session.as_mut()) {
            session.setup = setup.clone();
        }
        self.rib.set_policy(id, setup);
    }

    /// Has what is kept of a peer that restarts judged by its present filters.
    fn follow_import_of_kept(&mut self, index: usize) {
        let id = PeerId(index as u32);
        let Some((config, was)) = self
            .peers
            .get(index)
            .and_then(Option::as_ref)
            .map(|slot| &slot.config)
            .zip(self.rib.peer(id).map(|peer| &*peer.setup.import))
        else {
            return;
        };
        let import = ImportPolicy {
            allow_own_as: config.allow_own_as,
            filters: of_direction(&config.filters, Direction::Import),
            default: config.import_default.clone(),
            ..was.clone()
        };
        if import != *was {
            self.rib.set_import(id, Arc::new(import));
        }
    }

    pub(super) fn handle_accepted(&mut self, stream: TcpStream, remote: SocketAddr) {
        if self.stopping.is_some() {
            return;
        }
        let address = remote.ip().to_canonical();
        let existing = self.find(|slot| slot.key.address == address && !slot.is_leaving);
        let index = match existing {
            Some(index) => index,
            None => {
                let Some((_, template)) = range_of(&self.config, address) else {
                    debug!(%remote, "connection from an unknown address refused");
                    return;
                };
                let template = template.clone();
                if !self.make_place() {
                    socket::refuse(stream);
                    if let Some(count) = self.placeless.note(1, clock::now()) {
                        let limit = self.config.max_dynamic_peers;
                        warn!(%remote, limit, count, "too many peers over listen ranges");
                    }
                    return;
                }
                self.add_peer(PeerKey { address, port: 179 }, template, true)
            }
        };
        if let Some(slot) = self.peers.get(index).and_then(Option::as_ref)
            && !slot.control.send(Control::Incoming(stream))
        {
            debug!(%remote, "connection dropped: the peer's task is busy");
        }
    }

    /// Whether one more peer of a range may be there. Those that leave take no place.
    pub(super) fn has_room(&self) -> bool {
        self.of_ranges(false) < self.config.max_dynamic_peers
    }

    /// Peers of ranges that are told to leave and have not ended yet, or the others.
    fn of_ranges(&self, is_leaving: bool) -> usize {
        let slots = self.peers.iter().flatten();
        slots
            .filter(|slot| slot.is_dynamic && slot.is_leaving == is_leaving)
            .count()
    }

    /// Whether there is a place for one more peer of a range. Those that have no session make way,
    /// the longest without a word first: silent connections may fill every place, but who speaks
    /// has one as soon as it comes.
    fn make_place(&mut self) -> bool {
        if self.has_room() {
            return true;
        }
        // Those that leave still cost something; there are never many.
        if self.of_ranges(true) >= MOST_LEAVING {
            return false;
        }
        let is_idle = |slot: &PeerSlot| slot.is_dynamic && !slot.is_leaving && !slot.is_needed();
        let slots = self.peers.iter().enumerate();
        let idle = slots
            .filter_map(|(index, slot)| Some((index, slot.as_ref()?)))
            .filter(|(_, slot)| is_idle(slot))
            .min_by_key(|(_, slot)| slot.since)
            .map(|(index, slot)| (index, slot.key));
        let Some((index, key)) = idle else {
            return false;
        };
        debug!(peer = %key, "makes way for another peer of a range");
        self.leave(index, None);
        true
    }

    pub(super) fn add_peer(&mut self, key: PeerKey, config: PeerConfig, is_dynamic: bool) -> usize {
        let index = match self.peers.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                self.peers.push(None);
                self.peers.len() - 1
            }
        };
        let (control, control_receiver) = control_queue();
        let mut session = self.session_config(&config);
        session.passive |= is_dynamic && !self.is_called_back(&key.address);
        let mut traffic = Arc::default();
        if let Some(core) = self.inputs.upgrade() {
            let task = PeerTask::new(
                PeerId(index as u32),
                key.to_string(),
                session,
                transport(key, &config),
                core,
                self.wakeup.clone(),
                control_receiver,
            );
            traffic = task.traffic();
            tokio::spawn(task.run());
        }
        // Strangers of a range decide how often it has one more.
        match is_dynamic {
            true => debug!(peer = %key, name = config.name, "peer added"),
            false => info!(peer = %key, name = config.name, "peer added"),
        }
        let before = self.departed.take(&key);
        self.peers[index] = Some(Box::new(PeerSlot {
            key,
            helper: HelperState::new(helper_config(&self.config, &config)),
            config,
            is_dynamic,
            is_leaving: false,
            control,
            session: None,
            state: State::Idle,
            since: SystemTime::now(),
            flaps: before.as_ref().map_or(0, |before| before.flaps),
            last_error: before.and_then(|before| before.last_error),
            last_connect_error: None,
            held_until: None,
            is_warned_of_prefixes: false,
            faults: Faults::default(),
            traffic,
        }));
        index
    }

    /// Tells a peer's task to end; `Finished` follows.
    pub(super) fn leave(&mut self, index: usize, notification: Option<Notification>) {
        let Some(slot) = self.peers.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        if !slot.is_leaving {
            slot.is_leaving = true;
            slot.control.send(Control::Stop(notification));
        }
    }
}

pub(super) fn range_of(config: &SpeakerConfig, address: IpAddr) -> Option<(Prefix, &PeerConfig)> {
    config
        .ranges
        .iter()
        .filter(|(prefix, _)| prefix.contains(address))
        .max_by_key(|(prefix, _)| prefix.length())
        .map(|(prefix, template)| (*prefix, template))
}

/// Whether this one of a range could come again as such.
fn may_be_back(config: &SpeakerConfig, key: &PeerKey) -> bool {
    !config.peers.contains_key(key) && range_of(config, key.address).is_some()
}

fn helper_config(speaker: &SpeakerConfig, peer: &PeerConfig) -> HelperConfig {
    HelperConfig {
        max_restart_time: speaker.graceful_restart.stale_time,
        stale_time: speaker.graceful_restart.stale_time,
        strict_consecutive_restart: peer.strict_consecutive_restart,
        long_lived_stale_time: peer.long_lived_stale_time,
        notification: true,
    }
}

fn transport(key: PeerKey, config: &PeerConfig) -> Transport {
    Transport {
        remote: SocketAddr::new(key.address, key.port),
        local: config.local_address,
        ttl: config.ttl,
        ttl_security_hops: config.ttl_security_hops,
        password: config.password.clone(),
    }
}
