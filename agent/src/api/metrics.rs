//! What Prometheus reads at `/metrics`: the present, made anew for each scrape, because the numbers
//! live with those who count. No label is a prefix or a workload.

mod speaker;

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::serve::{ShuttingDown, Source};

/// Session states as `PeerStatus.state` spells them: each has a sample, so that none appears or
/// vanishes.
const PEER_STATES: [&str; 6] = [
    "idle",
    "connect",
    "active",
    "openSent",
    "openConfirm",
    "established",
];
/// Kernel route states as `KernelStatus.state` spells them.
const ROUTE_STATES: [&str; 4] = ["installed", "pending", "failed", "none"];

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct KindLabel {
    kind: String,
}

/// The present, as metrics. Made anew for each scrape: the numbers live with those who count.
pub async fn registry<S: Source>(source: &S) -> Result<Registry, ShuttingDown> {
    let status = source.status().await?;
    let counters = source.counters().await?;
    let route_counts = source.route_counts().await?;
    let mut registry = Registry::with_prefix("caracal");

    registry.register(
        "build",
        "Version of this program",
        Info::new([("version", status.version.clone())]),
    );
    let ready = Gauge::<i64>::default();
    ready.set(i64::from(status.ready));
    registry.register("ready", "Store synced and first kernel pass done", ready);

    let by_state = Family::<StateLabel, Gauge>::default();
    for state in PEER_STATES {
        let count = counters
            .peers
            .iter()
            .filter(|peer| peer.state == state)
            .count();
        set(&by_state, state, count as u64);
    }
    registry.register("bgp_peers", "BGP peers by session state", by_state);

    let by_state = Family::<StateLabel, Gauge>::default();
    for state in ROUTE_STATES {
        set(
            &by_state,
            state,
            route_counts.get(state).copied().unwrap_or(0),
        );
    }
    registry.register(
        "routes",
        "Best routes by state of the kernel route",
        by_state,
    );

    let repairs = Family::<KindLabel, Counter<u64, AtomicU64>>::default();
    for (kind, count) in &status.repairs {
        let label = KindLabel { kind: kind.clone() };
        repairs.get_or_create(&label).inc_by(*count);
    }
    registry.register("repairs", "Drifted kernel objects repaired", repairs);
    speaker::register(&mut registry, &counters);

    let errors = status.store.errors.len() as u64;
    for (name, help, value) in [
        (
            "config_current",
            "Whether the newest version of the file, or of the store, is in use",
            u64::from(status.store.synced),
        ),
        (
            "config_errors",
            "Problems in the newest version of the file, or of the store",
            errors,
        ),
        ("store_errors", "The same as caracal_config_errors", errors),
        (
            "failed_objects",
            "Kernel objects now failing",
            status.failed.len() as u64,
        ),
    ] {
        let gauge = Gauge::<i64>::default();
        gauge.set(clamp(value));
        registry.register(name, help, gauge);
    }
    Ok(registry)
}

fn set(family: &Family<StateLabel, Gauge>, state: &'static str, count: u64) {
    family
        .get_or_create(&StateLabel { state })
        .set(clamp(count));
}

fn clamp(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
