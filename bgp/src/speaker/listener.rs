//! Accepting connections: one task per listen address, with the TCP MD5 keys of those that may
//! connect.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::input::CoreInput;
use super::md5::{self, Keys};
use super::socket;
use crate::types::{Family, Prefix};

/// Between attempts to listen on an address that is not there yet, to set keys that did not fit,
/// and after accept errors.
const RETRY: Duration = Duration::from_secs(1);

/// Listens until dropped.
pub struct Listener {
    task: JoinHandle<()>,
    keys: watch::Sender<Keys>,
}

impl Listener {
    pub fn spawn(address: SocketAddr, keys: Keys, core: mpsc::WeakSender<CoreInput>) -> Listener {
        let (keys, wanted) = watch::channel(keys);
        let acceptor = Acceptor {
            address,
            core,
            wanted,
            installed: Keys::new(),
            told: None,
        };
        Listener {
            task: tokio::spawn(acceptor.run()),
            keys,
        }
    }

    /// Makes these the keys. Connections that were accepted before keep theirs.
    pub fn set_keys(&self, keys: Keys) {
        self.keys.send_if_modified(|wanted| {
            let is_new = *wanted != keys;
            *wanted = keys;
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
    wanted: watch::Receiver<Keys>,
    /// What the kernel has.
    installed: Keys,
    /// The problems as last told; `None` before the first time.
    told: Option<Vec<String>>,
}

impl Acceptor {
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
                let problems = self.install(&SockRef::from(&socket));
                Ok((socket::listen(socket)?, problems))
            });
            match attempt {
                Ok((listener, problems)) => {
                    self.tell_problems(problems).await?;
                    return Some(listener);
                }
                Err(error) => {
                    let problem = format!("cannot listen on {}: {error}", self.address);
                    self.tell_problems(vec![problem]).await?;
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
        let lacks_keys = self.told.as_ref().is_some_and(|told| !told.is_empty());
        tokio::select! {
            changed = self.wanted.changed() => {
                changed.ok()?;
                let problems = self.install(&SockRef::from(listener));
                self.tell_problems(problems).await?;
            }
            () = tokio::time::sleep(RETRY), if lacks_keys => {
                let problems = self.install(&SockRef::from(listener));
                self.tell_problems(problems).await?;
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, remote)) => self.tell(CoreInput::Accepted { stream, remote }).await?,
                // EINVAL of accept(2): it does not listen. Who may can end that from outside, with
                // `ss --kill` for one.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    warn!(address = %self.address, "the socket listens no more, listening anew");
                    return Some(Served::EndOfSocket);
                }
                Err(error) => {
                    // Out of descriptors or a connection that ended early: neither ends listening.
                    warn!(address = %self.address, %error, "accept failed");
                    tokio::time::sleep(RETRY).await;
                }
            },
        }
        Some(Served::Something)
    }

    /// Makes the socket's keys those that are wanted, and says what could not be done. A peer whose
    /// key is missing cannot connect: what it signs is dropped.
    fn install(&mut self, socket: &SockRef<'_>) -> Vec<String> {
        let wanted = self.wanted.borrow_and_update().clone();
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
        failed.into_iter().chain(too_many).collect()
    }

    /// `None` if the core is gone.
    async fn tell_problems(&mut self, problems: Vec<String>) -> Option<()> {
        if self.told.as_ref() == Some(&problems) {
            return Some(());
        }
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

#[cfg(test)]
mod tests {
    use std::net::Shutdown;

    use tokio::net::TcpStream;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn an_address_is_listened_on_again_when_its_socket_is_gone() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = free.local_addr().expect("bound");
        drop(free);
        let (core, mut inputs) = mpsc::channel(16);
        let (_keys, wanted) = watch::channel(Keys::new());
        let mut acceptor = Acceptor {
            address,
            core: core.downgrade(),
            wanted,
            installed: Keys::new(),
            told: None,
        };
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
