//! Passes of a dataplane, each after a change that the kernel told of, until a state is reached.
//!
//! Several changes may come of one command, some of them later, and an older one may still be on its
//! way: a pass after the first that is told may know too little, and one of the next has the rest.

use std::collections::BTreeMap;
use std::time::Duration;

use agent::dataplane::desired::Desired;
use agent::dataplane::{ApplyReport, Changes, Dataplane};

use crate::netns::{Namespace, wait_until};

const DEADLINE: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_millis(300);

/// Applies `desired` after each change until `holds` of the dataplane and the report. Returns how many
/// were repaired on the way, by kind.
pub async fn pass_until(
    what: &str,
    dataplane: &mut Dataplane,
    desired: &Desired,
    mut holds: impl AsyncFnMut(&Dataplane, &ApplyReport) -> bool,
) -> BTreeMap<String, u64> {
    let mut repairs = BTreeMap::new();
    let mut last = ApplyReport::default();
    let passes = async {
        loop {
            dataplane.changes().changed().await;
            last = dataplane.apply(desired).await;
            for (kind, count) in &last.repairs {
                *repairs.entry(kind.clone()).or_default() += count;
            }
            if holds(dataplane, &last).await {
                break;
            }
        }
    };
    let is_over = tokio::time::timeout(DEADLINE, passes).await.is_ok();
    assert!(is_over, "{what}: not within {DEADLINE:?}, last {last:?}");
    repairs
}

/// Has a pass after each change until none is told for a while. Returns how many.
pub async fn rest(dataplane: &mut Dataplane, changes: &mut Changes, desired: &Desired) -> usize {
    let mut passes = 0;
    while tokio::time::timeout(SILENCE, changes.changed())
        .await
        .is_ok()
    {
        dataplane.apply(desired).await;
        passes += 1;
        assert!(passes < 20, "passes cause passes");
    }
    passes
}

/// The kernel tells of each IPv6 address that it makes once more, a second or two later: when it has
/// looked for others that have the same.
pub fn wait_for_addresses(host: &Namespace) {
    wait_until(
        "duplicate address detection ends",
        DEADLINE,
        || host.ip("-6 addr show tentative").is_empty(),
        || host.ip("-6 addr show tentative"),
    );
}
