use super::*;
use crate::policy::matcher::{PeerType, PrefixMatch, Rule};
use crate::policy::{CommunityValue, Priority};

fn prefix(text: &str) -> Prefix {
    text.parse().expect(text)
}

fn id(last: u8) -> RouterId {
    RouterId([10, 0, 0, last].into())
}

const TAG: Community = Community(65000 << 16 | 100);
const PRIORITY_100: LocalPref = LocalPref(2_147_483_547);

fn any(action: Action) -> Rule {
    Rule::new(PrefixMatch::Any, action)
}

fn operations() -> Vec<Operation> {
    vec![
        Operation::AddCommunity(CommunityValue::Standard(TAG)),
        Operation::PrependAsPath(vec![Asn(65001), Asn(65002)]),
    ]
}

fn importing(name: &str, import_v4: Vec<Rule>) -> Filter {
    Filter {
        name: name.into(),
        import_v4,
        ..Filter::default()
    }
}

fn attributes() -> PathAttributes {
    PathAttributes::originated("10.0.0.7".parse().expect("address"))
}

fn import<'a>(filters: &'a [Filter], default: &'a ImportDefault) -> ImportContext<'a> {
    ImportContext {
        ebgp: false,
        local_asn: Asn(64512),
        remote_asn: Asn(64512),
        router_id: id(1),
        cluster_id: ClusterId([9, 9, 9, 9].into()),
        local_addresses: &[],
        allow_own_as: 0,
        role: None,
        filters,
        default,
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
        let route = context.transform(&route, &[]);
        assert_eq!(route.local_pref, expected.map(LocalPref), "{name}");
        assert_eq!(
            route.communities.len(),
            usize::from(community.is_some()),
            "{name}: others hear of it, too"
        );
    }
}

#[test]
fn an_import_filter_decides_before_the_default() {
    let filters = [importing(
        "f",
        vec![
            Rule {
                community: Some(CommunityValue::Standard(TAG)),
                ..any(Action::Reject)
            },
            Rule {
                priority: Priority::new(100),
                ..any(Action::Accept(operations()))
            },
            Rule {
                interface: "eth*".parse().ok(),
                ..any(Action::ACCEPT)
            },
        ],
    )];
    let plain = attributes();
    let mut tagged = attributes();
    tagged.communities.push(TAG);
    let mut preferred = attributes();
    preferred.local_pref = Some(PRIORITY_100);
    let rejected = || Err(Rejection::Filter("f".into()));
    let (v4, v6) = (prefix("10.1.0.0/16"), prefix("2001:db8::/32"));
    let context = import(&filters, &ImportDefault::Reject);
    for (name, prefix, attributes, interface, expected) in [
        ("tagged", &v4, &tagged, Some("eth0"), rejected()),
        ("preferred", &v4, &preferred, None, Ok(&operations()[..])),
        ("by interface", &v4, &plain, Some("eth0"), Ok(&[][..])),
        ("no interface", &v4, &plain, None, Err(Rejection::Closed)),
        (
            "the other family",
            &v6,
            &tagged,
            None,
            Err(Rejection::Closed),
        ),
    ] {
        let found = context.check_prefix(prefix, attributes, interface);
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn peer_type_is_that_of_the_session() {
    let filters = [importing(
        "f",
        vec![Rule {
            peer_type: Some(PeerType::Ebgp),
            ..any(Action::ACCEPT)
        }],
    )];
    for ebgp in [true, false] {
        let context = ImportContext {
            ebgp,
            ..import(&filters, &ImportDefault::Reject)
        };
        let found = context.check_prefix(&prefix("10.1.0.0/16"), &attributes(), None);
        assert_eq!(found.is_ok(), ebgp);
    }
}

#[test]
fn a_filter_overrules_every_default_both_ways() {
    let pools = vec![prefix("172.17.0.0/16")];
    let agent = ImportDefault::InsidePools {
        pools: pools.clone(),
        own: vec![prefix("172.17.8.0/24")],
        lent: Vec::new(),
    };
    let reflector = ImportDefault::AllButMartians { pools };
    let admitting = [importing("admits", vec![any(Action::ACCEPT)])];
    let refusing = [importing("refuses", vec![any(Action::Reject)])];
    for (name, default, refused, accepted) in [
        ("agent", &agent, "0.0.0.0/0", "172.17.9.0/24"),
        ("agent's own", &agent, "172.17.8.9/32", "172.17.9.0/24"),
        ("reflector", &reflector, "0.0.0.0/0", "172.17.9.0/24"),
        ("martian", &reflector, "127.0.0.0/8", "172.17.9.0/24"),
    ] {
        let ask = |filters, text: &str| {
            import(filters, default)
                .check_prefix(&prefix(text), &attributes(), None)
                .map(<[Operation]>::len)
        };
        assert!(ask(&[], refused).is_err(), "{name}");
        assert_eq!(ask(&admitting, refused), Ok(0), "{name}");
        assert_eq!(ask(&[], accepted), Ok(0), "{name}");
        let by_filter = Rejection::Filter("refuses".into());
        assert_eq!(ask(&refusing, accepted), Err(by_filter), "{name}");
    }
}

#[test]
fn defaults_are_the_same_in_ipv6() {
    let pools = vec![prefix("fd00:17::/32")];
    let agent = ImportDefault::InsidePools {
        pools: pools.clone(),
        own: vec![prefix("fd00:17:8::/64")],
        lent: vec![prefix("fd00:17:8::5/128")],
    };
    let reflector = ImportDefault::AllButMartians { pools: Vec::new() };
    let own = || prefix("fd00:17:8::/64");
    for (name, default, text, expected) in [
        ("inside", &agent, "fd00:17:9::/64", Ok(())),
        ("default", &agent, "::/0", Err(Rejection::DefaultRoute)),
        (
            "outside",
            &agent,
            "2001:db8::/32",
            Err(Rejection::OutsidePools),
        ),
        (
            "covers own",
            &agent,
            "fd00:17::/32",
            Err(Rejection::CoversOwn(own())),
        ),
        (
            "inside own",
            &agent,
            "fd00:17:8::9/128",
            Err(Rejection::InsideOwn(own())),
        ),
        ("lent", &agent, "fd00:17:8::5/128", Ok(())),
        (
            "an IPv4 prefix with IPv6 pools",
            &agent,
            "172.17.9.0/24",
            Err(Rejection::OutsidePools),
        ),
        ("reflector", &reflector, "2001:db8::/32", Ok(())),
        (
            "reflector, default",
            &reflector,
            "::/0",
            Err(Rejection::DefaultRoute),
        ),
        ("multicast", &reflector, "ff00::/8", Err(Rejection::Martian)),
        ("loopback", &reflector, "::1/128", Err(Rejection::Martian)),
        ("iBGP", &ImportDefault::Accept, "::/0", Ok(())),
    ] {
        assert_eq!(default.check(&prefix(text)), expected, "{name}");
    }
}

#[test]
fn a_pool_of_everything_does_not_admit_the_default_route() {
    let everything = vec![prefix("0.0.0.0/0")];
    for default in [
        ImportDefault::InsidePools {
            pools: everything.clone(),
            own: Vec::new(),
            lent: Vec::new(),
        },
        ImportDefault::AllButMartians { pools: everything },
    ] {
        let check = |text: &str| default.check(&prefix(text));
        assert_eq!(check("0.0.0.0/0"), Err(Rejection::DefaultRoute));
        assert_eq!(check("203.0.113.0/24"), Ok(()));
    }
}
