//! ROUTE-REFRESH (RFC 2918) and its enhanced form (RFC 7313).
//!
//! Outbound route filters (RFC 5291) are not offered, so no message carries them.

use bytes::{BufMut, Bytes};

use super::error::ProtocolError;
use super::frame::{self, MessageKind, SAFI_UNICAST};
use super::notification::{Notification, code, refresh};
use crate::types::Family;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RefreshKind {
    /// Subtype 0: please send again.
    Request,
    /// Subtype 1, BoRR.
    Begin,
    /// Subtype 2, EoRR.
    End,
}

/// A ROUTE-REFRESH for one of our families.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RouteRefresh {
    pub family: Family,
    pub kind: RefreshKind,
}

impl RouteRefresh {
    /// `None` for what must be ignored: a family that is not ours (RFC 2918 §4) or an unknown
    /// subtype (RFC 7313 §5).
    ///
    /// # Errors
    /// 7/1 with the whole message as data if the body is not of 4 octets.
    pub fn decode(body: &[u8]) -> Result<Option<RouteRefresh>, ProtocolError> {
        let [afi_high, afi_low, subtype, safi] = *body else {
            return Err(ProtocolError::new(
                Notification::with_data(
                    code::ROUTE_REFRESH,
                    refresh::INVALID_LENGTH,
                    whole_message(body),
                ),
                format!("a ROUTE-REFRESH has a body of {} octets, not 4", body.len()),
            ));
        };
        let kind = match subtype {
            0 => RefreshKind::Request,
            1 => RefreshKind::Begin,
            2 => RefreshKind::End,
            _ => return Ok(None),
        };
        let afi = u16::from_be_bytes([afi_high, afi_low]);
        Ok(Family::from_afi_safi(afi, safi).map(|family| RouteRefresh { family, kind }))
    }

    /// The whole message.
    pub fn encode(&self) -> Bytes {
        let mut message = frame::begin(MessageKind::RouteRefresh, 4);
        message.put_u16(self.family.afi());
        message.put_u8(match self.kind {
            RefreshKind::Request => 0,
            RefreshKind::Begin => 1,
            RefreshKind::End => 2,
        });
        message.put_u8(SAFI_UNICAST);
        frame::finish(message)
    }
}

fn whole_message(body: &[u8]) -> Vec<u8> {
    let mut message = frame::begin(MessageKind::RouteRefresh, body.len());
    message.put_slice(body);
    frame::finish(message).to_vec()
}
