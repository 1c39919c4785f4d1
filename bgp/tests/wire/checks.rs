//! What holds of any message, whoever made it. Shared with the targets of `bgp/fuzz`.

use bgp::types::PathPrefix;
use bgp::wire::capability::Capability;
use bgp::wire::frame::{Frame, MAX_EXTENDED_LEN, MAX_LEN, MessageKind, next_frame};
use bgp::wire::nlri::Nlri;
use bgp::wire::notification::Notification;
use bgp::wire::open::Open;
use bgp::wire::refresh::RouteRefresh;
use bgp::wire::update::{
    EncodeContext, UpdateContext, decode_update, encode_announce, encode_withdraw,
};
use bytes::BytesMut;

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
    let out = EncodeContext {
        four_octet_as: context.four_octet_as,
        max_len: MAX_LEN,
        add_path: context.add_path,
    };
    for run in &update.withdrawn {
        let mut found = Vec::new();
        for message in encode_withdraw(run.family(), run.paths(), &out) {
            let frame = again(&message);
            let again = decode_update(&frame.body, context).expect("our own message");
            assert!(again.announced.is_empty() && again.errors.is_empty());
            found.extend(paths(&again.withdrawn));
        }
        assert_eq!(found, paths(&[*run]));
    }
    for announcement in &update.announced {
        let run = &announcement.nlri;
        let sent = &announcement.attributes;
        // A message of 65535 octets may hold more than one of 4096 can.
        let Ok(messages) = encode_announce(run.family(), sent, run.paths(), &out) else {
            continue;
        };
        let mut found = Vec::new();
        for message in messages {
            let frame = again(&message);
            let again = decode_update(&frame.body, context).expect("our own message");
            assert_eq!(again.errors, []);
            assert_eq!(again.announced.len(), 1);
            // Two octets merge neighbouring sequences of a path, which means the same.
            if context.four_octet_as {
                assert_eq!(&again.announced[0].attributes, sent);
            }
            found.extend(again.announced[0].nlri.paths());
        }
        assert_eq!(found, paths(&[*run]));
    }
}

fn paths(runs: &[Nlri<'_>]) -> Vec<PathPrefix> {
    assert!(runs.iter().all(|run| run.paths().count() == run.len()));
    runs.iter().flat_map(Nlri::paths).collect()
}
