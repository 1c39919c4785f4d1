//! A workload comes and goes by the CNI protocol.

use std::process::Command;

use agent::lab::ping::{self, Target};
use agent::lab::process::{self, Finished};
use agent::lab::{Lab, Mounts, Scenario, machine, texts};
use anyhow::{Result, ensure};
use harness::needs_root;
use harness::product::lab;

#[test]
fn workload_is_reachable_from_the_other_rack_as_soon_as_add_returns() -> Result<()> {
    needs_root!();
    let mut lab = lab(Scenario::Racks)?;
    for (node, name, from) in [("a1", "late-a", "b1-1"), ("b2", "late-b", "a2-1")] {
        let workload = lab.attach(node, name)?;
        let target = Target {
            address: workload.address,
            identifier: 1,
        };
        // One echo, so a lost first packet is a failure. A wrong proxy_delay would show in its
        // time: 200 to 700 ms instead of some 1 ms over two hops and a tunnel.
        let outcomes = ping::burst(lab.namespace(from)?, &[target], 1)?;
        let took = outcomes[0].shortest;
        println!("first packet {from} to {name}: {took:?}");
        ensure!(took.is_some(), "{from} to {name}: {:?}", outcomes[0]);
    }
    Ok(())
}

#[test]
fn deleted_workload_leaves_no_route_link_or_address() -> Result<()> {
    needs_root!();
    let mut lab = lab(Scenario::Racks)?;
    let before = machine::routes(lab.namespace("a1")?)?;
    let first = lab.attach("a1", "brief")?;
    let with = machine::routes(lab.namespace("a1")?)?;
    let route = with.get(&first.address.to_string());
    let device = route
        .and_then(|route| route.dev.clone())
        .unwrap_or_default();
    ensure!(device.starts_with("cara"), "{with:?}");

    lab.cni("DEL", "a1", "brief")?;
    ensure!(machine::routes(lab.namespace("a1")?)? == before);
    let links = machine::ip(lab.namespace("a1")?, &["-br", "link"])?;
    ensure!(!links.contains(&device), "{links}");
    // A runtime repeats DEL until it succeeds, so what is gone already is no error.
    lab.cni("DEL", "a1", "brief")?;
    Ok(())
}

/// ADD on a1 as runtimes and `ip netns` do it: the namespace of `target` is bound to a name.
fn add_by_name(lab: &Lab, target: &str) -> Result<Finished> {
    let name = lab.directory().join(format!("netns-{target}"));
    let script = r#"touch "$CNI_NETNS" && mount --bind "$0" "$CNI_NETNS" && exec "$1""#;
    let mut command = Command::new("sh");
    command
        .args(["-c", script])
        .arg(lab.namespace(target)?.path())
        .arg(lab.program("caracal-cni"))
        .env("CNI_COMMAND", "ADD")
        .env("CNI_CONTAINERID", format!("{}-named", lab.id()))
        .env("CNI_NETNS", name)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", "/opt/cni/bin");
    let input = texts::cni_configuration(&lab.run_dir("a1").join("agent.sock"));
    let node = Some(lab.namespace("a1")?);
    Ok(process::run(
        node,
        &mut command,
        &input,
        machine::COMMAND_TIMEOUT,
    )?)
}

#[test]
fn workload_is_attached_by_the_name_of_its_namespace() -> Result<()> {
    needs_root!();
    let mut lab = lab(Scenario::Mesh)?;
    lab.add_namespace("named", Mounts::default())?;
    let added = add_by_name(&lab, "named")?;
    ensure!(added.status.success(), "{added:?}");
    let links = machine::ip(lab.namespace("named")?, &["-br", "link"])?;
    ensure!(links.contains("eth0"), "{links}");
    Ok(())
}

#[test]
fn own_namespace_of_the_node_is_refused_by_any_name() -> Result<()> {
    needs_root!();
    let lab = lab(Scenario::Mesh)?;
    let before = machine::routes(lab.namespace("a1")?)?;
    let refused = add_by_name(&lab, "a1")?;
    ensure!(!refused.status.success(), "{refused:?}");
    ensure!(
        refused.stdout.contains("the node's own network namespace"),
        "{refused:?}"
    );
    ensure!(machine::routes(lab.namespace("a1")?)? == before);
    Ok(())
}

#[test]
fn plugin_says_which_versions_it_speaks() -> Result<()> {
    needs_root!();
    let lab = lab(Scenario::Mesh)?;
    let said: serde_json::Value = serde_json::from_str(&lab.cni("VERSION", "a1", "a1-1")?)?;
    let versions = said["supportedVersions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    ensure!(versions.iter().any(|version| version == "1.1.0"), "{said}");
    Ok(())
}
