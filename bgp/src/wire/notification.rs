//! NOTIFICATION (RFC 4271 §4.5) and its codes and subcodes.

/// A NOTIFICATION as it is on the wire. `data` is what the code asks for, at most what fits the message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notification {
    pub code: u8,
    pub subcode: u8,
    pub data: Vec<u8>,
}

impl std::fmt::Display for Notification {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.code, self.subcode)
    }
}
