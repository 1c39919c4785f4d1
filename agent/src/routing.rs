//! Owns the speaker: its best routes become learned kernel routes, its configuration follows the
//! store.
//!
//! Learned routes flow as changes because they can be many, and are remembered by the speaker alone:
//! where something else is to be made of them, it tells of them again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bgp::speaker::config::{GracefulRestartConfig, SpeakerConfig};
use bgp::speaker::{Event, NextHopInfo, Speaker};
use bgp::types::Prefix;
use tokio::sync::mpsc;

use crate::resolve::routes::NextHopResolver;

/// What the speaker needs to know that the store does not: how this agent started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StartState {
    pub restart_time: Duration,
    /// The kernel still had learned routes: this is a restart, and forwarding went on.
    pub has_learned_routes: bool,
}

/// The speaker once there is a configuration for it.
pub struct Routing {
    start: StartState,
    /// Told to drain by an operator, whatever the store says.
    is_drained: bool,
    running: Option<Running>,
    /// Of learned routes, as last asked about.
    next_hops: BTreeSet<IpAddr>,
    /// How they are reached, as last told.
    told: BTreeMap<IpAddr, NextHopInfo>,
    is_settled: bool,
}

struct Running {
    speaker: Speaker,
    events: mpsc::Receiver<Event>,
    config: SpeakerConfig,
    /// The same as the store has it.
    asked: SpeakerConfig,
}

impl Routing {
    pub fn new(start: StartState, is_drained: bool) -> Routing {
        Routing {
            start,
            is_drained,
            running: None,
            next_hops: BTreeSet::new(),
            told: BTreeMap::new(),
            is_settled: false,
        }
    }

    /// Starts the speaker, or makes the running one follow.
    pub async fn configure(&mut self, asked: SpeakerConfig) {
        let mut config = asked.clone();
        config.is_draining |= self.is_drained;
        let defaults = GracefulRestartConfig::default();
        let restart_time = self.start.restart_time;
        config.graceful_restart = GracefulRestartConfig {
            restart_time,
            restarting: self.start.has_learned_routes,
            forwarding_preserved: self.start.has_learned_routes,
            // Peers keep our routes for the restart time. Without one, what the kernel holds still
            // outlives the time until sessions are up.
            selection_deferral: match restart_time {
                Duration::ZERO => defaults.selection_deferral,
                time => defaults.selection_deferral.min(time),
            },
            ..defaults
        };
        match &mut self.running {
            Some(running) => {
                running.asked = asked;
                if running.config != config {
                    running.speaker.configure(config.clone()).await;
                    running.config = config;
                }
            }
            None => {
                let (speaker, events) = Speaker::start(config.clone(), true);
                // Whoever tells once is asked from then on, so no route is used unseen.
                speaker.set_next_hop_costs(BTreeMap::new()).await;
                self.running = Some(Running {
                    speaker,
                    events,
                    config,
                    asked,
                });
            }
        }
    }

    /// What an operator says about draining; returns whether the speaker drains then.
    pub async fn drain(&mut self, is_drained: bool) -> bool {
        self.is_drained = is_drained;
        if let Some(running) = &self.running {
            let asked = running.asked.clone();
            self.configure(asked).await;
        }
        self.is_draining()
    }

    pub fn is_draining(&self) -> bool {
        let is_asked = |running: &Running| running.config.is_draining;
        self.running.as_ref().map_or(self.is_drained, is_asked)
    }

    pub fn speaker(&self) -> Option<&Speaker> {
        self.running.as_ref().map(|running| &running.speaker)
    }

    /// The speaker's first convergence is over.
    pub fn is_settled(&self) -> bool {
        self.is_settled
    }

    pub fn set_settled(&mut self) {
        self.is_settled = true;
    }

    /// The next event; never while there is no speaker.
    pub async fn next_event(&mut self) -> Event {
        match &mut self.running {
            Some(running) => match running.events.recv().await {
                Some(event) => event,
                None => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }

    /// Answers what the speaker asks about its next hops.
    pub async fn answer_next_hops(
        &mut self,
        next_hops: BTreeSet<IpAddr>,
        resolver: &NextHopResolver,
    ) {
        self.next_hops = next_hops;
        self.told = self.reaches(resolver);
        self.tell_next_hops().await;
    }

    /// Tells how next hops are reached now, if of any something else is so than last told.
    pub async fn weigh_next_hops_again(&mut self, resolver: &NextHopResolver) {
        let reaches = self.reaches(resolver);
        if reaches != self.told {
            self.told = reaches;
            self.tell_next_hops().await;
        }
    }

    fn reaches(&self, resolver: &NextHopResolver) -> BTreeMap<IpAddr, NextHopInfo> {
        let next_hops = self.next_hops.iter();
        next_hops
            .map(|next_hop| {
                let info = NextHopInfo {
                    reach: resolver.reach(*next_hop),
                    interface: resolver.interface(*next_hop).map(Arc::from),
                };
                (*next_hop, info)
            })
            .collect()
    }

    async fn tell_next_hops(&self) {
        if let Some(speaker) = self.speaker() {
            speaker.set_next_hop_costs(self.told.clone()).await;
        }
    }

    /// Has the speaker tell of these prefixes again, or of all.
    pub async fn hear_again(&self, prefixes: Option<Vec<Prefix>>) {
        if let Some(speaker) = self.speaker() {
            speaker.tell_again(prefixes).await;
        }
    }
}
