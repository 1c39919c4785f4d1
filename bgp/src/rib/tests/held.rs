//! What a receiver hears, and when, of a speaker that restarted.

use super::*;

#[test]
fn nothing_is_told_while_deferring_and_nothing_is_said_to_those_held() {
    let mut rib = rib();
    rib.set_deferring(true);
    let mut heard = Heard::default();
    for id in [A, B] {
        rib.peer_up(id, client(id));
        rib.hold(id);
    }
    announce(&mut rib, A, "172.17.8.0/24");
    rib.turn(&mut heard);
    assert_eq!((heard.messages, rib.learned(10).len()), (0, 0));
    rib.release(B);
    rib.turn(&mut heard);
    assert_eq!(heard.prefixes(B), ["172.17.8.0/24"]);
    assert_eq!(
        (heard.end_of_rib.get(&A), heard.end_of_rib.get(&B)),
        (None, Some(&1))
    );
    announce(&mut rib, A, "172.17.9.0/24");
    rib.turn(&mut heard);
    assert_eq!(
        heard.prefixes(B).len(),
        2,
        "who is released hears of changes"
    );
    assert_eq!(rib.learned(10).len(), 0);
    rib.set_deferring(false);
    assert_eq!(rib.learned(10).len(), 2);
}

#[test]
fn who_is_released_without_end_hears_routes_and_its_end_and_refreshes_later() {
    let mut rib = rib();
    let mut heard = Heard::default();
    for id in [A, B] {
        rib.peer_up(id, client(id));
        rib.hold(id);
    }
    announce(&mut rib, A, "172.17.8.0/24");
    rib.release_without_end(B);
    rib.turn(&mut heard);
    assert_eq!(heard.prefixes(B), ["172.17.8.0/24"]);
    announce(&mut rib, A, "172.17.9.0/24");
    rib.refresh(B, Family::Ipv4);
    rib.turn(&mut heard);
    assert_eq!(heard.prefixes(B), ["172.17.8.0/24", "172.17.9.0/24"]);
    let mut changed = client(B);
    changed.group.max_message_len = frame::MAX_EXTENDED_LEN;
    rib.set_policy(B, changed);
    rib.turn(&mut heard);
    assert_eq!(heard.end_of_rib.get(&B), None);
    heard.tables.clear();
    rib.release(B);
    rib.turn(&mut heard);
    assert_eq!(heard.end_of_rib.get(&B), Some(&1));
    assert_eq!(heard.prefixes(B).len(), 2, "the refresh follows");
    rib.release(B);
    rib.turn(&mut heard);
    assert_eq!(heard.end_of_rib.get(&B), Some(&1), "once");
}
