//! Accepting connections: one task per listen address.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::core::CoreInput;
use super::socket;

/// Between attempts to listen on an address that is not there yet, and after accept errors.
const RETRY: Duration = Duration::from_secs(1);

/// Listens until dropped.
pub struct Listener {
    task: JoinHandle<()>,
}

impl Listener {
    pub fn spawn(address: SocketAddr, core: mpsc::WeakSender<CoreInput>) -> Listener {
        Listener {
            task: tokio::spawn(listen(address, core)),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(address: SocketAddr, core: mpsc::WeakSender<CoreInput>) {
    let mut last_error = None;
    let listener = loop {
        match socket::listen(address) {
            Ok(listener) => break listener,
            Err(error) => {
                let problem = format!("cannot listen on {address}: {error}");
                if last_error.as_ref() != Some(&problem) {
                    warn!(%address, %error, "cannot listen, retrying");
                    let report = CoreInput::Listening {
                        address,
                        problem: Some(problem.clone()),
                    };
                    if !tell(&core, report).await {
                        return;
                    }
                    last_error = Some(problem);
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    };
    info!(%address, "listening");
    if !tell(
        &core,
        CoreInput::Listening {
            address,
            problem: None,
        },
    )
    .await
    {
        return;
    }
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                if !tell(&core, CoreInput::Accepted { stream, remote }).await {
                    return;
                }
            }
            Err(error) => {
                // Out of descriptors or a connection that ended early: neither ends listening.
                warn!(%address, %error, "accept failed");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn tell(core: &mpsc::WeakSender<CoreInput>, input: CoreInput) -> bool {
    match core.upgrade() {
        Some(core) => core.send(input).await.is_ok(),
        None => false,
    }
}
