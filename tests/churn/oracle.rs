//! What every client should have, computed from what the clients say and the configuration.
//!
//! A second implementation, on purpose a plain one: it looks at all routes of a prefix at once and
//! shares no code with the product's RIB and policy. What it takes from `bgp` is values.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use bgp::types::{Asn, LocalPref, Med, Prefix, RouterId};
use bgp::wire::as_path::AsPath;
use bgp::wire::attribute::PathAttributes;
use bgp::wire::community::Community;

use crate::setup::{AS, CLUSTER, REFLECTOR, ROUTER_ID, Setup, TAG, address, block};

/// Routes by prefix; several of one only where the client takes several paths.
pub type Table = BTreeMap<Prefix, Vec<PathAttributes>>;

/// What the reflector has of one client.
pub struct Said<'a> {
    pub last: u8,
    pub asn: Asn,
    pub router_id: RouterId,
    pub routes: &'a BTreeMap<Prefix, PathAttributes>,
}

/// One route as the reflector uses it.
struct Candidate<'a> {
    from: &'a Said<'a>,
    is_ebgp: bool,
    used: PathAttributes,
}

/// What a client hears.
pub struct Receiver {
    pub last: u8,
    pub takes_all_paths: bool,
}

pub fn tables(setup: &Setup, said: &[Said<'_>], receivers: &[Receiver]) -> BTreeMap<u8, Table> {
    let mut tables: BTreeMap<u8, Table> = receivers
        .iter()
        .map(|receiver| (receiver.last, Table::new()))
        .collect();
    let prefixes: BTreeSet<Prefix> = said
        .iter()
        .flat_map(|said| said.routes.keys().copied())
        .collect();
    for prefix in prefixes {
        let candidates: Vec<Candidate<'_>> = said
            .iter()
            .filter_map(|from| candidate(setup, from, &prefix))
            .collect();
        let best = best(setup, &candidates);
        for receiver in receivers {
            let heard: Vec<PathAttributes> = candidates
                .iter()
                .enumerate()
                .filter(|(at, _)| receiver.takes_all_paths || Some(*at) == best)
                .filter_map(|(_, route)| exported(setup, route, receiver.last, &prefix))
                .collect();
            if !heard.is_empty()
                && let Some(table) = tables.get_mut(&receiver.last)
            {
                table.insert(prefix, heard);
            }
        }
    }
    tables
}

fn candidate<'a>(setup: &Setup, from: &'a Said<'a>, prefix: &Prefix) -> Option<Candidate<'a>> {
    let received = from.routes.get(prefix)?;
    let is_ebgp = from.asn != AS;
    let path: Vec<Asn> = received.as_path.asns().collect();
    let is_looped = path.contains(&AS)
        || received.originator_id == Some(ROUTER_ID)
        || received.cluster_list.contains(&CLUSTER);
    let is_misled = is_ebgp && path.first() != Some(&from.asn);
    let next_hop = received.next_hop.address;
    let is_bad_next_hop = next_hop.is_loopback() || next_hop == IpAddr::from(REFLECTOR);
    let block = block(prefix);
    if is_looped || is_misled || is_bad_next_hop || setup.refused.contains(&block) {
        return None;
    }
    let mut used = received.clone();
    if !is_ebgp && setup.tagged.contains(&block) {
        add(&mut used, Community((AS.0 << 16) | u32::from(TAG)));
    }
    if used.communities.contains(&Community::GRACEFUL_SHUTDOWN) {
        used.local_pref = Some(LocalPref(0));
    }
    Some(Candidate {
        from,
        is_ebgp,
        used,
    })
}

/// Which one everybody is told of.
fn best(setup: &Setup, candidates: &[Candidate<'_>]) -> Option<usize> {
    let mut left: Vec<usize> = (0..candidates.len()).collect();
    let keep = |left: &mut Vec<usize>, rank: &dyn Fn(&Candidate<'_>) -> u64| {
        let lowest = left.iter().map(|at| rank(&candidates[*at])).min();
        left.retain(|at| Some(rank(&candidates[*at])) == lowest);
    };
    let preference = |route: &Candidate<'_>| route.used.local_pref.map_or(100, |pref| pref.0);
    keep(&mut left, &|route| u64::from(u32::MAX - preference(route)));
    keep(&mut left, &|route| route.used.as_path.asns().count() as u64);
    keep(&mut left, &|route| route.used.origin as u64);
    // MED counts among routes of one neighbouring AS, or among all.
    let med = |at: usize| candidates[at].used.med.unwrap_or(Med(0));
    let neighbour = |at: usize| candidates[at].used.as_path.asns().next();
    let is_rival = |a, b| setup.always_compare_med || neighbour(a) == neighbour(b);
    let of_before = left.clone();
    left.retain(|at| {
        let mut rivals = of_before.iter().filter(|other| is_rival(*at, **other));
        !rivals.any(|other| med(*other) < med(*at))
    });
    keep(&mut left, &|route| u64::from(!route.is_ebgp));
    keep(&mut left, &|route| {
        let originator = route.used.originator_id.unwrap_or(route.from.router_id);
        u64::from(u32::from(originator.0))
    });
    keep(&mut left, &|route| route.used.cluster_list.len() as u64);
    keep(&mut left, &|route| {
        u64::from(u32::from(address(route.from.last)))
    });
    left.first().copied()
}

/// The route as `to` hears it; `None` if it does not.
fn exported(
    setup: &Setup,
    route: &Candidate<'_>,
    to: u8,
    prefix: &Prefix,
) -> Option<PathAttributes> {
    let has = |community| route.used.communities.contains(&community);
    let (to_ebgp, to_client) = (setup.is_ebgp(to), setup.is_client(to));
    let from_client = setup.is_client(route.from.last);
    // RFC 4456 §6: between two that are no clients nothing is reflected.
    let is_reflected = route.is_ebgp || to_ebgp || from_client || to_client;
    if route.from.last == to
        || !is_reflected
        || has(Community::NO_ADVERTISE)
        || (to_ebgp && has(Community::NO_EXPORT))
        || setup.hides(block(prefix), to)
    {
        return None;
    }
    let mut out = route.used.clone();
    if to_ebgp {
        let path = std::iter::once(AS).chain(route.used.as_path.asns());
        out.as_path = AsPath::sequence(path);
        (out.local_pref, out.med, out.originator_id) = (None, None, None);
        out.cluster_list.clear();
    } else {
        out.local_pref = out.local_pref.or(Some(LocalPref(100)));
        if !route.is_ebgp {
            out.originator_id = out.originator_id.or(Some(route.from.router_id));
            out.cluster_list.insert(0, CLUSTER);
        }
    }
    if setup.is_draining {
        add(&mut out, Community::GRACEFUL_SHUTDOWN);
        if !to_ebgp {
            out.local_pref = Some(LocalPref(0));
        }
    }
    Some(out)
}

fn add(attributes: &mut PathAttributes, community: Community) {
    if !attributes.communities.contains(&community) {
        attributes.communities.push(community);
    }
}

/// The identifier a client says: not in the order of the addresses.
pub fn router_id(last: u8) -> RouterId {
    RouterId(Ipv4Addr::new(192, 0, 2, 200 - last))
}
