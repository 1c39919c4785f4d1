//! kill -9 after every step of what an agent does: whatever it leaves, the next agent and what a
//! runtime does next make the same of it as if nothing had happened.
//!
//! A step is a write to the disk or the kernel, or a program started (`agent::crash`). A step more
//! each time until the agent survives, so no step is forgotten.

mod changes;
mod removal;
mod scene;
mod state;

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use bgp::speaker::config::{Originated, SpeakerConfig};
use harness::needs_root;
use harness::product::{TIMEOUT, eventually, succeeded};
use harness::speaker::{self, Running};

use self::scene::Scene;
use self::state::State;

/// Far more than anything here takes: the agent then is killed by something else.
const MOST_STEPS: usize = 200;
/// Several kernel requests' worth of routes.
const ROUTES: u16 = 1000;
const OTHER_NODE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);

pub const CONTAINERS: [&str; 2] = ["container-1", "container-2"];

/// A runtime's calls: verb and container.
type Calls<'a> = &'a [(&'a str, &'a str)];

struct Case<'a> {
    name: &'a str,
    /// On a node whose agent is not killed.
    before: Calls<'a>,
    /// Until the agent is killed.
    call: (&'a str, &'a str),
    /// With the next agent.
    then: Calls<'a>,
    /// Whether the pod is attached in the end.
    is_attached: bool,
    scene: fn(&str) -> Result<Scene>,
}

/// Kills the agent after each step of `case.call`.
fn kill_in_call(case: &Case<'_>) -> Result<()> {
    let mut scene = (case.scene)("ipipMode: Never")?;
    scene.start_agent()?;
    scene.wait_synced()?;
    let empty = State::settled(&scene)?;
    succeeded(scene.cni("ADD", CONTAINERS[0])?)?;
    let attached = State::settled(&scene)?;
    succeeded(scene.cni("DEL", CONTAINERS[0])?)?;
    scene.expect("the end of the first workload", &empty)?;
    for steps in 1..MOST_STEPS {
        for (verb, container) in case.before {
            succeeded(scene.cni(verb, container)?)?;
        }
        scene.arm(steps)?;
        let (verb, container) = case.call;
        let said = scene.cni(verb, container)?;
        let Some(step) = scene.disarm()? else {
            succeeded(said)?;
            println!("{}: {} steps", case.name, steps - 1);
            // Less would mean that the kills met no step.
            ensure!(steps > 5, "{} has only {:?}", case.name, scene.steps());
            return Ok(());
        };
        scene.start_agent()?;
        scene.wait_synced()?;
        for (verb, container) in case.then {
            let told = format!("{}, killed after {step}: {verb} {container}", case.name);
            succeeded(scene.cni(verb, container)?).context(told)?;
        }
        let told = format!("{}, killed after {step}", case.name);
        scene.expect(&told, if case.is_attached { &attached } else { &empty })?;
        for container in CONTAINERS {
            succeeded(scene.cni("DEL", container)?).with_context(|| told.clone())?;
        }
        scene.expect(&format!("{told}, after DEL"), &empty)?;
    }
    anyhow::bail!("{}: no end after {MOST_STEPS} steps", case.name)
}

#[test]
fn add_cut_short_leaves_what_a_whole_one_does_or_nothing() -> Result<()> {
    needs_root!();
    let [first, second] = CONTAINERS;
    kill_in_call(&Case {
        name: "ADD, and again",
        before: &[],
        call: ("ADD", first),
        then: &[("ADD", first)],
        is_attached: true,
        scene: Scene::new,
    })?;
    kill_in_call(&Case {
        name: "ADD, and again for a new container, DEL of the first",
        before: &[],
        call: ("ADD", first),
        then: &[("ADD", second), ("DEL", first)],
        is_attached: true,
        scene: Scene::new,
    })
}

#[test]
fn add_cut_short_leaves_nothing_after_del() -> Result<()> {
    needs_root!();
    kill_in_call(&Case {
        name: "ADD, then DEL",
        before: &[],
        call: ("ADD", CONTAINERS[0]),
        then: &[("DEL", CONTAINERS[0])],
        is_attached: false,
        scene: Scene::new,
    })
}

#[test]
fn del_cut_short_leaves_nothing_after_another() -> Result<()> {
    needs_root!();
    let [first, second] = CONTAINERS;
    kill_in_call(&Case {
        name: "DEL, and again",
        before: &[("ADD", first)],
        call: ("DEL", first),
        then: &[("DEL", first)],
        is_attached: false,
        scene: Scene::new,
    })?;
    kill_in_call(&Case {
        name: "DEL, and again after ADD of a new container",
        before: &[("ADD", first)],
        call: ("DEL", first),
        then: &[("ADD", second), ("DEL", first)],
        is_attached: true,
        scene: Scene::new,
    })
}

#[test]
fn add_and_del_of_both_families_cut_short_leave_what_whole_ones_do() -> Result<()> {
    needs_root!();
    let first = CONTAINERS[0];
    kill_in_call(&Case {
        name: "ADD of both families, and again",
        before: &[],
        call: ("ADD", first),
        then: &[("ADD", first)],
        is_attached: true,
        scene: Scene::dual_stack,
    })?;
    kill_in_call(&Case {
        name: "DEL of both families, and again",
        before: &[("ADD", first)],
        call: ("DEL", first),
        then: &[("DEL", first)],
        is_attached: false,
        scene: Scene::dual_stack,
    })
}

/// Has the agent killed after the step `steps` of what `begin` begins, and the next one end it.
/// Returns whether there was such a step; else all came to `expected` without.
fn kill_in_work(
    scene: &mut Scene,
    what: &str,
    steps: usize,
    expected: &State,
    begin: impl FnOnce(&mut Scene) -> Result<()>,
) -> Result<bool> {
    scene.arm(steps)?;
    begin(scene)?;
    eventually(&format!("{what}, {steps} steps"), TIMEOUT, || {
        let missing = expected.missing_in(scene)?;
        Ok(missing.filter(|_| !scene.is_killed()))
    })
    .with_context(|| scene.log())?;
    let Some(step) = scene.disarm()? else {
        let passed = scene.steps();
        if passed.len() + 1 == steps {
            println!("{what}: {} steps", passed.len());
        }
        ensure!(passed.len() > 1, "{what} has only {passed:?}");
        return Ok(false);
    };
    scene.start_agent()?;
    scene.expect(&format!("{what}, killed after {step}"), expected)?;
    Ok(true)
}

/// The router with routes of its own: so many, and the other node's.
fn router(routes: std::ops::Range<u16>) -> Result<SpeakerConfig> {
    router_at(2, routes)
}

/// The same at another address.
fn router_at(last: u8, routes: std::ops::Range<u16>) -> Result<SpeakerConfig> {
    let mut config = speaker::config(last);
    let own = speaker::address(last);
    config.originated.clear();
    for route in routes {
        let [high, low] = route.to_be_bytes();
        let prefix = format!("10.9.{high}.{low}/32").parse()?;
        config.originated.insert(prefix, Originated::new(own));
    }
    let tunnelled = Originated::new(OTHER_NODE.into());
    config
        .originated
        .insert("172.17.9.0/24".parse()?, tunnelled);
    let peer = speaker::peer(&mut config, 1);
    peer.families = vec![bgp::types::Family::Ipv4];
    Ok(config)
}

#[test]
fn start_cut_short_is_made_whole_by_the_next_with_every_learned_route() -> Result<()> {
    needs_root!();
    let mut scene = Scene::new("ipipMode: Never, vxlanMode: Always")?;
    let _router = Running::start(&scene.router, router(0..ROUTES)?)?;
    let bare = State::settled(&scene)?;
    scene.start_agent()?;
    scene.wait_routes(usize::from(ROUTES))?;
    let whole = State::settled(&scene)?;
    for steps in 1..MOST_STEPS {
        scene.uninstall()?;
        scene.forget_files()?;
        scene.expect("a bare node", &bare)?;
        let start = |scene: &mut Scene| scene.start_agent();
        if !kill_in_work(&mut scene, "start", steps, &whole, start)? {
            return Ok(());
        }
    }
    anyhow::bail!("no end after {MOST_STEPS} steps")
}

#[test]
fn convergence_cut_short_leaves_no_route_that_nobody_announces() -> Result<()> {
    needs_root!();
    let mut scene = Scene::new("ipipMode: Never, vxlanMode: Always")?;
    let (more, fewer) = (router(0..ROUTES)?, router(ROUTES / 2..ROUTES + 200)?);
    let router = Running::start(&scene.router, fewer.clone())?;
    scene.start_agent()?;
    scene.wait_routes(usize::from(ROUTES / 2 + 200))?;
    let expected = State::settled(&scene)?;
    router.configure(more.clone());
    scene.wait_routes(usize::from(ROUTES))?;
    let before = State::settled(&scene)?;
    for steps in 1..MOST_STEPS {
        router.configure(more.clone());
        scene.expect("the routes before", &before)?;
        scene.kill_agent()?;
        router.configure(fewer.clone());
        let start = |scene: &mut Scene| scene.start_agent();
        if !kill_in_work(&mut scene, "convergence", steps, &expected, start)? {
            return Ok(());
        }
    }
    anyhow::bail!("no end after {MOST_STEPS} steps")
}
