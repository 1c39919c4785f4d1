//! A node and a router, an agent that can be killed after any of its steps, and everything it leaves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use agent::crash;
use agent::lab::machine::{self, COMMAND_TIMEOUT};
use agent::lab::netns::LAB_VARIABLE;
use agent::lab::process::{self, Finished, Process};
use agent::lab::{Mounts, Namespace, texts};
use anyhow::{Context, Result};
use harness::product::{self, TIMEOUT, eventually, programs, succeeded};
use harness::site::end_all_in;
use tempfile::TempDir;

use super::state::State;

const NODE: &str = "
apiVersion: caracal.dev/v1alpha1
kind: Node
metadata: {name: n1}
spec: {bgp: {ipv4Address: 192.0.2.1/24}, podCIDRs: [172.17.8.0/24]}
";

/// Of both families, and the pool of the other one.
const DUAL_STACK: &str = "
apiVersion: caracal.dev/v1alpha1
kind: Node
metadata: {name: n1}
spec:
  bgp: {ipv4Address: 192.0.2.1/24, ipv6Address: '2001:db8::1/64'}
  podCIDRs: [172.17.8.0/24, 'fd00:17:8::/64']
---
apiVersion: caracal.dev/v1alpha1
kind: IPPool
metadata: {name: six}
spec: {cidr: 'fd00:17::/32'}
";

/// n2 is in another subnet: what goes there goes through a tunnel.
const STORE: &str = "
apiVersion: caracal.dev/v1alpha1
kind: Node
metadata: {name: n2}
spec: {bgp: {ipv4Address: 198.51.100.9/24}, podCIDRs: [172.17.9.0/24]}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPConfiguration
metadata: {name: default}
spec: {asNumber: 64512, nodeToNodeMeshEnabled: false}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {name: router}
spec: {node: n1, peerIP: 192.0.2.2, asNumber: 64512, connectRetryTime: 1s, filters: [all]}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPFilter
metadata: {name: all}
spec: {importV4: [{action: Accept}]}
";

pub struct Scene {
    pub host: Namespace,
    pub router: Namespace,
    pub workload: Namespace,
    pub directory: TempDir,
    programs: PathBuf,
    id: String,
    agent: Option<Process>,
    /// After how many steps it ends.
    armed: usize,
}

impl Scene {
    /// Wired, with a store; no agent. `modes` of the pool, such as `ipipMode: Never`.
    pub fn new(modes: &str) -> Result<Scene> {
        let directory = tempfile::Builder::new()
            .prefix("caracal-crash-")
            .tempdir()?;
        let name = directory.path().file_name().context("a name")?;
        let id = name.to_string_lossy().into_owned();
        let create = |name: &str| Namespace::create(&id, name, &Mounts::default());
        let scene = Scene {
            host: create("host")?,
            router: create("router")?,
            workload: create("workload")?,
            programs: programs()?,
            agent: None,
            armed: 0,
            id,
            directory,
        };
        let peer = scene.router.holder.pid;
        machine::ip_batch(
            &scene.host,
            &format!(
                "link add v0 address 02:00:00:00:00:01 type veth peer name v0 netns {peer}\n\
                 address add 192.0.2.1/24 dev v0\n\
                 address add 2001:db8::1/64 dev v0 nodad\n\
                 link set lo up\n\
                 link set v0 up\n\
                 route add default via 192.0.2.2\n"
            ),
        )?;
        machine::ip_batch(
            &scene.router,
            "address add 192.0.2.2/24 dev v0\n\
             address add 192.0.2.3/24 dev v0\n\
             link set lo up\n\
             link set v0 up\n",
        )?;
        // ADD sets it up, and no DEL takes that back.
        machine::ip(&scene.workload, &["link", "set", "lo", "up"])?;
        fs::create_dir_all(scene.path("store"))?;
        fs::create_dir_all(scene.path("crash"))?;
        scene.write_store("node", NODE)?;
        scene.write_store("all", STORE)?;
        scene.write_pool(modes)?;
        scene.configure("")?;
        scene.set_forwarding(false)?;
        Ok(scene)
    }

    /// The same on a node of both families.
    pub fn dual_stack(modes: &str) -> Result<Scene> {
        let scene = Scene::new(modes)?;
        scene.write_store("node", DUAL_STACK)?;
        Ok(scene)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn write_pool(&self, modes: &str) -> Result<()> {
        let text = format!(
            "apiVersion: caracal.dev/v1alpha1\nkind: IPPool\nmetadata: {{name: default}}\n\
             spec: {{cidr: 172.17.0.0/16, {modes}}}\n"
        );
        self.write_store("pool", &text)
    }

    /// Makes these the resources of a file of the store.
    pub fn write_store(&self, name: &str, resources: &str) -> Result<()> {
        put(&self.path(&format!("store/{name}.yaml")), resources)
    }

    /// The agent's configuration file from its next start on.
    pub fn configure(&self, yaml: &str) -> Result<()> {
        Ok(fs::write(self.path("agent.yaml"), yaml)?)
    }

    pub fn start_agent(&mut self) -> Result<()> {
        let mut command = Command::new(self.programs.join("caracal-agent"));
        command.args(["run", "--node", "n1", "--http-listen", "none", "--store"]);
        command.arg(format!("dir:{}", self.path("store").display()));
        command.arg("--config").arg(self.path("agent.yaml"));
        command.args(self.directories());
        command.env(LAB_VARIABLE, &self.id);
        command.env(crash::VARIABLE, self.path("crash"));
        let log = self.path("log");
        self.agent = Some(process::start("n1", &self.host, &mut command, &log)?);
        Ok(())
    }

    pub fn wait_synced(&self) -> Result<()> {
        let waited = eventually("the agent's first pass", TIMEOUT, || {
            let mut command = Command::new(self.programs.join("caracal"));
            command.arg("--socket").arg(self.socket());
            command.args(["wait", "synced", "--timeout", "5"]);
            let done = process::run(Some(&self.host), &mut command, "", TIMEOUT)?;
            Ok((!done.status.success()).then_some(done.stderr))
        });
        waited.with_context(|| self.log())
    }

    pub fn kill_agent(&mut self) -> Result<()> {
        match self.agent.take() {
            Some(agent) => Ok(product::kill(&agent)?),
            None => Ok(()),
        }
    }

    /// Starts it with another configuration.
    pub fn restart_agent(&mut self, yaml: &str) -> Result<()> {
        self.kill_agent()?;
        self.configure(yaml)?;
        self.start_agent()
    }

    /// Waits until the node has so many learned routes, and that to the other node.
    pub fn wait_routes(&self, routes: usize) -> Result<()> {
        let waited = eventually("the learned routes", TIMEOUT, || {
            let table = machine::ip(&self.host, &["-N", "-o", "route", "show", "proto", "203"])?;
            let count = table.lines().count();
            Ok((count != routes + 1).then(|| format!("{count} and not {routes} + 1")))
        });
        waited.with_context(|| self.log())
    }

    /// What uninstall leaves, for a start as if for the first time.
    pub fn forget_files(&self) -> Result<()> {
        for directory in ["run", "state"] {
            fs::remove_dir_all(self.path(directory))?;
        }
        // Switched on for good.
        self.set_forwarding(false)
    }

    pub fn set_forwarding(&self, does_forward: bool) -> Result<()> {
        let forward = "/proc/sys/net/ipv4/ip_forward";
        let value = if does_forward { "1" } else { "0" };
        Ok(self.host.enter(|| fs::write(forward, value))?)
    }

    /// A script that the host's nft runs.
    pub fn nft(&self, script: &str) -> Result<()> {
        let mut command = Command::new("nft");
        command.args(["-f", "-"]);
        process::output(Some(&self.host), &mut command, script, COMMAND_TIMEOUT)?;
        Ok(())
    }

    /// Has legacy iptables forward nothing. Returns whether there is such a thing.
    pub fn close_legacy_firewall(&self) -> Result<bool> {
        let program = Path::new("/usr/sbin/iptables-legacy");
        if !program.exists() {
            return Ok(false);
        }
        let mut command = Command::new(program);
        command.args(["-P", "FORWARD", "DROP"]);
        let done = process::run(Some(&self.host), &mut command, "", COMMAND_TIMEOUT)?;
        Ok(done.status.success())
    }

    /// Everything of ours goes from the node.
    pub fn uninstall(&mut self) -> Result<()> {
        self.kill_agent()?;
        succeeded(self.run_uninstall()?)?;
        Ok(())
    }

    /// Makes the plugin known to the runtime, in directories of this scene.
    pub fn install_plugin(&self) -> Result<()> {
        let mut command = Command::new(self.programs.join("caracal-agent"));
        command.arg("install-cni").args(self.plugin_directories());
        command.arg("--run-dir").arg(self.path("run"));
        succeeded(process::run(Some(&self.host), &mut command, "", TIMEOUT)?)?;
        Ok(())
    }

    /// Beside no agent. It can be armed like one.
    pub fn run_uninstall(&self) -> Result<Finished> {
        let mut command = Command::new(self.programs.join("caracal-agent"));
        command.arg("uninstall").args(self.directories());
        command.args(self.plugin_directories());
        command.env(crash::VARIABLE, self.path("crash"));
        Ok(process::run(Some(&self.host), &mut command, "", TIMEOUT)?)
    }

    /// The running agent, or the next one, ends after so many steps more.
    pub fn arm(&mut self, steps: usize) -> Result<()> {
        match fs::remove_file(self.path("crash/passed")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
        self.armed = steps;
        put(&self.path("crash/after"), &steps.to_string())
    }

    /// The steps since `arm`, by name.
    pub fn steps(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("crash/passed")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Whether the agent has come to its last step.
    pub fn is_killed(&self) -> bool {
        self.steps().len() >= self.armed
    }

    /// Returns the step after which the agent ended, if it did. Those to come are not counted.
    pub fn disarm(&mut self) -> Result<Option<String>> {
        fs::remove_file(self.path("crash/after"))?;
        if !self.is_killed() {
            return Ok(None);
        }
        // Of a command the end was waited for.
        if let Some(agent) = self.agent.take() {
            agent.wait_gone(Duration::from_secs(5))?;
        }
        Ok(self.steps().pop())
    }

    /// What a runtime calls for a container of the pod `crash.pod`.
    pub fn cni(&self, verb: &str, container: &str) -> Result<Finished> {
        let mut command = Command::new(self.programs.join("caracal-cni"));
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", container)
            .env("CNI_NETNS", self.workload.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", &self.programs)
            .env("CNI_ARGS", "K8S_POD_NAMESPACE=crash;K8S_POD_NAME=pod");
        let input = texts::cni_configuration(&self.socket());
        Ok(process::run(
            Some(&self.host),
            &mut command,
            &input,
            COMMAND_TIMEOUT,
        )?)
    }

    /// Waits until the node has come to this state, whatever it was.
    pub fn expect(&self, case: &str, expected: &State) -> Result<()> {
        let waited = eventually(case, TIMEOUT, || expected.missing_in(self));
        waited.with_context(|| self.log())
    }

    pub fn log(&self) -> String {
        let text = fs::read_to_string(self.path("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }

    fn socket(&self) -> PathBuf {
        self.path("run/agent.sock")
    }

    /// The machine's own are not touched.
    fn plugin_directories(&self) -> [PathBuf; 4] {
        [
            "--cni-bin-dir".into(),
            self.path("plugin/bin"),
            "--cni-conf-dir".into(),
            self.path("plugin/conf"),
        ]
    }

    fn directories(&self) -> [PathBuf; 4] {
        [
            "--run-dir".into(),
            self.path("run"),
            "--state-dir".into(),
            self.path("state"),
        ]
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        end_all_in([&self.host, &self.router, &self.workload]);
    }
}

/// Readers find the whole of it or nothing.
fn put(path: &Path, text: &str) -> Result<()> {
    let unready = path.with_extension("unready");
    fs::write(&unready, text)?;
    Ok(fs::rename(unready, path)?)
}
