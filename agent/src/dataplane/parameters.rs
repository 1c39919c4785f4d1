//! Kernel parameters of the host and of its side of a workload's link: which, and in which order.

use std::io::{self, ErrorKind};

use tracing::{info, warn};

use super::rehearsal::Rehearsal;
use super::{ownership, sysctl};

pub const IPV4_FORWARDING: &str = "ipv4/ip_forward";
pub const IPV6_FORWARDING: &str = "ipv6/conf/all/forwarding";
/// `accept_ra`: take router advertisements only while the interface does not forward.
const UNLESS_FORWARDING: &str = "1";
/// `accept_ra`: take them in any case.
const ALWAYS: &str = "2";

/// So many interfaces are named in a line of the log.
const SHOWN: usize = 8;

/// Makes the host forward IPv4. Returns the parameter's value before, if another.
///
/// # Errors
/// Why it still does not.
pub fn ensure_ipv4_forwarding(rehearsal: &Rehearsal) -> Result<Option<String>, String> {
    sysctl::ensure(rehearsal, IPV4_FORWARDING, "1")
        .map_err(|error| not_set(IPV4_FORWARDING, &error))
}

/// Makes the host forward IPv6. Returns the parameter's value before, if another.
///
/// The kernel then forgets the default routes that router advertisements gave, and takes no more
/// advertisements, on interfaces whose `accept_ra` is 1. Those that took them so far are set to 2
/// before, and so are new interfaces: the host keeps its routers.
///
/// # Errors
/// Why it still does not.
pub fn ensure_ipv6_forwarding(rehearsal: &Rehearsal) -> Result<Option<String>, String> {
    match sysctl::read(IPV6_FORWARDING) {
        Ok(value) if value == "1" => return Ok(None),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err("this kernel has no IPv6".into());
        }
        Err(error) => return Err(not_set(IPV6_FORWARDING, &error)),
    }
    let interfaces = sysctl::list("ipv6/conf")
        .map_err(|error| format!("failed to list the interfaces of IPv6: {error}"))?;
    let mut kept = Vec::new();
    for interface in interfaces {
        // `all` says nothing of `accept_ra`; what is ours takes none.
        if interface == "all" || ownership::is_own_device(&interface) {
            continue;
        }
        let accept_ra = format!("ipv6/conf/{interface}/accept_ra");
        match keep_accepting(rehearsal, &interface, &accept_ra) {
            Ok(true) => kept.push(interface),
            Ok(false) => {}
            // The interface has gone.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(not_set(&accept_ra, &error)),
        }
    }
    if !kept.is_empty() {
        let (interfaces, first) = (kept.len(), &kept[..kept.len().min(SHOWN)]);
        info!(
            interfaces,
            ?first,
            "router advertisements are taken while forwarding"
        );
    }
    sysctl::ensure(rehearsal, IPV6_FORWARDING, "1")
        .map_err(|error| not_set(IPV6_FORWARDING, &error))
}

fn keep_accepting(rehearsal: &Rehearsal, interface: &str, accept_ra: &str) -> io::Result<bool> {
    let is_forwarding = sysctl::read(&format!("ipv6/conf/{interface}/forwarding"))? != "0";
    if is_forwarding || sysctl::read(accept_ra)? != UNLESS_FORWARDING {
        return Ok(false);
    }
    Ok(sysctl::ensure(rehearsal, accept_ra, ALWAYS)?.is_some())
}

/// The parameters of the host's side of a link. Returns those that had to be written: path, value
/// before and now.
///
/// # Errors
/// The first that could not be set.
pub fn ensure_workload_link(
    rehearsal: &Rehearsal,
    name: &str,
    speaks_ipv6: bool,
) -> Result<Vec<(String, String, String)>, String> {
    // What a link gets that nobody touched; the host's administrator decides it.
    let rp_filter = sysctl::read("ipv4/conf/default/rp_filter")
        .map_err(|error| format!("failed to read rp_filter: {error}"))?;
    let mut parameters = vec![
        // The workload's gateway is on no link: the host answers for it, and at once.
        (format!("ipv4/conf/{name}/proxy_arp"), "1"),
        (format!("ipv4/neigh/{name}/proxy_delay"), "0"),
        (format!("ipv4/conf/{name}/forwarding"), "1"),
        (format!("ipv4/conf/{name}/rp_filter"), rp_filter.as_str()),
        // A workload must not become the host's IPv6 router by announcing itself.
        (format!("ipv6/conf/{name}/accept_ra"), "0"),
    ];
    if speaks_ipv6 {
        // The gateway of IPv6 is an address of this link, so nothing is proxied. The kernel makes it
        // from the MAC, and it answers at once instead of looking for a duplicate first.
        parameters.extend([
            (format!("ipv6/conf/{name}/addr_gen_mode"), "0"),
            (format!("ipv6/conf/{name}/accept_dad"), "0"),
            (format!("ipv6/conf/{name}/forwarding"), "1"),
        ]);
    }
    let mut written = Vec::new();
    for (path, value) in parameters {
        match sysctl::ensure(rehearsal, &path, value) {
            Ok(Some(before)) => written.push((path, before, value.to_owned())),
            Ok(None) => {}
            Err(error) if error.kind() == ErrorKind::NotFound && path.starts_with("ipv6/") => {
                // A kernel without IPv6.
            }
            Err(error) => {
                warn!(iface = name, path, %error, "parameter cannot be set");
                return Err(not_set(&path, &error));
            }
        }
    }
    Ok(written)
}

/// IPv6 that somebody switched off is not switched on behind their back.
///
/// # Errors
/// Why the link cannot have IPv6.
pub fn check_ipv6(name: &str) -> Result<(), String> {
    let path = format!("ipv6/conf/{name}/disable_ipv6");
    match sysctl::read(&path) {
        Ok(value) if value == "0" => Ok(()),
        Ok(_) => Err(format!(
            "IPv6 is disabled on {name}; set net.ipv6.conf.all.disable_ipv6 to 0, or remove the \
             node's IPv6 podCIDR"
        )),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(format!(
            "{name} cannot have IPv6: the kernel has none, or the MTU is below 1280"
        )),
        Err(error) => Err(format!("failed to read {path}: {error}")),
    }
}

fn not_set(path: &str, error: &io::Error) -> String {
    format!("failed to set {path}: {error}")
}
