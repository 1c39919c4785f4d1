//! The MTU of workloads that are there already, when that of the tunnels or the NIC changes.
//!
//! In: the MTU wanted of all workloads, and where the workload's end of a veth is. Out: both ends
//! changed. The end of the smaller MTU drops what is larger: the workload's end is lowered first and
//! raised last. Only links that CNI made are touched.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use tracing::{debug, info};

use super::ApplyReport;
use super::desired::{Desired, WorkloadEnd};
use super::engine::Engine;
use super::link::{self, LinkChange};
use super::netlink::{Netlink, NetlinkError};
use super::netns;
use super::rehearsal::Rehearsal;

#[derive(Debug, thiserror::Error)]
enum MtuError {
    #[error("failed to enter the workload's network namespace {netns}: {source}")]
    Namespace { netns: String, source: io::Error },
    #[error("failed to set the MTU: {0}")]
    Kernel(#[source] NetlinkError),
}

impl Engine {
    pub(super) fn apply_workload_mtu(&mut self, desired: &Desired, report: &mut ApplyReport) {
        let Some(mtu) = desired.workload_mtu else {
            return;
        };
        let mut changed = Vec::new();
        for (name, end) in &desired.workload_ends {
            let link = self.links.get(name);
            let Some((index, held)) = link.map(|link| (link.index, link.mtu)) else {
                continue;
            };
            if held == mtu {
                continue;
            }
            match self.change_mtu(index, held, mtu, end) {
                Ok(()) => changed.push((name, held)),
                // It is about to be removed: CNI is told after the namespace has gone.
                Err(MtuError::Namespace { netns, source }) => {
                    debug!(iface = name, netns, error = %source, "workload is gone");
                }
                Err(error) => report.fail(format!("mtu of {name}"), error),
            }
        }
        if let Some((name, held)) = changed.first() {
            info!(
                workloads = changed.len(),
                first = name,
                from = held,
                to = mtu,
                "MTU of workloads changed"
            );
        }
    }

    fn change_mtu(
        &mut self,
        index: u32,
        held: u32,
        mtu: u32,
        end: &WorkloadEnd,
    ) -> Result<(), MtuError> {
        let rehearsal = self.netlink.rehearsal().clone();
        if mtu < held {
            change_inside(&rehearsal, end, mtu)?;
        }
        change_link(&mut self.netlink, index, mtu)?;
        if mtu > held {
            change_inside(&rehearsal, end, mtu)?;
        }
        Ok(())
    }
}

/// A link of the name that is not the one we made stays as it is. A rehearsal shows the host's end
/// only.
fn change_inside(rehearsal: &Rehearsal, end: &WorkloadEnd, mtu: u32) -> Result<(), MtuError> {
    let failed = |source| MtuError::Namespace {
        netns: end.netns.display().to_string(),
        source,
    };
    let netns = File::open(&end.netns).map_err(failed)?;
    let work = || -> Result<(), NetlinkError> {
        let mut netlink = Netlink::open_for(rehearsal.clone())?;
        let found = link::find(&mut netlink, &end.interface)?;
        let is_ours = |link: &link::LinkState| link.kind == "veth" && link.mac == Some(end.mac);
        match found.filter(is_ours) {
            Some(link) => link::change(&mut netlink, link.index, with_mtu(mtu)),
            None => Ok(()),
        }
    };
    netns::run_in(netns.as_fd(), work)
        .map_err(failed)?
        .map_err(MtuError::Kernel)
}

fn change_link(netlink: &mut Netlink, index: u32, mtu: u32) -> Result<(), MtuError> {
    link::change(netlink, index, with_mtu(mtu)).map_err(MtuError::Kernel)
}

fn with_mtu(mtu: u32) -> LinkChange {
    LinkChange {
        mtu: Some(mtu),
        ..LinkChange::default()
    }
}
