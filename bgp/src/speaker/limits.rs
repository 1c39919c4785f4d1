//! What the machine allows, against what the configuration may need: descriptors and connections
//! that wait to be accepted. Looked at when the speaker starts. Keys are the listeners' business.

use std::fs;

use super::config::SpeakerConfig;
use super::socket;
use crate::types::Prefix;

/// Descriptors that are no sessions: the program's own, and connections that come and go.
const RESERVED_DESCRIPTORS: u64 = 256;
/// Connections that need to wait at most, however many peers there are: so many are accepted within
/// a second, and one that found no place asks again after a second.
const ENOUGH_BACKLOG: u64 = 4096;

/// What the kernel allows this process; `None`: it does not say, or there is no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// RLIMIT_NOFILE, the soft one.
    pub descriptors: Option<u64>,
    /// net.core.somaxconn of the present network namespace.
    pub backlog: Option<u64>,
    /// net.core.optmem_max in octets.
    pub option_memory: Option<usize>,
}

impl Limits {
    pub fn observe() -> Limits {
        let of_process = fs::read_to_string("/proc/self/limits").ok();
        Limits {
            descriptors: of_process.as_deref().and_then(soft_descriptors),
            backlog: socket::somaxconn(),
            option_memory: socket::optmem_max(),
        }
    }

    /// How many sessions there are descriptors for.
    pub fn sessions(&self) -> Option<u64> {
        self.descriptors
            .map(|descriptors| descriptors.saturating_sub(RESERVED_DESCRIPTORS))
    }

    /// What is too little for `config`, with the number it allows and what to do.
    pub fn shortfalls(&self, config: &SpeakerConfig) -> Vec<String> {
        let wanted = most_sessions(config);
        let sessions = self.sessions().filter(|sessions| *sessions < wanted);
        let of_descriptors = sessions.zip(self.descriptors).map(|(sessions, descriptors)| {
            format!(
                "{descriptors} file descriptors allow {sessions} sessions, the configuration up to {wanted}: raise the limit (LimitNOFILE, ulimit -Hn) to {} and restart",
                wanted.saturating_add(RESERVED_DESCRIPTORS)
            )
        });
        let callers = wanted.min(ENOUGH_BACKLOG);
        let backlog = self.backlog.filter(|backlog| *backlog < callers);
        let of_backlog = backlog
            .filter(|_| !config.listen.is_empty())
            .map(|backlog| {
                format!(
                    "{backlog} connections can wait to be accepted and {callers} may come at once: raise net.core.somaxconn from {backlog} to {callers} and restart"
                )
            });
        of_descriptors.into_iter().chain(of_backlog).collect()
    }
}

/// All listed peers, and as many of ranges as there may be.
fn most_sessions(config: &SpeakerConfig) -> u64 {
    let listed = config.peers.len() as u64;
    let in_ranges = config
        .ranges
        .keys()
        .map(addresses_in)
        .fold(0, u64::saturating_add);
    listed.saturating_add(in_ranges.min(config.max_dynamic_peers as u64))
}

fn addresses_in(range: &Prefix) -> u64 {
    let bits = if range.network().is_ipv4() { 32 } else { 128 };
    1_u64
        .checked_shl(bits - u32::from(range.length()))
        .unwrap_or(u64::MAX)
}

/// From /proc/self/limits; `None` where there is no limit.
fn soft_descriptors(limits: &str) -> Option<u64> {
    let mut lines = limits.lines();
    let line = lines.find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speaker::config::{PeerConfig, PeerKey, PeerSource};
    use crate::speaker::md5::tests::config;

    fn template() -> PeerConfig {
        PeerConfig::new("p", PeerSource::Range, None)
    }

    /// So many listed peers, and these ranges with so many places.
    fn speaker(listed: u8, ranges: &[&str], places: usize) -> SpeakerConfig {
        let mut config = config(&[], &[]);
        config.listen = vec![([127, 0, 0, 1], 179).into()];
        config.max_dynamic_peers = places;
        config.peers = (0..listed)
            .map(|last| ([192, 0, 2, last].into(), 179))
            .map(|(address, port)| (PeerKey { address, port }, template()))
            .collect();
        config.ranges = ranges
            .iter()
            .map(|range| (range.parse().expect("a prefix"), template()))
            .collect();
        config
    }

    #[test]
    fn sessions_are_the_listed_peers_and_the_places_of_ranges() {
        for (name, config, most) in [
            ("listed", speaker(7, &[], 100), 7),
            (
                "small ranges",
                speaker(1, &["10.0.0.0/26", "10.1.0.0/31"], 100),
                67,
            ),
            ("a large range", speaker(1, &["10.0.0.0/8"], 100), 101),
            ("everybody", speaker(0, &["0.0.0.0/0", "::/0"], 100), 100),
        ] {
            assert_eq!(most_sessions(&config), most, "{name}");
        }
    }

    #[test]
    fn what_is_too_little_is_said_with_the_number_it_allows() {
        let enough = Limits {
            descriptors: Some(356),
            backlog: Some(100),
            option_memory: None,
        };
        let config = speaker(0, &["10.0.0.0/8"], 100);
        assert_eq!(enough.shortfalls(&config), Vec::<String>::new());
        assert_eq!(Limits::default().shortfalls(&config), Vec::<String>::new());
        let too_little = Limits {
            descriptors: Some(355),
            backlog: Some(99),
            option_memory: None,
        };
        assert_eq!(
            too_little.shortfalls(&config),
            [
                "355 file descriptors allow 99 sessions, the configuration up to 100: raise the limit (LimitNOFILE, ulimit -Hn) to 356 and restart",
                "99 connections can wait to be accepted and 100 may come at once: raise net.core.somaxconn from 99 to 100 and restart",
            ]
        );
        let mut dials_only = config;
        dials_only.listen.clear();
        assert_eq!(too_little.shortfalls(&dials_only).len(), 1);
    }

    #[test]
    fn the_usual_backlog_is_enough_for_any_number_of_peers() {
        let limits = Limits {
            backlog: Some(4096),
            ..Limits::default()
        };
        let config = speaker(0, &["10.0.0.0/8"], 10_000);
        assert_eq!(limits.shortfalls(&config), Vec::<String>::new());
    }

    #[test]
    fn the_soft_limit_is_read() {
        let table = "Limit                     Soft Limit           Hard Limit           Units     \nMax processes             63432                63432                processes \nMax open files            1024                 524288               files     \n";
        assert_eq!(soft_descriptors(table), Some(1024));
        let unlimited = table.replace("1024 ", "unlimited ");
        assert_eq!(soft_descriptors(&unlimited), None);
        assert_eq!(soft_descriptors(""), None);
    }

    #[test]
    fn this_kernel_says_its_limits() {
        let limits = Limits::observe();
        assert!(
            limits.backlog.is_some_and(|backlog| backlog > 0),
            "{limits:?}"
        );
        let text = fs::read_to_string("/proc/self/limits").expect("readable");
        assert_eq!(limits.descriptors, soft_descriptors(&text));
    }
}
