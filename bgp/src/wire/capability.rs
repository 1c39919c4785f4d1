//! Capabilities of the OPEN message (RFC 5492).
//!
//! One capability's octets to its value and back. What follows from both sides' capabilities is
//! negotiated by the session.

use std::time::Duration;

use bytes::BufMut;

use super::frame::SAFI_UNICAST;
use super::reader::{Reader, printable};
use crate::types::{Asn, Family};

/// One capability. Those we do not know are kept raw, for display.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Capability {
    /// Code 1, RFC 4760. Any (AFI, SAFI), also those that are not ours.
    MultiProtocol {
        afi: u16,
        safi: u8,
    },
    /// Code 2, RFC 2918.
    RouteRefresh,
    /// Code 5, RFC 8950: (NLRI AFI, NLRI SAFI, next hop AFI).
    ExtendedNextHop(Vec<(u16, u16, u16)>),
    /// Code 6, RFC 8654.
    ExtendedMessage,
    /// Code 9, RFC 9234.
    Role(u8),
    /// Code 64, RFC 4724 and RFC 8538.
    GracefulRestart(GracefulRestart),
    /// Code 65, RFC 6793.
    FourOctetAs(Asn),
    /// Code 69, RFC 7911: (AFI, SAFI, 1 receive | 2 send | 3 both).
    AddPath(Vec<(u16, u8, u8)>),
    /// Code 70, RFC 7313.
    EnhancedRouteRefresh,
    /// Code 71, RFC 9494: (AFI, SAFI, flags, stale time in seconds, 24 bits).
    LongLivedGracefulRestart(Vec<(u16, u8, u8, u32)>),
    /// Code 73: host and domain name, tolerated and shown.
    Fqdn {
        host: String,
        domain: String,
    },
    Unknown {
        code: u8,
        data: Vec<u8>,
    },
}

/// The graceful restart capability (RFC 4724 §3).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GracefulRestart {
    /// R: the sender has just restarted; do not wait for its End-of-RIB before sending.
    pub restart_state: bool,
    /// N (RFC 8538): NOTIFICATION and hold expiry are covered too.
    pub notification: bool,
    /// Seconds within which the sender expects to be back: 0 to 4095.
    pub restart_time_secs: u16,
    /// Families covered, each with F: forwarding state was preserved. Foreign families are skipped.
    pub families: Vec<(Family, bool)>,
}

/// Whether several paths to one prefix may be sent or received in a family (RFC 7911 §4). By default
/// neither.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AddPathDirections {
    pub receive: bool,
    pub send: bool,
}

impl AddPathDirections {
    /// 1 receive, 2 send, 3 both; `None` for every other value.
    pub fn from_octet(octet: u8) -> Option<AddPathDirections> {
        match octet {
            1..=3 => Some(AddPathDirections {
                receive: octet & ADD_PATH_RECEIVE != 0,
                send: octet & ADD_PATH_SEND != 0,
            }),
            _ => None,
        }
    }

    /// 0, which is never sent, for neither.
    pub fn octet(self) -> u8 {
        let receive = if self.receive { ADD_PATH_RECEIVE } else { 0 };
        let send = if self.send { ADD_PATH_SEND } else { 0 };
        receive | send
    }
}

/// What the long-lived graceful restart capability says of one family (RFC 9494 §3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LongLivedFamily {
    pub family: Family,
    /// F: the sender's forwarding state was preserved.
    pub preserved: bool,
    /// How long its stale routes should be kept after the restart time: whole seconds, below 2^24.
    pub stale_time: Duration,
}

impl LongLivedFamily {
    /// The entry as it is in the capability. A longer time than fits is cut.
    pub fn entry(&self) -> (u16, u8, u8, u32) {
        let flags = if self.preserved { FORWARDING_STATE } else { 0 };
        let seconds = u32::try_from(self.stale_time.as_secs()).unwrap_or(STALE_TIME);
        let stale_time_secs = seconds.min(STALE_TIME);
        (self.family.afi(), SAFI_UNICAST, flags, stale_time_secs)
    }

    /// `None` for families that are not ours. Reserved bits are ignored.
    pub fn from_entry(entry: &(u16, u8, u8, u32)) -> Option<LongLivedFamily> {
        let (afi, safi, flags, stale_time_secs) = *entry;
        Some(LongLivedFamily {
            family: Family::from_afi_safi(afi, safi)?,
            preserved: flags & FORWARDING_STATE != 0,
            stale_time: Duration::from_secs(u64::from(stale_time_secs)),
        })
    }
}

mod code {
    pub(super) const MULTI_PROTOCOL: u8 = 1;
    pub(super) const ROUTE_REFRESH: u8 = 2;
    pub(super) const EXTENDED_NEXT_HOP: u8 = 5;
    pub(super) const EXTENDED_MESSAGE: u8 = 6;
    pub(super) const ROLE: u8 = 9;
    pub(super) const GRACEFUL_RESTART: u8 = 64;
    pub(super) const FOUR_OCTET_AS: u8 = 65;
    pub(super) const ADD_PATH: u8 = 69;
    pub(super) const ENHANCED_ROUTE_REFRESH: u8 = 70;
    pub(super) const LONG_LIVED_GRACEFUL_RESTART: u8 = 71;
    pub(super) const FQDN: u8 = 73;
}

const RESTART_STATE: u16 = 0x8000;
const RESTART_NOTIFICATION: u16 = 0x4000;
const RESTART_TIME: u16 = 0x0FFF;
const FORWARDING_STATE: u8 = 0x80;
const STALE_TIME: u32 = 0x00FF_FFFF;
const ADD_PATH_RECEIVE: u8 = 1;
const ADD_PATH_SEND: u8 = 2;

/// A capability we use, whose value does not have the form its RFC gives it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("capability {code} is malformed")]
pub struct MalformedCapability {
    pub code: u8,
}

impl Capability {
    /// Capabilities we never act on stay [`Capability::Unknown`] when malformed: a peer's display
    /// name is no reason to have no session with it.
    pub(super) fn decode(code: u8, value: &[u8]) -> Result<Capability, MalformedCapability> {
        let decoded = match code {
            code::MULTI_PROTOCOL => multi_protocol(value),
            code::ROUTE_REFRESH => value.is_empty().then_some(Capability::RouteRefresh),
            code::EXTENDED_NEXT_HOP => extended_next_hop(value),
            code::EXTENDED_MESSAGE => value.is_empty().then_some(Capability::ExtendedMessage),
            code::ROLE => match value {
                [role] => Some(Capability::Role(*role)),
                _ => None,
            },
            code::GRACEFUL_RESTART => graceful_restart(value),
            code::FOUR_OCTET_AS => match value.try_into() {
                Ok(octets) => Some(Capability::FourOctetAs(Asn(u32::from_be_bytes(octets)))),
                Err(_) => None,
            },
            code::ENHANCED_ROUTE_REFRESH => {
                value.is_empty().then_some(Capability::EnhancedRouteRefresh)
            }
            code::ADD_PATH => return Ok(add_path(value).unwrap_or_else(|| raw(code, value))),
            code::LONG_LIVED_GRACEFUL_RESTART => {
                return Ok(long_lived_graceful_restart(value).unwrap_or_else(|| raw(code, value)));
            }
            code::FQDN => return Ok(fqdn(value).unwrap_or_else(|| raw(code, value))),
            _ => return Ok(raw(code, value)),
        };
        decoded.ok_or(MalformedCapability { code })
    }

    /// Writes code, length and value. A value of more than 255 octets has no encoding (RFC 5492 §4)
    /// and is left out.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let mut value = Vec::new();
        self.encode_value(&mut value);
        if let Ok(length) = u8::try_from(value.len()) {
            out.put_u8(self.code());
            out.put_u8(length);
            out.put_slice(&value);
        }
    }

    /// The IANA capability code.
    pub fn code(&self) -> u8 {
        match self {
            Capability::MultiProtocol { .. } => code::MULTI_PROTOCOL,
            Capability::RouteRefresh => code::ROUTE_REFRESH,
            Capability::ExtendedNextHop(_) => code::EXTENDED_NEXT_HOP,
            Capability::ExtendedMessage => code::EXTENDED_MESSAGE,
            Capability::Role(_) => code::ROLE,
            Capability::GracefulRestart(_) => code::GRACEFUL_RESTART,
            Capability::FourOctetAs(_) => code::FOUR_OCTET_AS,
            Capability::AddPath(_) => code::ADD_PATH,
            Capability::EnhancedRouteRefresh => code::ENHANCED_ROUTE_REFRESH,
            Capability::LongLivedGracefulRestart(_) => code::LONG_LIVED_GRACEFUL_RESTART,
            Capability::Fqdn { .. } => code::FQDN,
            Capability::Unknown { code, .. } => *code,
        }
    }

    fn encode_value(&self, out: &mut Vec<u8>) {
        match self {
            Capability::MultiProtocol { afi, safi } => {
                out.put_u16(*afi);
                out.put_u8(0);
                out.put_u8(*safi);
            }
            Capability::RouteRefresh
            | Capability::ExtendedMessage
            | Capability::EnhancedRouteRefresh => {}
            Capability::ExtendedNextHop(entries) => {
                for (afi, safi, next_hop_afi) in entries {
                    out.put_u16(*afi);
                    out.put_u16(*safi);
                    out.put_u16(*next_hop_afi);
                }
            }
            Capability::Role(role) => out.put_u8(*role),
            Capability::GracefulRestart(restart) => restart.encode_value(out),
            Capability::FourOctetAs(asn) => out.put_u32(asn.0),
            Capability::AddPath(entries) => {
                for (afi, safi, direction) in entries {
                    out.put_u16(*afi);
                    out.put_u8(*safi);
                    out.put_u8(*direction);
                }
            }
            Capability::LongLivedGracefulRestart(entries) => {
                for (afi, safi, flags, stale_time_secs) in entries {
                    out.put_u16(*afi);
                    out.put_u8(*safi);
                    out.put_u8(*flags);
                    out.put_uint(u64::from((*stale_time_secs).min(STALE_TIME)), 3);
                }
            }
            Capability::Fqdn { host, domain } => {
                for name in [host, domain] {
                    // A name too long for its length octet makes the value too long as a whole.
                    out.put_u8(u8::try_from(name.len()).unwrap_or(u8::MAX));
                    out.put_slice(name.as_bytes());
                }
            }
            Capability::Unknown { data, .. } => out.put_slice(data),
        }
    }
}

impl From<Family> for Capability {
    fn from(family: Family) -> Capability {
        Capability::MultiProtocol {
            afi: family.afi(),
            safi: SAFI_UNICAST,
        }
    }
}

impl GracefulRestart {
    fn encode_value(&self, out: &mut Vec<u8>) {
        let mut flags_and_time = self.restart_time_secs.min(RESTART_TIME);
        if self.restart_state {
            flags_and_time |= RESTART_STATE;
        }
        if self.notification {
            flags_and_time |= RESTART_NOTIFICATION;
        }
        out.put_u16(flags_and_time);
        for (family, preserved) in &self.families {
            out.put_u16(family.afi());
            out.put_u8(SAFI_UNICAST);
            out.put_u8(if *preserved { FORWARDING_STATE } else { 0 });
        }
    }
}

fn raw(code: u8, value: &[u8]) -> Capability {
    Capability::Unknown {
        code,
        data: value.to_vec(),
    }
}

fn multi_protocol(value: &[u8]) -> Option<Capability> {
    match *value {
        [afi_high, afi_low, _reserved, safi] => Some(Capability::MultiProtocol {
            afi: u16::from_be_bytes([afi_high, afi_low]),
            safi,
        }),
        _ => None,
    }
}

fn extended_next_hop(value: &[u8]) -> Option<Capability> {
    let mut reader = Reader::new(value);
    let mut entries = Vec::new();
    while !reader.is_empty() {
        entries.push((reader.u16()?, reader.u16()?, reader.u16()?));
    }
    Some(Capability::ExtendedNextHop(entries))
}

fn graceful_restart(value: &[u8]) -> Option<Capability> {
    let mut reader = Reader::new(value);
    let flags_and_time = reader.u16()?;
    let mut families = Vec::new();
    while !reader.is_empty() {
        let (afi, safi, flags) = (reader.u16()?, reader.u8()?, reader.u8()?);
        if let Some(family) = Family::from_afi_safi(afi, safi) {
            families.push((family, flags & FORWARDING_STATE != 0));
        }
    }
    Some(Capability::GracefulRestart(GracefulRestart {
        restart_state: flags_and_time & RESTART_STATE != 0,
        notification: flags_and_time & RESTART_NOTIFICATION != 0,
        restart_time_secs: flags_and_time & RESTART_TIME,
        families,
    }))
}

fn add_path(value: &[u8]) -> Option<Capability> {
    let mut reader = Reader::new(value);
    let mut entries = Vec::new();
    while !reader.is_empty() {
        entries.push((reader.u16()?, reader.u8()?, reader.u8()?));
    }
    Some(Capability::AddPath(entries))
}

fn long_lived_graceful_restart(value: &[u8]) -> Option<Capability> {
    let mut reader = Reader::new(value);
    let mut entries = Vec::new();
    while !reader.is_empty() {
        let (afi, safi, flags) = (reader.u16()?, reader.u8()?, reader.u8()?);
        let [high, middle, low] = reader.array()?;
        entries.push((afi, safi, flags, u32::from_be_bytes([0, high, middle, low])));
    }
    Some(Capability::LongLivedGracefulRestart(entries))
}

fn fqdn(value: &[u8]) -> Option<Capability> {
    let mut reader = Reader::new(value);
    let mut name = || {
        let length = reader.u8()?;
        reader.take(usize::from(length)).map(printable)
    };
    let (host, domain) = (name()?, name()?);
    reader
        .is_empty()
        .then_some(Capability::Fqdn { host, domain })
}
