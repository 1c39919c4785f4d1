//! The dataplane against the kernel: every test in network namespaces of its own.

mod capture;
mod carrier;
mod carrier_stop;
mod connections;
mod crafted;
mod drift;
mod dual_stack;
mod firewall;
mod guard;
mod kernel_tunnel;
mod multipath;
mod netns;
mod next_hops;
mod passes;
mod refusals;
mod renames;
mod routes;
mod site;
mod tables;
mod vxlan;
mod workloads;
