//! Whether the host's rules (`ip rule`) lead packets for our prefixes past table main, where our
//! routes are.
//!
//! The kernel is asked for some addresses what it does with packets to them: rules with marks,
//! interfaces or sources, tables without a route for the address and rules that come after main then
//! count for nothing. Foreign rules are never changed.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bgp::types::Prefix;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::netlink::{Netlink, NetlinkError};

/// Of the host's own addresses.
const TABLE_LOCAL: u32 = 255;

/// What is wrong, for people, by table. Empty: packets to the first addresses of all `prefixes` are
/// led by table main, or by none.
///
/// # Errors
/// If the socket fails.
pub fn observe(
    netlink: &mut Netlink,
    prefixes: impl Iterator<Item = Prefix>,
) -> Result<Vec<String>, NetlinkError> {
    let mut first_by_table = BTreeMap::new();
    for prefix in prefixes {
        let table = table_of(netlink, &prefix)?;
        let is_other =
            |table: &u32| ![RouteHeader::RT_TABLE_MAIN.into(), TABLE_LOCAL].contains(table);
        if let Some(table) = table.filter(is_other) {
            first_by_table.entry(table).or_insert(prefix);
        }
    }
    let findings = first_by_table.into_iter().map(|(table, prefix)| {
        format!(
            "a rule before that of table main leads packets to {prefix} into table {table}, past our \
             routes: give it a priority above 32766, or a route `throw {prefix}` in that table"
        )
    });
    Ok(findings.collect())
}

/// Of the route for the prefix's first address; `None` if none leads there.
fn table_of(netlink: &mut Netlink, prefix: &Prefix) -> Result<Option<u32>, NetlinkError> {
    let mut request = RouteMessage::default();
    let address = match prefix.network() {
        IpAddr::V4(address) => {
            request.header.address_family = AddressFamily::Inet;
            request.header.destination_prefix_length = 32;
            // IPv6 always tells the table, and refuses the flag.
            request.header.flags = RouteFlags::LookupTable;
            RouteAddress::Inet(address)
        }
        IpAddr::V6(address) => {
            request.header.address_family = AddressFamily::Inet6;
            request.header.destination_prefix_length = 128;
            RouteAddress::Inet6(address)
        }
    };
    request
        .attributes
        .push(RouteAttribute::Destination(address));
    match netlink.get(RouteNetlinkMessage::GetRoute(request)) {
        Ok(Some(RouteNetlinkMessage::NewRoute(route))) => {
            let mut attributes = route.attributes.iter();
            Ok(attributes.find_map(|attribute| match attribute {
                RouteAttribute::Table(table) => Some(*table),
                _ => None,
            }))
        }
        // Such as a blackhole, or a family that the kernel does not have.
        Ok(_) | Err(NetlinkError::Refused(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
