//! The userspace tunnel process: IPIP on kernels without ipip.

pub mod tap;
