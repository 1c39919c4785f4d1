//! Everyone pings everyone, while captures on all wires tell which way the packets go.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::capture::{Capture, Sighting};
use super::error::Result;
use super::expect::{self, Pair};
use super::ping::{self, Outcome, Target};
use super::running::{Lab, in_parallel};
use super::topology::{
    self, LAB_PREFIX_HOST, LAB_ROUTER, NIC, NODES, Node, Path, ROUTER, ROUTER_NIC_B, Rack, Scenario,
};

/// Echoes per pair.
const COUNT: u16 = 3;

/// One ping, with what came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cell {
    pub outcome: Outcome,
    /// The path seen, or why the captures show none.
    pub path: std::result::Result<Path, String>,
    pub expected: Path,
}

impl Cell {
    /// What is wrong with it.
    pub fn finding(&self) -> Option<String> {
        if let Some(error) = &self.outcome.error {
            return Some(error.clone());
        }
        let lost = self.outcome.sent - self.outcome.received;
        if lost > 0 {
            return Some(format!("{lost} of {} lost", self.outcome.sent));
        }
        if self.outcome.duplicates > 0 {
            return Some(format!("{} answered twice", self.outcome.duplicates));
        }
        match &self.path {
            Ok(path) if *path == self.expected => None,
            Ok(path) => Some(format!("went {path}, not {}", self.expected)),
            Err(reason) => Some(reason.clone()),
        }
    }
}

/// Rows are sources, columns targets, both in the order to show.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Matrix {
    pub sources: Vec<String>,
    pub targets: Vec<String>,
    pub cells: BTreeMap<(String, String), Cell>,
    /// Round trips of the quickest and the slowest pair.
    pub span: Option<(Duration, Duration)>,
}

impl Matrix {
    pub fn findings(&self) -> Vec<String> {
        let finding = |((from, to), cell): (&(String, String), &Cell)| {
            Some(format!("{from} to {to}: {}", cell.finding()?))
        };
        self.cells.iter().filter_map(finding).collect()
    }
}

/// Someone who pings or is pinged.
#[derive(Clone, Debug)]
struct Party {
    name: String,
    node: &'static Node,
    address: Ipv4Addr,
    is_workload: bool,
}

/// Pings every pair: workloads and hosts to all workloads, and to the lab router's prefix where
/// there is one.
pub fn measure(lab: &Lab) -> Result<Matrix> {
    let workloads: Vec<Party> = lab
        .workloads()
        .iter()
        .filter_map(|workload| {
            Some(Party {
                name: workload.name.clone(),
                node: topology::node(&workload.node)?,
                address: workload.address,
                is_workload: true,
            })
        })
        .collect();
    let hosts = NODES.iter().map(|node| Party {
        name: node.name.to_owned(),
        node,
        address: node.address,
        is_workload: false,
    });
    let sources: Vec<Party> = workloads.iter().cloned().chain(hosts).collect();
    // Identifiers are free to choose: nobody else pings in these namespaces.
    let identifier = |source: usize, target: usize| {
        u16::try_from(1 + source * (workloads.len() + 1) + target).unwrap_or_default()
    };
    let captures = start_captures(lab)?;
    let indices: Vec<usize> = (0..sources.len()).collect();
    let outcomes = in_parallel(&indices, |&at| {
        let source = &sources[at];
        let mut targets: Vec<Target> = workloads
            .iter()
            .enumerate()
            .map(|(to, target)| Target {
                address: target.address,
                identifier: identifier(at, to),
            })
            .collect();
        if reaches_lab_router(lab.scenario(), source) {
            targets.push(Target {
                address: LAB_PREFIX_HOST,
                identifier: identifier(at, workloads.len()),
            });
        }
        ping::burst(lab.namespace(&source.name)?, &targets, COUNT)
    })?;
    let sightings: Vec<Sighting> = captures.into_iter().flat_map(Capture::stop).collect();

    let mut matrix = Matrix {
        sources: sources.iter().map(|source| source.name.clone()).collect(),
        targets: workloads.iter().map(|target| target.name.clone()).collect(),
        ..Matrix::default()
    };
    for (at, (source, outcomes)) in sources.iter().zip(outcomes).enumerate() {
        for (to, outcome) in outcomes.into_iter().enumerate() {
            let cell = match workloads.get(to) {
                Some(target) if target.name == source.name => continue,
                Some(target) => cell(lab, source, target, identifier(at, to), outcome, &sightings),
                None => lab_router_cell(identifier(at, to), outcome, &sightings),
            };
            if let Some(took) = cell.outcome.shortest {
                let (least, most) = matrix.span.unwrap_or((took, took));
                matrix.span = Some((least.min(took), most.max(took)));
            }
            let target = workloads.get(to).map_or(LAB_ROUTER, |target| &target.name);
            let key = (source.name.clone(), target.to_owned());
            matrix.cells.insert(key, cell);
        }
    }
    if lab.scenario() == Scenario::Frr {
        matrix.targets.push(LAB_ROUTER.to_owned());
    }
    Ok(matrix)
}

fn start_captures(lab: &Lab) -> Result<Vec<Capture>> {
    let mut wires: Vec<(&str, &str)> = NODES.iter().map(|node| (node.name, NIC)).collect();
    wires.extend([(ROUTER, NIC), (ROUTER, ROUTER_NIC_B)]);
    wires
        .into_iter()
        .map(|(machine, nic)| Capture::start(lab.namespace(machine)?, nic))
        .collect()
}

fn cell(
    lab: &Lab,
    source: &Party,
    target: &Party,
    identifier: u16,
    outcome: Outcome,
    sightings: &[Sighting],
) -> Cell {
    let expected = topology::path(lab.scenario(), source.node, target.node);
    let host_source = match expected {
        Path::Tunnel => source.node.tunnel_address(),
        Path::Local | Path::Direct => source.node.address,
    };
    let pair = Pair {
        identifier,
        from: source.node,
        to: target.node,
        source: if source.is_workload {
            source.address
        } else {
            host_source
        },
        destination: target.address,
    };
    Cell {
        outcome,
        path: expect::path_seen(&pair, sightings),
        expected,
    }
}

/// Rack b's workloads are left out: the plain router knows no way back to them.
fn reaches_lab_router(scenario: Scenario, source: &Party) -> bool {
    scenario == Scenario::Frr && (!source.is_workload || source.node.rack == Rack::A)
}

fn lab_router_cell(identifier: u16, outcome: Outcome, sightings: &[Sighting]) -> Cell {
    let is_tunnelled = sightings.iter().any(|seen| {
        seen.echo.identifier == identifier && seen.carriage != super::packet::Carriage::Bare
    });
    Cell {
        outcome,
        path: Ok(if is_tunnelled {
            Path::Tunnel
        } else {
            Path::Direct
        }),
        expected: Path::Direct,
    }
}
