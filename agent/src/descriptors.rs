//! File descriptors of this process: every session takes one, and the usual soft limit of 1024 is
//! there for programs that use select(2), which these are not.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::warn;

/// Raises the soft limit to the hard one. Where that fails the limit stays, and what it is too low
/// for is shown by the speaker.
pub fn raise_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft == hard {
            return Ok(());
        }
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    });
    if let Err(error) = raised {
        warn!(%error, "failed to raise the limit of file descriptors");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("known");
        // Still far more than the other tests here use.
        setrlimit(Resource::RLIMIT_NOFILE, hard - 1, hard).expect("lowered");
        raise_limit();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE), Ok((hard, hard)));
    }
}
