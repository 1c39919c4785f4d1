//! Netlink messages, as far as they are read and written here.

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const HEADER: usize = 16;

pub fn word(octets: &[u8], at: usize) -> Option<u16> {
    octets
        .get(at..at + 2)?
        .try_into()
        .ok()
        .map(u16::from_ne_bytes)
}

fn length(octets: &[u8]) -> Option<usize> {
    let length = u32::from_ne_bytes(octets.get(..4)?.try_into().ok()?) as usize;
    (HEADER..=octets.len()).contains(&length).then_some(length)
}

/// The messages of one datagram: kind, and what follows the header.
pub fn each(mut octets: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = length(octets)?;
        let message = octets.get(..length)?;
        octets = octets.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((word(message, 4)?, message.get(HEADER..)?))
    })
}

/// The first attribute of a kind.
pub fn attribute(mut octets: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let (length, kind) = (usize::from(word(octets, 0)?), word(octets, 2)?);
        if kind == wanted {
            return octets.get(4..length);
        }
        octets = octets.get(length.max(4).next_multiple_of(4)..)?;
    }
}

/// A request that asks for an acknowledgement, unless `flags` make it a dump.
pub fn request(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    const NLM_F_DUMP: u16 = 0x300;
    let is_dump = flags & NLM_F_DUMP == NLM_F_DUMP;
    let flags = flags | NLM_F_REQUEST | if is_dump { 0 } else { NLM_F_ACK };
    let length = u32::try_from(HEADER + body.len()).expect("short");
    let mut out = length.to_ne_bytes().to_vec();
    out.extend(kind.to_ne_bytes());
    out.extend(flags.to_ne_bytes());
    out.extend([0; 8]);
    out.extend(body);
    out
}

pub fn put(kind: u16, value: &[u8], out: &mut Vec<u8>) {
    let length = u16::try_from(4 + value.len()).expect("short");
    out.extend(length.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
}
