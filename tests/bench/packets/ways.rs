//! The ways that are compared.

use crate::contender::Role;

/// Who brings packets to the other node.
pub enum Carrying {
    /// A route of the machine's administrator.
    Nobody,
    /// `plain-carrier`.
    Plain,
    /// Our agents, with this in the pool and in their configuration.
    Agents {
        pool: &'static str,
        configuration: &'static str,
    },
}

pub struct Way {
    pub name: &'static str,
    pub title: &'static str,
    pub role: Role,
    pub carrying: Carrying,
    /// By which packets leave the node.
    pub device: &'static str,
    /// Of the workloads.
    pub mtu: u32,
}

const fn ours(
    name: &'static str,
    title: &'static str,
    [pool, configuration, device]: [&'static str; 3],
    mtu: u32,
) -> Way {
    Way {
        name,
        title,
        role: Role::Ours,
        carrying: Carrying::Agents {
            pool,
            configuration,
        },
        device,
        mtu,
    }
}

pub const ALL: &[Way] = &[
    Way {
        name: "veth",
        title: "routed, no tunnel",
        role: Role::Limit,
        carrying: Carrying::Nobody,
        device: "wire",
        mtu: 1500,
    },
    ours(
        "vxlan",
        "the kernel's VXLAN",
        ["vxlanMode: Always", "", "caracal-vxlan"],
        1450,
    ),
    ours(
        "kernel-ipip",
        "the kernel's IPIP",
        ["ipipMode: Always", "tunnelDriver: kernel\n", "caracal-ipip"],
        1480,
    ),
    ours(
        "ipip",
        "the carrier's IPIP",
        [
            "ipipMode: Always",
            "tunnelDriver: userspace\n",
            "caracal-tun",
        ],
        1480,
    ),
    ours(
        "udp",
        "the carrier's IP in UDP",
        ["udpMode: Always", "", "caracal-udp"],
        1472,
    ),
    Way {
        name: "one-a-call",
        title: "IPIP by a carrier of one packet a system call",
        role: Role::Peer,
        carrying: Carrying::Plain,
        device: super::plain::DEVICE,
        mtu: 1480,
    },
];

impl Way {
    /// # Errors
    /// Why not here.
    pub fn is_possible(&self) -> Result<(), String> {
        if self.device == "caracal-ipip" && !super::site::has_kernel_ipip() {
            return Err("no ipip in this kernel".to_owned());
        }
        Ok(())
    }
}
