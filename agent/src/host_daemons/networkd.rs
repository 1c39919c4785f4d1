//! systemd-networkd: which file takes our interfaces, and whether our routes stay.
//!
//! Pure. Drop-ins of single `.network` files and conditions about the machine (`Host=`,
//! `Virtualization=`) are not looked at; a condition that a virtual link cannot meet is not met.

use std::collections::BTreeMap;

use super::{ConfigurationFile, is_no, settings};
use crate::dataplane::desired::TunnelDriver;

/// Whose files come before others of the same name.
pub(super) const DIRECTORIES: [&str; 4] = [
    "etc/systemd",
    "run/systemd",
    "usr/local/lib/systemd",
    "usr/lib/systemd",
];

/// What `[Match]` is asked about a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Link {
    name: &'static str,
    /// Also the name of its driver.
    kind: &'static str,
    hardware: &'static str,
}

/// One of each kind that we make.
fn links() -> impl Iterator<Item = Link> {
    let workload = Link {
        name: "cara0123456789a",
        kind: "veth",
        hardware: "ether",
    };
    let tunnels = TunnelDriver::ALL.into_iter().map(|driver| {
        let (kind, hardware) = match driver {
            TunnelDriver::Kernel => ("ipip", "tunnel"),
            TunnelDriver::Vxlan => ("vxlan", "ether"),
            TunnelDriver::Userspace | TunnelDriver::Udp => ("tun", "ether"),
        };
        Link {
            name: driver.device(),
            kind,
            hardware,
        }
    });
    std::iter::once(workload).chain(tunnels)
}

/// What is wrong for us with these `.network` files and with these files of networkd itself, each in
/// the order in which they are read.
pub(super) fn findings(
    networks: &[ConfigurationFile],
    configuration: &[ConfigurationFile],
) -> impl Iterator<Item = String> {
    links_finding(networks)
        .into_iter()
        .chain(routes_finding(configuration))
}

fn links_finding(networks: &[ConfigurationFile]) -> Option<String> {
    let taken = links().map(|link| (link, networks.iter().find(|file| does_match(file, link))));
    let taken: Vec<(Link, Option<&ConfigurationFile>)> = taken
        .filter(|(_, file)| !file.is_some_and(leaves_alone))
        .collect();
    let with_file = taken.iter().find_map(|(link, file)| Some((link, (*file)?)));
    if let Some((link, file)) = with_file {
        return Some(format!(
            "{} is the first file to match interfaces of ours such as {}: it gives them addresses \
             and takes their routes; run `caracal-agent install` and `networkctl reload`, and if that \
             file still comes first, rename it to come after 00-caracal.network",
            file.path, link.name
        ));
    }
    (!taken.is_empty()).then(|| {
        "no file keeps it off our interfaces (cara*), so that the first .network file to match them, \
         such as by Name=*, takes them; run `caracal-agent install`, then `networkctl reload`"
            .to_owned()
    })
}

fn routes_finding(configuration: &[ConfigurationFile]) -> Option<String> {
    let said = configuration.iter().rev().find_map(|file| {
        let mut settings = settings(&file.text).into_iter().rev();
        let (_, _, value) = settings.find(|(section, key, _)| {
            (section.as_str(), key.as_str()) == ("Network", "ManageForeignRoutes")
        })?;
        Some((file, value))
    });
    let why = match said {
        Some((_, value)) if is_no(&value) => return None,
        Some((file, value)) => format!("{} says ManageForeignRoutes={value}", file.path),
        None => "ManageForeignRoutes is yes unless a file says no".to_owned(),
    };
    Some(format!(
        "{why}: it removes our routes when it starts or configures the NIC again; run \
         `caracal-agent install`, then `systemctl restart systemd-networkd`"
    ))
}

fn leaves_alone(file: &ConfigurationFile) -> bool {
    let said = settings(&file.text).into_iter().rev();
    let mut said =
        said.filter(|(section, key, _)| (section.as_str(), key.as_str()) == ("Link", "Unmanaged"));
    said.next().is_some_and(|(_, _, value)| is_yes(&value))
}

fn is_yes(value: &str) -> bool {
    ["yes", "y", "true", "t", "on", "1"].contains(&value.to_lowercase().as_str())
}

/// Whether the file is for this link. Without any condition it is for none.
fn does_match(file: &ConfigurationFile, link: Link) -> bool {
    let mut conditions: BTreeMap<String, String> = BTreeMap::new();
    for (section, key, value) in settings(&file.text) {
        if section != "Match" {
            continue;
        }
        if value.is_empty() {
            conditions.remove(&key);
            continue;
        }
        // An exclamation mark is for the whole line.
        let words = match value.strip_prefix('!') {
            Some(rest) => rest
                .split_whitespace()
                .map(|word| format!("!{word} "))
                .collect(),
            None => format!("{value} "),
        };
        *conditions.entry(key).or_default() += &words;
    }
    let is_met = |(key, patterns): (&String, &String)| match key.as_str() {
        "Name" => does_list(patterns, link.name),
        "Kind" | "Driver" => does_list(patterns, link.kind),
        "Type" => does_list(patterns, link.hardware),
        "MACAddress"
        | "PermanentMACAddress"
        | "Path"
        | "Property"
        | "SSID"
        | "BSSID"
        | "WLANInterfaceType" => false,
        _ => true,
    };
    !conditions.is_empty() && conditions.iter().all(is_met)
}

/// Whether a positive pattern fits, or there is none, and no negative one does.
fn does_list(patterns: &str, text: &str) -> bool {
    let (negative, positive): (Vec<&str>, Vec<&str>) = patterns
        .split_whitespace()
        .partition(|pattern| pattern.starts_with('!'));
    let fits =
        |pattern: &&str| does_fit(pattern.trim_start_matches('!').as_bytes(), text.as_bytes());
    !negative.iter().any(fits) && (positive.is_empty() || positive.iter().any(fits))
}

/// As fnmatch(3) with `*`, `?` and `[…]`.
fn does_fit(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => {
            let mut tails = (0..=text.len()).map(|at| &text[at..]);
            tails.any(|tail| does_fit(rest, tail))
        }
        ([b'?', rest @ ..], [_, tail @ ..]) => does_fit(rest, tail),
        ([b'[', rest @ ..], [first, tail @ ..]) => {
            let Some(end) = rest.iter().skip(1).position(|octet| *octet == b']') else {
                return *first == b'[' && does_fit(rest, tail);
            };
            let (set, rest) = rest.split_at(end + 1);
            is_in_set(set, *first) && does_fit(&rest[1..], tail)
        }
        ([expected, rest @ ..], [first, tail @ ..]) => expected == first && does_fit(rest, tail),
        ([_, ..], []) | ([], [_, ..]) => false,
    }
}

fn is_in_set(set: &[u8], octet: u8) -> bool {
    match set {
        [b'!' | b'^', set @ ..] => !is_in_set(set, octet),
        [first, b'-', last, rest @ ..] => {
            (*first..=*last).contains(&octet) || is_in_set(rest, octet)
        }
        [first, rest @ ..] => *first == octet || is_in_set(rest, octet),
        [] => false,
    }
}

#[cfg(test)]
mod tests;
