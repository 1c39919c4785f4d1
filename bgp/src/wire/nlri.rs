//! NLRI: runs of prefixes (RFC 4271 §4.3, RFC 4760 §5).

use crate::types::{Family, Prefix};

/// A run of prefixes that was checked once and is read without allocation.
#[derive(Clone, Copy, Debug)]
pub struct Nlri<'a> {
    family: Family,
    bytes: &'a [u8],
}
