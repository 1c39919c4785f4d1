//! The running reflector: the speaker, its file, its memory.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agent::api::listener::PrivateSocket;
use agent::api::schema::Drain;
use agent::api::{health, serve};
use agent::descriptors;
use agent::drain::DrainMark;
use anyhow::{Context, bail};
use bgp::speaker::config::{GracefulRestartConfig, SpeakerConfig};
use bgp::speaker::{Event, Speaker, Stop};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use crate::Args;
use crate::config::{self, Loaded};
use crate::file::ConfigFile;
use crate::memory::Memory;
use crate::observe::{DrainAsked, FileState, Observer};

/// How long a reflector that is being replaced may take to end.
const PREDECESSOR_ENDS: Duration = Duration::from_secs(5);
const STOP_DEADLINE: Duration = Duration::from_secs(3);

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// What keeps it from starting.
pub async fn run(args: Args) -> anyhow::Result<()> {
    descriptors::raise_limit();
    for dir in [&args.run_dir, &args.state_dir] {
        std::fs::create_dir_all(dir)
            .with_context(|| format!("failed to make {}", dir.display()))?;
    }
    let path = args.run_dir.join("reflector.sock");
    let socket = PrivateSocket::bind_when_free(&path, PREDECESSOR_ENDS).await?;
    let loaded = config::load(&args.config)?;
    report(&loaded);
    if !loaded.is_usable() {
        bail!(
            "{}: no usable configuration; see the lines above",
            args.config.display()
        );
    }
    let mut memory = Memory::new(&args.state_dir);
    let mut drained = Drained::new(&args.state_dir);
    let speaker_config = drained.applied(with_restart(&loaded, &memory));
    let restart = speaker_config.graceful_restart.clone();
    if !restart.restarting {
        remember(&mut memory, Event::DynamicPeers(Vec::new()));
    }
    info!(asn = %speaker_config.asn, router_id = %speaker_config.router_id,
        restarting = restart.restarting, "reflector started");
    let (speaker, mut events) = Speaker::start(speaker_config.clone(), false);

    let state = FileState {
        is_current: true,
        errors: loaded.errors.clone(),
    };
    let (file, file_watch) = watch::channel(state);
    let (draining, draining_watch) = watch::channel(speaker_config.is_draining);
    let (drains, mut drain_queue) = mpsc::channel(1);
    let (stop, stop_watch) = watch::channel(false);
    let observer = Arc::new(Observer {
        name: loaded.speaker.router_id.to_string().into(),
        speaker: speaker.clone(),
        file: file_watch,
        draining: draining_watch,
        drains,
    });
    tokio::spawn(serve::serve(
        socket,
        serve::router(observer.clone()),
        stopped(stop_watch.clone()),
    ));
    if let Some(address) = args.http_listen() {
        match health::bind(address).await {
            Ok(listener) => {
                tokio::spawn(health::serve(listener, observer, stopped(stop_watch)));
            }
            Err(error) => warn!(%address, %error, "cannot listen for health and metrics"),
        }
    }

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut config_file = ConfigFile::new(&args.config);
    let mut current = loaded;
    let mut is_asked = false;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            Some(event) = events.recv() => remember(&mut memory, event),
            Some(DrainAsked { asked, reply }) = drain_queue.recv() => {
                let kept = drained.keep(asked);
                follow(&current, &restart, &drained, &speaker, &draining).await;
                // Nobody may wait for the answer any more.
                let _ = reply.send(kept.map(|()| Drain { draining: *draining.borrow() }));
            }
            _ = hangup.recv() => {
                config_file.reread();
                is_asked = true;
            }
            read = config_file.next() => {
                let differs = follow_file(&args.config, read, &mut current, &file);
                if differs {
                    follow(&current, &restart, &drained, &speaker, &draining).await;
                }
                if std::mem::take(&mut is_asked) && !differs {
                    answer(&file.borrow());
                }
                told(memory.catch_up());
            }
        }
    }
    info!("stopping; peers keep the routes");
    stop.send_replace(true);
    if tokio::time::timeout(STOP_DEADLINE, speaker.stop(Stop::Restarting))
        .await
        .is_err()
    {
        warn!("sessions did not end in time");
    }
    Ok(())
}

/// What an operator said about draining, beside what the file says.
struct Drained {
    mark: DrainMark,
    is_set: bool,
}

impl Drained {
    fn new(state_dir: &Path) -> Drained {
        let mark = DrainMark::new(state_dir, "reflector");
        let is_set = mark.is_set();
        Drained { mark, is_set }
    }

    fn keep(&mut self, asked: Drain) -> Result<(), String> {
        self.mark
            .set(asked.draining)
            .map_err(|error| format!("the state directory does not keep it: {error}"))?;
        self.is_set = asked.draining;
        Ok(())
    }

    fn applied(&self, mut config: SpeakerConfig) -> SpeakerConfig {
        config.is_draining |= self.is_set;
        config
    }
}

/// Makes the speaker follow the file and the operator.
async fn follow(
    current: &Loaded,
    restart: &GracefulRestartConfig,
    drained: &Drained,
    speaker: &Speaker,
    draining: &watch::Sender<bool>,
) {
    let mut config = drained.applied(current.speaker.clone());
    config.graceful_restart = restart.clone();
    draining.send_replace(config.is_draining);
    speaker.configure(config).await;
}

/// Takes what was read of the file; `true` if it says something else than before. A file that cannot be
/// used leaves the running configuration as it is.
fn follow_file(
    path: &Path,
    read: anyhow::Result<Loaded>,
    current: &mut Loaded,
    state: &watch::Sender<FileState>,
) -> bool {
    let loaded = match read {
        Ok(loaded) => loaded,
        Err(error) => {
            let known = FileState {
                is_current: false,
                errors: vec![config::unreadable(path, &error)],
            };
            if replace(state, known) {
                error!(
                    error = format!("{error:#}"),
                    "the configuration stays as it was"
                );
            }
            return false;
        }
    };
    // A document that is wrong must not remove what a right one brought: keep all until it is mended.
    let is_worse = !loaded.is_usable()
        || loaded
            .errors
            .iter()
            .any(|error| !current.errors.contains(error));
    let known = FileState {
        is_current: !is_worse,
        errors: loaded.errors.clone(),
    };
    let is_news = replace(state, known);
    if is_worse {
        if is_news {
            report(&loaded);
            error!("the configuration stays as it was until the file is mended");
        }
        return false;
    }
    let differs = loaded.speaker != current.speaker;
    if differs {
        info!("configuration changed");
    }
    *current = loaded;
    differs
}

/// Whether it is another.
fn replace(state: &watch::Sender<FileState>, known: FileState) -> bool {
    state.send_if_modified(|state| {
        let is_news = *state != known;
        *state = known;
        is_news
    })
}

fn with_restart(loaded: &Loaded, memory: &Memory) -> SpeakerConfig {
    let remembered = memory.recall();
    let mut config = loaded.speaker.clone();
    config.graceful_restart = GracefulRestartConfig {
        restarting: remembered.is_some(),
        // There is no dataplane that could have been lost: packets go node to node.
        forwarding_preserved: true,
        remembered_peers: remembered.unwrap_or_default(),
        ..GracefulRestartConfig::default()
    };
    config
}

fn remember(memory: &mut Memory, event: Event) {
    if let Event::DynamicPeers(peers) = event {
        told(memory.remember(peers));
    }
}

fn told(remembered: io::Result<()>) {
    if let Err(error) = remembered {
        error!(%error, "peers cannot be remembered over a restart, trying again");
    }
}

/// Who sends SIGHUP waits for a line, also where nothing has changed since the file was last read.
fn answer(state: &FileState) {
    match state.is_current {
        true => info!("the configuration is in use as it is in the file"),
        false => error!(
            problems = state.errors.len(),
            "the configuration in the file is not in use; the one before goes on"
        ),
    }
}

fn report(loaded: &Loaded) {
    for error in &loaded.errors {
        warn!(%error, "in the configuration file");
    }
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // The sender lives as long as `run`.
    let _ = stop.wait_for(|stop| *stop).await;
}
