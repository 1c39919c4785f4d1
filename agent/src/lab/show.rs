//! The lab on paper: what `ip` and `caracal` print on its machines, unedited, and the matrix.

use std::fmt::Write;

use super::error::Result;
use super::frr;
use super::machine;
use super::matrix::{Cell, Matrix};
use super::netns::Namespace;
use super::running::{Lab, frr_machine};
use super::topology::{NODES, ROUTER, Rack, Scenario, lab_router_address};

/// Routes, neighbours and peers of all machines.
pub fn machines(lab: &Lab) -> Result<String> {
    let mut text = String::new();
    for node in &NODES {
        let (name, rack, pods) = (node.name, node.rack, node.pod_cidr());
        let what = format!(
            "node {name}: {}, rack {}, pods {pods}",
            node.address, rack.name
        );
        heading(&mut text, &what);
        let namespace = lab.namespace(name)?;
        shown(&mut text, name, "ip route", &ip(namespace, "route")?);
        let peers = lab.caracal(name, &["peers"])?;
        shown(&mut text, name, "caracal peers", &peers.stdout);
        if let Some(driver) = lab.options().drivers.get(name) {
            let status = lab.caracal(name, &["status"])?;
            let command = format!("caracal status   (--driver {name}={})", driver.as_str());
            shown(&mut text, name, &command, &status.stdout);
        }
    }
    if let Some(workload) = lab.workloads().first() {
        let name = &workload.name;
        let what = format!("workload {name}: {} on {}", workload.address, workload.node);
        heading(&mut text, &what);
        let namespace = lab.namespace(name)?;
        shown(&mut text, name, "ip route", &ip(namespace, "route")?);
        shown(&mut text, name, "ip neigh", &ip(namespace, "neigh")?);
    }
    if lab.scenario().has_reflectors() {
        for rack in &Rack::ALL {
            let name = rack.reflector_name();
            let what = format!("{name}: {}, AS {}", rack.reflector(), rack.asn);
            heading(&mut text, &what);
            let peers = lab.caracal(&name, &["peers"])?;
            shown(&mut text, &name, "caracal peers", &peers.stdout);
        }
    }
    heading(&mut text, "router: 192.168.100.1, 192.168.200.1");
    let namespace = lab.namespace(ROUTER)?;
    shown(&mut text, ROUTER, "ip route", &ip(namespace, "route")?);
    if let Some(name) = frr_machine(lab.scenario()) {
        if name != ROUTER {
            heading(&mut text, &format!("{name}: {}", lab_router_address()));
            let namespace = lab.namespace(name)?;
            shown(&mut text, name, "ip route", &ip(namespace, "route")?);
        }
        let namespace = lab.namespace(name)?;
        let routes = frr::vtysh(namespace, "show bgp ipv4 unicast")?;
        shown(&mut text, name, "vtysh -c 'show bgp ipv4 unicast'", &routes);
    }
    if lab.scenario() == Scenario::FrrUnfiltered {
        let router = lab_router_address().to_string();
        let routes = lab.caracal("a1", &["routes", "--received", &router])?;
        let command = format!("caracal routes --received {router}");
        shown(&mut text, "a1", &command, &routes.stdout);
    }
    Ok(text)
}

fn ip(namespace: &Namespace, object: &str) -> Result<String> {
    machine::ip(namespace, &[object])
}

fn heading(text: &mut String, what: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "\n-- {what}");
}

fn shown(text: &mut String, machine: &str, command: &str, said: &str) {
    let _ = writeln!(text, "{machine}$ {command}");
    text.push_str(said);
    if !said.is_empty() && !said.ends_with('\n') {
        text.push('\n');
    }
}

/// The matrix: a row per source, a column per target, each with its path and round trip.
pub fn matrix(matrix: &Matrix) -> String {
    const WIDTH: usize = 12;
    let mut text = format!("{:<6}", "ms");
    for target in &matrix.targets {
        let _ = write!(text, "{target:>WIDTH$}");
    }
    text.push('\n');
    for source in &matrix.sources {
        let _ = write!(text, "{source:<6}");
        for target in &matrix.targets {
            let cell = matrix.cells.get(&(source.clone(), target.clone()));
            let shown = cell.map_or("-".to_owned(), cell_text);
            let _ = write!(text, "{shown:>WIDTH$}");
        }
        text.push('\n');
    }
    text
}

fn cell_text(cell: &Cell) -> String {
    match (&cell.path, cell.outcome.shortest) {
        (_, None) => "LOST".to_owned(),
        (Err(_), Some(_)) => "MIXED".to_owned(),
        (Ok(path), Some(took)) => {
            let mark = if cell.finding().is_some() { "!" } else { "" };
            format!("{mark}{path} {:.2}", took.as_secs_f64() * 1000.0)
        }
    }
}
