//! What processes use, as the kernel counts it.

use std::fs;
use std::iter::Sum;
use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// On a processor, all threads together.
    pub cpu: Duration,
    /// The most and the present resident memory, in KiB.
    pub peak: u64,
    pub resident: u64,
}

impl Usage {
    /// Zero of a process that ended.
    pub fn of(pid: i32) -> Usage {
        let tasks = fs::read_dir(format!("/proc/{pid}/task"));
        let cpu = tasks.into_iter().flatten().flatten().map(|task| {
            let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let on_cpu = text.split(' ').next().and_then(|word| word.parse().ok());
            Duration::from_nanos(on_cpu.unwrap_or(0))
        });
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let kibibytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let word = line.and_then(|line| line.split_whitespace().next());
            word.and_then(|word| word.parse().ok()).unwrap_or(0)
        };
        Usage {
            cpu: cpu.sum(),
            peak: kibibytes("VmHWM:"),
            resident: kibibytes("VmRSS:"),
        }
    }
}

impl Sum for Usage {
    fn sum<I: Iterator<Item = Usage>>(all: I) -> Usage {
        all.fold(Usage::default(), |sum, one| Usage {
            cpu: sum.cpu + one.cpu,
            peak: sum.peak + one.peak,
            resident: sum.resident + one.resident,
        })
    }
}
