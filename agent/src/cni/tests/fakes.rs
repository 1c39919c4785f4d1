//! A kernel and a loop that remember, and a node in a temporary directory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::{mpsc, watch};

use super::super::attachment::Attachment;
use super::super::links::{LinkError, NewLink, WorkloadLinks};
use super::super::protocol::{Call, CniError, Command, PROTOCOL_VERSION};
use super::super::result::CniResult;
use super::super::verbs::Verbs;
use crate::ipam::allocator::Owner;
use crate::requests::{Handle, Request};
use crate::requests::{NodeNetwork, NodeState};

/// What the machine holds. Outlives the agent, as the kernel does.
#[derive(Clone, Debug, Default)]
pub(super) struct Machine(Arc<Mutex<State>>);

#[derive(Debug, Default)]
pub(super) struct State {
    /// By host interface.
    pub links: BTreeMap<String, FakeLink>,
    /// Host sides the loop has programmed.
    pub programmed: BTreeMap<Owner, Attachment>,
    /// Steps that fail, by name.
    pub broken: BTreeSet<&'static str>,
    /// While set, making an interface does not get on.
    pub is_held: bool,
    /// How often making an interface was begun.
    pub begun: usize,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct FakeLink {
    pub addresses: Vec<IpAddr>,
    pub container_interface: String,
    pub mtu: u32,
}

impl Machine {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics under this lock")
    }

    pub(super) fn break_step(&self, step: &'static str) {
        self.state().broken.insert(step);
    }

    pub(super) fn mend(&self) {
        self.state().broken.clear();
    }

    pub(super) fn interfaces(&self) -> Vec<String> {
        self.state().links.keys().cloned().collect()
    }

    /// Panics with the state after ten seconds.
    pub(super) fn wait_until(&self, what: &str, is_reached: impl Fn(&State) -> bool) {
        let until = Instant::now() + Duration::from_secs(10);
        while !is_reached(&self.state()) {
            assert!(
                Instant::now() < until,
                "{what} not reached: {:?}",
                self.state()
            );
            std::thread::yield_now();
        }
    }

    fn check(&self, step: &'static str) -> Result<(), LinkError> {
        match self.state().broken.contains(step) {
            true => Err(format!("{step} is broken").into()),
            false => Ok(()),
        }
    }
}

impl WorkloadLinks for Machine {
    async fn attach(&self, link: NewLink) -> Result<[u8; 6], LinkError> {
        // Where a kill can come between: before it and after it.
        tokio::task::yield_now().await;
        self.check("attach")?;
        self.state().begun += 1;
        while self.state().is_held {
            tokio::task::yield_now().await;
        }
        {
            let mut state = self.state();
            state.links.remove(&link.host_interface);
            let is_taken = |address| {
                state
                    .links
                    .values()
                    .any(|one| one.addresses.contains(address))
            };
            assert!(
                !link.addresses.iter().any(is_taken),
                "address given twice: {link:?}"
            );
            state.links.insert(
                link.host_interface,
                FakeLink {
                    addresses: link.addresses,
                    container_interface: link.container_interface,
                    mtu: link.mtu,
                },
            );
        }
        tokio::task::yield_now().await;
        Ok([2, 0, 0, 0, 0, 1])
    }

    async fn wait_until_running(&self, _netns: OwnedFd, _container_interface: &str) {
        tokio::task::yield_now().await;
    }

    async fn detach(&self, host_interface: &str) -> Result<(), LinkError> {
        tokio::task::yield_now().await;
        self.check("detach")?;
        self.state().links.remove(host_interface);
        tokio::task::yield_now().await;
        Ok(())
    }
}

/// One life of an agent: state directory and machine may have a past.
pub(super) struct Agent {
    pub verbs: Arc<Verbs<Machine>>,
    node: watch::Sender<NodeState>,
}

pub(super) fn network() -> NodeNetwork {
    NodeNetwork {
        pod_cidrs: vec!["172.17.8.0/24".parse().expect("a prefix")],
        mtu: 1480,
        reserved: BTreeSet::new(),
    }
}

impl Agent {
    /// Must be called in a runtime.
    pub(super) fn start(state_dir: &Path, machine: &Machine) -> Agent {
        let (requests, inputs) = mpsc::channel(8);
        let (node, seen) = watch::channel(Ok(network()));
        let handle = Handle::new(requests);
        let verbs = Verbs::open(state_dir, machine.clone(), handle, seen).expect("opened");
        // As the real loop: what is attached is known from disk.
        machine.state().programmed = verbs
            .attached()
            .into_iter()
            .map(|attachment| (Owner::of(&attachment), attachment))
            .collect();
        tokio::spawn(fake_loop(machine.clone(), inputs));
        Agent { verbs, node }
    }

    pub(super) fn set_node(&self, state: NodeState) {
        self.node.send(state).expect("the agent watches");
    }

    pub(super) async fn add(&self, id: &str, pod: &str) -> Result<CniResult, CniError> {
        let answer = self
            .verbs
            .call(call(Command::Add, id, pod), Some(netns()))
            .await;
        answer.map(|result| result.expect("ADD has a result"))
    }

    pub(super) async fn del(&self, id: &str, pod: &str) -> Result<(), CniError> {
        let answer = self.verbs.call(call(Command::Del, id, pod), None).await;
        answer.map(|result| assert_eq!(result, None))
    }
}

async fn fake_loop(machine: Machine, mut inputs: mpsc::Receiver<Request>) {
    while let Some(request) = inputs.recv().await {
        tokio::task::yield_now().await;
        match request {
            Request::Attach { attachment, reply } => {
                let answer = program(&machine, attachment);
                let _ = reply.send(answer);
            }
            Request::Detach {
                container_id,
                container_interface,
                reply,
            } => {
                let answer = machine.check("clear").map_err(|error| error.to_string());
                if answer.is_ok() {
                    machine.state().programmed.remove(&Owner {
                        container_id,
                        container_interface,
                    });
                }
                let _ = reply.send(answer);
            }
            Request::Status { .. }
            | Request::Endpoints { .. }
            | Request::Routes { .. }
            | Request::Drain { .. }
            | Request::Why { .. }
            | Request::Counters { .. }
            | Request::Peers { .. } => {}
        }
    }
}

fn program(machine: &Machine, attachment: Attachment) -> Result<(), String> {
    machine
        .check("program")
        .map_err(|error| error.to_string())?;
    let mut state = machine.state();
    if !state.links.contains_key(&attachment.host_interface) {
        return Err(String::from("no such device"));
    }
    state.programmed.insert(Owner::of(&attachment), attachment);
    Ok(())
}

pub(super) fn netns() -> OwnedFd {
    File::open("/proc/self/ns/net")
        .expect("our namespace")
        .into()
}

pub(super) fn config() -> serde_json::Value {
    json!({"cniVersion": "1.0.0", "name": "caracal", "type": "caracal-cni"})
}

/// `pod` is `namespace.name`, or empty.
pub(super) fn call(command: Command, id: &str, pod: &str) -> Call {
    Call {
        protocol_version: PROTOCOL_VERSION,
        command,
        container_id: id.to_owned(),
        ifname: String::from("eth0"),
        netns: match command {
            Command::Add => format!("/run/netns/{id}"),
            _ => String::new(),
        },
        args: match pod.split_once('.') {
            Some((namespace, name)) => {
                format!("IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}")
            }
            None => String::new(),
        },
        config: config(),
    }
}
