mod agreed;
mod filtered;

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
        summarized: Vec::new(),
        filters: Vec::new(),
        default: ExportDefault::Accept,
    }
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
        let out = to.transform(&attributes, source, Family::Ipv4, &[]).ok();
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
    attributes.cluster_list = thin_vec::thin_vec![ClusterId([1, 1, 1, 1].into())];
    let source = RouteSource::Ibgp {
        client: true,
        router_id: id(2),
    };
    let out = policy(false, true)
        .transform(&attributes, source, Family::Ipv4, &[])
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
    attributes.cluster_list = thin_vec::thin_vec![ClusterId([1, 1, 1, 1].into())];
    let source = RouteSource::Ibgp {
        client: true,
        router_id: id(2),
    };
    let out = policy(true, false)
        .transform(&attributes, source, Family::Ipv4, &[])
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
        .transform(&attributes, source, Family::Ipv4, &[])
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
                .transform(&attributes, RouteSource::Ebgp, Family::Ipv4, &[])
                .is_ok()
        };
        assert_eq!((passes(false), passes(true)), (to_ibgp, to_ebgp), "{name}");
    }
}
