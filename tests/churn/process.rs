//! Ten real minutes: `caracal-reflector` as a process that follows its file.

use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use agent::api::client::Client;
use agent::api::schema::Items;
use anyhow::{Context, Result, ensure};
use bgp::speaker::status::PeerStatus;
use harness::product;

use crate::events::Times;
use crate::namespace::in_namespace;
use crate::number_from;
use crate::setup::Setup;
use crate::world::{DEADLINE, Reflector, World};

const SECONDS: u64 = 600;
const MINUTE: Duration = Duration::from_secs(60);
const TIMES: Times = Times {
    hold_time_secs: 9,
    restart_times_secs: &[4, 8, 12],
};
const BETWEEN_QUIET_POINTS: Duration = Duration::from_secs(10);
/// As in the day of the virtual clock.
const ATTRIBUTE_SETS: u32 = 1200;
/// What resident memory may grow by from the second minute to the last: the allocator's arenas of
/// the runtime's threads, and pages that are not full.
const SLACK_KIB: u64 = 4096;

/// A program that runs until this is dropped.
struct Running {
    child: Child,
    directory: tempfile::TempDir,
    begun: Instant,
    client: Client,
}

impl Running {
    fn start(setup: &Setup) -> Result<Running> {
        let directory = tempfile::tempdir()?;
        let at = |name: &str| directory.path().join(name);
        for name in ["run", "state", "etc"] {
            std::fs::DirBuilder::new().mode(0o700).create(at(name))?;
        }
        std::fs::write(at("etc/reflector.yaml"), setup.text())?;
        let log = std::fs::File::create(at("log"))?;
        let child = Command::new(product::programs()?.join("caracal-reflector"))
            .arg("--config")
            .arg(at("etc/reflector.yaml"))
            .arg("--run-dir")
            .arg(at("run"))
            .arg("--state-dir")
            .arg(at("state"))
            .args(["--http-listen", "none"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("failed to start caracal-reflector")?;
        let running = Running {
            client: Client::new(&at("run/reflector.sock")),
            child,
            directory,
            begun: Instant::now(),
        };
        running.wait_for(setup);
        Ok(running)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn peers(&self) -> Result<Vec<PeerStatus>> {
        let peers: Items<PeerStatus> = self.client.get("/v1/peers")?;
        Ok(peers.items)
    }

    /// Until it shows the peer that only this configuration has.
    fn wait_for(&self, setup: &Setup) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let peers = self.peers();
            let is_marker = |peer: &PeerStatus| peer.peer == setup.marker();
            if peers
                .as_ref()
                .is_ok_and(|peers| peers.iter().any(is_marker))
            {
                return;
            }
            let log = std::fs::read_to_string(self.file("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "not taken: {peers:?}\n{log}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Resident memory in KiB.
    fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.and_then(|text| text.parse().ok()).expect("a number")
    }

    /// Connections that were closed may still be on their way out.
    fn wait_descriptors(&self, most: usize) {
        let deadline = Instant::now() + DEADLINE;
        while self.descriptors() > most {
            let is = self.descriptors();
            assert!(
                Instant::now() < deadline,
                "{is} descriptors, {most} at first"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn descriptors(&self) -> usize {
        let listed = std::fs::read_dir(format!("/proc/{}/fd", self.child.id()));
        listed.expect("it runs").count()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; the test has said so then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Reflector for Running {
    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    fn work(&mut self) {
        // Between two looks of those who wait for something, up to their deadline.
        std::thread::sleep(Duration::from_millis(1));
    }

    fn pass(&mut self, by: Duration) {
        let deadline = Instant::now() + by;
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            std::thread::sleep(left.min(Duration::from_millis(10)));
        }
    }

    fn configure(&mut self, setup: &Setup) {
        let written = self.file("etc/reflector.new");
        std::fs::write(&written, setup.text()).expect("written");
        std::fs::rename(&written, self.file("etc/reflector.yaml")).expect("renamed");
        self.wait_for(setup);
    }

    fn show(&mut self) -> String {
        format!("{:#?}", self.peers())
    }

    fn longest_step(&self) -> Duration {
        Duration::from_millis(50)
    }

    fn margin(&self) -> Duration {
        Duration::from_secs(2)
    }

    fn lateness(&self) -> Duration {
        Duration::from_secs(1)
    }
}

/// Resident memory and descriptors with every client up and the same routes as ever.
fn held(world: &mut World<Running>) -> (u64, usize) {
    world.calm_down(&TIMES);
    world.change_one_route(8, ATTRIBUTE_SETS, || {});
    world.compare();
    (world.reflector.resident(), world.reflector.descriptors())
}

#[test]
#[ignore = "long"]
fn ten_minutes_of_churn_leave_the_right_tables_and_no_memory_behind() -> Result<()> {
    harness::needs_root!();
    let program = product::programs()?.join("caracal-reflector");
    ensure!(program.exists(), "{} is not built", program.display());
    in_namespace(minutes);
    Ok(())
}

fn minutes() {
    let seed = number_from("CARACAL_CHURN_SEED", 1);
    let length = Duration::from_secs(number_from("CARACAL_CHURN_SECONDS", SECONDS));
    println!("seed {seed}");
    let setup = Setup::base();
    let running = Running::start(&setup).expect("it starts");
    let mut world = World::new(running, setup, seed);
    let mut of_minutes = vec![held(&mut world)];
    while world.now() < length {
        let end = (world.now() + MINUTE).min(length);
        let mut next_quiet = world.now() + BETWEEN_QUIET_POINTS;
        while world.now() < end {
            let pause = Duration::from_millis(5 + world.random.below(95));
            world.pass(pause);
            world.happen(&TIMES);
            if world.now() >= next_quiet {
                world.compare();
                next_quiet = world.now() + BETWEEN_QUIET_POINTS;
            }
        }
        let (resident, descriptors) = held(&mut world);
        let now = world.now().as_secs();
        println!("after {now} s: {resident} KiB resident, {descriptors} descriptors");
        of_minutes.push((resident, descriptors));
    }
    println!("{:#?}", world.counts);
    println!(
        "{} messages heard, {} routes compared",
        world.messages, world.routes_compared
    );
    let (at_first, descriptors_at_first) = of_minutes[1];
    let (at_last, _) = of_minutes[of_minutes.len() - 1];
    world.reflector.wait_descriptors(descriptors_at_first);
    assert!(
        at_last <= at_first + SLACK_KIB,
        "resident memory grew from {at_first} to {at_last} KiB"
    );
}
