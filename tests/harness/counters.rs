//! What a namespace's kernel counted: the evidence that packets came and were refused.

use agent::lab::Namespace;
use anyhow::{Context, Result};

/// A counter of /proc/net/netstat, e.g. `TCPMD5Failure`.
///
/// # Errors
/// If the kernel has no such counter.
pub fn tcp(namespace: &Namespace, name: &str) -> Result<u64> {
    let text = namespace.enter(|| std::fs::read_to_string("/proc/thread-self/net/netstat"))?;
    // Lines come in pairs: names, then values.
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let mut pairs = names.split(' ').zip(values.split(' '));
        if let Some((_, value)) = pairs.find(|(known, _)| *known == name) {
            return Ok(value.parse()?);
        }
    }
    None.with_context(|| format!("the kernel counts no {name}"))
}
