//! Owns the speaker: its best routes become learned kernel routes, its configuration follows the
//! store.
//!
//! Learned routes flow as changes because they can be many. What was decided for each prefix is
//! kept, so that `routes` can say why, and so that only differences go to the dataplane.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bgp::speaker::config::{GracefulRestartConfig, SpeakerConfig};
use bgp::speaker::{Event, LearnedRoute, NextHopInfo, Speaker};
use bgp::types::Prefix;
use smallvec::SmallVec;
use tokio::sync::mpsc;

use crate::dataplane::desired::LearnedChange;
use crate::prefix_map::PrefixMap;
use crate::resolve::routes::{NextHopResolver, Resolution, Resolved};

/// What the speaker needs to know that the store does not: how this agent started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StartState {
    pub restart_time: Duration,
    /// The kernel still had learned routes: this is a restart, and forwarding went on.
    pub has_learned_routes: bool,
}

/// The speaker once there is a configuration for it, and what it has learned.
pub struct Routing {
    start: StartState,
    /// Told to drain by an operator, whatever the store says.
    is_drained: bool,
    running: Option<Running>,
    learned: PrefixMap<Arc<Resolved>>,
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
            learned: PrefixMap::default(),
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

    /// Takes what the speaker learned; returns what that means for the kernel.
    pub fn learn(
        &mut self,
        routes: Vec<LearnedRoute>,
        resolver: &mut NextHopResolver,
        workloads: &BTreeSet<IpAddr>,
    ) -> Vec<LearnedChange> {
        routes
            .into_iter()
            .filter_map(|route| match route.best {
                Some(best) => {
                    let all = std::iter::once(&best).chain(&route.multipath);
                    let next_hops: SmallVec<[IpAddr; 1]> =
                        all.map(|path| path.next_hop.address).collect();
                    self.resolve(route.prefix, next_hops, resolver, workloads)
                }
                None => self.learned.remove(&route.prefix).map(|_| LearnedChange {
                    prefix: route.prefix,
                    route: None,
                }),
            })
            .collect()
    }

    pub fn learned_prefixes(&self) -> Vec<Prefix> {
        self.learned.iter().map(|(prefix, _)| prefix).collect()
    }

    /// Decides about these prefixes anew, as far as they are learned.
    pub fn resolve_again(
        &mut self,
        prefixes: &[Prefix],
        resolver: &mut NextHopResolver,
        workloads: &BTreeSet<IpAddr>,
    ) -> Vec<LearnedChange> {
        prefixes
            .iter()
            .filter_map(|prefix| {
                let paths = self.learned.get(prefix)?.paths.iter();
                let next_hops = paths.map(|(next_hop, _)| *next_hop).collect();
                self.resolve(*prefix, next_hops, resolver, workloads)
            })
            .collect()
    }

    /// What was decided about a learned prefix, path by path.
    pub fn resolved(&self, prefix: &Prefix) -> Option<&Resolved> {
        self.learned.get(prefix).map(Arc::as_ref)
    }

    fn resolve(
        &mut self,
        prefix: Prefix,
        next_hops: SmallVec<[IpAddr; 1]>,
        resolver: &mut NextHopResolver,
        workloads: &BTreeSet<IpAddr>,
    ) -> Option<LearnedChange> {
        let resolved = if prefix.is_host() && workloads.contains(&prefix.network()) {
            // The kernel would have one key for both.
            let reason = format!("{} is a workload on this node", prefix.network());
            let skip = Resolution::Skip { reason };
            let paths = next_hops.into_iter();
            Arc::new(Resolved {
                route: None,
                paths: paths.map(|one| (one, skip.clone())).collect(),
            })
        } else {
            resolver.resolve_all(prefix, next_hops)
        };
        let wanted = resolved.route.clone();
        let before = self.learned.insert(prefix, resolved);
        let had = before.and_then(|before| before.route.clone());
        (had != wanted).then_some(LearnedChange {
            prefix,
            route: wanted,
        })
    }
}
