//! Changes of a running node, over and over: the agent is killed after each of their steps.

use std::process::Command;
use std::thread;

use agent::lab::machine::{self, COMMAND_TIMEOUT};
use agent::lab::process;
use anyhow::Result;
use bgp::speaker::config::SpeakerConfig;
use harness::needs_root;
use harness::product::{TIMEOUT, eventually, succeeded};
use harness::report;
use harness::speaker::Running;

use super::scene::Scene;
use super::state::State;
use super::{CONTAINERS, MOST_STEPS, kill_in_work, router, router_at};

/// A state of the node, and what brings it about from the one before.
struct Stage<'a> {
    name: &'a str,
    begin: &'a dyn Fn(&mut Scene) -> Result<()>,
    /// Waits until it is there.
    wait: &'a dyn Fn(&Scene) -> Result<()>,
}

/// Goes round the stages with a step more each time. The node is at the last one.
fn kill_in_round(scene: &mut Scene, stages: &[Stage<'_>]) -> Result<()> {
    let mut expected = Vec::new();
    for stage in stages {
        (stage.begin)(scene)?;
        (stage.wait)(scene)?;
        expected.push(State::settled(scene)?);
    }
    for steps in 1..MOST_STEPS {
        if !kill_in_each(scene, stages, &expected, steps)?.contains(&true) {
            return Ok(());
        }
    }
    anyhow::bail!("no end after {MOST_STEPS} steps")
}

/// Goes round once. Returns of each stage whether it has so many steps.
fn kill_in_each(
    scene: &mut Scene,
    stages: &[Stage<'_>],
    expected: &[State],
    steps: usize,
) -> Result<Vec<bool>> {
    let each = stages.iter().zip(expected);
    each.map(|(stage, expected)| kill_in_work(scene, stage.name, steps, expected, stage.begin))
        .collect()
}

const VXLAN: &str = "ipipMode: Never, vxlanMode: Always";
const UDP: &str = "ipipMode: Never, udpMode: Always";
const IPIP: &str = "ipipMode: Always";
const NONE: &str = "ipipMode: Never";
/// Whatever the kernel has.
const CARRIER: &str = "tunnelDriver: userspace\n";
const KERNEL: &str = "tunnelDriver: kernel\n";

/// A node whose pool has these modes.
fn tunnelled(modes: &str) -> Result<(Scene, Running)> {
    let mut scene = Scene::new(modes)?;
    scene.configure(CARRIER)?;
    let router = Running::start(&scene.router, router(0..1)?)?;
    scene.start_agent()?;
    scene.wait_routes(1)?;
    Ok((scene, router))
}

/// Goes round these modes of the pool.
fn kill_in_changes(modes: &[&str]) -> Result<()> {
    let mut expected = Vec::new();
    for modes in modes {
        let (scene, _router) = tunnelled(modes)?;
        expected.push(State::settled(&scene)?);
    }
    let expected = &expected;
    let attempt = move |steps: usize| -> Result<Vec<bool>> {
        let begin: Vec<_> = (modes.iter())
            .map(|modes| move |scene: &mut Scene| scene.write_pool(modes))
            .collect();
        let stages: Vec<Stage<'_>> = (modes.iter().zip(&begin))
            .map(|(name, begin)| Stage {
                name,
                begin,
                wait: &|_| Ok(()),
            })
            .collect();
        let (mut scene, _router) = tunnelled(modes.last().copied().unwrap_or(NONE))?;
        kill_in_each(&mut scene, &stages, expected, steps)
    };
    side_by_side(24, &attempt)
}

/// Makes so many attempts at a time, each with a step more and a node of its own: tunnels spend most
/// of their changes waiting for other nodes. An attempt says of each stage whether it has so many steps.
fn side_by_side(width: usize, attempt: &(dyn Fn(usize) -> Result<Vec<bool>> + Sync)) -> Result<()> {
    for first in (1..MOST_STEPS).step_by(width) {
        let ended = thread::scope(|scope| {
            let running: Vec<_> = (first..first + width)
                .map(|steps| scope.spawn(move || attempt(steps)))
                .collect();
            let ended = running.into_iter().map(|one| one.join());
            ended.collect::<Vec<_>>()
        });
        let mut all_have_more = Vec::new();
        for end in ended {
            let more = end.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            all_have_more.resize(more.len(), true);
            for (all, more) in all_have_more.iter_mut().zip(more) {
                *all &= more;
            }
        }
        if !all_have_more.contains(&true) {
            return Ok(());
        }
    }
    anyhow::bail!("no end after {MOST_STEPS} steps")
}

#[test]
fn change_of_tunnels_cut_short_ends_with_the_new_one_alone() -> Result<()> {
    needs_root!();
    kill_in_changes(&[VXLAN, UDP, IPIP])
}

#[test]
fn change_of_tunnels_back_cut_short_ends_with_the_new_one_alone() -> Result<()> {
    needs_root!();
    kill_in_changes(&[IPIP, UDP, VXLAN])
}

#[test]
fn start_and_end_of_a_carrier_cut_short_end_with_one_and_none() -> Result<()> {
    needs_root!();
    kill_in_changes(&[NONE, IPIP])
}

#[test]
fn change_from_the_carrier_to_the_kernels_ipip_and_back_cut_short_ends_with_one() -> Result<()> {
    needs_root!();
    let (mut scene, _router) = tunnelled(IPIP)?;
    let mut probe = Command::new("ip");
    probe.args("link add probe type ipip local 127.0.0.1".split(' '));
    let made = process::run(Some(&scene.host), &mut probe, "", COMMAND_TIMEOUT)?;
    if !made.status.success() {
        report::skip("this kernel has no ipip");
        return Ok(());
    }
    machine::ip(&scene.host, &["link", "del", "probe"])?;
    let by_carrier = State::settled(&scene)?;
    scene.restart_agent(KERNEL)?;
    eventually("the kernel's ipip", TIMEOUT, || {
        let links = machine::ip(&scene.host, &["-br", "link"])?;
        let is_alone = links.contains("caracal-ipip") && !links.contains("caracal-tun");
        Ok((!is_alone).then_some(links))
    })?;
    let expected = [State::settled(&scene)?, by_carrier];
    // A guest kernel has one processor.
    side_by_side(4, &|steps| {
        let stages = [
            Stage {
                name: "the kernel's ipip instead of the carrier",
                begin: &|scene| scene.restart_agent(KERNEL),
                wait: &|_| Ok(()),
            },
            Stage {
                name: "the carrier instead of the kernel's ipip",
                begin: &|scene| scene.restart_agent(CARRIER),
                wait: &|_| Ok(()),
            },
        ];
        let (mut scene, _router) = tunnelled(IPIP)?;
        kill_in_each(&mut scene, &stages, &expected, steps)
    })
}

/// As many as share an object, and more.
const MANY: u16 = 300;

#[test]
fn change_of_next_hops_cut_short_leaves_no_object_and_no_route_by_another() -> Result<()> {
    needs_root!();
    let mut scene = Scene::new(NONE)?;
    // What no route is by any more goes at the next resync.
    scene.configure("resyncSeconds: 1\n")?;
    scene.write_store(
        "multipath",
        "apiVersion: caracal.dev/v1alpha1\nkind: BGPConfiguration\nmetadata: {name: node.n1}\n\
         spec: {multipath: {ibgp: 2}}\n---\napiVersion: caracal.dev/v1alpha1\nkind: BGPPeer\n\
         metadata: {name: other}\nspec: {node: n1, peerIP: 192.0.2.3, asNumber: 64512, \
         connectRetryTime: 1s, filters: [all]}\n",
    )?;
    let first = Running::start(&scene.router, router_at(2, 0..MANY)?)?;
    let silent = |last| -> Result<SpeakerConfig> {
        let mut config = router_at(last, 0..0)?;
        config.originated.clear();
        Ok(config)
    };
    let second = Running::start(&scene.router, silent(3)?)?;
    let (many, none) = (router_at(2, 0..MANY)?, silent(2)?);
    let (many_too, none_too) = (router_at(3, 0..MANY)?, silent(3)?);
    scene.start_agent()?;
    scene.wait_routes(MANY.into())?;
    // The last one is that to the other node.
    let are = |scene: &Scene, what: &str, mark: &str| {
        eventually(what, TIMEOUT, || {
            let routes = machine::ip(&scene.host, &["-o", "route", "show", "proto", "203"])?;
            let marked = routes.lines().filter(|line| line.contains(mark)).count();
            let has_all = marked >= usize::from(MANY);
            let all = routes.lines().count();
            let is_there = has_all && State::of(scene)?.is_every_object_used();
            Ok((!is_there).then(|| format!("{marked} of {all}, and unused objects")))
        })
    };
    are(&scene, "routes by an object", "nhid")?;
    let are_gone = |scene: &Scene| {
        eventually("the end of all objects", TIMEOUT, || {
            let objects = machine::ip(&scene.host, &["nexthop", "show"])?;
            Ok((!objects.is_empty()).then_some(objects))
        })
    };
    let stages = [
        Stage {
            name: "the same routes by two hops",
            begin: &|_| {
                second.configure(many_too.clone());
                Ok(())
            },
            wait: &|scene| are(scene, "routes by two hops", "nexthop"),
        },
        Stage {
            name: "no route",
            begin: &|_| {
                second.configure(none_too.clone());
                first.configure(none.clone());
                Ok(())
            },
            wait: &are_gone,
        },
        Stage {
            name: "many routes by one hop",
            begin: &|_| {
                first.configure(many.clone());
                Ok(())
            },
            wait: &|scene| are(scene, "routes by an object", "nhid"),
        },
    ];
    kill_in_round(&mut scene, &stages)
}

/// As docker leaves it.
pub const NFT_FIREWALL: &str = "add table ip filter\n\
    add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }\n\
    add rule ip filter FORWARD iifname \"docker0\" accept\n";

/// Goes from a closed firewall to an opened one and back.
fn kill_in_opening(scene: &mut Scene) -> Result<()> {
    scene.start_agent()?;
    scene.wait_synced()?;
    succeeded(scene.cni("ADD", CONTAINERS[0])?)?;
    let stages = [
        Stage {
            name: "host firewall opened",
            begin: &|scene| scene.restart_agent("hostFirewall: insert\n"),
            wait: &Scene::wait_synced,
        },
        Stage {
            name: "host firewall closed",
            begin: &|scene| scene.restart_agent(""),
            wait: &Scene::wait_synced,
        },
    ];
    kill_in_round(scene, &stages)
}

#[test]
fn host_firewall_opened_and_closed_cut_short_has_our_rules_once_or_not() -> Result<()> {
    needs_root!();
    let mut scene = Scene::new(NONE)?;
    scene.nft(NFT_FIREWALL)?;
    kill_in_opening(&mut scene)
}

#[test]
fn legacy_host_firewall_opened_and_closed_cut_short_has_our_rules_once_or_not() -> Result<()> {
    needs_root!();
    let mut scene = Scene::new(NONE)?;
    if !scene.close_legacy_firewall()? {
        report::skip("no iptables-legacy, or a kernel without it");
        return Ok(());
    }
    kill_in_opening(&mut scene)
}
