//! Owners that go away, or do not listen.

use std::sync::mpsc;
use std::time::Duration;

use bgp::speaker::Speaker;
use bgp::speaker::config::{Originated, PeerConfig, PeerSource};
use bgp::types::Asn;

use crate::rig::*;

/// A speaker that kept asking the missing reader would leave its runtime no time for anything else,
/// deadlines included, so the deadline is another thread's.
#[test]
fn a_speaker_goes_on_when_nobody_reads_its_events() {
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().expect("runtime");
        runtime.block_on(learn_unheard());
        done.send(()).expect("waited for");
    });
    is_done.recv_timeout(DEADLINE * 3).expect("done in time");
}

async fn learn_unheard() {
    let port = free_port();
    let (mut left, mut right) = (speaker(51, 64512, port), speaker(52, 64512, port));
    peer(&mut left, 52, 64512, port);
    peer(&mut right, 51, 64512, port);
    let (speaker, events) = Speaker::start(left.clone(), true);
    drop(events);
    let mut right = Running::start(right);
    right.learns(&["10.51.0.0/16"]).await;
    let learned = || async { speaker.routes(Default::default()).await.len() == 2 };
    Running::wait_for("it learns all the same", learned).await;
    // Nothing comes back by another configuration.
    left.originated.clear();
    speaker.configure(left).await;
    right.learns(&[]).await;
    speaker.set_next_hop_costs(Default::default()).await;
    let forgets = || async { speaker.routes(Default::default()).await.len() == 1 };
    Running::wait_for("it answers", forgets).await;
}

#[tokio::test]
async fn what_was_told_is_told_again_when_asked() {
    let port = free_port();
    let (mut left, mut right) = (speaker(55, 64512, port), speaker(56, 64512, port));
    peer(&mut left, 56, 64512, port);
    peer(&mut right, 55, 64512, port);
    let _left = Running::start(left);
    let mut right = Running::start(right);
    right.learns(&["10.55.0.0/16"]).await;
    for asked in [
        Some(vec![prefix("10.55.0.0/16"), prefix("10.99.0.0/16")]),
        None,
    ] {
        right.kernel.clear();
        right.speaker.tell_again(asked).await;
        right.learns(&["10.55.0.0/16"]).await;
    }
}

#[tokio::test]
async fn a_speaker_without_handles_ends_with_its_sessions() {
    let port = free_port();
    let (mut left, mut right) = (speaker(53, 64512, port), speaker(54, 64512, port));
    left.graceful_restart.enabled = false;
    peer(&mut left, 54, 64512, port);
    peer(&mut right, 53, 64512, port);
    let left = Running::start(left);
    let mut right = Running::start(right);
    right.learns(&["10.53.0.0/16"]).await;
    drop(left);
    right.learns(&[]).await;
    let is_free = || async { std::net::TcpListener::bind((loopback(53), port)).is_ok() };
    Running::wait_for("the address is free", is_free).await;
}

#[tokio::test]
async fn an_owner_that_was_busy_hears_of_dynamic_peers_when_it_reads_again() {
    let port = free_port();
    let mut ranged = speaker(55, 64512, port);
    let template = PeerConfig::new("any", PeerSource::Range, Some(Asn(64512)));
    ranged.ranges.insert(prefix("127.0.0.0/24"), template);
    // No timer wakes the speaker meanwhile.
    ranged.graceful_restart.silence = Duration::from_secs(3600);
    let mut ranged = Running::start(ranged);
    let mut first = speaker(56, 64512, port);
    peer(&mut first, 55, 64512, port);
    let changing = Running::start(first.clone());
    let knows = async |speaker: &Speaker, count: usize| {
        speaker.routes(Default::default()).await.len() == count
    };
    // More events than wait for an owner.
    for round in 0..100 {
        let extra = Originated::new([192, 0, 2, 56].into());
        match round % 2 {
            0 => first.originated.insert(prefix("10.99.0.0/16"), extra),
            _ => first.originated.remove(&prefix("10.99.0.0/16")),
        };
        changing.speaker.configure(first.clone()).await;
        let count = 3 - round % 2;
        Running::wait_for("routes", || knows(&ranged.speaker, count)).await;
    }
    let mut second = speaker(57, 64512, port);
    peer(&mut second, 55, 64512, port);
    let _second = Running::start(second);
    Running::wait_for("a second peer", || knows(&ranged.speaker, 3)).await;
    // The speaker uses up the first place that comes free before there is another.
    let event = ranged.events.recv().await;
    ranged.take(event.expect("speaker runs"));
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    while ranged.dynamic != [loopback(56), loopback(57)] {
        let event = tokio::time::timeout(DEADLINE, ranged.events.recv()).await;
        ranged.take(event.expect("told in time").expect("speaker runs"));
    }
}
