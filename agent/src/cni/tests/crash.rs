//! The agent is killed between any two steps of a call.
//!
//! A kill is a future dropped at its n-th await, for every n: all of the agent's memory is gone,
//! what reached the disk and the fake kernel stays. That files are whole is the matter of the
//! tests of `ipam`.

use std::fs;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::super::protocol::CniError;
use super::fakes::{Agent, Machine};

/// Resolves to `None` where `inner` would have waited for the `awaits + 1`-th time.
struct KilledAfter<F> {
    inner: Pin<Box<F>>,
    awaits: usize,
}

impl<F: Future> Future for KilledAfter<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<F::Output>> {
        match self.inner.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if self.awaits == 0 => Poll::Ready(None),
            Poll::Pending => {
                self.awaits -= 1;
                Poll::Pending
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Verb {
    Add,
    Del,
    Recover,
}

async fn perform(agent: &Agent, verb: Verb) -> Result<(), CniError> {
    match verb {
        Verb::Add => agent.add("c1", "default.web").await.map(|_| ()),
        // As after a reboot of the runtime: it may have forgotten the pod's name.
        Verb::Del => agent.del("c1", "").await,
        Verb::Recover => {
            agent.verbs.recover().await.expect("recovered");
            Ok(())
        }
    }
}

/// One life of the agent. Ends by a kill after `awaits`, or after all verbs. Dropping the runtime
/// waits for disk writes already begun, as the kernel completes a system call.
fn live(state: &Path, machine: &Machine, verbs: &[Verb], awaits: Option<usize>) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let agent = Agent::start(state, machine);
        let all = async {
            for verb in verbs {
                perform(&agent, *verb).await.unwrap_or_else(|error| {
                    panic!("{verb:?} of {verbs:?} after a kill: {error:?}")
                });
            }
        };
        let killed = KilledAfter {
            inner: Box::pin(all),
            awaits: awaits.unwrap_or(usize::MAX),
        };
        killed.await.is_some()
    })
}

fn assert_nothing_is_left(state: &Path, machine: &Machine, case: &str) {
    assert!(
        machine.interfaces().is_empty(),
        "{case}: {:?}",
        machine.interfaces()
    );
    assert!(machine.state().programmed.is_empty(), "{case}");
    for directory in ["ipam", "attachments"] {
        let files = fs::read_dir(state.join(directory)).expect("a directory");
        let names: Vec<_> = files
            .map(|file| file.expect("an entry").file_name())
            .collect();
        assert!(
            names.iter().all(|name| name == "last-given"),
            "{case}: {names:?}"
        );
    }
}

/// Kills `first` at each of its awaits and lets another life do `then`.
fn kill_everywhere(before: &[Verb], first: Verb, then: &[Verb]) {
    for awaits in 0.. {
        let state = tempfile::tempdir().expect("a directory");
        let machine = Machine::default();
        if !before.is_empty() {
            live(state.path(), &machine, before, None);
        }
        let is_done = live(state.path(), &machine, &[first], Some(awaits));
        live(state.path(), &machine, then, None);
        let case = format!("{before:?} {first:?} killed at await {awaits}, then {then:?}");
        assert_nothing_is_left(state.path(), &machine, &case);
        if is_done {
            // Of five and more, less what the disk had done before anybody waited for it. Fewer would mean
            // that the kills met no step.
            assert!(awaits >= 2, "{first:?} has only {awaits} awaits");
            return;
        }
    }
}

#[test]
fn add_cut_short_leaves_nothing_after_what_follows() {
    use Verb::{Add, Del, Recover};
    for then in [&[Del][..], &[Add, Del], &[Del, Add, Del], &[Recover, Del]] {
        kill_everywhere(&[], Add, then);
    }
}

#[test]
fn repeated_add_cut_short_leaves_nothing_after_del() {
    kill_everywhere(&[Verb::Add], Verb::Add, &[Verb::Del]);
}

#[test]
fn del_cut_short_leaves_nothing_after_what_follows() {
    use Verb::{Add, Del};
    for then in [&[Del][..], &[Del, Del], &[Add, Del]] {
        kill_everywhere(&[Add], Del, then);
    }
}

#[test]
fn recovery_removes_what_no_del_will_come_for() {
    for awaits in 0.. {
        let state = tempfile::tempdir().expect("a directory");
        let machine = Machine::default();
        let is_done = live(state.path(), &machine, &[Verb::Add], Some(awaits));
        live(state.path(), &machine, &[Verb::Recover], None);
        let is_attached = machine.state().programmed.len() == 1;
        if !is_attached {
            let case = format!("ADD killed at await {awaits}, then recovery");
            assert_nothing_is_left(state.path(), &machine, &case);
        }
        if is_done {
            assert!(is_attached);
            return;
        }
    }
}

#[test]
fn newcomer_cut_short_leaves_nothing_after_both_dels() {
    for awaits in 0.. {
        let state = tempfile::tempdir().expect("a directory");
        let machine = Machine::default();
        live(state.path(), &machine, &[Verb::Add], None);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let is_done = runtime.block_on(async {
            let agent = Agent::start(state.path(), &machine);
            let killed = KilledAfter {
                inner: Box::pin(agent.add("c2", "default.web")),
                awaits,
            };
            killed.await.is_some()
        });
        drop(runtime);
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let agent = Agent::start(state.path(), &machine);
            agent.del("c1", "default.web").await.expect("deleted");
            agent.del("c2", "default.web").await.expect("deleted");
        });
        let case = format!("newcomer killed at await {awaits}");
        assert_nothing_is_left(state.path(), &machine, &case);
        if is_done {
            return;
        }
    }
}
