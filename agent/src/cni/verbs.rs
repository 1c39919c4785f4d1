//! What the agent does for each call of a runtime.
//!
//! ADD:  addresses (on disk) -> veth and workload side -> attachment (on disk) -> host side -> answer
//! DEL:  host side -> veth -> attachment -> addresses
//!
//! Whatever is interrupted is found again by what is on disk: an address names the veth it was
//! given for, and goes last, so it is never reused while a route or a veth of its former holder is
//! left. A DEL therefore works after any half of an ADD or of another DEL, as often as it is asked.
//!
//! A pod can come back under its name, and so under its host interface, before the runtime deleted
//! its former container. The newcomer's ADD then does that container's DEL, and the late DEL finds
//! nothing of its own and touches nothing.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;
use tracing::{info, warn};

use super::attachment::Attachment;
use super::attachments::{AttachmentError, Attachments};
use super::host_side;
use super::links::{LinkError, NewLink, WorkloadLinks};
use super::locks::NamedLocks;
use super::protocol::{
    Call, CniError, Command, ErrorCode, NetworkConfig, WorkloadName, chain, invalid_environment,
};
use super::result::CniResult;
use crate::ipam::allocator::{Assignment, NoAddress, Owner};
use crate::ipam::store::{Ipam, IpamError};
use crate::names;
use crate::requests::{Handle, NodeNetwork, NodeState};

/// The state directory could not be read at start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Ipam(#[from] IpamError),
    #[error(transparent)]
    Attachments(#[from] AttachmentError),
}

#[derive(Debug)]
pub struct Verbs<L> {
    ipam: Ipam,
    attachments: Attachments,
    links: L,
    handle: Handle,
    node: watch::Receiver<NodeState>,
    locks: NamedLocks,
}

impl<L: WorkloadLinks> Verbs<L> {
    /// Reads `state_dir/ipam` and `state_dir/attachments`. Blocks on the disk.
    ///
    /// # Errors
    /// If a directory cannot be made or read.
    pub fn open(
        state_dir: &Path,
        links: L,
        handle: Handle,
        node: watch::Receiver<NodeState>,
    ) -> Result<Arc<Verbs<L>>, OpenError> {
        let attachments = Attachments::open(&state_dir.join("attachments"))?;
        for one in attachments.unreadable() {
            warn!(
                container = one.owner.container_id,
                iface = one.owner.container_interface,
                error = one.reason,
                "unreadable attachment: its workload is not served"
            );
        }
        Ok(Arc::new(Verbs {
            ipam: Ipam::open(&state_dir.join("ipam"))?,
            attachments,
            links,
            handle,
            node,
            locks: NamedLocks::default(),
        }))
    }

    /// The workloads attached to this node.
    pub fn attached(&self) -> Vec<Attachment> {
        self.attachments.all()
    }

    /// Removes what calls cut short by the end of an earlier agent have left: addresses no
    /// attachment has, and their veths. To be called once, before the first call is taken.
    ///
    /// # Errors
    /// If an address in use has no record and none could be written. A leftover that cannot be
    /// removed is logged and stays for the next start or DEL.
    pub async fn recover(self: &Arc<Self>) -> Result<(), IpamError> {
        let orphans = self
            .blocking(|verbs| verbs.ipam.reconcile(&verbs.assignments_in_use()))
            .await?;
        for orphan in orphans {
            info!(address = %orphan.address, iface = orphan.host_interface,
                container = orphan.owner.container_id, "removing what an unfinished call left");
            let removed = self.tear_down(&orphan.owner, &orphan.host_interface).await;
            if let Err(error) = removed {
                warn!(error = error.in_one_line(), "leftover stays");
            }
        }
        Ok(())
    }

    /// Answers one call; `None` where the specification wants no output. `netns` is the descriptor
    /// that came beside the call.
    ///
    /// # Errors
    /// What the plugin is to print.
    pub async fn call(
        self: &Arc<Self>,
        call: Call,
        netns: Option<OwnedFd>,
    ) -> Result<Option<CniResult>, CniError> {
        let answer = match call.command {
            Command::Add => self.add(&call, netns).await.map(Some),
            Command::Del => self.del(&call).await.map(|()| None),
            Command::Check | Command::Status | Command::Gc | Command::Version => {
                Err(unsupported(call.command))
            }
        };
        match &answer {
            Ok(_) => info!(command = ?call.command, container = call.container_id,
                iface = call.ifname, "CNI call done"),
            Err(error) => warn!(command = ?call.command, container = call.container_id,
                iface = call.ifname, error = error.message, details = error.details,
                "CNI call failed"),
        }
        answer
    }

    async fn add(
        self: &Arc<Self>,
        call: &Call,
        netns: Option<OwnedFd>,
    ) -> Result<CniResult, CniError> {
        let config = NetworkConfig::parse(&call.config)?;
        call.check_names()?;
        let workload = WorkloadName::parse(&call.args)?;
        let netns = netns.ok_or_else(|| invalid_environment("CNI_NETNS is not set"))?;
        let node = self.node.borrow().clone().map_err(not_ready)?;

        let owner = owner_of(call);
        let _container = self.locks.lock(&container_lock(&owner)).await;
        let host_interface = self.host_interface_for(&owner, &workload);
        let _interface = self.locks.lock(&interface_lock(&host_interface)).await;

        self.remove_predecessor(&owner, &host_interface).await?;
        let addresses = self.assign(&owner, &host_interface, &node).await?;
        let mut attachment = Attachment {
            container_id: call.container_id.clone(),
            container_interface: call.ifname.clone(),
            netns: call.netns.clone(),
            namespace: workload.namespace,
            name: workload.name,
            host_interface,
            addresses,
            mac: [0; 6],
        };
        match self.attach(&mut attachment, netns, node.mtu).await {
            Ok(()) => Ok(CniResult::describe(&attachment, config.cni_version)),
            Err(error) => {
                let host_interface = &attachment.host_interface;
                Err(self.roll_back(&owner, host_interface, error).await)
            }
        }
    }

    async fn del(self: &Arc<Self>, call: &Call) -> Result<(), CniError> {
        NetworkConfig::parse(&call.config)?;
        call.check_names()?;
        // What cannot be read names nothing; a DEL must not fail for it.
        let workload = WorkloadName::parse(&call.args).unwrap_or_default();

        let owner = owner_of(call);
        let _container = self.locks.lock(&container_lock(&owner)).await;
        let host_interface = self.host_interface_for(&owner, &workload);
        let _interface = self.locks.lock(&interface_lock(&host_interface)).await;
        self.tear_down(&owner, &host_interface).await
    }

    /// Everything of an ADD after the address. Fills in the MAC.
    async fn attach(
        self: &Arc<Self>,
        attachment: &mut Attachment,
        netns: OwnedFd,
        mtu: u32,
    ) -> Result<(), CniError> {
        let host_interface = &attachment.host_interface;
        let failed = |error: LinkError| {
            let message = "failed to set up the workload's interface";
            CniError::new(ErrorCode::InterfaceFailed, message).caused_by(&*error)
        };
        let inside = netns.try_clone().map_err(|error| failed(error.into()))?;
        let link = NewLink {
            netns,
            container_interface: attachment.container_interface.clone(),
            host_interface: host_interface.clone(),
            addresses: attachment.addresses.clone(),
            mtu,
        };
        attachment.mac = self.links.attach(link).await.map_err(failed)?;

        let saved = attachment.clone();
        self.blocking(move |verbs| verbs.attachments.save(&saved))
            .await
            .map_err(|error| state_not_written(&error))?;
        host_side::program(&self.handle, attachment.clone()).await?;
        let container_interface = &attachment.container_interface;
        let running = self.links.wait_until_running(inside, container_interface);
        running.await;
        Ok(())
    }

    /// Removes everything of `owner`. The interface stays if it is someone else's by now. If the
    /// host side or the interface cannot be removed, attachment and address stay too, for the
    /// runtime's next DEL.
    async fn tear_down(
        self: &Arc<Self>,
        owner: &Owner,
        host_interface: &str,
    ) -> Result<(), CniError> {
        let mut problems = Vec::new();
        let mut code = ErrorCode::InterfaceFailed;
        if self.attachments.get(owner).is_some()
            && let Err(error) = host_side::clear(&self.handle, owner).await
        {
            code = error.code;
            problems.push(error.in_one_line());
        }
        if !self.is_held_by_another(owner, host_interface)
            && let Err(error) = self.links.detach(host_interface).await
        {
            problems.push(chain(&*error));
        }
        if !problems.is_empty() {
            return Err(CniError::new(
                code,
                format!("failed to remove interface {host_interface}"),
            )
            .with_details(problems.join("; ")));
        }
        let gone = owner.clone();
        self.blocking(move |verbs| verbs.attachments.remove(&gone))
            .await
            .map_err(|error| state_not_written(&error))?;
        let gone = owner.clone();
        self.blocking(move |verbs| verbs.ipam.release(&gone))
            .await
            .map_err(|error| state_not_written(&error))?;
        Ok(())
    }

    /// Undoes a failed ADD. The error that stopped it comes first in what is told.
    async fn roll_back(
        self: &Arc<Self>,
        owner: &Owner,
        host_interface: &str,
        mut error: CniError,
    ) -> CniError {
        if let Err(second) = self.tear_down(owner, host_interface).await {
            let text = second.in_one_line();
            error.details = match error.details.as_str() {
                "" => text,
                details => format!("{details}; {text}"),
            };
        }
        error
    }

    /// Makes `host_interface` free for `owner`: does the DEL of any other that has it, attached or
    /// left by an ADD cut short. None is at work, for the interface's lock is held.
    async fn remove_predecessor(
        self: &Arc<Self>,
        owner: &Owner,
        host_interface: &str,
    ) -> Result<(), CniError> {
        for predecessor in self.holders(host_interface) {
            if predecessor != *owner {
                info!(
                    iface = host_interface,
                    container = owner.container_id,
                    predecessor = predecessor.container_id,
                    "workload came back before its DEL"
                );
                self.tear_down(&predecessor, host_interface).await?;
            }
        }
        Ok(())
    }

    async fn assign(
        self: &Arc<Self>,
        owner: &Owner,
        host_interface: &str,
        node: &NodeNetwork,
    ) -> Result<Vec<IpAddr>, CniError> {
        let (owner, host_interface, node) =
            (owner.clone(), host_interface.to_owned(), node.clone());
        let assigned = self.blocking(move |verbs| {
            let reserved = &node.reserved;
            verbs
                .ipam
                .assign(&owner, &host_interface, &node.pod_cidrs, reserved)
        });
        assigned.await.map_err(|error| match error {
            IpamError::NoAddress(error @ NoAddress::NoPool(_)) => not_ready(error.to_string()),
            IpamError::NoAddress(error @ NoAddress::Exhausted { .. }) => {
                CniError::new(ErrorCode::NoAddress, error.to_string())
            }
            error => state_not_written(&error),
        })
    }

    /// The host interface `owner` has, or is to have. The first interface of a workload is named
    /// after the workload alone; a further one of the same container after its own name too.
    fn host_interface_for(&self, owner: &Owner, workload: &WorkloadName) -> String {
        if let Some(attachment) = self.attachments.get(owner) {
            return attachment.host_interface;
        }
        if let Some(assignment) = self.ipam.of(owner).into_iter().next() {
            return assignment.host_interface;
        }
        let identity = workload.identity(&owner.container_id);
        let name = names::host_interface(&identity);
        let is_second_interface =
            self.ipam.assignments().iter().any(|one| {
                one.host_interface == name && one.owner.container_id == owner.container_id
            });
        if is_second_interface {
            return names::host_interface(&format!("{identity}/{}", owner.container_interface));
        }
        name
    }

    /// Whether the interface must be left alone when `owner` goes. An attachment outranks what an
    /// ADD cut short has left.
    fn is_held_by_another(&self, owner: &Owner, host_interface: &str) -> bool {
        self.attachments.get(owner).is_none()
            && self.holders(host_interface).iter().any(|one| one != owner)
    }

    fn holders(&self, host_interface: &str) -> BTreeSet<Owner> {
        let attached = self.attachments.by_host_interface(host_interface);
        let assignments = self.ipam.assignments().into_iter();
        assignments
            .filter(|one| one.host_interface == host_interface)
            .map(|one| one.owner)
            .chain(attached.as_ref().map(Owner::of))
            .collect()
    }

    /// The assignments that attachments show, and those whose attachment cannot be read.
    fn assignments_in_use(&self) -> Vec<Assignment> {
        let mut in_use = Vec::new();
        for attachment in self.attachments.all() {
            for address in &attachment.addresses {
                in_use.push(Assignment {
                    owner: Owner::of(&attachment),
                    host_interface: attachment.host_interface.clone(),
                    address: *address,
                });
            }
        }
        let unreadable = self.attachments.unreadable().iter();
        in_use.extend(unreadable.flat_map(|one| self.ipam.of(&one.owner)));
        in_use
    }

    /// Disk writes wait for the disk, so they are made on a thread that may.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Verbs<L>) -> T + Send + 'static,
    ) -> T {
        let verbs = Arc::clone(self);
        match tokio::task::spawn_blocking(move || work(&verbs)).await {
            Ok(done) => done,
            // Only a panic in `work` or the end of the runtime lead here.
            Err(error) => std::panic::resume_unwind(Box::new(error.to_string())),
        }
    }
}

fn owner_of(call: &Call) -> Owner {
    Owner {
        container_id: call.container_id.clone(),
        container_interface: call.ifname.clone(),
    }
}

/// The order of locks is container, then interface: whoever waits for an interface may hold a
/// container, never the other way round.
fn container_lock(owner: &Owner) -> String {
    format!("container {}", owner.container_id)
}

fn interface_lock(host_interface: &str) -> String {
    format!("interface {host_interface}")
}

fn unsupported(command: Command) -> CniError {
    invalid_environment(format!(
        "CNI_COMMAND {} is not supported yet",
        format!("{command:?}").to_uppercase()
    ))
}

fn not_ready(reason: impl Into<String>) -> CniError {
    CniError::new(ErrorCode::TryAgainLater, "the agent is not ready").with_details(reason)
}

fn state_not_written(error: &dyn std::error::Error) -> CniError {
    CniError::new(
        ErrorCode::StateNotWritten,
        "failed to write the agent's state directory",
    )
    .caused_by(error)
}
