//! What real routers sent, captured by `tests/interop/capture`: one file per sender in
//! `bgp/tests/vectors`. Each row is decoded, compared with the meaning that was read from it by a
//! reader that shares nothing with ours, and encoded again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bgp::types::Family;
use bgp::wire::frame::{MAX_EXTENDED_LEN, MessageKind};
use bgp::wire::notification::Notification;
use bgp::wire::open::Open;
use bgp::wire::refresh::RouteRefresh;
use bgp::wire::update::{
    EncodeContext, Update, UpdateContext, decode_update, encode_announce, encode_end_of_rib,
    encode_withdraw,
};
use bytes::Bytes;

use crate::meaning::{open_text, refresh_text, update_text};
use crate::message::frame;

/// A row of a vector file.
pub struct Vector {
    /// File and line, for failures.
    pub place: String,
    pub sender: String,
    pub how: String,
    pub session: String,
    pub octets: Vec<u8>,
    pub means: String,
    /// Empty if our encoder gives the same octets; else why not.
    pub differs: String,
}

impl Vector {
    pub fn context(&self) -> UpdateContext {
        let add_path = Family::ALL
            .into_iter()
            .filter(|_| self.session.contains("addpath"));
        UpdateContext {
            four_octet_as: !self.session.contains("as2"),
            ebgp: self.session.contains("ebgp"),
            add_path: add_path.collect(),
        }
    }
}

/// Every row of every file.
pub fn all() -> Vec<Vector> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let entries = std::fs::read_dir(&directory).expect("there are vectors");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("readable").path())
        .collect();
    files.sort();
    files.iter().flat_map(|file| rows(file)).collect()
}

fn rows(file: &Path) -> Vec<Vector> {
    let text = std::fs::read_to_string(file).expect("UTF-8");
    let name = file.file_name().expect("a file").to_string_lossy();
    let first = text.lines().next().expect("a head");
    let sender = first.strip_prefix("# Sent by ").expect("a sender");
    let (sender, _) = sender.split_once(". ").expect("and how");
    let mut rows = Vec::new();
    let mut line = 1;
    for block in text.split("\n\n") {
        let place = format!("{name}:{line}");
        line += block.lines().count() + 1;
        let fields: BTreeMap<&str, &str> = block
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_once(": ").expect(&place))
            .collect();
        if fields.is_empty() {
            continue;
        }
        let field = |name: &str| fields.get(name).expect(name).to_string();
        let again = field("again");
        rows.push(Vector {
            octets: octets(fields["bytes"]),
            sender: sender.to_owned(),
            how: field("how"),
            session: field("session"),
            means: field("means"),
            differs: match again.as_str() {
                "same octets" => String::new(),
                other => other
                    .strip_prefix("other octets: ")
                    .expect(&place)
                    .to_owned(),
            },
            place,
        });
    }
    rows
}

fn octets(hex: &str) -> Vec<u8> {
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    assert!(rest.is_empty(), "whole octets: {hex}");
    let octet = |pair: &[u8; 2]| {
        let text = std::str::from_utf8(pair).expect("ASCII");
        u8::from_str_radix(text, 16).expect("hexadecimal")
    };
    pairs.iter().map(octet).collect()
}

/// Our reading of a whole message.
pub fn meaning(octets: &[u8], context: &UpdateContext) -> String {
    let frame = frame(octets);
    match frame.kind {
        MessageKind::Open => open_text(&Open::decode(&frame.body).expect("acceptable OPEN")),
        MessageKind::Update => {
            let update = decode_update(&frame.body, context).expect("acceptable UPDATE");
            update_text(&update, context.add_path)
        }
        MessageKind::Notification => {
            let notification = Notification::decode(&frame.body).expect("long enough");
            let data: String = notification
                .data
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect();
            let data = if data.is_empty() { "-" } else { &data };
            format!("NOTIFICATION {notification} {data}")
        }
        MessageKind::Keepalive => "KEEPALIVE".to_owned(),
        MessageKind::RouteRefresh => {
            let refresh = RouteRefresh::decode(&frame.body).expect("4 octets");
            refresh_text(&refresh.expect("a family of ours"))
        }
    }
}

/// The message as our encoder writes what we read; several where ours cannot be one.
fn again(octets: &[u8], context: &UpdateContext) -> Vec<Bytes> {
    let frame = frame(octets);
    match frame.kind {
        MessageKind::Open => vec![Open::decode(&frame.body).expect("read before").encode()],
        MessageKind::Update => {
            let update = decode_update(&frame.body, context).expect("read before");
            update_again(&update, context)
        }
        MessageKind::Notification => {
            let notification = Notification::decode(&frame.body).expect("read before");
            vec![notification.encode()]
        }
        MessageKind::Keepalive => vec![bgp::wire::frame::keepalive()],
        MessageKind::RouteRefresh => {
            let refresh = RouteRefresh::decode(&frame.body).expect("read before");
            vec![refresh.expect("read before").encode()]
        }
    }
}

fn update_again(update: &Update<'_>, context: &UpdateContext) -> Vec<Bytes> {
    let context = EncodeContext {
        four_octet_as: context.four_octet_as,
        max_len: MAX_EXTENDED_LEN,
        add_path: context.add_path,
    };
    let mut messages = Vec::new();
    for run in &update.withdrawn {
        messages.extend(encode_withdraw(run.family(), run.paths(), &context));
    }
    for announcement in &update.announced {
        let run = &announcement.nlri;
        let attributes = &announcement.attributes;
        let encoded = encode_announce(run.family(), attributes, run.paths(), &context);
        messages.extend(encoded.expect("room"));
    }
    messages.extend(update.end_of_rib.map(encode_end_of_rib));
    messages
}

#[test]
fn captured_messages_mean_what_was_read_from_them() {
    for vector in &all() {
        let found = meaning(&vector.octets, &vector.context());
        assert_eq!(found, vector.means, "{} ({})", vector.place, vector.how);
    }
}

#[test]
fn captured_messages_are_encoded_to_the_same_octets_where_there_is_one_way() {
    for vector in &all() {
        let messages = again(&vector.octets, &vector.context());
        let is_same = messages.len() == 1 && messages[0] == vector.octets;
        let expected = vector.differs.is_empty();
        assert_eq!(
            is_same, expected,
            "{} ({}): {} became {messages:02x?}",
            vector.place, vector.differs, vector.means
        );
    }
}

#[test]
fn captured_messages_keep_their_meaning_when_encoded_our_way() {
    for vector in &all() {
        let context = vector.context();
        let messages = again(&vector.octets, &context);
        let parts: Vec<String> = messages.iter().map(|m| meaning(m, &context)).collect();
        let kept = match &parts[..] {
            // What we discarded is not there any more.
            [one] => vector.means.starts_with(one.as_str()),
            parts => parts.iter().all(|part| {
                let (_, rest) = part.split_once(' ').expect("a kind and more");
                rest.split("; ").all(|piece| vector.means.contains(piece))
            }),
        };
        assert!(kept, "{}: {} became {parts:#?}", vector.place, vector.means);
    }
}

#[test]
fn vectors_are_many_and_varied() {
    let vectors = all();
    let mut by_sender: BTreeMap<&str, usize> = BTreeMap::new();
    for vector in &vectors {
        *by_sender.entry(vector.sender.as_str()).or_default() += 1;
    }
    println!("{by_sender:#?}");
    assert!(vectors.len() >= 300, "{} rows", vectors.len());
    assert!(by_sender.len() >= 5, "{by_sender:?}");
    // Path identifiers, roles, long-lived graceful restart and IPv6 next hops of IPv4 prefixes are
    // there from several senders each.
    for (what, senders) in [
        ("@", 4),
        ("role ", 3),
        ("long-lived", 3),
        ("extended-next-hop", 2),
    ] {
        let found: BTreeSet<&str> = vectors
            .iter()
            .filter(|vector| vector.means.contains(what))
            .map(|vector| vector.sender.as_str())
            .collect();
        assert!(found.len() >= senders, "{what}: {found:?}");
    }
}
