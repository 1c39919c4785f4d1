//! AS_PATH (RFC 4271 §4.3 b, RFC 5065, RFC 6793).

use crate::types::Asn;

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum SegmentKind {
    Set,
    Sequence,
    ConfedSequence,
    ConfedSet,
}

/// One segment: 1 to 255 AS numbers.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Segment {
    pub kind: SegmentKind,
    pub asns: Vec<Asn>,
}

/// An AS path; empty for routes that began inside our own AS.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct AsPath {
    pub segments: Vec<Segment>,
}
