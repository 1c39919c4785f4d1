//! What the kernel holds, and what it would hold after requests that were held back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use bgp::types::{Family, Prefix};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Difference;
use crate::dataplane::deletions::Deletions;
use crate::dataplane::diff::{FibInfo, KernelRoute, SCOPE_LINK, SCOPE_UNIVERSE};
use crate::dataplane::link::{self, LinkState, Links};
use crate::dataplane::neigh::{self, NeighbourKey};
use crate::dataplane::netlink::{Netlink, NetlinkError, Request};
use crate::dataplane::next_hop::NextHops;
use crate::dataplane::route::{self, FibInfos};
use crate::names::{VXLAN_DEVICE, mac_text};

/// As the kernel tells routes apart, but for the hops of IPv6, of which ours have all in one.
type RouteKey = (Prefix, u8, u32);

#[derive(Clone)]
pub struct Seen {
    links: Links,
    neighbours: BTreeMap<NeighbourKey, [u8; 6]>,
    /// Interface index, MAC and node behind it.
    forwarding: BTreeSet<(u32, [u8; 6], Ipv4Addr)>,
    routes: BTreeMap<RouteKey, Arc<FibInfo>>,
}

impl Seen {
    /// Reads it from the kernel.
    ///
    /// # Errors
    /// As `Netlink::dump`.
    pub fn read(netlink: &mut Netlink) -> Result<Seen, NetlinkError> {
        let links = link::observe_kernel(netlink)?;
        let mut forwarding = BTreeSet::new();
        if let Some(device) = links.get(VXLAN_DEVICE) {
            let entries = neigh::observe_forwarding(netlink, device.index)?;
            let entries = entries.into_iter();
            forwarding.extend(entries.map(|(mac, node)| (device.index, mac, node)));
        }
        let mut routes = BTreeMap::new();
        let (mut infos, mut next_hops) = (FibInfos::default(), NextHops::default());
        next_hops.observe(netlink)?;
        let mut deletions = Deletions::subscribe(netlink.port()).ok();
        for family in Family::ALL {
            let found = route::observe(
                netlink,
                family,
                None,
                &mut infos,
                &mut next_hops,
                deletions.as_mut(),
            )?;
            let found = found.routes(std::iter::empty).into_iter();
            routes.extend(found.map(|route| (key(&route), route.info)));
        }
        Ok(Seen {
            links,
            neighbours: neigh::observe(netlink)?,
            forwarding,
            routes,
        })
    }

    /// As it would be after these requests.
    pub fn after(&self, requests: &[Request]) -> Seen {
        let mut seen = self.clone();
        // Of those that would be written none is by a next-hop object.
        let (mut infos, mut next_hops) = (FibInfos::default(), NextHops::default());
        seen.links.replay(requests);
        for request in requests {
            match request.message.clone() {
                RouteNetlinkMessage::NewNeighbour(message) => {
                    let index = message.header.ifindex;
                    if message.header.family == AddressFamily::Bridge {
                        let entry = neigh::decode_forwarding(&message);
                        let entry = entry.map(|(mac, node)| (index, mac, node));
                        seen.forwarding.extend(entry);
                    } else if let Some((address, mac)) = neigh::decode(&message) {
                        seen.neighbours.insert((index, address), mac);
                    }
                }
                RouteNetlinkMessage::DelNeighbour(message) => {
                    let index = message.header.ifindex;
                    if message.header.family == AddressFamily::Bridge {
                        if let Some((mac, node)) = neigh::decode_forwarding(&message) {
                            seen.forwarding.remove(&(index, mac, node));
                        }
                    } else if let Some(address) = neigh::address_of(&message) {
                        seen.neighbours.remove(&(index, address));
                    }
                }
                RouteNetlinkMessage::NewRoute(message) => {
                    let route = route::decode(message, &mut infos, &mut next_hops);
                    let route = route.map(|route| (key(&route), route.info));
                    seen.routes.extend(route);
                }
                RouteNetlinkMessage::DelRoute(message) => {
                    if let Some(gone) = route::decode(message, &mut infos, &mut next_hops) {
                        let is_it = |held: &Arc<FibInfo>| held.protocol == gone.info.protocol;
                        if seen.routes.get(&key(&gone)).is_some_and(is_it) {
                            seen.routes.remove(&key(&gone));
                        }
                    }
                }
                // Links and addresses are replayed above; nothing else is ever written.
                _ => {}
            }
        }
        seen
    }

    /// What would have to be done for it to become `wanted`: links, neighbours, forwarding, routes.
    pub fn differences(&self, wanted: &Seen) -> Vec<Difference> {
        let mut found = Vec::new();
        for (name, before, after) in pairs(&self.links.by_name, &wanted.links.by_name) {
            let (present, wanted) = match (before, after) {
                (Some(before), Some(after)) => {
                    let (present, wanted) = differing(before, after);
                    if present == wanted {
                        continue;
                    }
                    (Some(present), Some(wanted))
                }
                (before, after) => (before.map(described), after.map(described)),
            };
            found.push(Difference {
                object: format!("link {name}"),
                present,
                wanted,
            });
        }
        for (key, before, after) in pairs(&self.neighbours, &wanted.neighbours) {
            let (index, address) = key;
            found.extend(difference(
                format!("neighbour {address} dev {}", wanted.device(*index)),
                before.map(|mac| mac_text(*mac)),
                after.map(|mac| mac_text(*mac)),
            ));
        }
        for (index, mac, node) in self.forwarding.symmetric_difference(&wanted.forwarding) {
            let entry = (*index, *mac, *node);
            let is_in = |seen: &Seen| seen.forwarding.contains(&entry).then(|| node.to_string());
            found.extend(difference(
                format!(
                    "forwarding {} dev {}",
                    mac_text(*mac),
                    wanted.device(*index)
                ),
                is_in(self),
                is_in(wanted),
            ));
        }
        for (key, before, after) in pairs(&self.routes, &wanted.routes) {
            found.extend(difference(
                format!("route {}", key.0),
                before.map(|route| self.route_text(route)),
                after.map(|route| wanted.route_text(route)),
            ));
        }
        found
    }

    fn device(&self, index: u32) -> &str {
        self.links.name_of(index).unwrap_or("?")
    }

    fn route_text(&self, route: &FibInfo) -> String {
        let mut text = route.describe(&self.links);
        if let Some(source) = route.source {
            text += &format!(" src {source}");
        }
        if route.hops.iter().any(|hop| hop.is_onlink) {
            text += " onlink";
        }
        if route.hops.iter().any(|hop| hop.is_dead) {
            text += " dead";
        }
        if route.hops.iter().any(|hop| hop.extra_weight != 0) {
            text += " with weights";
        }
        match route.scope {
            SCOPE_UNIVERSE => {}
            SCOPE_LINK => text += " scope link",
            other => text += &format!(" scope {other}"),
        }
        if route.has_extras {
            text += " with attributes that are not ours";
        }
        text
    }
}

/// Every key of either, in order.
fn pairs<'a, K: Ord, V>(
    before: &'a BTreeMap<K, V>,
    after: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, Option<&'a V>, Option<&'a V>)> {
    let keys: BTreeSet<&K> = before.keys().chain(after.keys()).collect();
    keys.into_iter()
        .map(move |key| (key, before.get(key), after.get(key)))
}

fn difference(
    object: String,
    present: Option<String>,
    wanted: Option<String>,
) -> Option<Difference> {
    (present != wanted).then_some(Difference {
        object,
        present,
        wanted,
    })
}

fn key(route: &KernelRoute) -> RouteKey {
    (route.prefix, route.tos, route.info.metric)
}

/// What can be changed of a link: name and value.
fn properties(link: &LinkState) -> Vec<(&'static str, String)> {
    let mut properties = vec![
        ("kind", link.kind.clone()),
        ("mtu", link.mtu.to_string()),
        ("mac", link.mac.map(mac_text).unwrap_or_default()),
        ("", if link.is_up { "up" } else { "down" }.to_owned()),
        ("", if link.is_noarp { "noarp" } else { "" }.to_owned()),
    ];
    if let Some(ends) = link.tunnel {
        properties.push(("local", ends.local.to_string()));
        properties.push(("remote", ends.remote.to_string()));
        properties.push(("ttl", ends.ttl.to_string()));
        properties.push(("tos", ends.tos.to_string()));
        properties.push(("pmtudisc", ends.is_pmtu_discovering.to_string()));
    }
    if let Some(ends) = link.vxlan {
        let local = ends.local.map(|local| local.to_string());
        properties.push(("vni", ends.vni.to_string()));
        properties.push(("port", ends.port.to_string()));
        properties.push(("local", local.unwrap_or_default()));
        properties.push(("learning", ends.is_learning.to_string()));
    }
    let mut addresses: Vec<String> = link
        .addresses
        .iter()
        .map(|(address, length)| format!("{address}/{length}"))
        .collect();
    addresses.sort();
    properties.push(("addresses", addresses.join(" ")));
    properties
}

fn described(link: &LinkState) -> String {
    shown(properties(link).iter())
}

/// Of both, the properties that are not the same.
fn differing(before: &LinkState, after: &LinkState) -> (String, String) {
    let (before, after) = (properties(before), properties(after));
    let differ = |own: &[(&'static str, String)], other: &[(&'static str, String)]| {
        shown(own.iter().filter(|property| !other.contains(property)))
    };
    (differ(&before, &after), differ(&after, &before))
}

fn shown<'a>(properties: impl Iterator<Item = &'a (&'static str, String)>) -> String {
    let known = properties.filter(|(_, value)| !value.is_empty());
    let words: Vec<String> = known
        .map(|(name, value)| format!("{name} {value}").trim_start().to_owned())
        .collect();
    words.join(", ")
}
