//! Whether the roles of both sides go together (RFC 9234 §4.2).

use super::SessionConfig;
use crate::types::Role;
use crate::wire::notification::{code, open as open_error};
use crate::wire::open::Open;
use crate::wire::{Notification, ProtocolError};

/// Our role on this session: `None` inside an AS, or where none is configured.
///
/// # Errors
/// 2/11 if the peer's role is not the counterpart of ours, if it announces several that differ, and
/// if it announces none where `role_strict` asks for one.
pub(super) fn agree_on_role(
    config: &SessionConfig,
    open: &Open,
) -> Result<Option<Role>, ProtocolError> {
    // RFC 9234 §4: roles belong to sessions between autonomous systems.
    if open.asn == config.local_asn {
        return Ok(None);
    }
    let mut announced = open.roles();
    let theirs = announced.next();
    // RFC 9234 §4.2: the same value more than once is one capability. Different ones are refused
    // even if we have no role: whatever the peer means, it does not mean both.
    if announced.any(|other| Some(other) != theirs) {
        return Err(mismatch("peer announces several roles that differ".into()));
    }
    let Some(ours) = config.role else {
        return Ok(None);
    };
    match theirs {
        Some(theirs) if Role::from_octet(theirs) == Some(counterpart(ours)) => Ok(Some(ours)),
        Some(theirs) => {
            let theirs = Role::from_octet(theirs)
                .map_or_else(|| format!("role {theirs}"), |role| role.to_string());
            Err(mismatch(format!(
                "peer is {theirs} where we are {ours}, not {}",
                counterpart(ours)
            )))
        }
        None if config.role_strict => Err(mismatch("peer announces no role".into())),
        // RFC 9234 §4.2: a peer that does not know roles is accepted.
        None => Ok(Some(ours)),
    }
}

/// What the other side must be (RFC 9234 §4.2, table 2).
fn counterpart(role: Role) -> Role {
    match role {
        Role::Provider => Role::Customer,
        Role::Customer => Role::Provider,
        Role::RouteServer => Role::RouteServerClient,
        Role::RouteServerClient => Role::RouteServer,
        Role::Peer => Role::Peer,
    }
}

fn mismatch(reason: String) -> ProtocolError {
    ProtocolError::new(
        Notification::new(code::OPEN, open_error::ROLE_MISMATCH),
        reason,
    )
}
