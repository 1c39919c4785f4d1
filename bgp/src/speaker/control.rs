//! What the core tells a peer's task. Order counts: a Cease that holds a peer down and the release
//! from it must not change places, nor two configurations.
//!
//! The core never waits for a peer, so the queue bounds itself: what a later word makes void is
//! dropped, and of each kind that leaves one word at most. Accepted connections beyond
//! [`MAX_INCOMING`] are refused.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::socket::Transport;
use crate::fsm::session::SessionConfig;
use crate::wire::Notification;
use crate::wire::refresh::RouteRefresh;

/// Accepted connections that may wait.
const MAX_INCOMING: usize = 16;

#[derive(Debug)]
pub enum Control {
    Incoming(TcpStream),
    Reconfigure {
        session: Box<SessionConfig>,
        transport: Transport,
    },
    /// Ends the session; the peer stays configured, and Idle for as long as it is held down.
    Cease {
        notification: Notification,
        hold_down: Option<Duration>,
    },
    /// It is not held down any longer.
    Release,
    /// Ends the session and the task.
    Stop(Option<Notification>),
    /// Ends the task, unless it has a connection: who comes back at once is taken as it is.
    Retire,
    /// Asks the peer to send its routes again.
    RequestRefresh(RouteRefresh),
}

impl Control {
    /// Whether `earlier`, which waits still, need not be done if this follows.
    fn makes_void(&self, earlier: &Control) -> bool {
        match (self, earlier) {
            (Control::Reconfigure { .. }, Control::Reconfigure { .. })
            | (Control::Release, Control::Release)
            | (Control::Stop(_), Control::Stop(_))
            | (Control::Retire, Control::Retire)
            // It is back.
            | (Control::Incoming(_), Control::Retire) => true,
            // One that holds down does more than one that does not, whichever comes later.
            (
                Control::Cease { hold_down, .. },
                Control::Cease {
                    hold_down: earlier, ..
                },
            ) => hold_down.is_some() == earlier.is_some(),
            (Control::RequestRefresh(refresh), Control::RequestRefresh(earlier)) => {
                refresh == earlier
            }
            (
                Control::Incoming(_)
                | Control::Reconfigure { .. }
                | Control::Cease { .. }
                | Control::Release
                | Control::Stop(_)
                | Control::Retire
                | Control::RequestRefresh(_),
                _,
            ) => false,
        }
    }
}

/// The core's end. The task ends when it is dropped.
#[derive(Debug)]
pub struct ControlSender(Arc<Shared>);

/// The task's end.
#[derive(Debug)]
pub struct ControlReceiver(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    ready: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Control>,
    is_closed: bool,
}

pub fn control_queue() -> (ControlSender, ControlReceiver) {
    let shared = Arc::new(Shared::default());
    (ControlSender(shared.clone()), ControlReceiver(shared))
}

impl ControlSender {
    /// Never waits. `false` if it was a connection and too many wait already; it is dropped.
    pub fn send(&self, control: Control) -> bool {
        let mut queue = self.0.lock();
        if matches!(control, Control::Incoming(_)) {
            let is_incoming = |waiting: &&Control| matches!(waiting, Control::Incoming(_));
            if queue.waiting.iter().filter(is_incoming).count() >= MAX_INCOMING {
                return false;
            }
        }
        queue.waiting.retain(|earlier| !control.makes_void(earlier));
        queue.waiting.push_back(control);
        drop(queue);
        self.0.ready.notify_one();
        true
    }

    /// The connections that a task which ended did not take.
    pub fn left(&self) -> Vec<TcpStream> {
        let waiting = std::mem::take(&mut self.0.lock().waiting);
        let streams = waiting.into_iter().filter_map(|control| match control {
            Control::Incoming(stream) => Some(stream),
            _ => None,
        });
        streams.collect()
    }
}

impl Drop for ControlSender {
    fn drop(&mut self) {
        self.0.lock().is_closed = true;
        self.0.ready.notify_one();
    }
}

impl ControlReceiver {
    /// The next word; `None` when there is none left and the core is gone. Nothing is lost where
    /// this is given up half way.
    pub async fn receive(&mut self) -> Option<Control> {
        loop {
            if let Some(next) = self.0.take() {
                return next;
            }
            self.0.ready.notified().await;
        }
    }
}

impl Shared {
    /// `None` while there may be more.
    fn take(&self) -> Option<Option<Control>> {
        let mut queue = self.lock();
        match queue.waiting.pop_front() {
            Some(control) => Some(Some(control)),
            None => queue.is_closed.then_some(None),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsm::session::SessionConfig;
    use crate::types::{Asn, Family, HoldTime, RouterId};
    use crate::wire::notification::cease;
    use crate::wire::refresh::RefreshKind;

    fn ends(hold_down: Option<Duration>) -> Control {
        Control::Cease {
            notification: Notification::cease(cease::MAXIMUM_PREFIXES),
            hold_down,
        }
    }

    fn holds() -> Control {
        ends(Some(Duration::from_secs(300)))
    }

    fn configured(hold_time_secs: u16) -> Control {
        let session = SessionConfig::new(Asn(64512), None, RouterId([192, 0, 2, 1].into()));
        Control::Reconfigure {
            session: Box::new(SessionConfig {
                hold_time: HoldTime::new(hold_time_secs).expect("allowed"),
                ..session
            }),
            transport: Transport {
                remote: ([192, 0, 2, 2], 179).into(),
                local: None,
                ttl: 1,
                ttl_security_hops: None,
                password: None,
            },
        }
    }

    fn refresh(family: Family) -> Control {
        let kind = RefreshKind::Request;
        Control::RequestRefresh(RouteRefresh { family, kind })
    }

    fn name(control: &Control) -> String {
        match control {
            Control::Incoming(_) => "incoming".into(),
            Control::Reconfigure { session, .. } => format!("hold {}", session.hold_time.seconds()),
            Control::Cease { hold_down, .. } if hold_down.is_some() => "hold down".into(),
            Control::Cease { .. } => "cease".into(),
            Control::Release => "release".into(),
            Control::Stop(_) => "stop".into(),
            Control::Retire => "retire".into(),
            Control::RequestRefresh(refresh) => format!("refresh {}", refresh.family),
        }
    }

    async fn heard(words: Vec<Control>) -> Vec<String> {
        let (sender, mut receiver) = control_queue();
        for word in words {
            assert!(sender.send(word));
        }
        drop(sender);
        let mut heard = Vec::new();
        while let Some(control) = receiver.receive().await {
            heard.push(name(&control));
        }
        heard
    }

    #[tokio::test]
    async fn words_stay_in_order_and_void_ones_are_left_out() {
        use Control::{Release, Stop};
        let (v4, v6) = (Family::Ipv4, Family::Ipv6);
        for (case, words, expected) in [
            ("released", vec![holds(), Release], "hold down, release"),
            (
                "held again",
                vec![holds(), Release, holds()],
                "release, hold down",
            ),
            (
                "BFD while held",
                vec![holds(), ends(None)],
                "hold down, cease",
            ),
            (
                "the last counts",
                vec![configured(9), configured(90)],
                "hold 90",
            ),
            (
                "each family once",
                vec![refresh(v4), refresh(v6), refresh(v4)],
                "refresh ipv6, refresh ipv4",
            ),
            (
                "to the end",
                vec![configured(9), Stop(None)],
                "hold 9, stop",
            ),
        ] {
            assert_eq!(heard(words).await.join(", "), expected, "{case}");
        }
    }

    #[tokio::test]
    async fn a_busy_task_costs_no_more_than_one_word_of_a_kind() {
        let round = |seconds| [configured(seconds), holds(), Control::Release];
        let words = (3..3000).flat_map(round).collect();
        assert_eq!(heard(words).await, ["hold 2999", "hold down", "release"]);
    }

    #[tokio::test]
    async fn connections_beyond_the_bound_are_dropped() {
        let (sender, mut receiver) = control_queue();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("bound");
        let to = listener.local_addr().expect("bound");
        assert!(sender.send(Control::Retire));
        for number in 0..MAX_INCOMING + 1 {
            let stream = TcpStream::connect(to).await.expect("connected");
            let _ = listener.accept().await.expect("accepted");
            assert_eq!(
                sender.send(Control::Incoming(stream)),
                number < MAX_INCOMING
            );
        }
        assert!(sender.send(Control::Release), "others have their place");
        let first = receiver.receive().await.expect("waits");
        assert!(matches!(first, Control::Incoming(_)), "it need not retire");
    }
}
