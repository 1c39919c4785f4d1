//! Filters at work: what their rules change, on the way in and out, and when routes are judged again.

use super::*;
use crate::policy::matcher::{Filter, PrefixMatch, Rule};
use crate::policy::{Action, Operation, Priority};
use crate::rib::show::ShownPath;
use crate::wire::community::Community;

const TAG: Community = Community(65000 << 16 | 100);
const PRIORITY_100: LocalPref = LocalPref(2_147_483_547);

fn any(action: Action) -> Rule {
    Rule::new(PrefixMatch::Any, action)
}

fn inside(text: &str, action: Action) -> Rule {
    let cidr = prefix(text);
    let prefixes = PrefixMatch::In {
        cidr,
        lengths: None,
    };
    Rule::new(prefixes, action)
}

fn by_interface(pattern: &str, action: Action) -> Rule {
    Rule {
        interface: Some(pattern.parse().expect("pattern")),
        ..any(action)
    }
}

fn tag() -> Operation {
    Operation::AddCommunity("65000:100".parse().expect("community"))
}

fn prepend(asns: &[u32]) -> Operation {
    Operation::PrependAsPath(asns.iter().copied().map(Asn).collect())
}

fn set_priority(value: u32) -> Operation {
    Operation::SetPriority(Priority::new(value).expect("in range"))
}

/// Rules for both families and for one direction.
fn filters(import: Vec<Rule>, export: Vec<Rule>) -> Vec<Filter> {
    vec![Filter {
        name: "f".into(),
        import_v4: import.clone(),
        import_v6: import,
        export_v4: export.clone(),
        export_v6: export,
    }]
}

fn importing(id: PeerId, rules: Vec<Rule>) -> PeerSetup {
    let mut setup = client(id);
    let mut import = ImportPolicy::clone(&setup.import);
    import.filters = filters(rules, Vec::new());
    setup.import = Arc::new(import);
    setup
}

fn exporting(id: PeerId, rules: Vec<Rule>) -> PeerSetup {
    let mut setup = client(id);
    setup.group.export.filters = filters(Vec::new(), rules);
    setup
}

fn used(rib: &Rib, text: &str) -> ShownPath {
    only(rib.show(Selection {
        prefix: Some(prefix(text)),
        received_from: None,
    }))
}

fn received(rib: &Rib, text: &str) -> ShownPath {
    only(rib.show(Selection {
        prefix: Some(prefix(text)),
        received_from: Some(A),
    }))
}

fn only(mut paths: Vec<ShownPath>) -> ShownPath {
    assert_eq!(paths.len(), 1, "{paths:?}");
    paths.remove(0)
}

fn by(interface: &str) -> NextHopInfo {
    NextHopInfo {
        reach: Reach::Cost(0),
        interface: Some(interface.into()),
    }
}

#[test]
fn an_accepting_rule_changes_what_is_used_and_not_what_was_received() {
    let (mut rib, mut heard) = with_clients();
    let operations = vec![tag(), prepend(&[65001, 65002]), set_priority(100)];
    let rules = vec![
        inside("172.17.8.0/24", Action::Accept(operations)),
        inside("172.17.9.0/24", Action::ACCEPT),
    ];
    rib.set_policy(A, importing(A, rules));
    announce(&mut rib, A, "172.17.8.0/24");
    announce(&mut rib, A, "172.17.9.0/24");
    rib.turn(&mut heard);
    for changed in [
        &*used(&rib, "172.17.8.0/24").attributes,
        &heard.tables[&C][&prefix("172.17.8.0/24")],
        rib.learned(10)
            .iter()
            .find(|route| route.prefix == prefix("172.17.8.0/24"))
            .and_then(|route| route.best.as_deref())
            .expect("learned"),
    ] {
        assert_eq!(changed.communities, [TAG]);
        assert_eq!(changed.as_path.to_string(), "65001 65002");
        assert_eq!(changed.local_pref, Some(PRIORITY_100));
    }
    let sent = PathAttributes::originated(address(A));
    assert_eq!(*received(&rib, "172.17.8.0/24").attributes, sent);
    assert_eq!(*used(&rib, "172.17.9.0/24").attributes, sent);
}

#[test]
fn an_import_rule_decides_between_paths_by_priority() {
    let (mut rib, mut heard) = with_clients();
    let rules = vec![any(Action::Accept(vec![set_priority(100)]))];
    rib.set_policy(B, importing(B, rules));
    announce(&mut rib, A, "172.17.8.0/24");
    announce(&mut rib, B, "172.17.8.0/24");
    rib.turn(&mut heard);
    let said = &heard.tables[&C][&prefix("172.17.8.0/24")];
    assert_eq!(said.next_hop.address, address(B));
}

#[test]
fn who_stops_is_used_last_whatever_a_rule_wants() {
    let (mut rib, _) = with_clients();
    let rules = vec![any(Action::Accept(vec![set_priority(100)]))];
    rib.set_policy(A, importing(A, rules));
    let stopping = PathAttributes {
        communities: thin_vec::thin_vec![Community::GRACEFUL_SHUTDOWN],
        ..PathAttributes::originated(address(A))
    };
    rib.announce(A, stopping, [prefix("172.17.8.0/24")].into_iter());
    let attributes = used(&rib, "172.17.8.0/24").attributes;
    assert_eq!(attributes.local_pref, Some(LocalPref(0)));
    let attributes = received(&rib, "172.17.8.0/24").attributes;
    assert_eq!(attributes.local_pref, None, "as it came");
}

#[test]
fn a_new_policy_judges_by_what_was_received_without_asking() {
    let (mut rib, mut heard) = with_clients();
    let rejecting_tagged = Rule {
        community: "65000:100".parse().ok(),
        ..any(Action::Reject)
    };
    for text in ["172.17.8.0/24", "172.17.9.0/24"] {
        announce(&mut rib, A, text);
    }
    rib.turn(&mut heard);
    let tagging = Action::Accept(vec![tag(), prepend(&[65001])]);
    for (name, rules, path, is_rejected) in [
        ("changed", vec![any(tagging.clone())], "65001", false),
        ("changed alike", vec![any(tagging.clone())], "65001", false),
        (
            "the former policy's tag is not seen",
            vec![rejecting_tagged.clone(), any(tagging)],
            "65001",
            false,
        ),
        ("rejected", vec![any(Action::Reject)], "", true),
        ("accepted as it is", vec![any(Action::ACCEPT)], "", false),
        ("no filter", vec![], "", false),
    ] {
        rib.set_policy(A, importing(A, rules));
        rib.turn(&mut heard);
        let path_of = |shown: &ShownPath| shown.attributes.as_path.to_string();
        for text in ["172.17.8.0/24", "172.17.9.0/24"] {
            let shown = used(&rib, text);
            assert_eq!(path_of(&shown), path, "{name}");
            assert_eq!(shown.rejection.is_some(), is_rejected, "{name}");
            assert_eq!(path_of(&received(&rib, text)), "", "{name}");
            let said = heard.tables[&C].get(&prefix(text));
            let said = said.map(|attributes| attributes.as_path.to_string());
            assert_eq!(said, (!is_rejected).then(|| path.to_owned()), "{name}");
        }
        let counts = rib.counts(A, Family::Ipv4);
        let accepted = if is_rejected { 0 } else { 2 };
        assert_eq!((counts.received, counts.accepted), (2, accepted), "{name}");
    }
    let tagged = PathAttributes {
        communities: thin_vec::thin_vec![TAG],
        ..PathAttributes::originated(address(A))
    };
    rib.set_policy(A, importing(A, vec![rejecting_tagged]));
    rib.announce(A, tagged, [prefix("172.17.8.0/24")].into_iter());
    rib.turn(&mut heard);
    assert_eq!(heard.prefixes(C), ["172.17.9.0/24"]);
    assert_eq!(
        used(&rib, "172.17.8.0/24").rejection,
        Some(Rejection::Filter("f".into()))
    );
}

#[test]
fn a_path_that_is_judged_again_stays_stale() {
    let (mut rib, mut heard) = with_clients();
    let accepting = |operations| importing(A, vec![any(Action::Accept(operations))]);
    rib.set_policy(A, accepting(vec![prepend(&[65001])]));
    announce(&mut rib, A, "172.17.8.0/24");
    rib.mark_stale(A, Family::Ipv4);
    rib.keep_long_lived(A, Family::Ipv4);
    rib.set_policy(A, accepting(vec![prepend(&[65002])]));
    rib.turn(&mut heard);
    let shown = used(&rib, "172.17.8.0/24");
    assert_eq!(shown.attributes.as_path.to_string(), "65002");
    assert_eq!(shown.attributes.communities, [Community::LLGR_STALE]);
    assert!(shown.is_stale);
    rib.flush_stale(A, Family::Ipv4);
    rib.turn(&mut heard);
    assert_eq!(heard.prefixes(C), Vec::<String>::new());
}

#[test]
fn every_group_hears_what_its_rules_make_of_a_route() {
    let (mut rib, mut heard) = with_clients();
    rib.set_policy(
        B,
        exporting(
            B,
            vec![
                inside("172.17.8.0/24", Action::Accept(vec![tag()])),
                inside(
                    "172.17.9.0/24",
                    Action::Accept(vec![prepend(&[65001]), set_priority(100)]),
                ),
                inside("172.17.10.0/24", Action::Reject),
            ],
        ),
    );
    let prefixes = ["172.17.8.0/24", "172.17.9.0/24", "172.17.10.0/24"];
    rib.announce(
        A,
        PathAttributes::originated(address(A)),
        prefixes.map(prefix).into_iter(),
    );
    rib.turn(&mut heard);
    assert_eq!(heard.prefixes(B), ["172.17.8.0/24", "172.17.9.0/24"]);
    let said = |id, text: &str| {
        let route = &heard.tables[&id][&prefix(text)];
        (
            route.communities.to_vec(),
            route.as_path.to_string(),
            route.local_pref,
        )
    };
    let plain = (Vec::new(), String::new(), Some(LocalPref::DEFAULT));
    assert_eq!(
        said(B, "172.17.8.0/24"),
        (vec![TAG], String::new(), plain.2)
    );
    assert_eq!(
        said(B, "172.17.9.0/24"),
        (Vec::new(), "65001".to_owned(), Some(PRIORITY_100))
    );
    for text in prefixes {
        assert_eq!(said(C, text), plain, "C has no filter: {text}");
    }
    let shown = rib.show_advertised(B, Some(prefix("172.17.8.0/24")));
    assert_eq!(shown[0].2, heard.tables[&B][&prefix("172.17.8.0/24")]);
}

#[test]
fn changed_attributes_are_encoded_once_for_all_prefixes() {
    let (mut rib, mut heard) = with_clients();
    let tagging = vec![any(Action::Accept(vec![tag()]))];
    rib.set_policy(A, importing(A, tagging.clone()));
    for id in [B, C] {
        rib.set_policy(id, exporting(id, tagging.clone()));
    }
    rib.turn(&mut heard);
    heard.messages = 0;
    let prefixes = (0..200u8).map(|n| prefix(&format!("172.17.{n}.0/24")));
    rib.announce(A, PathAttributes::originated(address(A)), prefixes);
    rib.turn(&mut heard);
    assert_eq!(heard.prefixes(B).len(), 200);
    assert_eq!(heard.messages, 2, "one to each receiver");
}

#[test]
fn a_path_that_prepending_makes_outgrow_a_message_is_withdrawn() {
    let (mut rib, mut heard) = with_clients();
    // Ten times ten AS numbers of four octets, in a message of 4096.
    let ten: Vec<u32> = (65001..=65010).collect();
    let prepending = vec![prepend(&ten); 10];
    rib.set_policy(B, exporting(B, vec![any(Action::Accept(prepending))]));
    for (name, length, is_said) in [
        ("fits", 100, true),
        ("longer than a segment", 300, true),
        ("outgrew the message", 1000, false),
        ("fits again", 100, true),
    ] {
        let mut attributes = PathAttributes::originated(address(A));
        attributes.as_path.prepend(Asn(65100), length);
        rib.announce(A, attributes, [prefix("172.17.8.0/24")].into_iter());
        rib.turn(&mut heard);
        let route = heard.tables[&B].get(&prefix("172.17.8.0/24"));
        let length_said = route.map(|route| route.as_path.length());
        assert_eq!(length_said, is_said.then_some(length + 100), "{name}");
        assert_eq!(heard.prefixes(C), ["172.17.8.0/24"], "{name}");
    }
}

#[test]
fn rules_of_ipv6_change_ipv6_routes() {
    let (mut rib, mut heard) = (rib(), Heard::default());
    let both = vec![Family::Ipv4, Family::Ipv6];
    let mut from = importing(A, vec![any(Action::Accept(vec![tag()]))]);
    from.group.families = both.clone();
    rib.peer_up(A, from);
    let mut to = exporting(
        B,
        vec![
            inside("2001:db8:8::/48", Action::Accept(vec![prepend(&[65001])])),
            inside("2001:db8::/32", Action::Reject),
        ],
    );
    to.group.families = both;
    rib.peer_up(B, to);
    let next_hop: IpAddr = "2001:db8::a".parse().expect("address");
    rib.announce(
        A,
        PathAttributes::originated(next_hop),
        ["2001:db8:8::/48", "2001:db8:9::/48"]
            .map(prefix)
            .into_iter(),
    );
    rib.turn(&mut heard);
    assert_eq!(heard.prefixes(B), ["2001:db8:8::/48"]);
    let said = &heard.tables[&B][&prefix("2001:db8:8::/48")];
    assert_eq!(said.as_path.to_string(), "65001");
    assert_eq!(said.communities, [TAG]);
}

#[test]
fn export_follows_the_interface_of_the_next_hop() {
    let (mut rib, mut heard) = with_clients();
    let mut only_eth = exporting(B, vec![by_interface("eth*", Action::ACCEPT)]);
    only_eth.group.export.default = ExportDefault::Reject;
    rib.set_policy(B, only_eth);
    announce(&mut rib, A, "172.17.8.0/24");
    announce(&mut rib, C, "172.17.9.0/24");
    rib.turn(&mut heard);
    assert_eq!(heard.prefixes(B), Vec::<String>::new(), "nothing is known");
    for (name, interface, expected) in [
        ("matches", Some("eth0"), &["172.17.8.0/24"][..]),
        ("another that matches", Some("eth1"), &["172.17.8.0/24"]),
        ("does not match", Some("wlan0"), &[]),
        ("matches again", Some("eth0"), &["172.17.8.0/24"]),
        ("is not known any more", None, &[]),
    ] {
        let known = interface.map(|interface| (address(A), by(interface)));
        rib.set_next_hop_costs(known.into_iter().collect());
        rib.turn(&mut heard);
        assert_eq!(heard.prefixes(B), expected, "{name}");
        let shown = rib.show_advertised(B, None);
        let shown: Vec<String> = shown
            .iter()
            .map(|(path, ..)| path.prefix.to_string())
            .collect();
        assert_eq!(shown, expected, "{name}");
        assert_eq!(rib.advertised_counts()[&B], [expected.len() as u64, 0]);
    }
}

#[test]
fn export_follows_the_interface_of_an_own_route() {
    let (mut rib, mut heard) = with_clients();
    rib.set_policy(B, exporting(B, vec![by_interface("cali*", Action::Reject)]));
    let own = |interface: Option<&str>| Originated {
        interface: interface.map(Arc::from),
        ..Originated::new([10, 0, 0, 1].into())
    };
    for (name, interface, is_said) in [
        ("none", None, true),
        ("rejected", Some("cali123"), false),
        ("another", Some("eth0"), true),
        ("rejected again", Some("cali456"), false),
        ("none again", None, true),
    ] {
        let route = (prefix("172.17.1.0/24"), own(interface));
        rib.set_originated([route].into());
        // That of the next hop says nothing about an own route.
        rib.set_next_hop_costs([([10, 0, 0, 1].into(), by("cali789"))].into());
        rib.turn(&mut heard);
        assert_eq!(!heard.prefixes(B).is_empty(), is_said, "{name}");
        assert_eq!(heard.prefixes(C), ["172.17.1.0/24"], "{name}");
    }
}

#[test]
fn import_follows_the_interface_of_the_next_hop() {
    let (mut rib, mut heard) = with_clients();
    rib.set_policy(
        A,
        importing(
            A,
            vec![
                by_interface("eth0", Action::Accept(vec![tag()])),
                by_interface("eth1", Action::Reject),
            ],
        ),
    );
    announce(&mut rib, A, "172.17.8.0/24");
    rib.turn(&mut heard);
    let said = |heard: &Heard| {
        let route = heard.tables.get(&C)?.get(&prefix("172.17.8.0/24"))?;
        Some(route.communities.to_vec())
    };
    assert_eq!(said(&heard), Some(vec![]), "nothing is known");
    for (interface, expected) in [
        ("eth0", Some(vec![TAG])),
        ("eth1", None),
        ("eth2", Some(vec![])),
    ] {
        rib.set_next_hop_costs([(address(A), by(interface))].into());
        rib.turn(&mut heard);
        assert_eq!(said(&heard), expected, "{interface}");
    }
}

#[test]
fn another_interface_says_nothing_where_no_filter_asks_for_it() {
    let (mut rib, mut heard) = with_clients();
    announce(&mut rib, A, "172.17.8.0/24");
    announce(&mut rib, C, "172.17.9.0/24");
    rib.set_next_hop_costs([(address(A), by("eth0"))].into());
    rib.turn(&mut heard);
    let announced = |rib: &mut Rib, heard: &mut Heard, interface| {
        heard.messages = 0;
        rib.set_next_hop_costs([(address(A), by(interface))].into());
        rib.turn(heard);
        heard.messages
    };
    assert_eq!(announced(&mut rib, &mut heard, "eth1"), 0);
    rib.set_policy(B, exporting(B, vec![by_interface("x", Action::Reject)]));
    rib.turn(&mut heard);
    assert!(announced(&mut rib, &mut heard, "eth2") > 0);
    assert_eq!(announced(&mut rib, &mut heard, "eth2"), 0, "the same");
}
