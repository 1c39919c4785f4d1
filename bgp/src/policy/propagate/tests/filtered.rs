//! Filters before the defaults, what their rules change, and why a route does not pass.

use super::*;
use crate::policy::matcher::{PeerType, PrefixMatch, Rule};
use crate::policy::{CommunityValue, Priority};

const TAG: Community = Community(65000 << 16 | 100);

fn any(action: Action) -> Rule {
    Rule::new(PrefixMatch::Any, action)
}

fn exporting(export_v4: Vec<Rule>) -> Vec<Filter> {
    vec![Filter {
        name: "f".into(),
        export_v4,
        ..Filter::default()
    }]
}

fn operations() -> Vec<Operation> {
    vec![
        Operation::AddCommunity(CommunityValue::Standard(TAG)),
        Operation::PrependAsPath(vec![Asn(65001), Asn(65002)]),
        Operation::SetPriority(Priority::new(100).expect("in range")),
    ]
}

const PRIORITY_100: LocalPref = LocalPref(2_147_483_547);

#[test]
fn peer_type_is_that_of_the_session() {
    let rule = Rule {
        peer_type: Some(PeerType::Ibgp),
        ..any(Action::ACCEPT)
    };
    for ebgp in [true, false] {
        let policy = ExportPolicy {
            filters: exporting(vec![rule.clone()]),
            default: ExportDefault::Reject,
            ..policy(ebgp, true)
        };
        let source = RouteSource::Local;
        let found = policy.admits(&prefix("10.1.0.0/16"), &attributes(), source, None);
        assert_eq!(found.is_some(), !ebgp);
    }
}

#[test]
fn export_rules_see_the_route_before_it_is_made_fit_for_the_peer() {
    let to = |ebgp, rule| ExportPolicy {
        filters: exporting(vec![rule]),
        default: ExportDefault::Reject,
        ..policy(ebgp, true)
    };
    let mut learned = attributes();
    learned.as_path = "65001 65002".parse().expect("path");
    learned.local_pref = Some(PRIORITY_100);
    let by_path = Rule {
        as_path_prefix: vec![Asn(65001)],
        ..any(Action::ACCEPT)
    };
    let by_priority = |value| Rule {
        priority: Priority::new(value),
        ..any(Action::ACCEPT)
    };
    let remote = Rule {
        from_remote_peers: true,
        ..any(Action::ACCEPT)
    };
    let default_priority = 2_147_483_647 - LocalPref::DEFAULT.0;
    let (own, ebgp) = (RouteSource::Local, RouteSource::Ebgp);
    let originated = attributes();
    for (name, rule, source, attributes, expected) in [
        ("path without our AS", &by_path, ebgp, &learned, true),
        ("no path", &by_path, own, &originated, false),
        ("priority", &by_priority(100), ebgp, &learned, true),
        ("another", &by_priority(101), ebgp, &learned, false),
        (
            "LOCAL_PREF that it will have",
            &by_priority(default_priority),
            own,
            &originated,
            true,
        ),
        ("learned", &remote, ebgp, &learned, true),
        ("own", &remote, own, &originated, false),
    ] {
        for to_ebgp in [true, false] {
            let policy = to(to_ebgp, rule.clone());
            let found = policy.admits(&prefix("10.1.0.0/16"), attributes, source, None);
            assert_eq!(found.is_some(), expected, "{name}, to eBGP: {to_ebgp}");
        }
    }
}

#[test]
fn changes_of_a_rule_come_before_those_of_the_protocol() {
    let mut learned = attributes();
    learned.as_path = "65100".parse().expect("path");
    let said = |policy: &ExportPolicy| {
        policy
            .transform(&learned, RouteSource::Ebgp, Family::Ipv4, &operations())
            .expect("passes")
    };
    let to_ibgp = said(&policy(false, true));
    assert_eq!(to_ibgp.as_path.to_string(), "65001 65002 65100");
    assert_eq!(to_ibgp.communities, [TAG]);
    assert_eq!(to_ibgp.local_pref, Some(PRIORITY_100));

    let to_ebgp = said(&policy(true, false));
    assert_eq!(to_ebgp.as_path.to_string(), "64512 65001 65002 65100");
    assert_eq!(to_ebgp.communities, [TAG]);
    assert_eq!(to_ebgp.local_pref, None, "LOCAL_PREF stays inside the AS");

    let without_private = said(&ExportPolicy {
        remove_private_as: Some(Asn(7018)),
        ..policy(true, false)
    });
    assert_eq!(
        without_private.as_path.to_string(),
        "64512 65001 65002",
        "what was prepended on purpose stays"
    );

    let draining = said(&ExportPolicy {
        is_draining: true,
        ..policy(false, true)
    });
    assert_eq!(
        draining.local_pref,
        Some(LocalPref(0)),
        "who stops is used last whatever the rule wants"
    );
}

#[test]
fn a_well_known_community_that_a_rule_adds_is_for_the_receiver() {
    let no_export = CommunityValue::Standard(Community::NO_EXPORT);
    let adding = [Operation::AddCommunity(no_export)];
    let out =
        policy(true, false).transform(&attributes(), RouteSource::Local, Family::Ipv4, &adding);
    assert_eq!(out.expect("passes").communities, [Community::NO_EXPORT]);
}

#[test]
fn every_refused_route_has_a_reason() {
    let internal = RouteSource::Ibgp {
        client: false,
        router_id: id(2),
    };
    let with = |community| PathAttributes {
        communities: thin_vec::thin_vec![community],
        ..attributes()
    };
    let rejecting = exporting(vec![any(Action::Reject)]);
    let own_only = ExportPolicy {
        default: ExportDefault::OwnOnly,
        ..policy(true, false)
    };
    let (to_ebgp, to_client, to_other) = (
        policy(true, false),
        policy(false, true),
        policy(false, false),
    );
    let (own, ebgp) = (RouteSource::Local, RouteSource::Ebgp);
    let no_export = Community::NO_EXPORT;
    for (name, policy, attributes, source, expected) in [
        ("passes", to_ebgp.clone(), attributes(), ebgp, None),
        ("own", own_only.clone(), attributes(), own, None),
        (
            "not own",
            own_only.clone(),
            attributes(),
            ebgp,
            Some("not a route of our own and no filter accepts it"),
        ),
        (
            "not own, but a filter accepts",
            ExportPolicy {
                filters: exporting(vec![any(Action::ACCEPT)]),
                ..own_only
            },
            attributes(),
            ebgp,
            None,
        ),
        (
            "filter",
            ExportPolicy {
                filters: rejecting,
                ..policy(true, false)
            },
            attributes(),
            own,
            Some("rejected by filter f"),
        ),
        (
            "closed",
            ExportPolicy {
                default: ExportDefault::Reject,
                ..policy(true, false)
            },
            attributes(),
            own,
            Some("no route is said to this peer"),
        ),
        (
            "NO_ADVERTISE",
            to_client.clone(),
            with(Community::NO_ADVERTISE),
            ebgp,
            Some("its community no-advertise forbids it"),
        ),
        (
            "NO_EXPORT",
            to_ebgp.clone(),
            with(no_export),
            ebgp,
            Some("its community no-export forbids it"),
        ),
        ("NO_EXPORT inside", to_client, with(no_export), ebgp, None),
        (
            "reflection",
            to_other,
            attributes(),
            internal,
            Some("learned by iBGP, and neither side is a client of ours"),
        ),
        (
            "no next hop",
            ExportPolicy {
                own_addresses: Vec::new(),
                ..to_ebgp
            },
            attributes(),
            ebgp,
            Some("no next hop that the peer can take"),
        ),
    ] {
        let prefix = prefix("10.1.0.0/16");
        let refusal = policy.say(&prefix, &attributes, source, None).err();
        let refusal = refusal.map(|refusal| refusal.to_string());
        assert_eq!(refusal.as_deref(), expected, "{name}");
        let is_said = policy
            .admits(&prefix, &attributes, source, None)
            .is_some_and(|operations| {
                policy
                    .transform(&attributes, source, Family::Ipv4, operations)
                    .is_ok()
            });
        assert_eq!(is_said, expected.is_none(), "{name}");
    }
}
