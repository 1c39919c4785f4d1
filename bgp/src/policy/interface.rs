//! Names of network interfaces as a rule gives them, with `*` for any run of characters.

use std::fmt;
use std::str::FromStr;

/// Most octets of an interface's name (the kernel's IFNAMSIZ without its end).
const MAX_LEN: usize = 15;

/// A name, or a pattern of names: `eth0`, `eth*`, `*.calico`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct InterfacePattern(String);

/// Text that is no pattern of interface names.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadInterfacePattern {
    #[error("an interface has a name of 1 to 15 characters")]
    Length,
    #[error("{0:?} is not in an interface's name; write letters, digits, `_`, `.`, `-` and `*`")]
    Character(char),
}

impl FromStr for InterfacePattern {
    type Err = BadInterfacePattern;

    /// # Errors
    /// If the text is empty or longer than 15 characters, or holds others than Calico takes.
    fn from_str(text: &str) -> Result<InterfacePattern, BadInterfacePattern> {
        let is_known = |c: char| c.is_ascii_alphanumeric() || "_.*-".contains(c);
        if let Some(unknown) = text.chars().find(|c| !is_known(*c)) {
            return Err(BadInterfacePattern::Character(unknown));
        }
        if text.is_empty() || text.len() > MAX_LEN {
            return Err(BadInterfacePattern::Length);
        }
        Ok(InterfacePattern(text.to_owned()))
    }
}

impl fmt::Display for InterfacePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl InterfacePattern {
    /// Whether the whole of `name` is as the pattern says; capital letters count.
    pub fn matches(&self, name: &str) -> bool {
        let Some((first, rest)) = self.0.split_once('*') else {
            return self.0 == name;
        };
        let (between, last) = rest.rsplit_once('*').unwrap_or(("", rest));
        let middle = name
            .strip_prefix(first)
            .and_then(|name| name.strip_suffix(last));
        let Some(mut middle) = middle else {
            return false;
        };
        // The leftmost place for each piece leaves most to the pieces after it.
        between.split('*').all(|piece| match middle.find(piece) {
            Some(at) => {
                middle = middle.get(at + piece.len()..).unwrap_or_default();
                true
            }
            None => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        for (pattern, name, expected) in [
            ("eth0", "eth0", true),
            ("eth0", "eth01", false),
            ("eth0", "ETH0", false),
            ("eth*", "eth0", true),
            ("eth*", "eth", true),
            ("eth*", "veth0", false),
            ("*.calico", "vxlan.calico", true),
            ("*.calico", ".calico", true),
            ("*.calico", "vxlan.calicox", false),
            ("*", "lo", true),
            ("**", "lo", true),
            ("e*0", "eth0", true),
            ("e*0", "e0", true),
            ("e*0", "eth1", false),
            ("ab*ba", "aba", false),
            ("ab*ba", "abba", true),
            ("a*b*c", "axbxc", true),
            ("a*b*c", "abbc", true),
            ("a*b*c", "acb", false),
            ("a*bc*bc", "abcbc", true),
            ("a*bc*bc", "abc", false),
            ("*a*a*", "aa", true),
            ("*a*a*", "ba", false),
            ("eth.", "eth0", false),
        ] {
            let parsed: InterfacePattern = pattern.parse().expect(pattern);
            assert_eq!(parsed.matches(name), expected, "{pattern} and {name}");
        }
    }

    #[test]
    fn patterns_are_what_calico_takes() {
        for (text, expected) in [
            ("123456789012345", Ok(())),
            ("1234567890123456", Err(BadInterfacePattern::Length)),
            ("", Err(BadInterfacePattern::Length)),
            ("cali-1_x.y*", Ok(())),
            ("eth&", Err(BadInterfacePattern::Character('&'))),
            ("%face", Err(BadInterfacePattern::Character('%'))),
            ("\"ace", Err(BadInterfacePattern::Character('"'))),
            ("eth?", Err(BadInterfacePattern::Character('?'))),
            ("eth 0", Err(BadInterfacePattern::Character(' '))),
            ("ethö", Err(BadInterfacePattern::Character('ö'))),
        ] {
            let parsed = text.parse::<InterfacePattern>();
            assert_eq!(parsed.map(|_| ()), expected, "{text:?}");
        }
    }
}
