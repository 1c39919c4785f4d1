//! Messages built octet by octet, right or wrong as the test wants them.

use bgp::types::{Family, FamilySet, Prefix};
use bgp::wire::frame::{Frame, HEADER_LEN, MAX_EXTENDED_LEN, next_frame};
use bgp::wire::nlri::Nlri;
use bgp::wire::update::UpdateContext;
use bytes::BytesMut;

pub const IBGP: UpdateContext = UpdateContext {
    four_octet_as: true,
    ebgp: false,
    add_path: FamilySet::EMPTY,
};
pub const EBGP: UpdateContext = UpdateContext {
    four_octet_as: true,
    ebgp: true,
    add_path: FamilySet::EMPTY,
};
pub const TWO_OCTET: UpdateContext = UpdateContext {
    four_octet_as: false,
    ebgp: true,
    add_path: FamilySet::EMPTY,
};

/// Both families with path identifiers.
pub fn add_path() -> UpdateContext {
    UpdateContext {
        add_path: Family::ALL.into_iter().collect(),
        ..IBGP
    }
}

pub const ORIGIN: &[u8] = &[0x40, 1, 1, 0];
/// 65001, in four octets.
pub const AS_PATH: &[u8] = &[0x40, 2, 6, 2, 1, 0, 0, 0xFD, 0xE9];
/// 192.0.2.1.
pub const NEXT_HOP: &[u8] = &[0x40, 3, 4, 192, 0, 2, 1];
pub const MED: &[u8] = &[0x80, 4, 4, 0, 0, 0, 50];
/// 65001:7.
pub const COMMUNITIES: &[u8] = &[0xC0, 8, 4, 0xFD, 0xE9, 0, 7];
/// 10.1.0.0/16.
pub const NLRI: &[u8] = &[16, 10, 1];
/// Next hop 2001:db8::1, 2001:db8:1::/48.
pub const MP_REACH: &[u8] = &[
    0x80, 14, 28, 0, 2, 1, 16, 0x20, 1, 0xD, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 48, 0x20,
    1, 0xD, 0xB8, 0, 1,
];
/// 2001:db8:2::/48.
pub const MP_UNREACH: &[u8] = &[0x80, 15, 10, 0, 2, 1, 48, 0x20, 1, 0xD, 0xB8, 0, 2];

pub fn attribute(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![flags, code, u8::try_from(value.len()).expect("short value")];
    out.extend_from_slice(value);
    out
}

/// The body of an UPDATE.
pub fn body(withdrawn: &[u8], attributes: &[&[u8]], nlri: &[u8]) -> Vec<u8> {
    let attributes = attributes.concat();
    let length = |part: &[u8]| u16::try_from(part.len()).expect("short part").to_be_bytes();
    let parts = [
        &length(withdrawn)[..],
        withdrawn,
        &length(&attributes),
        &attributes,
        nlri,
    ];
    parts.concat()
}

/// A whole message with a correct header.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(HEADER_LEN + body.len()).expect("short body");
    let [high, low] = length.to_be_bytes();
    [&[0xFF; 16][..], &[high, low, kind], body].concat()
}

/// The single frame in `bytes`.
pub fn frame(bytes: &[u8]) -> Frame {
    let mut buffer = BytesMut::from(bytes);
    let frame = next_frame(&mut buffer, MAX_EXTENDED_LEN).expect("well-formed header");
    assert!(buffer.is_empty(), "one message");
    frame.expect("whole message")
}

pub fn prefix(text: &str) -> Prefix {
    text.parse().expect(text)
}

pub fn prefixes(runs: &[Nlri<'_>]) -> Vec<String> {
    runs.iter()
        .flat_map(Nlri::iter)
        .map(|prefix| prefix.to_string())
        .collect()
}
