//! What a node's kernel holds and carries, whatever happens to the programs around it.

mod crash;
mod drain;
mod drift;
mod dry_run;
mod dual_stack;
mod foreign;
mod host_daemons;
mod kube_proxy;
mod multipath;
mod network_manager;
mod next_hop;
mod one_agent;
mod out_of_memory;
mod protection;
mod restart;
mod store;
mod uninstall;
mod workload;
