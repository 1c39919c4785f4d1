//! What the kernel is asked for a workload's veth: the seam to the dataplane.

use std::future::Future;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

pub type LinkError = Box<dyn std::error::Error + Send + Sync>;

/// A veth to be made, with its other end inside `netns`.
#[derive(Debug)]
pub struct NewLink {
    pub netns: OwnedFd,
    pub container_interface: String,
    pub host_interface: String,
    pub addresses: Vec<IpAddr>,
    pub mtu: u32,
}

/// Makes and removes veths, and sets up the workload's side.
pub trait WorkloadLinks: Send + Sync + 'static {
    /// Returns the MAC of the workload's side. A veth of that name that is there already, left by
    /// an ADD cut short or by an earlier one, is replaced. After an error nothing of it is left.
    fn attach(&self, link: NewLink) -> impl Future<Output = Result<[u8; 6], LinkError>> + Send;

    /// Returns when the workload's end takes packets, or will not soon: it starts a moment after
    /// the host's end is up.
    fn wait_until_running(
        &self,
        netns: OwnedFd,
        container_interface: &str,
    ) -> impl Future<Output = ()> + Send;

    /// Removes both ends. An interface that does not exist is no error.
    fn detach(&self, host_interface: &str) -> impl Future<Output = Result<(), LinkError>> + Send;
}
