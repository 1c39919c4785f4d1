//! The host side of a workload: what the loop is asked, and what its answer means to a runtime.

use std::time::Duration;

use tokio::time::timeout;

use super::attachment::Attachment;
use super::protocol::{CniError, ErrorCode};
use crate::ipam::allocator::Owner;
use crate::requests::{Handle, Request};

/// How long an answer may take. The plugin and the runtime wait longer.
const DEADLINE: Duration = Duration::from_secs(30);

/// Returns when policy, neighbour and route of an attached workload are in the kernel.
///
/// # Errors
/// `InterfaceFailed` with the reason, `TryAgainLater` if the agent is stopping.
pub async fn program(handle: &Handle, attachment: Attachment) -> Result<(), CniError> {
    let asked = handle.ask(|reply| Request::Attach { attachment, reply });
    let answer = timeout(DEADLINE, asked).await;
    judge("failed to program the workload's host side", answer.ok())
}

/// Returns when they are gone.
///
/// # Errors
/// As for `program`.
pub async fn clear(handle: &Handle, owner: &Owner) -> Result<(), CniError> {
    let asked = handle.ask(|reply| Request::Detach {
        container_id: owner.container_id.clone(),
        container_interface: owner.container_interface.clone(),
        reply,
    });
    let answer = timeout(DEADLINE, asked).await;
    judge("failed to remove the workload's host side", answer.ok())
}

/// `answer`: outer `None` for none in time, inner `None` for a loop that is gone.
fn judge(failure: &str, answer: Option<Option<Result<(), String>>>) -> Result<(), CniError> {
    let failed = CniError::new(ErrorCode::InterfaceFailed, failure);
    match answer {
        Some(Some(Ok(()))) => Ok(()),
        Some(Some(Err(reason))) => Err(failed.with_details(reason)),
        Some(None) => Err(CniError::new(
            ErrorCode::TryAgainLater,
            "the agent is stopping",
        )),
        None => Err(failed.with_details(format!("not done within {} s", DEADLINE.as_secs()))),
    }
}
