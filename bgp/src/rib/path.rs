//! A path, and the paths of a prefix: one with most prefixes, and that one takes no memory beside.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::PeerId;
use crate::wire::attribute::PathAttributes;

/// One route of one peer to a prefix.
#[derive(Clone, Debug)]
pub struct Path {
    /// As import policy left them.
    pub attributes: Arc<PathAttributes>,
    /// As the peer sent them, where policy changed them.
    pub received: Option<Arc<PathAttributes>>,
    pub source: PeerId,
    /// As the peer numbered it (RFC 7911 §3); 0 without ADD-PATH.
    pub path_id: u32,
    /// As we number it towards peers with ADD-PATH: from 1, unique within the prefix, the same as
    /// long as the path is there. Set by the table.
    pub local_id: u32,
    /// Not eligible; the reason is in the RIB's rejections.
    pub is_rejected: bool,
    /// Not eligible either: its next hop does not resolve.
    pub is_unresolvable: bool,
    /// Kept over a restart of the peer, or in doubt since its refresh began, and not announced
    /// again yet.
    pub is_stale: bool,
}

impl Path {
    /// One that is accepted, resolved and not stale, with its attributes as they were sent.
    pub fn new(source: PeerId, path_id: u32, attributes: Arc<PathAttributes>) -> Path {
        Path {
            attributes,
            received: None,
            source,
            path_id,
            local_id: 0,
            is_rejected: false,
            is_unresolvable: false,
            is_stale: false,
        }
    }

    pub fn is_eligible(&self) -> bool {
        !self.is_rejected && !self.is_unresolvable
    }

    /// The attributes as the peer sent them.
    pub fn received(&self) -> &Arc<PathAttributes> {
        self.received.as_ref().unwrap_or(&self.attributes)
    }
}

#[derive(Debug, Default)]
pub enum Paths {
    #[default]
    None,
    One(Path),
    Many(Vec<Path>),
}

impl Paths {
    pub fn push(&mut self, path: Path) {
        *self = match std::mem::take(self) {
            Paths::None => Paths::One(path),
            Paths::One(first) => Paths::Many(vec![first, path]),
            Paths::Many(mut paths) => {
                paths.push(path);
                Paths::Many(paths)
            }
        };
    }

    /// Removes a path, and puts the last one in its place. `None` if there is none.
    pub fn swap_remove(&mut self, index: usize) -> Option<Path> {
        match std::mem::take(self) {
            Paths::One(only) if index == 0 => Some(only),
            Paths::Many(mut paths) if index < paths.len() => {
                let removed = paths.swap_remove(index);
                *self = match paths.pop() {
                    Some(last) if paths.is_empty() => Paths::One(last),
                    Some(last) => {
                        paths.push(last);
                        Paths::Many(paths)
                    }
                    None => Paths::None,
                };
                Some(removed)
            }
            others => {
                *self = others;
                None
            }
        }
    }
}

impl Deref for Paths {
    type Target = [Path];

    fn deref(&self) -> &[Path] {
        match self {
            Paths::None => &[],
            Paths::One(only) => std::slice::from_ref(only),
            Paths::Many(paths) => paths,
        }
    }
}

impl DerefMut for Paths {
    fn deref_mut(&mut self) -> &mut [Path] {
        match self {
            Paths::None => &mut [],
            Paths::One(only) => std::slice::from_mut(only),
            Paths::Many(paths) => paths,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_come_and_go_in_any_number() {
        let attributes = Arc::new(PathAttributes::originated([192, 0, 2, 1].into()));
        let path = |number| Path::new(PeerId(number), 0, attributes.clone());
        let mut paths = Paths::default();
        let sources =
            |paths: &Paths| -> Vec<u32> { paths.iter().map(|path| path.source.0).collect() };
        assert!(paths.swap_remove(0).is_none());
        for number in 1..=3 {
            paths.push(path(number));
        }
        assert_eq!(sources(&paths), [1, 2, 3]);
        paths.swap(0, 2);
        assert!(paths.swap_remove(3).is_none());
        assert_eq!(
            paths.swap_remove(0).map(|path| path.source),
            Some(PeerId(3))
        );
        assert_eq!(sources(&paths), [1, 2]);
        assert_eq!(
            paths.swap_remove(1).map(|path| path.source),
            Some(PeerId(2))
        );
        assert!(matches!(paths, Paths::One(_)));
        paths.push(path(4));
        assert_eq!(sources(&paths), [1, 4]);
        paths.swap_remove(0);
        assert_eq!(
            paths.swap_remove(0).map(|path| path.source),
            Some(PeerId(4))
        );
        assert!(paths.is_empty());
    }

    #[test]
    fn a_prefix_with_one_path_takes_few_octets() {
        assert!(size_of::<Paths>() <= 32, "{}", size_of::<Paths>());
    }
}
