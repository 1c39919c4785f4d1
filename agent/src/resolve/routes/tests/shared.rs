//! Prefixes that share their answer.

use super::*;

#[test]
fn prefixes_of_one_case_share_their_answer_and_others_do_not() {
    let snapshot = snapshot(CROSS);
    let node = snapshot.node("a1").expect("a1");
    let (host, tunnel) = (host(), tunnel());
    let mut resolver = resolver(&snapshot, node, &host, [&tunnel]);
    let mut resolve = |prefix: &str, next_hop: &str| {
        let next_hops = SmallVec::from_slice(&[next_hop.parse().expect(next_hop)]);
        resolver.resolve_all(prefix.parse().expect(prefix), next_hops)
    };
    let (mate, far) = ("192.168.100.101", "192.168.200.101");
    let first = resolve("172.17.10.0/25", far);
    for (name, prefix, next_hop, is_shared) in [
        ("the same pool and next hop", "172.17.11.0/24", far, true),
        ("another next hop", "172.17.11.0/24", mate, false),
        ("another pool", "172.17.10.128/25", far, false),
        ("no pool", "172.30.0.0/24", far, false),
        ("an own podCIDR", "172.17.8.0/24", far, false),
        ("the first again", "172.17.10.0/25", far, true),
    ] {
        let resolved = resolve(prefix, next_hop);
        assert_eq!(Arc::ptr_eq(&resolved, &first), is_shared, "{name}");
    }
    let own = resolve("172.17.8.0/24", far);
    assert!(own.route.is_none(), "{own:?}");
}
