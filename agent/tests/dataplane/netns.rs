//! Network namespaces, commands in them, and waiting for a condition.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use agent::dataplane::netns::{run_in, run_in_new};

/// A network namespace that lives as long as this value.
pub struct Namespace {
    descriptor: OwnedFd,
}

impl Namespace {
    /// `None`, reported as skipped, without the privilege to make one.
    pub fn new() -> Option<Namespace> {
        let made = run_in_new(|| File::open("/proc/thread-self/ns/net"));
        match made {
            Ok(file) => {
                let namespace = Namespace {
                    descriptor: file.expect("own namespace can be opened").into(),
                };
                namespace.ip("link set lo up");
                Some(namespace)
            }
            Err(error) => {
                println!("SKIPPED: no network namespace can be made: {error}");
                None
            }
        }
    }

    pub fn descriptor(&self) -> OwnedFd {
        self.descriptor.try_clone().expect("descriptors are left")
    }

    /// A path by which other programs can name the namespace.
    pub fn path(&self) -> String {
        format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.descriptor.as_raw_fd()
        )
    }

    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        run_in(self.descriptor.as_fd(), work).expect("own namespace can be entered")
    }

    /// Runs async code in the namespace, all of it on one thread.
    pub fn block_on<T: Send>(&self, work: impl AsyncFnOnce() -> T + Send) -> T {
        self.enter(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("runtime starts")
                .block_on(work())
        })
    }

    /// Runs `ip ARGUMENTS` and returns its output; panics if it fails. Our route protocols are
    /// shown as numbers, whether or not this machine has names for them.
    pub fn ip(&self, arguments: &str) -> String {
        let (is_ok, output) = self.run(&format!("ip {arguments}"));
        assert!(is_ok, "ip {arguments}: {output}");
        output
            .replace("proto caracal-bgp", "proto 203")
            .replace("proto caracal", "proto 202")
    }

    /// Whether the command succeeded, and both its outputs.
    pub fn run(&self, command: &str) -> (bool, String) {
        let words: Vec<&str> = command.split_whitespace().collect();
        let output = self.enter(|| {
            Command::new(words[0])
                .args(&words[1..])
                .output()
                .expect("program can be started")
        });
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    }

    pub fn sysctl(&self, path: &str) -> String {
        let file = format!("/proc/sys/net/{path}");
        self.enter(|| std::fs::read_to_string(&file))
            .expect(path)
            .trim()
            .to_owned()
    }

    pub fn set_sysctl(&self, path: &str, value: &str) {
        let file = format!("/proc/sys/net/{path}");
        self.enter(|| std::fs::write(&file, value)).expect(path);
    }

    /// A veth between two namespaces, both ends up, each with an address.
    pub fn connect(
        &self,
        name: &str,
        address: &str,
        other: &Namespace,
        other_name: &str,
        other_address: &str,
    ) {
        self.ip(&format!(
            "link add {name} type veth peer name {other_name} netns {}",
            other.path()
        ));
        for (namespace, name, address) in
            [(self, name, address), (other, other_name, other_address)]
        {
            namespace.ip(&format!("addr add {address} dev {name}"));
            namespace.ip(&format!("link set {name} up"));
        }
    }

    /// Whether one of some echoes is answered: a busy machine loses one, or is late.
    pub fn can_ping(&self, address: &str) -> bool {
        self.run(&format!("ping -n -c 1 -i 0.3 -w 3 {address}")).0
    }
}

/// Waits until `condition` holds; panics with `evidence` if it does not within the time.
pub fn wait_until(
    what: &str,
    time: Duration,
    mut condition: impl FnMut() -> bool,
    evidence: impl Fn() -> String,
) {
    let deadline = Instant::now() + time;
    while !condition() {
        assert!(
            Instant::now() < deadline,
            "{what}: not within {time:?}\n{}",
            evidence()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}
