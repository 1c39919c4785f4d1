//! The dataplane against the kernel: every test in network namespaces of its own.

mod capture;
mod carrier;
mod drift;
mod netns;
mod routes;
mod workloads;
