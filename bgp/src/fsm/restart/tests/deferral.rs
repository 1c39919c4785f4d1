//! How long a speaker that restarted holds back.

use super::*;

fn deferral(start: Instant) -> Deferral<u32> {
    Deferral::new([1, 2], &Family::ALL, start + seconds(30))
}

#[test]
fn deferral_waits_for_every_family_of_every_peer() {
    let mut deferral = deferral(Instant::now());
    for peer in [1, 2] {
        deferral.handle_established(&peer, &both());
    }
    for (peer, family) in [(1, Ipv4), (2, Ipv6), (1, Ipv6)] {
        deferral.handle_end_of_rib(&peer, family);
        assert!(!deferral.is_over(), "{peer} {family}");
    }
    assert_eq!(deferral.waiting_for().collect::<Vec<_>>(), [&2]);
    deferral.handle_end_of_rib(&2, Ipv4);
    assert!(deferral.is_over());
    assert_eq!(deferral.next_timeout(), None);
}

#[test]
fn deferral_waits_for_peers_that_will_send_an_end_of_rib() {
    let restarted = GracefulRestart {
        restart_state: true,
        ..capability()
    };
    for (name, session, is_awaited) in [
        ("it restarted too", negotiated(Some(restarted)), true),
        ("no graceful restart", negotiated(None), false),
    ] {
        let mut deferral = Deferral::new([1], &Family::ALL, Instant::now() + seconds(30));
        deferral.handle_established(&1, &session);
        assert_eq!(!deferral.is_over(), is_awaited, "{name}");
    }
}

#[test]
fn deferral_waits_only_for_families_that_the_session_carries() {
    let mut deferral = Deferral::new([1], &Family::ALL, Instant::now() + seconds(30));
    deferral.handle_established(
        &1,
        &Negotiated {
            families: vec![Ipv4],
            ..both()
        },
    );
    deferral.handle_end_of_rib(&1, Ipv4);
    assert!(deferral.is_over());
}

#[test]
fn deferral_is_over_at_its_deadline_and_stays_so() {
    let start = Instant::now();
    let mut deferral = deferral(start);
    assert_eq!(deferral.next_timeout(), Some(start + seconds(30)));
    deferral.handle_timeout(start + seconds(29));
    assert!(!deferral.is_over());
    deferral.handle_timeout(start + seconds(30));
    assert!(deferral.is_over());
    deferral.handle_established(&1, &both());
    assert!(deferral.is_over());
}

#[test]
fn deferral_ignores_removed_and_unknown_peers() {
    let mut deferral = deferral(Instant::now());
    deferral.handle_peer_gone(&1);
    deferral.handle_end_of_rib(&7, Ipv4);
    deferral.handle_established(&7, &both());
    assert_eq!(deferral.waiting_for().collect::<Vec<_>>(), [&2]);
    deferral.handle_peer_gone(&2);
    assert!(deferral.is_over());
}

#[test]
fn deferral_without_peers_is_over() {
    assert!(Deferral::<u32>::new([], &Family::ALL, Instant::now()).is_over());
}
