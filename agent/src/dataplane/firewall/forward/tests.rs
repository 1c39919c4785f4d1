use super::*;

/// What nft 1.0.6 printed after iptables 1.8.9 (nf_tables) had set the policy to DROP and added
/// three rules, the last as `-i cara+ -m comment --comment x -j ACCEPT`, and nft ours in front.
const IPTABLES: &str = r#"{"nftables": [
{"metainfo": {"version": "1.0.6", "release_name": "Lester Gooch #5", "json_schema_version": 1}},
{"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "handle": 1, "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
{"rule": {"family": "ip", "table": "filter", "chain": "FORWARD", "handle": 4, "comment": "caracal", "expr": [{"match": {"op": "==", "left": {"meta": {"key": "oifname"}}, "right": "cara*"}}, {"counter": {"packets": 0, "bytes": 0}}, {"accept": null}]}},
{"rule": {"family": "ip", "table": "filter", "chain": "FORWARD", "handle": 2, "expr": [{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "docker0"}}, {"match": {"op": "==", "left": {"meta": {"key": "oifname"}}, "right": "docker0"}}, {"counter": {"packets": 0, "bytes": 0}}, {"accept": null}]}},
{"rule": {"family": "ip", "table": "filter", "chain": "FORWARD", "handle": 3, "expr": [{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "cara*"}}, {"xt": {"type": "match", "name": "comment"}}, {"counter": {"packets": 0, "bytes": 0}}, {"accept": null}]}}
]}"#;

fn chain() -> ForwardChain {
    forward_chains(IPTABLES)
        .expect("nft's own output")
        .remove(0)
}

/// A chain of policy accept with this one rule.
fn with_rule(statements: &str) -> Treatment {
    let chain = ForwardChain {
        does_policy_drop: false,
        ..chain()
    };
    let text = format!(r#"{{"nftables": [{{"rule": {{"handle": 7, "expr": [{statements}]}}}}]}}"#);
    treatment(&chain, &text).expect("JSON")
}

#[test]
fn chains_at_the_hook_are_found_and_no_others() {
    let found = forward_chains(IPTABLES).expect("nft's own output");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].shown(), "ip filter FORWARD");
    for (name, from, to) in [
        ("another hook", "\"forward\"", "\"input\""),
        ("another family", "\"ip\"", "\"ip6\""),
        ("a name that is none", "\"FORWARD\"", "\"a; b\""),
        (
            "our own",
            r#""family": "ip", "table": "filter""#,
            r#""family": "inet", "table": "caracal""#,
        ),
    ] {
        let others = forward_chains(&IPTABLES.replace(from, to)).expect("JSON");
        assert_eq!(others, [], "{name}");
    }
}

#[test]
fn rules_that_accept_workloads_are_known_from_others() {
    let read = treatment(&chain(), IPTABLES).expect("nft's own output");
    assert_eq!(
        read,
        Treatment {
            is_blocking: true,
            accepted: vec![Way::To, Way::From],
            tagged: vec![(Way::To, Some(4))],
            ..Treatment::default()
        }
    );
    assert_eq!(read.blocked(), []);
    let without = IPTABLES.replace("cara*", "eth0");
    let read = treatment(&chain(), &without).expect("JSON");
    assert_eq!(read.blocked(), Way::ALL);
}

#[test]
fn last_word_can_be_a_rule() {
    for (name, statements, is_blocking) in [
        (
            "reject",
            r#"{"reject": {"type": "icmpx", "expr": "admin-prohibited"}}"#,
            true,
        ),
        (
            "drop, counted and logged",
            r#"{"counter": {}}, {"log": null}, {"drop": null}"#,
            true,
        ),
        (
            "drop of some",
            r#"{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "eth0"}}, {"drop": null}"#,
            false,
        ),
        ("jump", r#"{"jump": {"target": "x"}}"#, false),
        ("accept", r#"{"accept": null}"#, false),
        ("nothing", "", false),
    ] {
        assert_eq!(with_rule(statements).is_blocking, is_blocking, "{name}");
    }
}

#[test]
fn conditional_acceptance_is_none() {
    for condition in [
        r#"{"match": {"op": "!=", "left": {"meta": {"key": "iifname"}}, "right": "cara*"}}"#,
        r#"{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "cara0*"}}"#,
        r#"{"match": {"op": "==", "left": {"ct": {"key": "state"}}, "right": "established"}}"#,
        r#"{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "cara*"}}, {"match": {"op": "==", "left": {"meta": {"key": "mark"}}, "right": 1}}"#,
    ] {
        let read = with_rule(&format!("{condition}, {{\"accept\": null}}"));
        assert_eq!(read, Treatment::default(), "{condition}");
    }
}

/// As iptables-legacy 1.8.9 prints it.
#[test]
fn legacy_rules_are_read_alike() {
    let blocked = "-P FORWARD DROP\n-A FORWARD -i docker0 -o docker0 -j ACCEPT\n";
    assert_eq!(legacy_treatment(blocked).blocked(), Way::ALL);
    let ours = "-P FORWARD DROP\n\
                -A FORWARD -o cara+ -m comment --comment caracal -j ACCEPT\n\
                -A FORWARD -i cara+ -j ACCEPT\n\
                -A FORWARD -i cara+ -p tcp -j ACCEPT\n";
    assert_eq!(
        legacy_treatment(ours),
        Treatment {
            is_blocking: true,
            accepted: vec![Way::To, Way::From],
            tagged: vec![(Way::To, None)],
            ..Treatment::default()
        }
    );
    assert_eq!(
        legacy_treatment("-P FORWARD ACCEPT\n"),
        Treatment::default()
    );
    let rejecting = "-P FORWARD ACCEPT\n-A FORWARD -j REJECT --reject-with icmp-host-prohibited\n";
    assert!(legacy_treatment(rejecting).is_blocking);
}

/// As kube-proxy 1.34.4 has iptables 1.8.9 write them.
#[test]
fn last_rule_that_leads_to_kube_proxy_is_known() {
    let jump = r#"{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "new"}}, {"xt": {"type": "match", "name": "comment"}}, {"counter": {"packets": 0, "bytes": 0}}, {"jump": {"target": "KUBE-SERVICES"}}"#;
    assert_eq!(with_rule(jump).last_to_kube_proxy, Some(7));
    let other = jump.replace("KUBE-SERVICES", "DOCKER-USER");
    assert_eq!(with_rule(&other).last_to_kube_proxy, None);
    let behind = format!(r#"{{"reject": null}}]}}}}, {{"rule": {{"handle": 8, "expr": [{jump}"#);
    assert_eq!(with_rule(&behind).last_to_kube_proxy, None);

    let legacy = "-P FORWARD DROP\n\
                  -A FORWARD -j DOCKER-USER\n\
                  -A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD\n\
                  -A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES\n\
                  -A FORWARD -i docker0 -j ACCEPT\n";
    assert_eq!(legacy_treatment(legacy).last_to_kube_proxy, Some(3));
    let behind = legacy.replace(
        "-j DOCKER-USER",
        "-j REJECT --reject-with icmp-port-unreachable",
    );
    assert_eq!(legacy_treatment(&behind).last_to_kube_proxy, None);
}

#[test]
fn damaged_text_ends_in_an_answer() {
    for length in 0..IPTABLES.len() {
        let _ = forward_chains(&IPTABLES[..length]);
        let _ = treatment(&chain(), &IPTABLES[..length]);
        let _ = legacy_treatment(&IPTABLES[..length]);
    }
}
