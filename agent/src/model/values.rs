//! Reads single values: prefixes, AS numbers, durations. An error says what was expected.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use bgp::types::{Asn, HoldTime, Prefix};
use serde_json::Value;

use super::selector::Selector;

/// `expected WHAT, found …`
pub fn expected(what: &str, found: &Value) -> String {
    let found = match found {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => format!("{value}"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("{:?}", shortened(text)),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
    };
    format!("expected {what}, found {found}")
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(64).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

pub fn text(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => {
            Err(format!("{}; put it in quotes", expected("text", value)))
        }
        Value::Null | Value::Array(_) | Value::Object(_) => Err(expected("text", value)),
    }
}

pub fn boolean(value: &Value) -> Result<bool, String> {
    value
        .as_bool()
        .ok_or_else(|| expected("true or false", value))
}

/// A whole number within `range`.
pub fn integer(value: &Value, range: RangeInclusive<u64>) -> Result<u64, String> {
    let what = format!("a whole number from {} to {}", range.start(), range.end());
    let number = value.as_u64().ok_or_else(|| expected(&what, value))?;
    if range.contains(&number) {
        Ok(number)
    } else {
        Err(expected(&what, value))
    }
}

/// A number that fits `u8`, within `range`.
pub fn small_integer(value: &Value, range: RangeInclusive<u8>) -> Result<u8, String> {
    let wide = u64::from(*range.start())..=u64::from(*range.end());
    let number = integer(value, wide)?;
    u8::try_from(number).map_err(|_| expected("a smaller number", value))
}

pub fn port(value: &Value) -> Result<u16, String> {
    let number = integer(value, 1..=65535)?;
    u16::try_from(number).map_err(|_| expected("a port", value))
}

/// One of the listed words.
pub fn choice<T: Copy>(value: &Value, options: &[(&str, T)]) -> Result<T, String> {
    let found = value
        .as_str()
        .and_then(|text| options.iter().find(|(name, _)| *name == text));
    found.map(|(_, meaning)| *meaning).ok_or_else(|| {
        let names: Vec<&str> = options.iter().map(|(name, _)| *name).collect();
        expected(&format!("one of {}", names.join(", ")), value)
    })
}

pub fn prefix(value: &Value) -> Result<Prefix, String> {
    let text = value
        .as_str()
        .ok_or_else(|| expected("ADDRESS/LENGTH", value))?;
    text.parse()
        .map_err(|error: bgp::types::BadPrefix| error.to_string())
}

pub fn address(value: &Value) -> Result<IpAddr, String> {
    let parsed = value.as_str().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| expected("an IP address", value))
}

pub fn ipv4_address(value: &Value) -> Result<Ipv4Addr, String> {
    let parsed = value.as_str().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| expected("an IPv4 address", value))
}

/// An address of a host, with or without the length of its subnet: `192.168.1.5/24`.
/// The length is checked and dropped: what is on-link is for the kernel's routes to say.
pub fn host_address(value: &Value) -> Result<IpAddr, String> {
    let wrong = || expected("ADDRESS or ADDRESS/LENGTH", value);
    let text = value.as_str().ok_or_else(wrong)?;
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    if let Some(length) = length {
        let length: u8 = length.parse().map_err(|_| wrong())?;
        Prefix::new(address, length).ok_or_else(wrong)?;
    }
    check_host(address)?;
    Ok(address)
}

pub fn host_ipv4(value: &Value) -> Result<Ipv4Addr, String> {
    match host_address(value)? {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(_) => Err(expected("an IPv4 address", value)),
    }
}

pub fn host_ipv6(value: &Value) -> Result<Ipv6Addr, String> {
    match host_address(value)? {
        IpAddr::V6(address) => Ok(address),
        IpAddr::V4(_) => Err(expected("an IPv6 address", value)),
    }
}

/// An address that a host can have on a network, so that others can reach it.
fn check_host(address: IpAddr) -> Result<(), String> {
    let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() || broadcast {
        return Err(format!(
            "{address} cannot be the address of a host on a network"
        ));
    }
    Ok(())
}

/// A remote BGP speaker: `ADDRESS`, `ADDRESS:PORT` or `[IPV6]:PORT`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PeerAddress {
    pub address: IpAddr,
    /// `None`: not said; the port the peer is known to listen on, else 179.
    pub port: Option<u16>,
}

pub fn peer_address(value: &Value) -> Result<PeerAddress, String> {
    let wrong = || expected("ADDRESS, ADDRESS:PORT or [IPV6]:PORT", value);
    let text = value.as_str().ok_or_else(wrong)?;
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    let peer = match bare.parse() {
        Ok(address) => PeerAddress {
            address,
            port: None,
        },
        Err(_) => {
            let socket: SocketAddr = text.parse().map_err(|_| wrong())?;
            if socket.port() == 0 {
                return Err("port 0 cannot be dialled".to_owned());
            }
            PeerAddress {
                address: socket.ip(),
                port: Some(socket.port()),
            }
        }
    };
    check_host(peer.address)?;
    Ok(peer)
}

/// An AS number: a number, its decimal text, or `HIGH.LOW` text (RFC 5396).
pub fn asn(value: &Value) -> Result<Asn, String> {
    let wrong = || {
        expected(
            "an AS number from 1 to 4294967295 (`HIGH.LOW` in quotes)",
            value,
        )
    };
    let number = match value {
        Value::Number(number) => number
            .as_u64()
            .and_then(|number| u32::try_from(number).ok()),
        Value::String(text) => match text.split_once('.') {
            Some((high, low)) => match (high.parse::<u16>(), low.parse::<u16>()) {
                (Ok(high), Ok(low)) => Some(u32::from(high) << 16 | u32::from(low)),
                (Err(_), _) | (_, Err(_)) => None,
            },
            None => text.parse().ok(),
        },
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    match number.ok_or_else(wrong)? {
        0 => Err("AS 0 is never used (RFC 7607); write the AS number".to_owned()),
        23456 => Err("AS 23456 is AS_TRANS (RFC 6793); write the 4-octet number".to_owned()),
        number => Ok(Asn(number)),
    }
}

/// `90s`, `5m`, `1h30m`, `500ms`: what Kubernetes writes. At most ten years.
pub fn duration(value: &Value) -> Result<Duration, String> {
    let wrong = || expected("a duration such as `90s` or `5m`", value);
    let mut rest = value.as_str().ok_or_else(wrong)?;
    let mut total = 0.0_f64;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let number_end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            _ => return Err(wrong()),
        };
        total += number.parse::<f64>().map_err(|_| wrong())? * seconds;
        rest = tail;
    }
    if total > 10.0 * 365.0 * 86400.0 {
        return Err(wrong());
    }
    // Through milliseconds, so that `0.1s` is 100 ms and not what binary floating point makes of it.
    Ok(Duration::from_millis((total * 1000.0).round() as u64))
}

/// A hold time (RFC 4271 §4.2): whole seconds, 0 or 3 to 65535.
pub fn hold_time(value: &Value) -> Result<HoldTime, String> {
    let duration = duration(value)?;
    let seconds = u16::try_from(duration.as_secs())
        .ok()
        .filter(|_| duration.subsec_nanos() == 0)
        .ok_or_else(|| expected("whole seconds, at most 65535s", value))?;
    HoldTime::new(seconds).map_err(|error| error.to_string())
}

pub fn selector(value: &Value) -> Result<Selector, String> {
    let text = text(value)?;
    Selector::parse(&text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn durations_are_read_as_kubernetes_writes_them() {
        for (text, millis) in [
            ("90s", Some(90_000)),
            ("5m", Some(300_000)),
            ("1h30m", Some(5_400_000)),
            ("1m30s", Some(90_000)),
            ("500ms", Some(500)),
            ("1.5s", Some(1_500)),
            ("0s", Some(0)),
            ("90", None),
            ("", None),
            ("s", None),
            ("1d", None),
            ("-1s", None),
            ("1..5s", None),
            ("99999999999999999999h", None),
        ] {
            let read = duration(&json!(text)).ok().map(|d| d.as_millis());
            assert_eq!(read, millis, "{text:?}");
        }
        assert!(duration(&json!(90)).is_err(), "a bare number has no unit");
    }

    #[test]
    fn as_numbers_are_read_in_all_spellings() {
        for (value, expected) in [
            (json!(64512), Some(64512)),
            (json!("64512"), Some(64512)),
            (json!("1.10"), Some(65546)),
            (json!(4294967295_u32), Some(4294967295)),
            (json!(4294967296_u64), None),
            (json!(0), None),
            (json!(23456), None),
            (json!(1.1), None),
            (json!("1.2.3"), None),
            (json!(-1), None),
        ] {
            assert_eq!(asn(&value).ok().map(|asn| asn.0), expected, "{value}");
        }
    }

    #[test]
    fn peer_addresses_are_read_in_all_spellings() {
        for (text, expected) in [
            ("192.168.1.1", Some(("192.168.1.1", None))),
            ("192.168.1.1:1179", Some(("192.168.1.1", Some(1179)))),
            ("2001:db8::1", Some(("2001:db8::1", None))),
            ("[2001:db8::1]", Some(("2001:db8::1", None))),
            ("[2001:db8::1]:1179", Some(("2001:db8::1", Some(1179)))),
            ("192.168.1.1:0", None),
            ("192.168.1.1:99999", None),
            ("192.168.1.0/24", None),
            ("0.0.0.0", None),
            ("224.0.0.1", None),
            ("router", None),
        ] {
            let read = peer_address(&json!(text)).ok();
            let expected = expected.map(|(address, port)| PeerAddress {
                address: address.parse().expect(address),
                port,
            });
            assert_eq!(read, expected, "{text}");
        }
    }
}
