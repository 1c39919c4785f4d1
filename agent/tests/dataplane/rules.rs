//! Rules of the host that lead packets past table main are named, and others are not.

use agent::dataplane::desired::Desired;

use crate::routes::{has_ipv6, host, learned, open, via};

const FAMILIES: [(&str, &str, &str); 2] = [
    ("-4", "172.17.8.0/24", "10.0.0.2"),
    ("-6", "2001:db8:8::/64", "2001:db8::2"),
];

#[test]
fn rules_that_lead_past_our_routes_are_found_and_no_others() {
    for (name, commands, is_found) in [
        ("no rule", &[][..], false),
        (
            "a default route before main",
            &[
                "rule add priority 100 lookup 52",
                "route add default dev eth0 table 52",
            ],
            true,
        ),
        (
            "a route for the prefix before main",
            &[
                "rule add priority 100 lookup 52",
                "route add PREFIX dev eth0 table 52",
            ],
            true,
        ),
        (
            "an empty table",
            &["rule add priority 100 lookup 52"],
            false,
        ),
        (
            "for other prefixes",
            &[
                "rule add priority 100 lookup 52",
                "route add OTHER dev eth0 table 52",
            ],
            false,
        ),
        (
            "for marked packets",
            &[
                "rule add priority 100 fwmark 1 lookup 52",
                "route add default dev eth0 table 52",
            ],
            false,
        ),
        (
            "for what one interface sends",
            &[
                "rule add priority 100 iif lan0 lookup 52",
                "route add default dev eth0 table 52",
            ],
            false,
        ),
        (
            "past our prefix",
            &[
                "rule add priority 100 lookup 52",
                "route add default dev eth0 table 52",
                "route add throw PREFIX table 52",
            ],
            false,
        ),
        (
            "after what main has for a prefix",
            &[
                "rule add priority 99 lookup main suppress_prefixlength 0",
                "rule add priority 100 lookup 52",
                "route add default dev eth0 table 52",
            ],
            false,
        ),
    ] {
        for (family, ours, gateway) in FAMILIES {
            if family == "-6" && !has_ipv6() {
                println!("SKIPPED: this kernel has no IPv6");
                return;
            }
            let Some(host) = host() else { return };
            host.ip("addr add 2001:db8::1/64 dev eth0 nodad");
            let other = if family == "-6" {
                "2001:db8:7::/64"
            } else {
                "172.18.0.0/24"
            };
            for command in commands {
                let command = command.replace("PREFIX", ours).replace("OTHER", other);
                host.ip(&format!("{family} {command}"));
            }
            let report = host.block_on(async || {
                let mut dataplane = open().await;
                let change = learned(ours, Some(via(gateway, "eth0")));
                assert_eq!(dataplane.apply_learned(vec![change]).await.failed, []);
                dataplane.apply(&Desired::default()).await
            });
            let found: Vec<_> = report
                .findings
                .iter()
                .map(|(object, _)| object.as_str())
                .collect();
            let expected = if is_found { &["ip rule"][..] } else { &[] };
            assert_eq!(found, expected, "{name} {family}: {:?}", report.findings);
        }
    }
}
