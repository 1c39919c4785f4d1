//! Whether this process may do what an agent does.

use std::fs;

use anyhow::{Context, bail};

/// Of the capabilities in /proc/self/status (capabilities(7)).
const CAP_NET_ADMIN: u32 = 12;

/// # Errors
/// If the kernel would refuse every route, link and rule.
pub fn ensure_network_admin() -> anyhow::Result<()> {
    let status = fs::read_to_string("/proc/self/status").context("failed to read capabilities")?;
    if has_capability(&status, CAP_NET_ADMIN) == Some(false) {
        bail!(
            "CAP_NET_ADMIN is missing, without which routes and links cannot be written: run this as root"
        );
    }
    Ok(())
}

/// `None` if `status` does not say.
fn has_capability(status: &str, number: u32) -> Option<bool> {
    let mut lines = status.lines();
    let set = lines.find_map(|line| line.strip_prefix("CapEff:"))?;
    let set = u64::from_str_radix(set.trim(), 16).ok()?;
    Some(set >> number & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_bits_of_the_effective_set() {
        for (name, status, expected) in [
            ("all", "CapPrm:\t0\nCapEff:\t000001ffffffffff\n", Some(true)),
            ("that one", "CapEff:\t0000000000001000\n", Some(true)),
            ("all others", "CapEff:\t000001ffffffefff\n", Some(false)),
            ("not said", "Name:\tx\n", None),
        ] {
            assert_eq!(has_capability(status, CAP_NET_ADMIN), expected, "{name}");
        }
    }
}
