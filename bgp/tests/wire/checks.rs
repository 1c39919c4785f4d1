//! What holds of any message, whoever made it. Shared with the targets of `bgp/fuzz`.

use bgp::types::PathPrefix;
use bgp::wire::attribute::PathAttributes;
use bgp::wire::capability::Capability;
use bgp::wire::frame::{Frame, MAX_EXTENDED_LEN, MAX_LEN, MessageKind, next_frame};
use bgp::wire::nlri::Nlri;
use bgp::wire::notification::Notification;
use bgp::wire::open::Open;
use bgp::wire::refresh::RouteRefresh;
use bgp::wire::update::{
    EncodeContext, UpdateContext, decode_update, encode_announce, encode_withdraw,
};
use bytes::{Bytes, BytesMut};

/// The first message, if it is whole and its header right.
pub fn read(octets: &[u8]) -> Option<Frame> {
    next_frame(&mut BytesMut::from(octets), MAX_EXTENDED_LEN)
        .ok()
        .flatten()
}

/// Decodes a body of any kind; whether it was accepted.
pub fn decode(frame: &Frame, context: &UpdateContext) -> bool {
    match frame.kind {
        MessageKind::Open => Open::decode(&frame.body).is_ok(),
        MessageKind::Update => decode_update(&frame.body, context).is_ok(),
        MessageKind::Notification => Notification::decode(&frame.body).is_ok(),
        MessageKind::Keepalive => true,
        MessageKind::RouteRefresh => RouteRefresh::decode(&frame.body).is_ok(),
    }
}

/// What we accept we may have to pass on: it can be encoded and is read by us as the same again.
///
/// # Panics
/// If it cannot, or is not.
pub fn pass_on(frame: &Frame, context: &UpdateContext) {
    match frame.kind {
        MessageKind::Update => pass_on_update(&frame.body, context),
        MessageKind::Open => {
            if let Ok(open) = Open::decode(&frame.body)
                && !has_replaced_letters(&open)
            {
                let again = again(&open.encode());
                assert_eq!(Open::decode(&again.body), Ok(open));
            }
        }
        MessageKind::Notification => {
            if let Ok(notification) = Notification::decode(&frame.body) {
                assert!(!notification.describe().is_empty());
                let again = again(&notification.encode());
                let again = Notification::decode(&again.body).expect("our own");
                assert_eq!(
                    (again.code, again.subcode),
                    (notification.code, notification.subcode)
                );
                assert!(notification.data.starts_with(&again.data));
            }
        }
        MessageKind::RouteRefresh => {
            if let Ok(Some(refresh)) = RouteRefresh::decode(&frame.body) {
                let again = again(&refresh.encode());
                assert_eq!(RouteRefresh::decode(&again.body), Ok(Some(refresh)));
            }
        }
        MessageKind::Keepalive => {}
    }
}

/// Whether a name had octets that cannot be shown; what stands for them is longer.
fn has_replaced_letters(open: &Open) -> bool {
    open.capabilities.iter().any(|capability| match capability {
        Capability::Fqdn { host, domain } => [host, domain]
            .iter()
            .any(|name| name.contains(char::REPLACEMENT_CHARACTER)),
        _ => false,
    })
}

fn again(message: &[u8]) -> Frame {
    assert!(message.len() <= MAX_LEN);
    read(message).expect("our own header")
}

fn pass_on_update(body: &[u8], context: &UpdateContext) {
    let Ok(update) = decode_update(body, context) else {
        return;
    };
    for max_len in [MAX_LEN, MAX_EXTENDED_LEN] {
        let out = EncodeContext {
            four_octet_as: context.four_octet_as,
            max_len,
            add_path: context.add_path,
        };
        for run in &update.withdrawn {
            let messages = encode_withdraw(run.family(), run.paths(), &out);
            let found = withdrawn_again(&messages, context, max_len);
            assert_eq!(found, paths(&[*run]));
        }
        for announcement in &update.announced {
            let run = &announcement.nlri;
            let sent = &announcement.attributes;
            match encode_announce(run.family(), sent, run.paths(), &out) {
                Ok(messages) => {
                    let found = announced_again(&messages, context, max_len, sent);
                    assert_eq!(found, paths(&[*run]));
                }
                // A message of 65535 octets may hold more than one of 4096 can.
                Err(error) => assert!(body.len() > MAX_LEN || max_len == MAX_LEN, "{error}"),
            }
        }
    }
}

fn withdrawn_again(messages: &[Bytes], context: &UpdateContext, max_len: usize) -> Vec<PathPrefix> {
    let mut found = Vec::new();
    for message in messages {
        assert!(message.len() <= max_len);
        let frame = read(message).expect("our own header");
        let again = decode_update(&frame.body, context).expect("our own message");
        assert!(again.announced.is_empty() && again.errors.is_empty());
        found.extend(paths(&again.withdrawn));
    }
    found
}

fn announced_again(
    messages: &[Bytes],
    context: &UpdateContext,
    max_len: usize,
    sent: &PathAttributes,
) -> Vec<PathPrefix> {
    let mut found = Vec::new();
    for message in messages {
        assert!(message.len() <= max_len);
        let frame = read(message).expect("our own header");
        let again = decode_update(&frame.body, context).expect("our own message");
        assert!(again.withdrawn.is_empty() && again.errors.is_empty());
        let [announcement] = &again.announced[..] else {
            panic!("{} announcements", again.announced.len());
        };
        assert!(is_same(
            &announcement.attributes,
            sent,
            context.four_octet_as
        ));
        found.extend(announcement.nlri.paths());
    }
    found
}

/// Two octets merge neighbouring sequences of a path, which means the same.
pub fn is_same(left: &PathAttributes, right: &PathAttributes, four_octet_as: bool) -> bool {
    if four_octet_as {
        return left == right;
    }
    let text = |attributes: &PathAttributes| attributes.as_path.to_string();
    let mut relabelled = left.clone();
    relabelled.as_path = right.as_path.clone();
    text(left) == text(right) && relabelled == *right
}

fn paths(runs: &[Nlri<'_>]) -> Vec<PathPrefix> {
    assert!(runs.iter().all(|run| run.paths().count() == run.len()));
    runs.iter().flat_map(Nlri::paths).collect()
}
