//! What a session can do beyond the usual: as the BGPPeer asks, with its bounds.

use std::time::Duration;

use bgp::rib::decision::Options;
use bgp::speaker::config::AddPaths;
use bgp::types::Role;

use super::*;

#[test]
fn features_are_as_the_peer_asks() {
    let spec = "{peerIP: 10.9.9.9, asNumber: 64520, addPaths: both, role: customer, roleStrict: true, \
                longLivedStaleTime: 1h, maxRestartTime: 5m, removePrivateASNumbers: true, \
                extendedNextHop: true}";
    let (config, errors) = config("a1", &peer("p", spec));
    assert_eq!(errors, Vec::<String>::new());
    let found = only(&config, "10.9.9.9");
    let both = AddPaths {
        send: true,
        receive: true,
    };
    assert_eq!(found.add_paths, both);
    assert_eq!(
        (found.role, found.role_strict),
        (Some(Role::Customer), true)
    );
    assert_eq!(found.long_lived_stale_time, Some(Duration::from_secs(3600)));
    assert_eq!(found.restart_time, Some(Duration::from_secs(300)));
    assert!(found.remove_private_as && found.extended_next_hop);
}

#[test]
fn features_are_off_unless_asked_for() {
    let (config, _) = config("a1", &peer("p", "{peerIP: 10.9.9.9, asNumber: 64520}"));
    let found = only(&config, "10.9.9.9");
    assert_eq!(found.add_paths, AddPaths::default());
    assert_eq!((found.role, found.long_lived_stale_time), (None, None));
    assert!(!found.remove_private_as && !found.extended_next_hop);
    assert_eq!(config.decision, Options::default());
}

#[test]
fn roles_are_for_external_peers() {
    let (config, errors) = config(
        "a1",
        &peer("p", "{peerIP: 10.9.9.9, asNumber: 64512, role: peer}"),
    );
    assert_eq!(only(&config, "10.9.9.9").role, None);
    assert_eq!(
        errors,
        [
            "f.yaml: BGPPeer/p: spec.role: roles are between different AS numbers (RFC 9234); remove it, or correct asNumber"
        ]
    );
}

#[test]
fn what_is_out_of_bounds_is_refused_with_the_bounds() {
    for (spec, reason) in [
        (
            "addPaths: all",
            "spec.addPaths: expected one of send, receive, both",
        ),
        (
            "role: upstream",
            "spec.role: expected one of provider, rs, rsClient, customer, peer",
        ),
        (
            "roleStrict: true",
            "spec.roleStrict: there is no role; add it",
        ),
        (
            "longLivedStaleTime: 200d",
            "spec.longLivedStaleTime: expected",
        ),
        (
            "longLivedStaleTime: 16777216s",
            "spec.longLivedStaleTime: expected whole seconds from 0s to 16777215s",
        ),
        (
            "maxRestartTime: 0s",
            "spec.maxRestartTime: expected whole seconds from 1s to 4095s",
        ),
        (
            "maxRestartTime: 1500ms",
            "spec.maxRestartTime: expected whole seconds from 1s to 4095s",
        ),
        (
            "removePrivateASNumbers: 1",
            "spec.removePrivateASNumbers: expected",
        ),
    ] {
        let text = peer(
            "p",
            &format!("{{peerIP: 10.9.9.9, asNumber: 64520, {spec}}}"),
        );
        let (_, errors) = load(&parse_stream("f.yaml", &format!("{NODES}{text}")));
        let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert!(
            said.iter().any(|line| line.contains(reason)),
            "{spec}: {said:?}"
        );
    }
}

#[test]
fn multipath_and_med_are_settings_of_the_speaker() {
    let more = document(
        "BGPConfiguration",
        "default",
        "{multipath: {ebgp: 4, ibgp: 8, acrossAS: true}, alwaysCompareMED: true}",
    ) + &document("BGPConfiguration", "node.c1", "{multipath: {ibgp: 2}}");
    let all = Options {
        always_compare_med: true,
        max_ebgp_paths: 4,
        max_ibgp_paths: 8,
        multipath_across_as: true,
    };
    assert_eq!(config("a1", &more).0.decision, all);
    let of_node = Options {
        always_compare_med: true,
        max_ibgp_paths: 2,
        ..Options::default()
    };
    assert_eq!(config("c1", &more).0.decision, of_node);
}

#[test]
fn among_nodes_of_calico_routes_are_as_good_as_theirs() {
    let more = document("BGPConfiguration", "default", "{localPreference: calico}");
    assert_eq!(config("a1", &more).0.local_pref, LocalPref(2_147_482_623));
}
