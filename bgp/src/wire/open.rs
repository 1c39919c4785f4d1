//! OPEN (RFC 4271 §4.2, RFC 9072 for long optional parameters).
//!
//! Decoding makes the checks of RFC 4271 §6.2 that need no configuration; whether this is the AS
//! and the identifier we expect is for the session to say.

use bytes::{BufMut, Bytes};

use super::capability::{AddPathDirections, Capability, GracefulRestart, LongLivedFamily};
use super::error::ProtocolError;
use super::frame::{self, HEADER_LEN, MAX_LEN, MessageKind, SAFI_UNICAST};
use super::notification::{Notification, code, open};
use super::reader::Reader;
use crate::types::{Asn, Family, HoldTime, RouterId};

const VERSION: u8 = 4;
const CAPABILITIES: u8 = 2;
/// As a parameter type: the lengths that follow have two octets (RFC 9072 §2).
const EXTENDED_LENGTH: u8 = 255;

/// An OPEN message whose fields passed the checks of RFC 4271 §6.2 that need no configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Open {
    /// The 4-octet capability's number where present, else My Autonomous System.
    pub asn: Asn,
    pub hold_time: HoldTime,
    pub router_id: RouterId,
    /// In the order received, duplicates included.
    pub capabilities: Vec<Capability>,
}

impl Open {
    /// # Errors
    /// 1/2 if the fixed part is not there, else 2/x as RFC 4271 §6.2 says; data where it says so.
    pub fn decode(body: &[u8]) -> Result<Open, ProtocolError> {
        let mut reader = Reader::new(body);
        let fixed = fixed_part(&mut reader);
        let fixed = fixed.ok_or_else(|| frame::bad_length(HEADER_LEN + body.len()))?;
        if fixed.version != VERSION {
            // RFC 4271 §6.2: the data is the highest version we support, in two octets.
            return Err(ProtocolError::new(
                Notification::with_data(
                    code::OPEN,
                    open::UNSUPPORTED_VERSION,
                    u16::from(VERSION).to_be_bytes(),
                ),
                format!("BGP version {} is not supported", fixed.version),
            ));
        }
        if fixed.asn == 0 {
            // RFC 7607 §2.
            return Err(error(open::BAD_PEER_AS, "the peer's AS is 0"));
        }
        if fixed.router_id.0.is_unspecified() {
            return Err(error(open::BAD_BGP_IDENTIFIER, "the BGP Identifier is 0"));
        }
        let hold_time = HoldTime::new(fixed.hold_time_secs)
            .map_err(|cause| error(open::UNACCEPTABLE_HOLD_TIME, cause.to_string()))?;
        let capabilities = parameters(fixed.parameters_len, reader)?;

        let mut decoded = Open {
            asn: Asn(u32::from(fixed.asn)),
            hold_time,
            router_id: fixed.router_id,
            capabilities,
        };
        if let Some(asn) = decoded.four_octet_as() {
            if asn == Asn(0) {
                return Err(error(
                    open::BAD_PEER_AS,
                    "the peer's AS in the 4-octet AS capability is 0",
                ));
            }
            if decoded.asn != Asn::TRANS && decoded.asn != asn {
                return Err(error(
                    open::BAD_PEER_AS,
                    format!("the peer calls itself both AS {} and AS {asn}", decoded.asn),
                ));
            }
            decoded.asn = asn;
        }
        Ok(decoded)
    }

    /// The whole message. Optional parameters of more than 255 octets use RFC 9072; capabilities
    /// for which 4096 octets leave no room are left out.
    pub fn encode(&self) -> Bytes {
        let capabilities = self.encode_capabilities();
        let mut message = frame::begin(MessageKind::Open, 16 + capabilities.len());
        message.put_u8(VERSION);
        message.put_u16(self.asn.to_two_octets());
        message.put_u16(self.hold_time.seconds());
        message.put_u32(u32::from(self.router_id.0));
        let length = capabilities.len();
        match (u8::try_from(length + 2), u8::try_from(length)) {
            (Ok(2), _) => message.put_u8(0),
            (Ok(parameters_len), Ok(parameter_len)) => {
                message.put_u8(parameters_len);
                message.put_u8(CAPABILITIES);
                message.put_u8(parameter_len);
            }
            _ => {
                let parameter_len = u16::try_from(length).unwrap_or(u16::MAX);
                message.put_u8(EXTENDED_LENGTH);
                message.put_u8(EXTENDED_LENGTH);
                message.put_u16(parameter_len.saturating_add(3));
                message.put_u8(CAPABILITIES);
                message.put_u16(parameter_len);
            }
        }
        message.put_slice(&capabilities);
        frame::finish(message)
    }

    /// Our families among those announced, in the order announced. A peer without any
    /// multiprotocol capability carries IPv4 unicast (RFC 4760 §8).
    pub fn families(&self) -> Vec<Family> {
        let mut families = Vec::new();
        let mut announces_any = false;
        for capability in &self.capabilities {
            let Capability::MultiProtocol { afi, safi } = capability else {
                continue;
            };
            announces_any = true;
            if let Some(family) = Family::from_afi_safi(*afi, *safi)
                && !families.contains(&family)
            {
                families.push(family);
            }
        }
        if !announces_any {
            families.push(Family::Ipv4);
        }
        families
    }

    /// The number in the 4-octet AS capability, if the peer speaks RFC 6793.
    pub fn four_octet_as(&self) -> Option<Asn> {
        self.capabilities.iter().find_map(|c| match c {
            Capability::FourOctetAs(asn) => Some(*asn),
            _ => None,
        })
    }

    /// The last instance counts (RFC 4724 §3).
    pub fn graceful_restart(&self) -> Option<&GracefulRestart> {
        self.capabilities.iter().rev().find_map(|c| match c {
            Capability::GracefulRestart(restart) => Some(restart),
            _ => None,
        })
    }

    pub fn route_refresh(&self) -> bool {
        self.capabilities.contains(&Capability::RouteRefresh)
    }

    pub fn enhanced_route_refresh(&self) -> bool {
        self.capabilities
            .contains(&Capability::EnhancedRouteRefresh)
    }

    pub fn extended_message(&self) -> bool {
        self.capabilities.contains(&Capability::ExtendedMessage)
    }

    /// Whether IPv4 routes may come with an IPv6 next hop (RFC 8950 §4).
    pub fn ipv4_over_ipv6_next_hop(&self) -> bool {
        let wanted = (
            Family::Ipv4.afi(),
            u16::from(SAFI_UNICAST),
            Family::Ipv6.afi(),
        );
        self.capabilities.iter().any(|c| match c {
            Capability::ExtendedNextHop(entries) => entries.contains(&wanted),
            _ => false,
        })
    }

    /// What the peer can do with several paths in this family.
    ///
    /// RFC 7911 §4 wants one instance of the capability. Where there are more, or a family is
    /// listed twice, the last entry of the family counts, as with FRR and BIRD: both ends must
    /// come to the same, or they misread each other's prefixes. An entry whose value is not
    /// defined is ignored (ibid.).
    pub fn add_path(&self, family: Family) -> AddPathDirections {
        let entries = self.capabilities.iter().flat_map(|c| match c {
            Capability::AddPath(entries) => entries.as_slice(),
            _ => &[],
        });
        entries
            .filter(|(afi, safi, _)| Family::from_afi_safi(*afi, *safi) == Some(family))
            .filter_map(|(_, _, value)| AddPathDirections::from_octet(*value))
            .next_back()
            .unwrap_or_default()
    }

    /// Our families in the long-lived graceful restart capability. The last instance counts, and
    /// the last entry of a family. `None` without one, or where the graceful restart capability
    /// does not go with it (RFC 9494 §4.5); empty if the peer asks for nothing but would do it
    /// for others.
    pub fn long_lived(&self) -> Option<Vec<LongLivedFamily>> {
        self.graceful_restart()?;
        let entries = self.capabilities.iter().rev().find_map(|c| match c {
            Capability::LongLivedGracefulRestart(entries) => Some(entries),
            _ => None,
        })?;
        let mut families: Vec<LongLivedFamily> = Vec::new();
        for entry in entries.iter().filter_map(LongLivedFamily::from_entry) {
            families.retain(|earlier| earlier.family != entry.family);
            families.push(entry);
        }
        Some(families)
    }

    /// Every role the peer announces, as it is in the capability (RFC 9234 §4.1).
    pub fn roles(&self) -> impl Iterator<Item = u8> {
        self.capabilities.iter().filter_map(|c| match c {
            Capability::Role(role) => Some(*role),
            _ => None,
        })
    }

    fn encode_capabilities(&self) -> Vec<u8> {
        let room = MAX_LEN - HEADER_LEN - 16;
        let mut encoded = Vec::new();
        for capability in &self.capabilities {
            let before = encoded.len();
            capability.encode(&mut encoded);
            if encoded.len() > room {
                encoded.truncate(before);
            }
        }
        encoded
    }
}

struct FixedPart {
    version: u8,
    asn: u16,
    hold_time_secs: u16,
    router_id: RouterId,
    parameters_len: u8,
}

fn fixed_part(reader: &mut Reader<'_>) -> Option<FixedPart> {
    Some(FixedPart {
        version: reader.u8()?,
        asn: reader.u16()?,
        hold_time_secs: reader.u16()?,
        router_id: RouterId(reader.array::<4>()?.into()),
        parameters_len: reader.u8()?,
    })
}

/// Reads the optional parameters, which must fill the message exactly.
fn parameters(length: u8, reader: Reader<'_>) -> Result<Vec<Capability>, ProtocolError> {
    let cut = || {
        error(
            open::UNSPECIFIC,
            "the optional parameters do not fill the message exactly",
        )
    };
    let mut reader = reader;
    // RFC 9072 §2: the extended form is told by the first parameter's type alone; the one-octet
    // length is then no length, and only not 0.
    let extended = length != 0 && reader.rest().first() == Some(&EXTENDED_LENGTH);
    let length = if extended {
        reader.u8();
        reader.u16().ok_or_else(cut)?
    } else {
        u16::from(length)
    };
    if reader.rest().len() != usize::from(length) {
        return Err(cut());
    }
    let mut found = Vec::new();
    while let Some(kind) = reader.u8() {
        let length = if extended {
            reader.u16()
        } else {
            reader.u8().map(u16::from)
        };
        let value = length.and_then(|length| reader.sub(usize::from(length)));
        let value = value.ok_or_else(cut)?;
        if kind != CAPABILITIES {
            return Err(error(
                open::UNSUPPORTED_OPTIONAL_PARAMETER,
                format!("optional parameter {kind} is not supported"),
            ));
        }
        capabilities(value, &mut found)?;
    }
    Ok(found)
}

fn capabilities(mut reader: Reader<'_>, found: &mut Vec<Capability>) -> Result<(), ProtocolError> {
    while let Some(code) = reader.u8() {
        let length = reader.u8();
        let value = length.and_then(|length| reader.take(usize::from(length)));
        let value = value
            .ok_or_else(|| error(open::UNSPECIFIC, format!("capability {code} is cut short")))?;
        let capability = Capability::decode(code, value)
            .map_err(|cause| error(open::UNSPECIFIC, cause.to_string()))?;
        found.push(capability);
    }
    Ok(())
}

fn error(subcode: u8, reason: impl Into<String>) -> ProtocolError {
    ProtocolError::new(Notification::new(code::OPEN, subcode), reason)
}
