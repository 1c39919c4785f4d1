//! A day of the virtual clock: the speaker of a reflector as it is, over loopback.
//!
//! Time stands still but where the world lets it pass, so that the machine's load decides nothing.

use std::time::Duration;

use anyhow::Result;
use bgp::speaker::Speaker;
use tokio::runtime::Runtime;

use crate::events::Times;
use crate::memory;
use crate::namespace::in_namespace;
use crate::number_from;
use crate::setup::Setup;
use crate::world::{Reflector, World};

const HOUR: Duration = Duration::from_secs(3600);
const HOURS: u64 = 24;
const TIMES: Times = Times {
    hold_time_secs: 90,
    restart_times_secs: &[20, 60, 150, 300],
};
/// Times that everything that is ready gets its turn, before the test looks.
const TURNS: usize = 5;
/// In virtual time.
const BETWEEN_QUIET_POINTS: Duration = Duration::from_secs(600);
/// More than a speaker keeps of attribute sets that no route uses any more.
const ATTRIBUTE_SETS: u32 = 1200;
/// What the second half of a day may hold beyond the first: buffers and maps have a capacity that
/// depends on chance. What is kept of each event may not be more than 32 octets.
const SLACK: usize = 96 * 1024;

struct Simulated {
    runtime: Runtime,
    speaker: Speaker,
    now: Duration,
}

impl Simulated {
    fn start(setup: &Setup) -> Simulated {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let config = setup.speaker_config();
        let speaker = runtime.block_on(async { Speaker::start(config, false).0 });
        let mut simulated = Simulated {
            runtime,
            speaker,
            now: Duration::ZERO,
        };
        simulated.work();
        let speaker = simulated.speaker.clone();
        let problems = simulated
            .runtime
            .block_on(async move { speaker.problems().await });
        assert_eq!(problems, Vec::<String>::new());
        simulated
    }

    fn tasks(&self) -> usize {
        self.runtime.metrics().num_alive_tasks()
    }
}

impl Reflector for Simulated {
    fn now(&self) -> Duration {
        self.now
    }

    fn work(&mut self) {
        self.runtime.block_on(async {
            for _ in 0..TURNS {
                // Sockets are looked at in each turn, and the clock does not go on by itself while
                // this is waiting for its own.
                tokio::task::yield_now().await;
            }
        });
    }

    fn pass(&mut self, by: Duration) {
        self.now += by;
        self.runtime.block_on(tokio::time::advance(by));
    }

    fn configure(&mut self, setup: &Setup) {
        let config = setup.speaker_config();
        self.runtime.block_on(self.speaker.configure(config));
        self.work();
    }

    fn show(&mut self) -> String {
        format!("{:#?}", self.runtime.block_on(self.speaker.peers()))
    }

    fn longest_step(&self) -> Duration {
        Duration::from_secs(5)
    }

    fn lateness(&self) -> Duration {
        // Timers go by milliseconds.
        Duration::from_millis(2)
    }

    fn margin(&self) -> Duration {
        Duration::from_secs(6)
    }
}

/// What is held at the calm of an hour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Held {
    octets: usize,
    tasks: usize,
    descriptors: usize,
}

impl Held {
    fn handles(&self) -> (usize, usize) {
        (self.tasks, self.descriptors)
    }
}

fn held(world: &mut World<Simulated>) -> Held {
    world.calm_down(&TIMES);
    // Just after attribute sets that nobody uses were dropped.
    let mut least = usize::MAX;
    world.change_one_route(8, ATTRIBUTE_SETS, || least = least.min(memory::held()));
    world.compare();
    let descriptors = std::fs::read_dir("/proc/self/fd").expect("there");
    Held {
        octets: least,
        tasks: world.reflector.tasks(),
        descriptors: descriptors.count(),
    }
}

#[test]
fn a_day_of_churn_leaves_the_right_tables_and_no_memory_behind() -> Result<()> {
    harness::needs_root!();
    in_namespace(a_day);
    Ok(())
}

fn a_day() {
    let seed = number_from("CARACAL_CHURN_SEED", 1);
    let hours = number_from("CARACAL_CHURN_HOURS", HOURS);
    let begun = std::time::Instant::now();
    let setup = Setup::base();
    let mut world = World::new(Simulated::start(&setup), setup, seed);
    println!("seed {seed}");
    let mut of_hours = vec![held(&mut world)];
    for hour in 1..=hours {
        let end = world.now() + HOUR;
        let mut next_quiet = world.now() + BETWEEN_QUIET_POINTS;
        while world.now() < end {
            let pause = Duration::from_millis(500 + world.random.below(19_000));
            world.pass(pause);
            world.happen(&TIMES);
            if world.now() >= next_quiet {
                world.compare();
                next_quiet = world.now() + BETWEEN_QUIET_POINTS;
            }
        }
        let held = held(&mut world);
        println!("after {hour} h: {held:?}");
        of_hours.push(held);
    }
    println!("{:#?}", world.counts);
    println!(
        "{} messages heard, {} routes compared, {:.1} s of real time",
        world.messages,
        world.routes_compared,
        begun.elapsed().as_secs_f32()
    );
    for (hour, held) in of_hours.iter().enumerate() {
        let (is, was) = (held.handles(), of_hours[0].handles());
        assert_eq!(is, was, "tasks and descriptors after {hour} h");
    }
    // Not after the first minutes: maps and buffers have grown to what they need by then.
    let (first, second) = of_hours.split_at(of_hours.len() / 2);
    let most = |hours: &[Held]| hours.iter().map(|held| held.octets).max().unwrap_or(0);
    let (before, after) = (most(first), most(second));
    println!("most octets held: {before} in the first half, {after} in the second");
    assert!(
        after <= before + SLACK,
        "memory grew by {} octets",
        after - before
    );
}
