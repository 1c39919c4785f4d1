//! Netlink attributes, for the messages that are written by hand.

use std::net::IpAddr;

pub fn put_address(kind: u16, address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(address) => put_octets(kind, &address.octets(), out),
        IpAddr::V6(address) => put_octets(kind, &address.octets(), out),
    }
}

pub fn put_octets(kind: u16, octets: &[u8], out: &mut Vec<u8>) {
    put_nested(out, Some(kind), |out| out.extend_from_slice(octets));
}

/// Puts the length in front of what `put` writes, and the attribute's kind if it has one.
pub fn put_nested(out: &mut Vec<u8>, kind: Option<u16>, put: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([0; 2]);
    if let Some(kind) = kind {
        out.extend(kind.to_ne_bytes());
    }
    put(out);
    // A route has no more hops than a BGP speaker keeps paths, so this fits.
    let length = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
    out[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    out.resize(out.len().next_multiple_of(4), 0);
}
