mod agreed;

use super::*;
use crate::wire::community::Community;

fn prefix(text: &str) -> Prefix {
    text.parse().expect(text)
}

fn id(last: u8) -> RouterId {
    RouterId([10, 0, 0, last].into())
}

fn attributes() -> PathAttributes {
    PathAttributes::originated("10.0.0.7".parse().expect("address"))
}

fn policy(ebgp: bool, client: bool) -> ExportPolicy {
    ExportPolicy {
        role: None,
        remove_private_as: None,
        is_draining: false,
        ipv4_over_ipv6: false,
        long_lived: false,
        ebgp,
        client,
        local_asn: Asn(64512),
        cluster_id: ClusterId([9, 9, 9, 9].into()),
        next_hop_mode: NextHopMode::Auto,
        own_addresses: vec!["10.0.0.1".parse().expect("address")],
        local_pref: LocalPref::DEFAULT,
        filters: Vec::new(),
        default: ExportDefault::Accept,
    }
}

#[test]
fn agent_ebgp_import_is_closed_to_what_is_not_a_pool_of_ours() {
    let default = ImportDefault::InsidePools {
        pools: vec![prefix("172.17.0.0/16")],
        own: vec![prefix("172.17.8.0/24")],
        lent: vec![prefix("172.17.8.5/32")],
    };
    for (name, text, expected) in [
        ("in a pool", "172.17.9.0/24", Ok(())),
        ("outside", "203.0.113.0/24", Err(Rejection::OutsidePools)),
        ("default", "0.0.0.0/0", Err(Rejection::DefaultRoute)),
        (
            "equal to own",
            "172.17.8.0/24",
            Err(Rejection::CoversOwn(prefix("172.17.8.0/24"))),
        ),
        (
            "covers own",
            "172.17.0.0/16",
            Err(Rejection::CoversOwn(prefix("172.17.8.0/24"))),
        ),
        (
            "inside own",
            "172.17.8.9/32",
            Err(Rejection::InsideOwn(prefix("172.17.8.0/24"))),
        ),
        ("lent", "172.17.8.5/32", Ok(())),
    ] {
        assert_eq!(default.check(&prefix(text)), expected, "{name}");
    }
}

#[test]
fn reflector_ebgp_import_refuses_default_and_martians() {
    let open = ImportDefault::AllButMartians { pools: Vec::new() };
    for (name, text, accepted) in [
        ("pod prefix", "172.17.9.0/24", true),
        ("documentation", "203.0.113.0/24", true),
        ("default", "0.0.0.0/0", false),
        ("loopback", "127.0.0.0/8", false),
        ("link-local", "169.254.1.1/32", false),
        ("multicast", "224.0.0.0/4", false),
        ("v6 link-local", "fe80::/10", false),
        ("v6", "2001:db8::/32", true),
    ] {
        assert_eq!(open.check(&prefix(text)).is_ok(), accepted, "{name}");
    }
    let bounded = ImportDefault::AllButMartians {
        pools: vec![prefix("172.17.0.0/16")],
    };
    assert_eq!(
        bounded.check(&prefix("203.0.113.0/24")),
        Err(Rejection::OutsidePools)
    );
}

#[test]
fn loops_and_unusable_next_hops_are_not_imported() {
    let own: Vec<IpAddr> = vec!["10.0.0.1".parse().expect("address")];
    let context = ImportContext {
        ebgp: false,
        local_asn: Asn(64512),
        remote_asn: Asn(64512),
        router_id: id(1),
        cluster_id: ClusterId([9, 9, 9, 9].into()),
        local_addresses: &own,
        allow_own_as: 0,
        role: None,
        filters: &[],
        default: &ImportDefault::Accept,
    };
    assert_eq!(context.check_attributes(&attributes()), Ok(()));
    let check = |change: &dyn Fn(&mut PathAttributes)| {
        let mut attributes = attributes();
        change(&mut attributes);
        context.check_attributes(&attributes)
    };
    let next_hop = |text: &str| {
        let address: IpAddr = text.parse().expect(text);
        check(&|attributes| attributes.next_hop = address.into())
    };
    assert_eq!(
        check(&|a| a.originator_id = Some(id(1))),
        Err(Rejection::OwnOriginatorId)
    );
    assert_eq!(
        check(&|a| a.cluster_list.push(ClusterId([9, 9, 9, 9].into()))),
        Err(Rejection::OwnCluster)
    );
    assert_eq!(
        check(&|a| a.as_path.prepend(Asn(64512), 1)),
        Err(Rejection::OwnAs)
    );
    assert_eq!(next_hop("10.0.0.1"), Err(Rejection::NextHopSelf));
    for text in [
        "0.0.0.0",
        "127.0.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "ff02::1",
        "::",
    ] {
        assert_eq!(next_hop(text), Err(Rejection::NextHopInvalid), "{text}");
    }
    let ebgp = ImportContext {
        ebgp: true,
        remote_asn: Asn(64513),
        ..context
    };
    assert_eq!(
        ebgp.check_attributes(&attributes()),
        Err(Rejection::FirstAs)
    );
    // RFC 7947 §2.2.2.1: a route server leaves its own AS out.
    let of_route_server = ImportContext {
        role: Some(Role::RouteServerClient),
        ..ebgp
    };
    let mut of_another = attributes();
    of_another.as_path.prepend(Asn(64514), 1);
    assert_eq!(of_route_server.check_attributes(&of_another), Ok(()));
}

#[test]
fn reflection_matrix() {
    let client = RouteSource::Ibgp {
        client: true,
        router_id: id(2),
    };
    let other = RouteSource::Ibgp {
        client: false,
        router_id: id(2),
    };
    for (name, source, to, passes) in [
        ("client to client", client, policy(false, true), true),
        ("client to non-client", client, policy(false, false), true),
        ("client to eBGP", client, policy(true, false), true),
        ("non-client to client", other, policy(false, true), true),
        (
            "non-client to non-client",
            other,
            policy(false, false),
            false,
        ),
        ("non-client to eBGP", other, policy(true, false), true),
        (
            "eBGP to client",
            RouteSource::Ebgp,
            policy(false, true),
            true,
        ),
        (
            "eBGP to non-client",
            RouteSource::Ebgp,
            policy(false, false),
            true,
        ),
        (
            "local to non-client",
            RouteSource::Local,
            policy(false, false),
            true,
        ),
    ] {
        let mut attributes = attributes();
        attributes.med = Some(crate::types::Med(5));
        attributes.local_pref = Some(LocalPref(200));
        let out = to.transform(&attributes, source, Family::Ipv4);
        assert_eq!(out.is_some(), passes, "{name}");
        let (Some(out), false) = (out, to.ebgp) else {
            continue;
        };
        let reflected = matches!(source, RouteSource::Ibgp { .. });
        assert_eq!(out.originator_id, reflected.then_some(id(2)), "{name}");
        assert_eq!(out.cluster_list.len(), usize::from(reflected), "{name}");
        assert_eq!(
            out.next_hop, attributes.next_hop,
            "{name}: next hop is kept"
        );
        assert_eq!(
            (out.med, out.local_pref),
            (attributes.med, attributes.local_pref),
            "{name}"
        );
    }
}

#[test]
fn reflection_keeps_the_first_originator_and_prepends_the_cluster() {
    let mut attributes = attributes();
    attributes.originator_id = Some(id(3));
    attributes.cluster_list = vec![ClusterId([1, 1, 1, 1].into())];
    let source = RouteSource::Ibgp {
        client: true,
        router_id: id(2),
    };
    let out = policy(false, true)
        .transform(&attributes, source, Family::Ipv4)
        .expect("passes");
    assert_eq!(out.originator_id, Some(id(3)));
    let clusters: Vec<String> = out.cluster_list.iter().map(ToString::to_string).collect();
    assert_eq!(clusters, ["9.9.9.9", "1.1.1.1"]);
}

#[test]
fn ebgp_export_cleans() {
    let mut attributes = attributes();
    attributes.med = Some(crate::types::Med(5));
    attributes.local_pref = Some(LocalPref(200));
    attributes.originator_id = Some(id(3));
    attributes.cluster_list = vec![ClusterId([1, 1, 1, 1].into())];
    let source = RouteSource::Ibgp {
        client: true,
        router_id: id(2),
    };
    let out = policy(true, false)
        .transform(&attributes, source, Family::Ipv4)
        .expect("passes");
    assert_eq!(out.as_path.to_string(), "64512");
    assert_eq!(
        (out.med, out.local_pref, out.originator_id),
        (None, None, None)
    );
    assert!(out.cluster_list.is_empty());
    assert_eq!(out.next_hop.address, policy(true, false).own_addresses[0]);
    let keep = ExportPolicy {
        next_hop_mode: NextHopMode::Keep,
        ..policy(true, false)
    };
    let out = keep
        .transform(&attributes, source, Family::Ipv4)
        .expect("passes");
    assert_eq!(out.next_hop, attributes.next_hop);
}

#[test]
fn well_known_communities_bound_propagation() {
    for (name, community, to_ibgp, to_ebgp) in [
        ("NO_EXPORT", Community::NO_EXPORT, true, false),
        (
            "NO_EXPORT_SUBCONFED",
            Community::NO_EXPORT_SUBCONFED,
            true,
            false,
        ),
        ("NO_ADVERTISE", Community::NO_ADVERTISE, false, false),
    ] {
        let mut attributes = attributes();
        attributes.communities.push(community);
        let passes = |ebgp| {
            policy(ebgp, false)
                .transform(&attributes, RouteSource::Ebgp, Family::Ipv4)
                .is_some()
        };
        assert_eq!((passes(false), passes(true)), (to_ibgp, to_ebgp), "{name}");
    }
}

#[test]
fn graceful_shutdown_is_honoured_on_import() {
    for (name, community, local_pref, expected) in [
        (
            "draining",
            Some(Community::GRACEFUL_SHUTDOWN),
            Some(500),
            Some(0),
        ),
        (
            "draining eBGP peer",
            Some(Community::GRACEFUL_SHUTDOWN),
            None,
            Some(0),
        ),
        (
            "another community",
            Some(Community::NO_EXPORT),
            Some(500),
            Some(500),
        ),
        ("nothing", None, None, None),
    ] {
        let default = ImportDefault::Accept;
        let context = ImportContext {
            ebgp: local_pref.is_none(),
            local_asn: Asn(64512),
            remote_asn: Asn(64513),
            router_id: id(1),
            cluster_id: ClusterId([10, 0, 0, 1].into()),
            local_addresses: &[],
            allow_own_as: 0,
            role: None,
            filters: &[],
            default: &default,
        };
        let mut route = attributes();
        route.communities.extend(community);
        route.local_pref = local_pref.map(LocalPref);
        context.transform(&mut route);
        assert_eq!(route.local_pref, expected.map(LocalPref), "{name}");
        assert_eq!(
            route.communities.len(),
            usize::from(community.is_some()),
            "{name}: others hear of it, too"
        );
    }
}
