//! Owners that go away, or do not listen.

use std::sync::mpsc;

use bgp::speaker::Speaker;

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
