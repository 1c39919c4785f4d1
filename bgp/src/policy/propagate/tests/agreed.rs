//! What depends on what was agreed or configured with the receiver.

use super::*;
use crate::wire::as_path::AsPath;

fn through(asns: &[u32]) -> PathAttributes {
    PathAttributes {
        as_path: AsPath::sequence(asns.iter().map(|asn| Asn(*asn))),
        ..attributes()
    }
}

#[test]
fn a_draining_speaker_asks_to_be_used_last() {
    for ebgp in [true, false] {
        let draining = ExportPolicy {
            is_draining: true,
            ..policy(ebgp, true)
        };
        let out = draining
            .transform(&attributes(), RouteSource::Local, Family::Ipv4, &[])
            .expect("passes");
        assert_eq!(out.communities, [Community::GRACEFUL_SHUTDOWN]);
        let expected = (!ebgp).then_some(LocalPref(0));
        assert_eq!(out.local_pref, expected, "eBGP: {ebgp}");
        let again = draining.transform(&out, RouteSource::Local, Family::Ipv4, &[]);
        assert_eq!(again.expect("passes").communities.len(), 1);
    }
}

#[test]
fn private_as_numbers_are_removed_towards_ebgp_but_the_receivers_own() {
    for (name, receiver, path, expected) in [
        (
            "private",
            65000,
            &[64600, 7018, 4_200_000_001][..],
            "64512 7018",
        ),
        (
            "receiver's own stays",
            64600,
            &[64600, 7018],
            "64512 64600 7018",
        ),
        ("only private", 7018, &[64600, 64601], "64512"),
        (
            "reserved ones are not private",
            1,
            &[65535, 64511],
            "64512 65535 64511",
        ),
    ] {
        let to = ExportPolicy {
            remove_private_as: Some(Asn(receiver)),
            ..policy(true, false)
        };
        let out = to.transform(&through(path), RouteSource::Ebgp, Family::Ipv4, &[]);
        assert_eq!(out.expect("passes").as_path.to_string(), expected, "{name}");
    }
}

#[test]
fn ipv4_goes_over_ipv6_next_hops_to_those_who_take_them() {
    let v6: IpAddr = "2001:db8::1".parse().expect("address");
    let over_ipv6 = PathAttributes::originated(v6);
    for (name, ipv4_over_ipv6, own, family, mode, expected) in [
        (
            "kept, taken",
            true,
            vec![],
            Family::Ipv4,
            NextHopMode::Keep,
            Some(v6),
        ),
        (
            "kept, not taken",
            false,
            vec![],
            Family::Ipv4,
            NextHopMode::Keep,
            None,
        ),
        (
            "IPv6 prefixes do not care",
            false,
            vec![],
            Family::Ipv6,
            NextHopMode::Keep,
            Some(v6),
        ),
        (
            "self, IPv4 first",
            true,
            vec![v6, [10, 0, 0, 1].into()],
            Family::Ipv4,
            NextHopMode::SelfAddress,
            Some([10, 0, 0, 1].into()),
        ),
        (
            "self, only IPv6",
            true,
            vec![v6],
            Family::Ipv4,
            NextHopMode::SelfAddress,
            Some(v6),
        ),
        (
            "self, only IPv6, not taken",
            false,
            vec![v6],
            Family::Ipv4,
            NextHopMode::SelfAddress,
            None,
        ),
        (
            "no IPv6 address of ours",
            true,
            vec![[10, 0, 0, 1].into()],
            Family::Ipv6,
            NextHopMode::SelfAddress,
            None,
        ),
    ] {
        let to = ExportPolicy {
            ipv4_over_ipv6,
            own_addresses: own,
            next_hop_mode: mode,
            ..policy(true, false)
        };
        let out = to.transform(&over_ipv6, RouteSource::Ebgp, family, &[]);
        let out = out.map(|out| out.next_hop.address);
        assert_eq!(out, expected.ok_or(Rejection::NoNextHop), "{name}");
    }
}

#[test]
fn routes_that_are_stale_for_long_go_to_those_who_know_what_that_means() {
    let mut stale = attributes();
    stale.communities.push(Community::LLGR_STALE);
    for long_lived in [true, false] {
        let to = ExportPolicy {
            long_lived,
            ..policy(false, true)
        };
        let out = to.transform(&stale, RouteSource::Ebgp, Family::Ipv4, &[]);
        let refusal = (!long_lived).then_some(Rejection::LongStale);
        assert_eq!(out.err(), refusal);
    }
}

#[test]
fn what_is_for_customers_only_goes_to_customers_only() {
    let mut marked = through(&[65001]);
    marked.only_to_customer = Some(Asn(65001));
    for (role, ebgp, expected) in [
        (Role::Customer, true, None),
        (Role::Peer, true, None),
        (Role::Provider, true, Some(Some(Asn(65001)))),
        (Role::Customer, false, Some(Some(Asn(65001)))),
    ] {
        let to = ExportPolicy {
            role: Some(role),
            ..policy(ebgp, true)
        };
        let out = to.transform(&marked, RouteSource::Ebgp, Family::Ipv4, &[]);
        let found = out.map(|out| out.only_to_customer);
        let expected = expected.ok_or(Rejection::RouteLeak);
        assert_eq!(found, expected, "our role {role}, eBGP {ebgp}");
    }
    let to_customer = ExportPolicy {
        role: Some(Role::Provider),
        ..policy(true, false)
    };
    let out = to_customer.transform(&through(&[65001]), RouteSource::Ebgp, Family::Ipv4, &[]);
    let marked_by = out.expect("passes").only_to_customer;
    assert_eq!(marked_by, Some(Asn(64512)));
}
