//! Waiting for a lab to hold what it must hold, and saying what is missing.

use std::net::Ipv4Addr;

use bgp::speaker::status::RouteStatus;

use super::{CONVERGENCE_TIMEOUT, Lab, frr_machine, in_parallel};
use crate::api::schema::Items;
use crate::lab::error::{LabError, Result};
use crate::lab::expect;
use crate::lab::machine;
use crate::lab::process::{Process, wait_until};
use crate::lab::record::Workload;
use crate::lab::topology::{self, LAB_PREFIX, NODES, Node, ROUTER};

impl Lab {
    /// Waits until the agent of `node` has read its store and made its first pass.
    pub fn wait_synced(&self, node: &str) -> Result<()> {
        let what = format!("the first pass of {node}'s agent");
        let socket = self.run_dir(node).join("agent.sock");
        wait_until(&what, CONVERGENCE_TIMEOUT, || {
            self.check_running(node)?;
            if !socket.exists() {
                return Ok(Some(self.last_lines(node)));
            }
            let finished = self.caracal(node, &["wait", "synced", "--timeout", "10"])?;
            let missing = format!("{}{}", finished.stderr, self.last_lines(node));
            Ok((!finished.status.success()).then_some(missing))
        })
    }

    /// # Errors
    /// `Command` with the end of its log if the program of `machine` ended.
    fn check_running(&self, machine: &str) -> Result<()> {
        let is_its = |process: &&Process| process.name == machine;
        match self.processes().iter().rfind(is_its) {
            Some(process) if !process.is_running() => Err(LabError::Command {
                command: format!("the program of {machine}"),
                reason: format!("it ended\n{}", self.last_lines(machine)),
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// What is still wrong with the routes of all machines.
    pub fn route_findings(&self) -> Result<Vec<String>> {
        let scenario = self.scenario();
        let mut machines: Vec<&str> = NODES.iter().map(|node| node.name).collect();
        machines.push(ROUTER);
        machines.extend(frr_machine(scenario).filter(|name| *name != ROUTER));
        let findings = in_parallel(&machines, |machine| {
            let table = machine::routes(self.namespace(machine)?)?;
            Ok(match topology::node(machine) {
                Some(node) => expect::node_routes(scenario, node, &self.addresses_on(node), &table),
                None if self.runs_frr(machine) => expect::frr_routes(scenario, &table),
                None => expect::plain_router(&table),
            })
        })?;
        Ok(findings.concat())
    }

    fn addresses_on(&self, node: &Node) -> Vec<Ipv4Addr> {
        let is_there = |workload: &&Workload| workload.node == node.name;
        let there = self.workloads().iter().filter(is_there);
        there.map(|workload| workload.address).collect()
    }

    /// Waits until every machine holds the routes it must hold, and no other.
    pub fn wait_routes(&self) -> Result<()> {
        let waited = wait_until("the routes of the lab", CONVERGENCE_TIMEOUT, || {
            for process in self.processes() {
                self.check_running(&process.name)?;
            }
            let findings = self.route_findings()?;
            Ok((!findings.is_empty()).then(|| findings.join("; ")))
        });
        waited.map_err(|error| match error {
            LabError::NotReached {
                what,
                waited,
                evidence,
            } => LabError::NotReached {
                what,
                waited,
                evidence: format!("{evidence}\n{}", self.all_last_lines()),
            },
            other => other,
        })
    }

    /// Waits until a1 has refused the lab router's prefix, and returns the reason it shows.
    pub fn wait_refused(&self) -> Result<String> {
        let router = topology::lab_router_address().to_string();
        let mut reason = None;
        wait_until(
            "a refusal of the lab router's prefix",
            CONVERGENCE_TIMEOUT,
            || {
                let arguments = ["routes", "--received", &router, "-o", "json"];
                let said = self.caracal("a1", &arguments)?;
                let items: Items<RouteStatus> = match serde_json::from_str(&said.stdout) {
                    Ok(items) => items,
                    Err(error) => return Ok(Some(format!("{error}: {}", said.stderr))),
                };
                let is_its = |route: &&RouteStatus| route.prefix.to_string() == LAB_PREFIX;
                let found = items.items.iter().find(is_its);
                reason = found.and_then(|route| route.rejected_reason.clone());
                Ok(reason.is_none().then_some(said.stdout))
            },
        )?;
        Ok(reason.unwrap_or_default())
    }

    /// The ends of all logs.
    pub fn all_last_lines(&self) -> String {
        let names = self.processes().iter().map(|process| process.name.as_str());
        let lines: Vec<String> = names.map(|name| self.last_lines(name)).collect();
        lines.join("\n")
    }
}
