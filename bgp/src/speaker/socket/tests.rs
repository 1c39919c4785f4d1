use std::time::Duration;

use super::*;
use crate::speaker::md5;

/// A SYN that is dropped is sent again after a second: who is not connected by then was refused.
const REFUSED_AFTER: Duration = Duration::from_millis(300);

fn transport(remote: SocketAddr, password: Option<&str>) -> Transport {
    Transport {
        remote,
        local: Some([127, 0, 0, 1].into()),
        ttl: 64,
        ttl_security_hops: None,
        password: password.map(secret),
    }
}

fn secret(text: &str) -> Secret {
    Secret::new(text).expect("length")
}

fn prefix(text: &str) -> Prefix {
    text.parse().expect(text)
}

fn listener(keys: &[(&str, &str)]) -> TcpListener {
    let socket = bind("127.0.0.1:0".parse().expect("address")).expect("bind");
    for (remote, key) in keys {
        set_md5_key(&SockRef::from(&socket), &prefix(remote), Some(&secret(key))).expect("key");
    }
    listen(socket).expect("listen")
}

/// Whether the outcome of a dial is the expected one.
async fn dials(listener: &TcpListener, password: Option<&str>, is_welcome: bool) -> bool {
    let dial = dial(transport(listener.local_addr().expect("bound"), password));
    if is_welcome {
        return dial.await.is_ok();
    }
    tokio::time::timeout(REFUSED_AFTER, dial).await.is_err()
}

#[tokio::test]
async fn gtsm_and_ttl_are_accepted_by_the_kernel() {
    let listener = listener(&[]);
    let transport = Transport {
        ttl_security_hops: Some(1),
        ..transport(listener.local_addr().expect("bound"), None)
    };
    let dialed = dial(transport.clone()).await.expect("dial");
    assert_eq!(SockRef::from(&dialed).ttl_v4().expect("ttl"), 255);
    let (accepted, _) = listener.accept().await.expect("accept");
    prepare(&accepted, &transport).expect("prepare");
}

#[tokio::test]
async fn an_end_is_seen_behind_what_was_not_read() {
    use tokio::io::AsyncWriteExt;
    for (name, linger) in [("FIN", None), ("RST", Some(Duration::ZERO))] {
        let listener = listener(&[]);
        let remote = listener.local_addr().expect("bound");
        let mut dialed = dial(transport(remote, None)).await.expect("dial");
        let (accepted, _) = listener.accept().await.expect("accept");
        dialed.write_all(b"last words").await.expect("written");
        assert!(!has_ended(&accepted), "{name}");
        assert!(!has_ended(&dialed), "{name}");
        SockRef::from(&dialed).set_linger(linger).expect("set");
        drop(dialed);
        assert!(has_ended(&accepted), "{name}");
    }
}

#[tokio::test]
async fn source_address_that_is_not_there_is_named() {
    let listener = listener(&[]);
    let elsewhere = Transport {
        local: Some([192, 0, 2, 99].into()),
        ..transport(listener.local_addr().expect("bound"), None)
    };
    let error = dial(elsewhere).await.expect_err("no such address here");
    assert!(
        error.to_string().starts_with("source 192.0.2.99: "),
        "{error}"
    );
}

#[tokio::test]
async fn only_the_right_md5_key_connects() {
    let keyed = listener(&[("127.0.0.1/32", "right")]);
    let open = listener(&[]);
    for (name, listener, password, is_welcome) in [
        ("right key", &keyed, Some("right"), true),
        ("wrong key", &keyed, Some("wrong"), false),
        ("missing key", &keyed, None, false),
        ("a key nobody asked for", &open, Some("right"), false),
        ("no key on either side", &open, None, true),
    ] {
        assert!(dials(listener, password, is_welcome).await, "{name}");
    }
}

#[tokio::test]
async fn the_longest_md5_prefix_counts() {
    let range = listener(&[("127.0.0.0/8", "range")]);
    assert!(dials(&range, Some("range"), true).await);
    let both = listener(&[("127.0.0.0/8", "range"), ("127.0.0.1/32", "listed")]);
    assert!(dials(&both, Some("listed"), true).await);
    assert!(dials(&both, Some("range"), false).await);
    set_md5_key(&SockRef::from(&both), &prefix("127.0.0.1/32"), None).expect("removal");
    set_md5_key(&SockRef::from(&both), &prefix("127.0.0.1/32"), None).expect("again");
    assert!(dials(&both, Some("range"), true).await);
}

#[tokio::test]
async fn a_connection_from_before_the_key_is_dead_once_prepared() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = listener(&[]);
    let remote = listener.local_addr().expect("bound");
    let mut unsigned = dial(transport(remote, None)).await.expect("dial");
    let (mut accepted, from) = listener.accept().await.expect("accept");
    prepare(&accepted, &transport(from, Some("right"))).expect("prepare");
    unsigned.write_all(b"x").await.expect("into the buffer");
    let read = tokio::time::timeout(REFUSED_AFTER, accepted.read_u8()).await;
    assert!(read.is_err(), "an unsigned octet arrived: {read:?}");
}

#[tokio::test]
async fn one_socket_takes_as_many_md5_keys_as_computed() {
    let Some(optmem_max) = optmem_max() else {
        eprintln!("skipped: net.core.optmem_max is not readable here");
        return;
    };
    let socket = bind("127.0.0.1:0".parse().expect("address")).expect("bind");
    let key = secret("key");
    let taken = (0..100_000u32)
        .take_while(|number| {
            let remote = Prefix::host(IpAddr::from((0x0A00_0000 + number).to_be_bytes()));
            set_md5_key(&SockRef::from(&socket), &remote, Some(&key)).is_ok()
        })
        .count();
    assert_eq!(taken, md5::capacity(optmem_max).min(100_000));
}

#[test]
fn ipv6_keys_are_taken() {
    let socket = bind("[::1]:0".parse().expect("address")).expect("bind");
    for remote in ["2001:db8::/32", "2001:db8::1/128"] {
        set_md5_key(
            &SockRef::from(&socket),
            &prefix(remote),
            Some(&secret("key")),
        )
        .expect(remote);
    }
}
