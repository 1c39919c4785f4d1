//! AS_PATH (RFC 4271 §4.3 b, RFC 5065, RFC 6793).
//!
//! Segments as on the wire, and what the decision process and the policies ask of a path. What a
//! malformed path does to its route is decided by `attribute`.

use std::fmt;
use std::str::FromStr;

use bytes::BufMut;

use super::reader::Reader;
use super::zetta;
use crate::types::Asn;

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum SegmentKind {
    Set,
    Sequence,
    ConfedSequence,
    ConfedSet,
}

impl SegmentKind {
    fn from_octet(octet: u8) -> Option<SegmentKind> {
        match octet {
            1 => Some(SegmentKind::Set),
            2 => Some(SegmentKind::Sequence),
            3 => Some(SegmentKind::ConfedSequence),
            4 => Some(SegmentKind::ConfedSet),
            _ => None,
        }
    }

    fn octet(self) -> u8 {
        match self {
            SegmentKind::Set => 1,
            SegmentKind::Sequence => 2,
            SegmentKind::ConfedSequence => 3,
            SegmentKind::ConfedSet => 4,
        }
    }

    /// Whether the segment is a confederation's own, which the outside never sees (RFC 5065 §3).
    pub fn is_confed(self) -> bool {
        match self {
            SegmentKind::Set | SegmentKind::Sequence => false,
            SegmentKind::ConfedSequence | SegmentKind::ConfedSet => true,
        }
    }
}

/// One segment: 1 to 255 AS numbers.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Segment {
    pub kind: SegmentKind,
    pub asns: Vec<Asn>,
}

impl Segment {
    /// What it adds to a path's length: a SET counts 1 (RFC 4271 §9.1.2.2 a), a confederation's
    /// segments nothing (RFC 5065 §5.3).
    fn length(&self) -> usize {
        match self.kind {
            SegmentKind::Sequence => self.asns.len(),
            SegmentKind::Set => 1,
            SegmentKind::ConfedSequence | SegmentKind::ConfedSet => 0,
        }
    }
}

/// An AS path; empty for routes that began inside our own AS.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct AsPath {
    pub segments: Vec<Segment>,
}

/// Why octets are not an AS path (RFC 7606 §7.2, RFC 7607 §2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadAsPath {
    #[error("a segment has an unknown type")]
    UnknownSegmentType,
    #[error("a segment is empty")]
    EmptySegment,
    #[error("a segment is longer than what is left")]
    SegmentOverrun,
    #[error("one octet is left over")]
    StrayOctet,
    #[error("the path holds AS 0")]
    AsZero,
}

impl AsPath {
    /// AS numbers a segment can hold: its count is one octet.
    pub(super) const SEGMENT_MAX: usize = 255;

    /// A path of one sequence, nearest AS first, or the empty path.
    pub fn sequence(asns: impl IntoIterator<Item = Asn>) -> AsPath {
        let asns: Vec<Asn> = asns.into_iter().collect();
        let segments = asns.chunks(AsPath::SEGMENT_MAX).map(|asns| Segment {
            kind: SegmentKind::Sequence,
            asns: asns.to_vec(),
        });
        AsPath {
            segments: segments.collect(),
        }
    }

    /// # Errors
    /// See [`BadAsPath`].
    pub fn decode(bytes: &[u8], four_octet_as: bool) -> Result<AsPath, BadAsPath> {
        let mut reader = Reader::new(bytes);
        // Nearly all paths are one sequence.
        let mut segments = Vec::with_capacity(usize::from(!bytes.is_empty()));
        while let Some(kind) = reader.u8() {
            let count = reader.u8().ok_or(BadAsPath::StrayOctet)?;
            let kind = SegmentKind::from_octet(kind).ok_or(BadAsPath::UnknownSegmentType)?;
            if count == 0 {
                return Err(BadAsPath::EmptySegment);
            }
            let size = if four_octet_as { 4 } else { 2 };
            let mut values = reader
                .sub(usize::from(count) * size)
                .ok_or(BadAsPath::SegmentOverrun)?;
            let mut asns = Vec::with_capacity(usize::from(count));
            while let Some(asn) = take_asn(&mut values, four_octet_as) {
                if asn == Asn(0) {
                    return Err(BadAsPath::AsZero);
                }
                asns.push(asn);
            }
            segments.push(Segment { kind, asns });
        }
        Ok(AsPath { segments })
    }

    /// Writes the attribute's value. Two-octet numbers are written as AS_TRANS where they do not
    /// fit, and a segment of more than 255 numbers as several.
    pub(super) fn encode(&self, four_octet_as: bool, out: &mut impl BufMut) {
        for segment in &self.segments {
            for asns in segment.asns.chunks(AsPath::SEGMENT_MAX) {
                out.put_u8(segment.kind.octet());
                out.put_u8(u8::try_from(asns.len()).unwrap_or(u8::MAX));
                for asn in asns {
                    if four_octet_as {
                        out.put_u32(asn.0);
                    } else {
                        out.put_u16(asn.to_two_octets());
                    }
                }
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// The length the decision process compares.
    pub fn length(&self) -> usize {
        self.segments.iter().map(Segment::length).sum()
    }

    /// All AS numbers, in wire order, those of sets and confederation segments included.
    pub fn asns(&self) -> impl Iterator<Item = Asn> + '_ {
        self.segments
            .iter()
            .flat_map(|segment| segment.asns.iter().copied())
    }

    pub fn contains(&self, asn: Asn) -> bool {
        self.asns().any(|other| other == asn)
    }

    /// Puts `asn` in front `count` times. A full segment gets a new one in front of it
    /// (RFC 4271 §5.1.2).
    pub fn prepend(&mut self, asn: Asn, count: usize) {
        let mut left = count;
        while left > 0 {
            let room = match self.segments.first() {
                Some(first) if first.kind == SegmentKind::Sequence => {
                    AsPath::SEGMENT_MAX.saturating_sub(first.asns.len())
                }
                _ => 0,
            };
            if room == 0 {
                let segment = Segment {
                    kind: SegmentKind::Sequence,
                    asns: Vec::new(),
                };
                self.segments.insert(0, segment);
                continue;
            }
            let added = left.min(room);
            if let Some(first) = self.segments.first_mut() {
                first.asns.splice(..0, std::iter::repeat_n(asn, added));
            }
            left -= added;
        }
    }

    /// Takes out private AS numbers (RFC 6996 §5), but for `receiver`'s own, by which it notices its
    /// loops. Segments that are empty then go.
    pub fn remove_private(&mut self, receiver: Asn) {
        for segment in &mut self.segments {
            segment
                .asns
                .retain(|asn| !asn.is_private() || *asn == receiver);
        }
        self.segments.retain(|segment| !segment.asns.is_empty());
    }

    /// The neighbouring AS: leftmost of the leading sequence, confederation segments aside.
    /// `None` for the empty path and for one that begins with a set.
    pub fn first_as(&self) -> Option<Asn> {
        let first = self.segments.iter().find(|s| !s.kind.is_confed())?;
        match first.kind {
            SegmentKind::Sequence => first.asns.first().copied(),
            SegmentKind::Set | SegmentKind::ConfedSequence | SegmentKind::ConfedSet => None,
        }
    }

    /// Whether the path begins with these, nearest first, confederation segments aside. A set
    /// stands for any one of its members.
    pub fn begins_with(&self, asns: &[Asn]) -> bool {
        let mut left = asns.iter();
        for segment in &self.segments {
            let place_size = match segment.kind {
                SegmentKind::Sequence => 1,
                SegmentKind::Set => segment.asns.len().max(1),
                SegmentKind::ConfedSequence | SegmentKind::ConfedSet => continue,
            };
            for place in segment.asns.chunks(place_size) {
                match left.next() {
                    None => return true,
                    Some(asn) if place.contains(asn) => {}
                    Some(_) => return false,
                }
            }
        }
        left.next().is_none()
    }

    /// The AS the route began in. `None` for the empty path and for one that ends with a set
    /// (RFC 6811 §2).
    pub fn origin_as(&self) -> Option<Asn> {
        let last = self.segments.last()?;
        match last.kind {
            SegmentKind::Sequence => last.asns.last().copied(),
            SegmentKind::Set | SegmentKind::ConfedSequence | SegmentKind::ConfedSet => None,
        }
    }

    /// Whether a two-octet session needs AS4_PATH beside this path.
    pub(super) fn needs_four_octets(&self) -> bool {
        let mut outside = self.segments.iter().filter(|s| !s.kind.is_confed());
        outside.any(|s| s.asns.iter().any(|asn| asn.0 > u32::from(u16::MAX)))
    }

    /// The path without confederation segments, as AS4_PATH wants it (RFC 6793 §3).
    pub(super) fn without_confed(&self) -> AsPath {
        let outside = self.segments.iter().filter(|s| !s.kind.is_confed());
        AsPath {
            segments: outside.cloned().collect(),
        }
    }

    /// The path a two-octet speaker meant: the part of this AS_PATH that `as4_path` does not know,
    /// then `as4_path` (RFC 6793 §4.2.3). An `as4_path` that is longer is ignored: somebody
    /// shortened the AS_PATH and knew nothing of the other.
    pub(super) fn merge(self, as4_path: AsPath) -> AsPath {
        let Some(mut leading) = self.length().checked_sub(as4_path.length()) else {
            return self;
        };
        let mut segments = Vec::new();
        for mut segment in self.segments {
            let taken_whole = match segment.kind {
                SegmentKind::Sequence => {
                    let all = segment.asns.len();
                    segment.asns.truncate(leading);
                    leading -= segment.asns.len();
                    segment.asns.len() == all
                }
                SegmentKind::Set if leading > 0 => {
                    leading -= 1;
                    true
                }
                SegmentKind::Set => break,
                // Counts nothing, and is taken where it leads or follows what was taken whole.
                SegmentKind::ConfedSequence | SegmentKind::ConfedSet => true,
            };
            if !segment.asns.is_empty() {
                segments.push(segment);
            }
            if !taken_whole {
                break;
            }
        }
        for segment in as4_path.segments {
            push_joined(&mut segments, segment);
        }
        AsPath { segments }
    }
}

impl fmt::Display for AsPath {
    /// `65001 65002 {1 2} (65100) [3 4]`: sets in braces, confederation sequences in parentheses,
    /// confederation sets in brackets. The empty path is the empty text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, segment) in self.segments.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            let (open, close) = match segment.kind {
                SegmentKind::Sequence => ("", ""),
                SegmentKind::Set => ("{", "}"),
                SegmentKind::ConfedSequence => ("(", ")"),
                SegmentKind::ConfedSet => ("[", "]"),
            };
            f.write_str(open)?;
            for (index, asn) in segment.asns.iter().enumerate() {
                if index > 0 {
                    f.write_str(" ")?;
                }
                write!(f, "{asn}")?;
            }
            f.write_str(close)?;
        }
        Ok(())
    }
}

/// Text that is not an AS path.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is not an AS path such as \"65001 65002 {{65003 65004}}\"")]
pub struct BadAsPathText(pub String);

impl FromStr for AsPath {
    type Err = BadAsPathText;

    /// Takes what `Display` writes, confederation segments aside.
    fn from_str(text: &str) -> Result<AsPath, BadAsPathText> {
        zetta::parse_as_path(text).ok_or_else(|| BadAsPathText(text.to_owned()))
    }
}

fn take_asn(reader: &mut Reader<'_>, four_octet_as: bool) -> Option<Asn> {
    if four_octet_as {
        reader.u32().map(Asn)
    } else {
        reader.u16().map(|asn| Asn(u32::from(asn)))
    }
}

/// Appends `segment`, into the last one where both are sequences and one segment can hold them.
fn push_joined(segments: &mut Vec<Segment>, segment: Segment) {
    match segments.last_mut() {
        Some(last)
            if last.kind == SegmentKind::Sequence
                && segment.kind == SegmentKind::Sequence
                && last.asns.len() + segment.asns.len() <= AsPath::SEGMENT_MAX =>
        {
            last.asns.extend(segment.asns);
        }
        _ => segments.push(segment),
    }
}

#[cfg(test)]
mod tests;
