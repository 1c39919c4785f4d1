//! The shared key of a TCP MD5 session (RFC 2385). Never shown, never logged.

use std::fmt;

/// 1 to 80 octets, which is what the kernel takes (TCP_MD5SIG_MAXKEYLEN).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Secret(Vec<u8>);

/// A password that cannot be a TCP MD5 key. Says its length only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a password of {length} octets is not of 1 to {}", Secret::MAX_LEN)]
pub struct UnusableSecret {
    pub length: usize,
}

impl Secret {
    pub const MAX_LEN: usize = 80;

    /// # Errors
    /// `UnusableSecret` for none or more than 80 octets: a key that was cut would be another one.
    pub fn new(octets: impl Into<Vec<u8>>) -> Result<Secret, UnusableSecret> {
        let octets = octets.into();
        match octets.len() {
            1..=Secret::MAX_LEN => Ok(Secret(octets)),
            length => Err(UnusableSecret { length }),
        }
    }

    /// The key itself, for the kernel only.
    pub(super) fn octets(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show_itself() {
        let secret = Secret::new("open sesame").expect("length");
        for shown in [
            format!("{secret:?}"),
            format!("{secret:#?}"),
            secret.to_string(),
        ] {
            assert!(
                !shown.contains("sesame") && !shown.contains("11"),
                "{shown}"
            );
        }
    }

    #[test]
    fn only_lengths_the_kernel_takes_are_accepted() {
        for (length, is_usable) in [(0, false), (1, true), (80, true), (81, false)] {
            assert_eq!(
                Secret::new(vec![b'x'; length]).is_ok(),
                is_usable,
                "{length}"
            );
        }
    }
}
