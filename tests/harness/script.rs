//! A peer whose every route the test writes, for what our speaker cannot be told to originate.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};

use agent::lab::Namespace;
use anyhow::{Context, Result, ensure};
use bgp::types::{Family, FamilySet, HoldTime, Prefix, RouterId};
use bgp::wire::attribute::PathAttributes;
use bgp::wire::capability::Capability;
use bgp::wire::frame::{self, MAX_EXTENDED_LEN, MessageKind};
use bgp::wire::open::Open;
use bgp::wire::update::{self, EncodeContext};
use bytes::BytesMut;
use socket2::{Domain, Socket, Type};

use crate::product::eventually;
use crate::site::TIMEOUT;
use crate::speaker::ASN;

/// A session that stays up until this is dropped. What the other side says is read and forgotten.
pub struct Script {
    stream: TcpStream,
}

impl Script {
    /// Dials 192.0.2.`to` from 192.0.2.`from` until it takes the session; IPv4 and extended messages
    /// offered, without a hold time.
    pub fn dial(namespace: &Namespace, from: u8, to: u8) -> Result<Script> {
        let [from, to] = [from, to].map(|last| Ipv4Addr::new(192, 0, 2, last));
        let mut made = None;
        eventually(&format!("the session from {from} to {to}"), TIMEOUT, || {
            made = Some(Script::attempt(namespace, from, to)?);
            Ok(None)
        })?;
        made.context("no session")
    }

    fn attempt(namespace: &Namespace, from: Ipv4Addr, to: Ipv4Addr) -> Result<Script> {
        let stream = namespace.enter(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.bind(&SocketAddrV4::new(from, 0).into())?;
            socket.connect_timeout(&SocketAddrV4::new(to, 179).into(), TIMEOUT)?;
            Ok(TcpStream::from(socket))
        })?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let mut script = Script { stream };
        let open = Open {
            asn: ASN,
            hold_time: HoldTime::new(0)?,
            router_id: RouterId(from),
            capabilities: vec![
                Family::Ipv4.into(),
                Capability::FourOctetAs(ASN),
                Capability::ExtendedMessage,
            ],
        };
        script.stream.write_all(&open.encode())?;
        script.stream.write_all(&frame::keepalive())?;
        script.hear_out()?;
        Ok(script)
    }

    /// Waits for OPEN and KEEPALIVE, and leaves a thread that reads the rest.
    fn hear_out(&mut self) -> Result<()> {
        let mut stream = self.stream.try_clone()?;
        let mut buffer = BytesMut::new();
        let mut octets = [0; 4096];
        for wanted in [MessageKind::Open, MessageKind::Keepalive] {
            let heard = loop {
                if let Some(frame) = frame::next_frame(&mut buffer, MAX_EXTENDED_LEN)? {
                    break frame;
                }
                let length = stream.read(&mut octets).context("failed to read")?;
                ensure!(length > 0, "closed before {wanted:?}");
                buffer.extend_from_slice(octets.get(..length).unwrap_or_default());
            };
            ensure!(heard.kind == wanted, "{heard:?} instead of {wanted:?}");
        }
        stream.set_read_timeout(None)?;
        std::thread::spawn(move || while matches!(stream.read(&mut octets), Ok(1..)) {});
        Ok(())
    }

    /// Announces `prefix` in one message, however long.
    pub fn announce(&mut self, prefix: &str, attributes: &PathAttributes) -> Result<()> {
        let prefix: Prefix = prefix.parse()?;
        let context = EncodeContext {
            four_octet_as: true,
            add_path: FamilySet::EMPTY,
            max_len: MAX_EXTENDED_LEN,
        };
        let family = Family::Ipv4;
        let prefixes = std::iter::once(prefix);
        for message in update::encode_announce(family, attributes, prefixes, &context)? {
            self.stream.write_all(&message)?;
        }
        Ok(())
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // Ends the reading thread as well; a session that the peer ended is closed already.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}
