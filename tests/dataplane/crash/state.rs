//! Everything that an agent leaves on a node and in a workload, as lines that two nodes in the same
//! state have in common: without indexes, handles, times, and what is drawn by lot.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use agent::lab::machine::{self, COMMAND_TIMEOUT};
use agent::lab::{Namespace, process};
use anyhow::{Context, Result};
use harness::product::{TIMEOUT, eventually};
use serde_json::Value;

use super::CONTAINERS;
use super::scene::Scene;

/// What `ip` says of a link and an address that lasts.
const LINK_KEYS: [&str; 6] = ["ifname", "flags", "mtu", "operstate", "address", "linkinfo"];
const ADDRESS_KEYS: [&str; 4] = ["family", "local", "prefixlen", "scope"];
const UNUSED_OBJECT: &str = "a next hop that no route is by";
/// Looks without a difference between them.
const STILL: u32 = 3;
/// Differences that a failed test shows.
const SHOWN: usize = 40;

pub struct State {
    lines: BTreeSet<String>,
    /// Of ours, on the host.
    devices: BTreeSet<String>,
}

impl State {
    pub fn of(scene: &Scene) -> Result<State> {
        let mut lines = Vec::new();
        for (name, namespace) in [("host", &scene.host), ("workload", &scene.workload)] {
            let seen = of_kernel(namespace)?;
            lines.extend(seen.into_iter().map(|line| format!("{name}: {line}")));
        }
        lines.extend(tables(&scene.host)?);
        lines.extend(parameters(&scene.host)?);
        for directory in ["state", "run", "plugin"] {
            of_files(&scene.path(directory), &mut lines)?;
        }
        let lot = drawn_by_lot(&scene.workload)?;
        let named = |line: String| {
            let replaced = lot
                .iter()
                .fold(line, |line, (drawn, name)| line.replace(drawn, name));
            let replaced = CONTAINERS
                .iter()
                .fold(replaced, |line, id| line.replace(id, "CONTAINER"));
            replaced.replace(&scene.directory.path().display().to_string(), "DIR")
        };
        Ok(State {
            lines: lines.into_iter().map(named).collect(),
            devices: devices(&scene.host)?,
        })
    }

    /// As it is when nothing changes any more.
    pub fn settled(scene: &Scene) -> Result<State> {
        let mut state = State::of(scene)?;
        let mut still = 0;
        eventually("rest", TIMEOUT, || {
            let next = State::of(scene)?;
            let differences = next.differences(&state);
            still = if differences.is_some() { 0 } else { still + 1 };
            state = next;
            Ok((still < STILL).then(|| differences.unwrap_or_default()))
        })?;
        Ok(state)
    }

    /// What is different now. Reading all of it takes many programs, so it is not even begun while
    /// there are other devices.
    pub fn missing_in(&self, scene: &Scene) -> Result<Option<String>> {
        let now = devices(&scene.host)?;
        if now != self.devices {
            return Ok(Some(format!("devices {now:?} and not {:?}", self.devices)));
        }
        Ok(State::of(scene)?.differences(self))
    }

    pub fn is_every_object_used(&self) -> bool {
        !self.lines.iter().any(|line| line.ends_with(UNUSED_OBJECT))
    }

    /// `None` if there are none.
    pub fn differences(&self, expected: &State) -> Option<String> {
        let missing = expected.lines.difference(&self.lines);
        let missing = missing.map(|line| format!("missing: {line}"));
        let added = self.lines.difference(&expected.lines);
        let added = added.map(|line| format!("too much: {line}"));
        let lines: Vec<String> = missing.chain(added).take(SHOWN).collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }
}

/// Names of our devices, without starting a program.
fn devices(namespace: &Namespace) -> Result<BTreeSet<String>> {
    let path = format!("/proc/{}/net/dev", namespace.holder.pid);
    let text = fs::read_to_string(&path).context(path)?;
    let names = text.lines().filter_map(|line| line.split(':').next());
    let ours = names.map(str::trim).filter(|name| name.starts_with("cara"));
    Ok(ours.map(str::to_owned).collect())
}

fn of_kernel(namespace: &Namespace) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for link in ip(namespace, "-d address show")? {
        lines.push(format!("link {}", only(&link, &LINK_KEYS)));
        let name = &link["ifname"];
        for address in link["addr_info"].as_array().into_iter().flatten() {
            // Made by the kernel from the MAC.
            if address["scope"] != "link" {
                lines.push(format!("address {name} {}", only(address, &ADDRESS_KEYS)));
            }
        }
    }
    let mut used = BTreeSet::new();
    for family in ["-4", "-6"] {
        for mut route in ip(namespace, &format!("{family} route show table all"))? {
            // By an object or by its own hop, it is the same route.
            let object = route.as_object_mut().and_then(|route| route.remove("nhid"));
            used.extend(object.and_then(|id| id.as_u64()));
            let destination = route["dst"].as_str().unwrap_or_default();
            // Of link-local addresses and of multicast, by the kernel.
            if !["fe80:", "ff00:"]
                .iter()
                .any(|start| destination.starts_with(start))
            {
                lines.push(format!("route {family} {route}"));
            }
        }
    }
    for object in ip(namespace, "nexthop show")? {
        if object["id"].as_u64().is_none_or(|id| !used.contains(&id)) {
            lines.push(UNUSED_OBJECT.to_owned());
        }
    }
    for neighbour in ip(namespace, "neigh show nud permanent")? {
        lines.push(format!("neighbour {neighbour}"));
    }
    lines.extend(forwarding_entries(namespace)?);
    Ok(lines)
}

fn ip(namespace: &Namespace, arguments: &str) -> Result<Vec<Value>> {
    let mut words = vec!["-j"];
    words.extend(arguments.split(' '));
    let said = machine::ip(namespace, &words)?;
    match said.trim() {
        "" => Ok(Vec::new()),
        said => serde_json::from_str(said).with_context(|| format!("ip {arguments}: {said}")),
    }
}

fn only(value: &Value, keys: &[&str]) -> Value {
    let named = keys
        .iter()
        .map(|key| ((*key).to_owned(), value[*key].clone()));
    Value::Object(named.collect())
}

fn forwarding_entries(namespace: &Namespace) -> Result<Vec<String>> {
    let said = command(namespace, &["bridge", "fdb", "show"])?;
    let ours = said.lines().filter(|line| line.contains("dev cara"));
    Ok(ours.map(|line| format!("forwarding {line}")).collect())
}

fn tables(namespace: &Namespace) -> Result<Vec<String>> {
    let said = command(namespace, &["nft", "list", "ruleset"])?;
    let mut place = String::new();
    let mut lines = Vec::new();
    // The kernel lists chains in the order in which they came.
    let words = |line: &&str| !line.is_empty() && *line != "}";
    for line in said.lines().map(str::trim).filter(words) {
        if line.ends_with('{') {
            place = line.to_owned();
        }
        lines.push(format!("nft {place} {line}"));
    }
    // Of legacy iptables, if it has been used: asking would make its table.
    let exist = || fs::read_to_string("/proc/thread-self/net/ip_tables_names");
    if namespace
        .enter(exist)
        .unwrap_or_default()
        .contains("filter")
    {
        let said = command(namespace, &["/usr/sbin/iptables-legacy", "-S", "FORWARD"])?;
        for (at, rule) in said.lines().enumerate() {
            lines.push(format!("iptables {at} {rule}"));
        }
    }
    Ok(lines)
}

/// Of our devices, and whether the host forwards.
fn parameters(namespace: &Namespace) -> Result<Vec<String>> {
    Ok(namespace.enter(|| {
        let base = Path::new("/proc/sys/net");
        let forward = fs::read_to_string(base.join("ipv4/ip_forward"))?;
        let mut lines = vec![format!("sysctl ip_forward {forward:?}")];
        for kind in ["ipv4/conf", "ipv4/neigh", "ipv6/conf", "ipv6/neigh"] {
            for device in fs::read_dir(base.join(kind))? {
                let device = device?;
                if !device.file_name().to_string_lossy().starts_with("cara") {
                    continue;
                }
                for parameter in fs::read_dir(device.path())? {
                    let path = parameter?.path();
                    // Some can be written only, and some say so only when they are read.
                    if let Ok(value) = fs::read_to_string(&path) {
                        lines.push(format!("sysctl {} {value:?}", path.display()));
                    }
                }
            }
        }
        Ok(lines)
    })?)
}

fn of_files(directory: &Path, lines: &mut Vec<String>) -> Result<()> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Ok(());
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            of_files(&path, lines)?;
            continue;
        }
        let name = path.display();
        // The address given last is but a hint, a log tells of what was, and the file of a lock stays.
        let text = match path.file_name().and_then(|name| name.to_str()) {
            Some("last-given") => continue,
            Some(name) if name.ends_with(".log") || name.ends_with(".lock") => continue,
            Some(name) if name.ends_with(".sock") || name.ends_with(".pid") => String::new(),
            Some("caracal-cni") => String::new(),
            Some(_) | None => fs::read_to_string(&path).with_context(|| name.to_string())?,
        };
        lines.push(format!("file {name} {text:?}"));
    }
    Ok(())
}

/// The workload's address and MAC, which are others after each attempt.
fn drawn_by_lot(workload: &Namespace) -> Result<Vec<(String, &'static str)>> {
    let links = ip(workload, "address show")?;
    let Some(link) = links.iter().find(|link| link["ifname"] == "eth0") else {
        return Ok(Vec::new());
    };
    let mut lot = Vec::new();
    if let Some(mac) = link["address"].as_str() {
        let octets: Option<Vec<u8>> = mac
            .split(':')
            .map(|octet| u8::from_str_radix(octet, 16).ok())
            .collect();
        lot.push((mac.to_owned(), "MAC"));
        // As records spell it.
        lot.push((serde_json::to_string(&octets)?, "MAC"));
    }
    let addresses = link["addr_info"].as_array().into_iter().flatten();
    for address in addresses.filter(|address| address["scope"] == "global") {
        let name = if address["family"] == "inet" {
            "ADDRESS"
        } else {
            "ADDRESS6"
        };
        lot.extend(
            address["local"]
                .as_str()
                .map(|text| (text.to_owned(), name)),
        );
    }
    // An address may be the beginning of another.
    lot.sort_by_key(|(drawn, _)| std::cmp::Reverse(drawn.len()));
    Ok(lot)
}

fn command(namespace: &Namespace, words: &[&str]) -> Result<String> {
    let (program, arguments) = words.split_first().context("a program")?;
    let mut command = Command::new(program);
    let command = command.args(arguments);
    Ok(process::output(
        Some(namespace),
        command,
        "",
        COMMAND_TIMEOUT,
    )?)
}
