//! `caracal-agent uninstall`, killed after each of its steps: what another one leaves is what was
//! there before Caracal.

use agent::lab::machine;
use anyhow::{Context, Result, ensure};
use harness::needs_root;
use harness::product::succeeded;
use harness::site::carriers_in;
use harness::speaker::Running;

use super::changes::NFT_FIREWALL;
use super::scene::Scene;
use super::state::State;
use super::{CONTAINERS, MOST_STEPS, router};

/// As many as share a next-hop object.
const ROUTES: u16 = 300;

/// Everything that an agent can leave: a carrier and its device, routes by an object, a workload,
/// rules in others' firewalls, the plugin.
fn install(scene: &mut Scene) -> Result<()> {
    scene.install_plugin()?;
    scene.start_agent()?;
    scene.wait_synced()?;
    succeeded(scene.cni("ADD", CONTAINERS[0])?)?;
    scene.wait_routes(ROUTES.into())?;
    scene.kill_agent()?;
    let objects = machine::ip(&scene.host, &["nexthop", "show"])?;
    ensure!(!objects.is_empty(), "no next-hop object");
    ensure!(carriers_in(&scene.host).len() == 1, "no carrier");
    Ok(())
}

#[test]
fn uninstall_cut_short_leaves_nothing_after_another() -> Result<()> {
    needs_root!();
    let mut scene = Scene::new("ipipMode: Always")?;
    scene.configure("tunnelDriver: userspace\nhostFirewall: insert\n")?;
    scene.nft(NFT_FIREWALL)?;
    scene.close_legacy_firewall()?;
    let _router = Running::start(&scene.router, router(0..ROUTES)?)?;
    // Switched on for good.
    scene.set_forwarding(true)?;
    let bare = State::settled(&scene)?;
    install(&mut scene)?;
    scene.uninstall()?;
    scene.expect("uninstall", &bare)?;
    for steps in 1..MOST_STEPS {
        install(&mut scene)?;
        scene.arm(steps)?;
        let said = scene.run_uninstall()?;
        let Some(step) = scene.disarm()? else {
            succeeded(said)?;
            println!("uninstall: {} steps", steps - 1);
            ensure!(steps > 10, "it has only {:?}", scene.steps());
            return Ok(());
        };
        let told = format!("uninstall, killed after {step}");
        succeeded(scene.run_uninstall()?).with_context(|| told.clone())?;
        scene.expect(&told, &bare)?;
        let left = carriers_in(&scene.host);
        ensure!(left.is_empty(), "{told}: {left:?}");
    }
    anyhow::bail!("no end after {MOST_STEPS} steps")
}
