//! The value of the role capability (RFC 9234 §4.1, table 1).

use crate::types::Role;

impl Role {
    /// `None` for the values that the RFC leaves unassigned.
    pub fn from_octet(octet: u8) -> Option<Role> {
        match octet {
            0 => Some(Role::Provider),
            1 => Some(Role::RouteServer),
            2 => Some(Role::RouteServerClient),
            3 => Some(Role::Customer),
            4 => Some(Role::Peer),
            _ => None,
        }
    }

    pub fn octet(self) -> u8 {
        match self {
            Role::Provider => 0,
            Role::RouteServer => 1,
            Role::RouteServerClient => 2,
            Role::Customer => 3,
            Role::Peer => 4,
        }
    }
}
