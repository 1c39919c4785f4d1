//! BGP messages as the load generator says and reads them. Not the product's code: a fault of the
//! product must not hide in the tool that measures it.

use std::net::Ipv4Addr;

use super::plan::Nlri;

pub const HEADER: usize = 19;
const MOST: usize = 4096;

const OPEN: u8 = 1;
const UPDATE: u8 = 2;
pub const KEEPALIVE: u8 = 4;

/// What routes say that belong together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attributes {
    /// The sender: NEXT_HOP, and ORIGINATOR_ID once reflected.
    pub next_hop: Ipv4Addr,
    /// MED, and also in AS_PATH and, as far as it holds that, in a community.
    pub set: u32,
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(HEADER + body.len()).expect("messages are short");
    let mut message = vec![0xff; 16];
    message.extend(length.to_be_bytes());
    message.push(kind);
    message.extend(body);
    message
}

/// OPEN with the longest hold time there is: IPv4, four-octet AS, route refresh.
pub fn open(router_id: Ipv4Addr) -> Vec<u8> {
    let capabilities: &[&[u8]] = &[&[1, 4, 0, 1, 0, 1], &[2, 0], &[65, 4, 0, 0, 0xfc, 0]];
    let capabilities = capabilities.concat();
    let length = u8::try_from(capabilities.len()).expect("short");
    let mut body = vec![4, 0xfc, 0, 0xff, 0xff];
    body.extend(router_id.octets());
    body.extend([length + 2, 2, length]);
    body.extend(capabilities);
    frame(OPEN, &body)
}

pub fn keepalive() -> Vec<u8> {
    frame(KEEPALIVE, &[])
}

fn encode_attributes(attributes: &Attributes) -> Vec<u8> {
    let set = attributes.set.to_be_bytes();
    let mut octets = vec![0x40, 1, 1, 0];
    // Four AS numbers, the last of which tells sets apart.
    octets.extend([0x40, 2, 18, 2, 4]);
    for asn in [65001, 65002, 65003, 100_000 + attributes.set] {
        octets.extend(asn.to_be_bytes());
    }
    octets.extend([0x40, 3, 4]);
    octets.extend(attributes.next_hop.octets());
    octets.extend([0x80, 4, 4]);
    octets.extend(set);
    octets.extend([0x40, 5, 4, 0, 0, 0, 100]);
    octets.extend([0xc0, 8, 8, 0xfc, 0, 0, 0]);
    octets.extend(community(attributes.set));
    octets
}

/// 64512 and what of the set's number it holds.
fn community(set: u32) -> [u8; 4] {
    let [_, _, high, low] = (set + 1).to_be_bytes();
    [0xfc, 0, high, low]
}

/// Announces prefixes of one length and attribute set in as few messages as hold them.
pub fn announce(attributes: &Attributes, prefixes: &[Nlri], out: &mut Vec<u8>) {
    let attributes = encode_attributes(attributes);
    let most = MOST - HEADER - 4 - attributes.len();
    for prefixes in prefixes.chunks(most / octets_of(prefixes)) {
        let mut body = vec![0, 0];
        body.extend(
            u16::try_from(attributes.len())
                .expect("short")
                .to_be_bytes(),
        );
        body.extend(&attributes);
        prefixes.iter().for_each(|prefix| nlri(prefix, &mut body));
        out.extend(frame(UPDATE, &body));
    }
}

pub fn withdraw(prefixes: &[Nlri], out: &mut Vec<u8>) {
    let octets = octets_of(prefixes);
    for prefixes in prefixes.chunks((MOST - HEADER - 4) / octets) {
        let length = u16::try_from(prefixes.len() * octets).expect("short");
        let mut body = length.to_be_bytes().to_vec();
        prefixes.iter().for_each(|prefix| nlri(prefix, &mut body));
        body.extend([0, 0]);
        out.extend(frame(UPDATE, &body));
    }
}

fn nlri(prefix: &Nlri, out: &mut Vec<u8>) {
    out.push(prefix.length);
    out.extend(prefix.said());
}

/// Of each, the length included.
fn octets_of(prefixes: &[Nlri]) -> usize {
    prefixes.first().map_or(1, |first| 1 + first.said().len())
}

/// One message as it was received.
pub enum Heard<'a> {
    Open,
    Update {
        withdrawn: &'a [u8],
        attributes: &'a [u8],
        announced: &'a [u8],
    },
    Other(u8, &'a [u8]),
}

/// The message at the front of `octets` and its length; `None` if it is not there whole.
pub fn next(octets: &[u8]) -> Result<Option<(usize, Heard<'_>)>, String> {
    let Some(header) = octets.get(..HEADER) else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
    if !(HEADER..=65535).contains(&length) {
        return Err(format!("a message of {length} octets"));
    }
    let Some(body) = octets.get(HEADER..length) else {
        return Ok(None);
    };
    let heard = match header[18] {
        OPEN => Heard::Open,
        UPDATE => {
            let (withdrawn, rest) = field(body).ok_or("UPDATE cut short")?;
            let (attributes, announced) = field(rest).ok_or("UPDATE cut short")?;
            Heard::Update {
                withdrawn,
                attributes,
                announced,
            }
        }
        other => Heard::Other(other, body),
    };
    Ok(Some((length, heard)))
}

/// A field of two octets length, and what follows it.
fn field(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = octets.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

/// The attributes of a reflected route, each of which has to be there and agree with the others.
/// `is_relayed`: nobody reflected it, so the attributes of reflection are not there.
pub fn read_attributes(octets: &[u8], is_relayed: bool) -> Result<Attributes, String> {
    let mut next_hop = None;
    let mut med = None;
    let mut local_pref = None;
    let mut last_as = None;
    let mut communities: &[u8] = &[];
    let mut originator = None;
    let mut cluster = None;
    let mut rest = octets;
    while let [flags, kind, ..] = rest {
        let (length, start) = if flags & 0x10 == 0 {
            (rest.get(2).map(|octet| usize::from(*octet)), 3)
        } else {
            let long = rest
                .get(2..4)
                .map(|o| usize::from(u16::from_be_bytes([o[0], o[1]])));
            (long, 4)
        };
        let end = start + length.ok_or("attributes cut short")?;
        let value = rest.get(start..end).ok_or("attributes cut short")?;
        rest = &rest[end..];
        let number = value.last_chunk().map(|last| u32::from_be_bytes(*last));
        match kind {
            2 => last_as = number,
            3 => next_hop = number,
            4 => med = number,
            5 => local_pref = number,
            8 => communities = value,
            9 => originator = number,
            10 => cluster = number,
            _ => {}
        }
    }
    let (Some(hop), Some(set)) = (next_hop, med) else {
        return Err("no NEXT_HOP or no MED".to_owned());
    };
    let has_all = local_pref == Some(100)
        && last_as == Some(100_000 + set)
        && communities.chunks(4).any(|one| one == community(set));
    let is_reflected = originator == Some(hop) && cluster.is_some();
    if has_all && (is_reflected || is_relayed) {
        Ok(Attributes {
            next_hop: hop.into(),
            set,
        })
    } else {
        Err(format!(
            "NEXT_HOP {hop:08x}, MED {set}, LOCAL_PREF {local_pref:?}, last AS {last_as:?}, communities \
             {communities:x?}, ORIGINATOR_ID {originator:?}, CLUSTER_LIST {cluster:?}"
        ))
    }
}
