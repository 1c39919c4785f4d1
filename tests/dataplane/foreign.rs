//! Routes that others made are theirs.

use agent::lab::{Scenario, machine};
use anyhow::{Result, ensure};
use harness::needs_root;
use harness::product::{TIMEOUT, eventually, routes, wired_lab};

const PREFIX: &str = "172.17.9.0/24";

#[test]
fn foreign_route_that_holds_our_key_stays_and_is_shown() -> Result<()> {
    needs_root!();
    let mut lab = wired_lab(Scenario::Racks)?;
    let a1 = lab.namespace("a1")?.clone();
    let foreign = [
        PREFIX,
        "via",
        "192.168.100.1",
        "metric",
        "202",
        "proto",
        "static",
    ];
    machine::ip(&a1, &[&["route", "add"], &foreign[..]].concat())?;
    lab.start_all()?;
    lab.attach_all()?;

    eventually("the foreign route to be shown", TIMEOUT, || {
        let routes = routes(&lab, "a1", &[PREFIX])?;
        let kernel = routes
            .iter()
            .filter(|route| route.best)
            .find_map(|route| route.kernel.clone());
        let is_shown = kernel.as_ref().is_some_and(|kernel| {
            let reason = kernel.reason.as_deref().unwrap_or_default();
            kernel.state == "failed" && reason.contains("blocked by")
        });
        Ok((!is_shown).then(|| format!("{kernel:?}")))
    })?;
    let table = machine::routes(&a1)?;
    let held = table.get(PREFIX).and_then(|route| route.gateway.as_deref());
    ensure!(held == Some("192.168.100.1"), "{table:?}");
    eventually("the other routes all the same", TIMEOUT, || {
        let table = machine::routes(&a1)?;
        Ok((!table.contains_key("172.17.10.0/24")).then(|| format!("{table:?}")))
    })?;

    machine::ip(&a1, &[&["route", "del"], &foreign[..]].concat())?;
    eventually("our route in its place", TIMEOUT, || {
        let table = machine::routes(&a1)?;
        let gateway = table.get(PREFIX).and_then(|route| route.gateway.clone());
        Ok((gateway.as_deref() != Some("192.168.100.101")).then(|| format!("{gateway:?}")))
    })
}
