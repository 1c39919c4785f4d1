//! The only part that changes the kernel.

pub mod desired;
pub mod host;
