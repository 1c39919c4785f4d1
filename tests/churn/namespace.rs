//! A network namespace in which every address of the tests is local.

use std::process::Command;
use std::sync::{Mutex, PoisonError};

use nix::sched::{CloneFlags, unshare};

/// One at a time: they count memory, and that is not anybody's own.
static TURN: Mutex<()> = Mutex::new(());

/// Runs `test` in a thread in a fresh network namespace; programs that it starts are in there as
/// well.
pub fn in_namespace(test: impl FnOnce() + Send) {
    // One that failed has left nothing behind.
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let work = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        for arguments in [
            "link set lo up",
            "route add local 10.77.0.0/16 dev lo",
            "route add local 10.78.0.0/16 dev lo",
        ] {
            let status = Command::new("ip").args(arguments.split(' ')).status();
            assert!(status.expect("ip starts").success(), "ip {arguments}");
        }
        test();
    };
    let ended = std::thread::scope(|scope| scope.spawn(work).join());
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}
