//! Links as they would be after requests that were held back.

use std::net::IpAddr;

use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};

use super::{LinkState, Links, decode, decode_address};
use crate::dataplane::netlink::Request;

/// Of links that are not there: no kernel counts so far.
const FIRST_INDEX: u32 = 1 << 30;

impl Links {
    /// Requests about other things than links and their addresses are passed over.
    pub fn replay(&mut self, requests: &[Request]) {
        for (index, request) in (FIRST_INDEX..).zip(requests) {
            match request.message.clone() {
                RouteNetlinkMessage::NewLink(message) if request.flags & NLM_F_CREATE != 0 => {
                    if let Some((name, link)) = decode(message) {
                        self.insert(name, LinkState { index, ..link });
                    }
                }
                RouteNetlinkMessage::NewLink(message) => self.replay_parameters(message),
                RouteNetlinkMessage::SetLink(message) => self.replay_change(message),
                RouteNetlinkMessage::DelLink(message) => {
                    if let Some((name, _)) = decode(message) {
                        self.remove(&name);
                    }
                }
                RouteNetlinkMessage::NewAddress(message) => {
                    if let Some((index, address, length)) = decode_address(message) {
                        self.insert_address(index, address, length);
                    }
                }
                RouteNetlinkMessage::DelAddress(message) => {
                    if let Some((index, address, _)) = decode_address(message) {
                        self.remove_address(index, address);
                    }
                }
                _ => {}
            }
        }
    }

    fn replay_parameters(&mut self, message: LinkMessage) {
        let Some((name, changed)) = decode(message) else {
            return;
        };
        if let Some(link) = self.by_name.get_mut(&name) {
            link.mac = changed.mac.or(link.mac);
            link.tunnel = changed.tunnel.or(link.tunnel);
            // The port cannot be named in a change.
            let port = link.vxlan.map(|ends| ends.port);
            link.vxlan = changed.vxlan.or(link.vxlan);
            if let (Some(ends), Some(port)) = (&mut link.vxlan, port) {
                ends.port = port;
            }
        }
    }

    fn replay_change(&mut self, message: LinkMessage) {
        let header = message.header.clone();
        let name = self.names.get(&header.index).cloned();
        let Some(link) = name.and_then(|name| self.by_name.get_mut(&name)) else {
            return;
        };
        let changes = |flag| header.change_mask.contains(flag);
        if changes(LinkFlags::Up) {
            link.is_up = header.flags.contains(LinkFlags::Up);
            link.is_running = link.is_up;
        }
        if changes(LinkFlags::Noarp) {
            link.is_noarp = header.flags.contains(LinkFlags::Noarp);
        }
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::TxQueueLen(length) => link.queue_length = length,
                LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok(),
                _ => {}
            }
        }
    }

    fn remove(&mut self, name: &str) {
        if let Some(link) = self.by_name.remove(name) {
            self.names.remove(&link.index);
            for (address, _) in link.addresses {
                self.addresses.remove(&address);
            }
        }
    }

    fn remove_address(&mut self, index: u32, address: IpAddr) {
        let name = self.names.get(&index).cloned();
        if let Some(link) = name.and_then(|name| self.by_name.get_mut(&name)) {
            link.addresses.retain(|(held, _)| *held != address);
            self.addresses.remove(&address);
        }
    }
}
