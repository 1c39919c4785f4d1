//! Notifications of nftables: that somebody else changed our table, or what the host forwards.
//!
//! In: multicast messages of the kernel. Out: marks on the board, and a reason for a pass. What
//! was changed is not looked at: the next pass reads the whole table, or all chains at the hook
//! `forward`.

use std::io;
use std::sync::Arc;

use netlink_packet_core::NlasIterator;
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use nix::sys::socket::{setsockopt, sockopt};
use tracing::{debug, warn};

use super::names::TABLE;
use crate::dataplane::board::Board;
use crate::dataplane::netlink::{Part, Parts};

/// NFNLGRP_NFTABLES
const GROUP: u32 = 7;
/// NFNL_SUBSYS_NFTABLES, the upper octet of a message's type.
const SUBSYSTEM: u16 = 10;
/// NFT_MSG_NEWGEN, the end of a transaction: names no table.
const NEW_GENERATION: u16 = 15;
/// NFT_MSG_NEWCHAIN, NFT_MSG_DELCHAIN
const NEW_CHAIN: u16 = 3;
const DELETED_CHAIN: u16 = 5;
/// NFPROTO_INET
const FAMILY_INET: u8 = 1;
/// struct nfgenmsg: family, version, resource id.
const GENERIC_HEADER: usize = 4;
/// NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE, NFTA_SET_TABLE …: always the first.
const ATTRIBUTE_TABLE: u16 = 1;
/// NFTA_CHAIN_HOOK, and NFTA_HOOK_HOOKNUM in it.
const ATTRIBUTE_HOOK: u16 = 4;
const ATTRIBUTE_HOOK_NUMBER: u16 = 1;
/// NF_INET_FORWARD
const HOOK_FORWARD: u32 = 2;
/// `nlmsghdr`
const MESSAGE_HEADER: usize = 16;
/// Other programs write tables of many thousand elements.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Subscribes in the calling thread's network namespace. Within a tokio runtime.
///
/// # Errors
/// If the socket cannot be made, such as on kernels without netfilter.
pub fn subscribe() -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
    let inner = socket.socket_mut();
    inner.bind(&SocketAddr::new(0, 0))?;
    // Without the privilege the default stays, and overruns are handled anyway.
    let _ = setsockopt(&*inner, sockopt::RcvBufForce, &RECEIVE_BUFFER);
    inner.add_membership(GROUP)?;
    Ok(socket)
}

/// Reads notifications until the task is aborted.
pub async fn run(socket: TokioSocket, board: Arc<Board>) {
    let mut buffer = Vec::with_capacity(64 * 1024);
    loop {
        buffer.clear();
        match socket.recv(&mut buffer).await {
            Ok(()) => {
                let parts = || Parts::new(&buffer).map_while(Result::ok);
                if parts().any(|part| is_ours(&part) && !board.is_own_process(part.port)) {
                    board.report_tables();
                }
                if parts().any(|part| is_forward_chain(&part) && !is_ours(&part)) {
                    board.report_firewalls();
                }
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                debug!("notifications of nftables were lost");
                board.report_tables();
                board.report_firewalls();
            }
            Err(error) => {
                warn!(%error, "nftables is not watched any more, only the resync finds changes");
                return;
            }
        }
    }
}

/// Whether the message is about our table.
fn is_ours(part: &Part<'_>) -> bool {
    let is_of_nftables = kind_of(part).is_some_and(|kind| kind != NEW_GENERATION);
    let is_name = |name: &[u8]| name.strip_suffix(&[0]) == Some(TABLE.as_bytes());
    is_of_nftables
        && part.payload().first() == Some(&FAMILY_INET)
        && has(attributes(part), ATTRIBUTE_TABLE, is_name)
}

/// Whether a chain at the hook `forward` came, has another policy, or went, which is seen only where
/// the kernel tells the hook of it: Linux 6.18 does not. That, and their rules, of which there can be
/// many, are looked at by the resync.
fn is_forward_chain(part: &Part<'_>) -> bool {
    let is_of_chain = matches!(kind_of(part), Some(NEW_CHAIN | DELETED_CHAIN));
    let is_forward = |number: &[u8]| number == HOOK_FORWARD.to_be_bytes();
    is_of_chain
        && has(attributes(part), ATTRIBUTE_HOOK, |hook| {
            has(hook, ATTRIBUTE_HOOK_NUMBER, is_forward)
        })
}

/// `None`: of another subsystem.
fn kind_of(part: &Part<'_>) -> Option<u16> {
    let [subsystem, kind] = part.kind.to_be_bytes();
    (u16::from(subsystem) == SUBSYSTEM).then_some(kind.into())
}

fn attributes<'a>(part: &Part<'a>) -> &'a [u8] {
    let attributes = part.bytes.get(MESSAGE_HEADER + GENERIC_HEADER..);
    attributes.unwrap_or_default()
}

/// Whether the first attribute of the kind is one that `is_it`.
fn has(attributes: &[u8], kind: u16, is_it: impl FnOnce(&[u8]) -> bool) -> bool {
    let mut attributes = NlasIterator::new(attributes).map_while(Result::ok);
    let found = attributes.find(|attribute| attribute.kind() == kind);
    found.is_some_and(|attribute| is_it(attribute.value()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Linux 6.18 told of `add chain inet caracal x`, by nft 1.0.6 with process id 17636; the
    /// tail of its attributes is left out, and the length mended.
    const NEW_CHAIN_MESSAGE: [u8; 40] = [
        40, 0, 0, 0, 0x03, 0x0a, 0, 0, 0, 0, 0, 0, 0xe4, 0x44, 0, 0, // header
        1, 0, 0, 14, // inet
        12, 0, 1, 0, b'c', b'a', b'r', b'a', b'c', b'a', b'l', 0, // table
        6, 0, 3, 0, b'x', 0, 0, 0, // name
    ];

    fn is_ours_in(bytes: &[u8]) -> bool {
        Parts::new(bytes)
            .map_while(Result::ok)
            .any(|part| is_ours(&part))
    }

    #[test]
    fn only_messages_about_our_table_are_ours() {
        assert!(is_ours_in(&NEW_CHAIN_MESSAGE));
        for (name, at, octet) in [
            ("another family", 16, 2),
            ("another table", 24, b'C'),
            ("a longer name", 31, b'x'),
            ("another subsystem", 5, 1),
            ("the end of a transaction", 4, 15),
        ] {
            let mut bytes = NEW_CHAIN_MESSAGE;
            bytes[at] = octet;
            assert!(!is_ours_in(&bytes), "{name}");
        }
    }

    #[test]
    fn shortened_and_changed_messages_end_in_an_answer() {
        for length in 0..NEW_CHAIN_MESSAGE.len() {
            let _ = is_ours_in(&NEW_CHAIN_MESSAGE[..length]);
            let mut mended = NEW_CHAIN_MESSAGE[..length].to_vec();
            if let Some(first) = mended.first_mut() {
                *first = u8::try_from(length).expect("short");
            }
            let _ = is_ours_in(&mended);
        }
        for at in 0..NEW_CHAIN_MESSAGE.len() {
            for bit in 0..8 {
                let mut bytes = NEW_CHAIN_MESSAGE;
                bytes[at] ^= 1 << bit;
                let _ = is_ours_in(&bytes);
            }
        }
    }
}
