//! Names and labels of resources.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// The node label that puts a node into a rack: `caracal.dev/rack=NAME`.
pub const RACK_LABEL: &str = "caracal.dev/rack";

pub type Labels = BTreeMap<String, String>;

/// The name of a Node: a DNS subdomain, as Kubernetes demands of every object's name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeName(String);

impl NodeName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<NodeName, BadName> {
        check_name(text)?;
        Ok(NodeName(text.to_owned()))
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for NodeName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Text that cannot name an object.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{0:?} is not a name: use up to 253 lower-case letters, digits, `-` and `.`, beginning and ending with a letter or digit"
)]
pub struct BadName(pub String);

/// Whether `text` can name an object: an RFC 1123 subdomain.
///
/// # Errors
/// `BadName` if not.
pub fn check_name(text: &str) -> Result<(), BadName> {
    let inner = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.'
    };
    let edge =
        |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = text.as_bytes();
    let valid = bytes.len() <= 253
        && bytes.iter().all(|&byte| inner(byte))
        && edge(bytes.first())
        && edge(bytes.last());
    if valid {
        Ok(())
    } else {
        Err(BadName(text.chars().take(253).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_rfc_1123() {
        let long = "a".repeat(254);
        for (text, valid) in [
            ("a1", true),
            ("node-1.example.com", true),
            ("", false),
            ("-a", false),
            ("a.", false),
            ("A1", false),
            ("a/b", false),
            ("a\nb", false),
            (long.as_str(), false),
        ] {
            assert_eq!(check_name(text).is_ok(), valid, "{text:?}");
        }
    }
}
