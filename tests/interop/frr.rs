//! FRR as a lab router: what it learns, and what is learned from it.

use std::fs;
use std::net::IpAddr;

use agent::lab::topology::{self, LAB_PREFIX, LAB_ROUTER, NODES};
use agent::lab::{Lab, Scenario, frr, machine};
use anyhow::{Context, Result, ensure};
use harness::needs_root;
use harness::product::{TIMEOUT, eventually, lab, routes};

#[test]
fn frr_learns_every_pod_cidr_with_its_nodes_next_hop() -> Result<()> {
    needs_root!();
    let lab = lab(Scenario::Frr)?;
    let said = frr::vtysh(lab.namespace(LAB_ROUTER)?, "show bgp ipv4 unicast json")?;
    let table: serde_json::Value = serde_json::from_str(&said)?;
    for node in &NODES {
        let paths = table["routes"][node.pod_cidr()].as_array();
        let paths = paths.with_context(|| format!("{} is missing in {said}", node.pod_cidr()))?;
        for path in paths {
            let next_hop = path["nexthops"][0]["ip"].as_str().unwrap_or_default();
            ensure!(
                next_hop == node.address.to_string(),
                "{}: {path}",
                node.name
            );
        }
    }
    Ok(())
}

#[test]
fn filter_admits_and_refuses_while_everything_runs() -> Result<()> {
    needs_root!();
    let lab = lab(Scenario::Frr)?;
    let file = lab.store().join("lab-router.yaml");
    let admitting = fs::read_to_string(&file)?;
    let refusing = admitting.replace(", filters: [from-lab]", "");
    ensure!(refusing != admitting);
    let router: IpAddr = topology::lab_router_address().into();

    fs::write(&file, &refusing)?;
    eventually("the refusal, with its reason", TIMEOUT, || {
        let received = routes(&lab, "a1", &["--received", &router.to_string()])?;
        let is_its =
            |route: &&bgp::speaker::status::RouteStatus| route.prefix.to_string() == LAB_PREFIX;
        let reason = received
            .iter()
            .find(is_its)
            .and_then(|route| route.rejected_reason.clone());
        println!("refused: {reason:?}");
        Ok(reason.is_none().then(|| format!("{received:?}")))
    })?;
    // The reflector still admits it, so a1 keeps the route by another path, with FRR as next hop.
    expect_gateway(&lab, "192.168.100.3")?;

    fs::write(&file, &admitting)?;
    eventually("its return", TIMEOUT, || {
        let received = routes(&lab, "a1", &["--received", &router.to_string()])?;
        let is_back = received.iter().any(|route| route.rejected_reason.is_none());
        Ok((!is_back).then(|| format!("{received:?}")))
    })?;
    expect_gateway(&lab, "192.168.100.3")
}

fn expect_gateway(lab: &Lab, gateway: &str) -> Result<()> {
    eventually("the lab router's prefix on a1", TIMEOUT, || {
        let table = machine::routes(lab.namespace("a1")?)?;
        let held = table
            .get(LAB_PREFIX)
            .and_then(|route| route.gateway.clone());
        Ok((held.as_deref() != Some(gateway)).then(|| format!("{held:?}")))
    })
}
