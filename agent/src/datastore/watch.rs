//! Tells when something in a directory changed, and whether a file is still being written. It may say
//! so too often, never what changed.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::future;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent};
use tokio::io::unix::AsyncFd;

/// An inotify watch that outlives its directory's removal: [`DirectoryWatch::rearm`] finds the
/// new one. Without inotify it never wakes, and the caller's rescan is all there is.
#[derive(Debug)]
pub struct DirectoryWatch {
    path: PathBuf,
    inotify: Option<AsyncFd<Descriptor>>,
    is_armed: bool,
    /// Made or changed, and not closed since.
    unfinished: BTreeSet<OsString>,
}

#[derive(Debug)]
struct Descriptor(Inotify);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl DirectoryWatch {
    /// Must be called within a tokio runtime.
    pub fn new(path: PathBuf) -> DirectoryWatch {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)
            .map_err(io::Error::from)
            .and_then(|inotify| asynchronous(Descriptor(inotify)));
        if let Err(error) = &inotify {
            tracing::warn!(%error, "no inotify, changes are found by rescanning");
        }
        DirectoryWatch {
            path,
            inotify: inotify.ok(),
            is_armed: false,
            unfinished: BTreeSet::new(),
        }
    }

    /// Watches what stands at the path now. Call it before each scan: adding the same directory
    /// again changes nothing.
    pub fn rearm(&mut self) {
        let added = self
            .inotify
            .as_ref()
            .is_some_and(|inotify| add_watch(&inotify.get_ref().0, &self.path).is_ok());
        self.is_armed = added;
    }

    /// Whether changes will be told.
    pub fn is_armed(&self) -> bool {
        self.is_armed
    }

    /// Whether every file that changed was closed or renamed since, which is the end of most changes.
    pub fn is_settled(&self) -> bool {
        self.unfinished.is_empty()
    }

    /// Takes what was being written for finished.
    pub fn settle(&mut self) {
        self.unfinished.clear();
    }

    fn note(&mut self, event: InotifyEvent) {
        let begins = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MODIFY;
        // Without a name it is about the directory, or events were lost.
        let name = event.name.unwrap_or_default();
        if event.mask.intersects(begins | AddWatchFlags::IN_Q_OVERFLOW) {
            self.unfinished.insert(name);
        } else if !event.mask.contains(AddWatchFlags::IN_ATTRIB) {
            self.unfinished.remove(&name);
        }
    }

    /// Waits for a change. Nothing is lost if this is dropped while it waits.
    pub async fn changed(&mut self) {
        let Some(inotify) = &self.inotify else {
            return future::pending().await;
        };
        loop {
            let Ok(mut guard) = inotify.readable().await else {
                return future::pending().await;
            };
            match inotify.get_ref().0.read_events() {
                Ok(events) => {
                    drop(guard);
                    events.into_iter().for_each(|event| self.note(event));
                    return;
                }
                Err(Errno::EAGAIN) => guard.clear_ready(),
                Err(Errno::EINTR) => {}
                Err(error) => {
                    tracing::warn!(%error, "inotify failed, changes are found by rescanning");
                    guard.clear_ready();
                }
            }
        }
    }
}

#[allow(
    deprecated,
    reason = "its successor is an unsafe function; the descriptor is owned and never replaced"
)]
fn asynchronous(descriptor: Descriptor) -> io::Result<AsyncFd<Descriptor>> {
    AsyncFd::new(descriptor)
}

fn add_watch(inotify: &Inotify, path: &Path) -> nix::Result<()> {
    let flags = AddWatchFlags::IN_MODIFY
        | AddWatchFlags::IN_ATTRIB
        | AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_ONLYDIR;
    inotify.add_watch(path, flags).map(|_| ())
}
