//! Accepting connections: one task per listen address, with the TCP MD5 keys of those that may
//! connect. A stranger costs one accept, one close, and nobody else a word.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

use super::admission::Admitted;
use super::clock;
use super::config::SpeakerConfig;
use super::input::CoreInput;
use super::md5::{self, Keys};
use super::peer::sleep_until;
use super::quiet::Quiet;
use super::socket;
use crate::types::{Family, Prefix};

/// Between attempts to listen on an address that is not there yet, to set keys that did not fit,
/// and to accept without descriptors or memory.
const RETRY: Duration = Duration::from_secs(1);

/// Who may connect, and how.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Callers {
    pub admitted: Admitted,
    pub keys: Keys,
}

impl Callers {
    pub fn by(config: &SpeakerConfig) -> Callers {
        Callers {
            admitted: Admitted::by(config),
            keys: md5::listener_keys(config),
        }
    }
}

/// Listens until dropped.
pub struct Listener {
    task: JoinHandle<()>,
    wanted: watch::Sender<Callers>,
}

impl Listener {
    pub fn spawn(
        address: SocketAddr,
        callers: Callers,
        core: mpsc::WeakSender<CoreInput>,
    ) -> Listener {
        let (sender, wanted) = watch::channel(callers);
        let acceptor = Acceptor::new(address, wanted, core);
        Listener {
            task: tokio::spawn(acceptor.run()),
            wanted: sender,
        }
    }

    /// Lets these in from now on. Connections that were accepted before keep their keys.
    pub fn admit(&self, callers: Callers) {
        self.wanted.send_if_modified(|wanted| {
            let is_new = *wanted != callers;
            *wanted = callers;
            is_new
        });
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a turn came to.
enum Served {
    Something,
    EndOfSocket,
}

struct Acceptor {
    address: SocketAddr,
    core: mpsc::WeakSender<CoreInput>,
    wanted: watch::Receiver<Callers>,
    /// What the kernel has.
    installed: Keys,
    /// What is wrong with the socket or its keys.
    problems: Vec<String>,
    /// Why nothing can be accepted at the moment.
    stuck: Option<String>,
    /// The problems as last told; `None` before the first time.
    told: Option<Vec<String>>,
    /// When keys that did not fit are tried again. A time and not a wait: connections come in
    /// between.
    retry_at: Option<Instant>,
    strangers: Quiet,
}

impl Acceptor {
    fn new(
        address: SocketAddr,
        wanted: watch::Receiver<Callers>,
        core: mpsc::WeakSender<CoreInput>,
    ) -> Acceptor {
        Acceptor {
            address,
            core,
            wanted,
            installed: Keys::new(),
            problems: Vec::new(),
            stuck: None,
            told: None,
            retry_at: None,
            strangers: Quiet::default(),
        }
    }

    async fn run(mut self) {
        // Ends when nobody is there to be told.
        while let Some(listener) = self.listen().await {
            info!(address = %self.address, "listening");
            if self.serve_all(&listener).await.is_none() {
                return;
            }
        }
    }

    /// Tries until it listens. Keys are there before the first connection can come.
    async fn listen(&mut self) -> Option<TcpListener> {
        loop {
            let attempt = socket::bind(self.address).and_then(|socket| {
                self.installed.clear();
                self.install(&SockRef::from(&socket));
                socket::listen(socket)
            });
            match attempt {
                Ok(listener) => {
                    self.tell_problems().await?;
                    return Some(listener);
                }
                Err(error) => {
                    self.problems = vec![cannot_listen(self.address, &error)];
                    self.tell_problems().await?;
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Until the socket does not listen any more.
    async fn serve_all(&mut self, listener: &TcpListener) -> Option<()> {
        while let Served::Something = self.serve(listener).await? {}
        Some(())
    }

    async fn serve(&mut self, listener: &TcpListener) -> Option<Served> {
        tokio::select! {
            changed = self.wanted.changed() => {
                changed.ok()?;
                self.install(&SockRef::from(listener));
                self.tell_problems().await?;
            }
            () = sleep_until(self.retry_at) => {
                self.install(&SockRef::from(listener));
                self.tell_problems().await?;
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, remote)) => {
                    self.stuck = None;
                    self.tell_problems().await?;
                    self.take(stream, remote).await?;
                }
                // EINVAL of accept(2): it does not listen. Who may can end that from outside, with
                // `ss --kill` for one.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    warn!(address = %self.address, "the socket listens no more, listening anew");
                    return Some(Served::EndOfSocket);
                }
                Err(error) if socket::is_of_one_connection(&error) => {
                    debug!(address = %self.address, %error, "a connection ended before it was accepted");
                }
                // Out of descriptors or memory: connections stay where they are.
                Err(error) => {
                    self.stuck = Some(format!("cannot accept on {}: {error}", self.address));
                    self.tell_problems().await?;
                    tokio::time::sleep(RETRY).await;
                }
            },
        }
        Some(Served::Something)
    }

    /// `None` if the core is gone.
    async fn take(&mut self, stream: TcpStream, remote: SocketAddr) -> Option<()> {
        if self.wanted.borrow().admitted.admits(remote.ip()) {
            return self.tell(CoreInput::Accepted { stream, remote }).await;
        }
        socket::refuse(stream);
        if let Some(count) = self.strangers.note(1, clock::now()) {
            debug!(%remote, count, "connections from unknown addresses refused");
        }
        Some(())
    }

    /// Makes the socket's keys those that are wanted, and notes what could not be done. A peer whose
    /// key is missing cannot connect: what it signs is dropped.
    fn install(&mut self, socket: &SockRef<'_>) {
        let wanted = self.wanted.borrow_and_update().keys.clone();
        let mut failures: Vec<(Prefix, std::io::Error)> = Vec::new();
        let (kept, gone): (Keys, Keys) = std::mem::take(&mut self.installed)
            .into_iter()
            .partition(|(prefix, _)| wanted.contains_key(prefix));
        self.installed = kept;
        // What goes makes room for what comes.
        for (prefix, secret) in gone {
            if let Err(error) = socket::set_md5_key(socket, &prefix, None) {
                self.installed.insert(prefix, secret);
                failures.push((prefix, error));
            }
        }
        let ordered = md5::in_order(&wanted, Family::of(self.address.ip()));
        for (prefix, secret) in &ordered {
            if self.installed.get(prefix) == Some(secret) {
                continue;
            }
            match socket::set_md5_key(socket, prefix, Some(secret)) {
                Ok(()) => {
                    self.installed.insert(**prefix, (*secret).clone());
                }
                Err(error) => failures.push((**prefix, error)),
            }
        }
        let failed = failures.first().map(|(prefix, error)| {
            format!(
                "cannot set {} TCP MD5 keys on {}, the first that of {prefix}: {error}",
                failures.len(),
                self.address
            )
        });
        let too_many = socket::optmem_max().and_then(|optmem_max| {
            let (keys, capacity) = (ordered.len(), md5::capacity(optmem_max));
            (keys > capacity).then(|| {
                format!(
                    "{} takes {capacity} TCP MD5 keys and {keys} are wanted: raise net.core.optmem_max from {optmem_max} to {}, or use a listen range",
                    self.address,
                    md5::optmem_for(keys)
                )
            })
        });
        self.problems = failed.into_iter().chain(too_many).collect();
        self.retry_at = (!self.problems.is_empty()).then(|| clock::now() + RETRY);
    }

    /// `None` if the core is gone.
    async fn tell_problems(&mut self) -> Option<()> {
        let all = self.problems.iter().chain(&self.stuck);
        if self.told.as_ref().is_some_and(|told| all.clone().eq(told)) {
            return Some(());
        }
        let problems: Vec<String> = all.cloned().collect();
        for problem in &problems {
            warn!(address = %self.address, problem, "listening does not work as configured, retrying");
        }
        self.told = Some(problems.clone());
        let address = self.address;
        self.tell(CoreInput::Listening { address, problems }).await
    }

    async fn tell(&self, input: CoreInput) -> Option<()> {
        self.core.upgrade()?.send(input).await.ok()
    }
}

/// With what to do about it, where that is known.
fn cannot_listen(address: SocketAddr, error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => "; another program, such as another BGP speaker, has the port",
        io::ErrorKind::AddrNotAvailable => "; no interface has this address",
        _ => "",
    };
    format!("cannot listen on {address}: {error}{hint}")
}

#[cfg(test)]
mod tests {
    use std::net::Shutdown;

    use tokio::net::TcpStream;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    #[test]
    fn who_cannot_listen_is_told_what_is_in_the_way() {
        let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let taken = holder.local_addr().expect("bound");
        // RFC 5737: documentation, so no interface has it.
        let absent = SocketAddr::from(([192, 0, 2, 1], 179));
        for (address, hint) in [
            (
                taken,
                "; another program, such as another BGP speaker, has the port",
            ),
            (absent, "; no interface has this address"),
        ] {
            let error = std::net::TcpListener::bind(address).expect_err("not free");
            let said = cannot_listen(address, &error);
            assert!(
                said.starts_with(&format!("cannot listen on {address}: ")),
                "{said}"
            );
            assert!(said.ends_with(hint), "{said}");
        }
    }

    #[tokio::test]
    async fn an_address_is_listened_on_again_when_its_socket_is_gone() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = free.local_addr().expect("bound");
        drop(free);
        let (core, mut inputs) = mpsc::channel(16);
        let callers = Callers {
            admitted: Admitted::from_iter([address.ip()]),
            keys: Keys::new(),
        };
        let (_callers, wanted) = watch::channel(callers);
        let mut acceptor = Acceptor::new(address, wanted, core.downgrade());
        let listener = acceptor.listen().await.expect("the core is there");
        SockRef::from(&listener)
            .shutdown(Shutdown::Both)
            .expect("listens no more");
        let end = tokio::time::timeout(DEADLINE, acceptor.serve_all(&listener)).await;
        assert!(end.expect("noticed").is_some(), "the core is there");
        drop(listener);

        let task = tokio::spawn(acceptor.run());
        let connect = async {
            loop {
                match TcpStream::connect(address).await {
                    Ok(stream) => return stream,
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        let stream = tokio::time::timeout(DEADLINE, connect).await;
        let local = stream.expect("listens").local_addr().expect("connected");
        loop {
            let input = tokio::time::timeout(DEADLINE, inputs.recv()).await;
            match input.expect("in time").expect("the listener is there") {
                CoreInput::Accepted { remote, .. } if remote == local => break,
                _ => {}
            }
        }
        task.abort();
    }
}
