//! TCP MD5 (RFC 2385) on listening sockets: which keys they need, how many fit, and what cannot be
//! had. Pure.
//!
//! The kernel holds one key per prefix and takes the longest that covers the remote address; with
//! one, segments without or with a wrong digest are dropped, without one, segments with a digest
//! are. So a peer with a password is never reached without it, and the other way round.

use std::collections::BTreeMap;

use super::config::SpeakerConfig;
use super::secret::Secret;
use crate::types::{Family, Prefix};

/// What a listening socket checks, by remote prefix.
pub type Keys = BTreeMap<Prefix, Secret>;

/// What the kernel charges a socket for one key (`struct tcp_md5sig_key`, 64 bit).
const KEY_COST: usize = 136;

/// The keys of all peers and ranges with a password, host prefixes for listed peers. Where several
/// peers share an address, the first by port has its say.
pub fn listener_keys(config: &SpeakerConfig) -> Keys {
    let mut keys = Keys::new();
    for (range, template) in &config.ranges {
        if let Some(secret) = &template.password {
            keys.insert(*range, secret.clone());
        }
    }
    // A listed peer goes before a range of one address; the reverse order lets the first port win.
    for (key, peer) in config.peers.iter().rev() {
        if let Some(secret) = &peer.password {
            keys.insert(Prefix::host(key.address), secret.clone());
        }
    }
    keys
}

/// Those of one family, the shortest prefixes first: if not all fit, a range is worth more peers
/// than a listed one, which can still be dialled.
pub fn in_order(keys: &Keys, family: Family) -> Vec<(&Prefix, &Secret)> {
    let mut ordered: Vec<_> = keys
        .iter()
        .filter(|(prefix, _)| prefix.family() == family)
        .collect();
    ordered.sort_by_key(|(prefix, _)| prefix.length());
    ordered
}

/// How many keys one socket takes: the kernel refuses the one with which they would reach
/// net.core.optmem_max (963 at 131072 bytes, 150 at 20480).
pub fn capacity(optmem_max: usize) -> usize {
    optmem_max.saturating_sub(1) / KEY_COST
}

/// The least net.core.optmem_max with which one socket takes `keys`.
pub fn optmem_for(keys: usize) -> usize {
    keys * KEY_COST + 1
}

/// What the configuration asks for and the kernel cannot do, in order.
pub fn conflicts(config: &SpeakerConfig) -> Vec<String> {
    let keys = listener_keys(config);
    let mut conflicts = Vec::new();
    for (key, peer) in &config.peers {
        let host = Prefix::host(key.address);
        match (&peer.password, keys.get(&host)) {
            (None, None) => {
                if let Some(range) = covering(&keys, &host) {
                    conflicts.push(format!(
                        "{key} has no password, but the range {range} has one: it can only be dialled; give it one"
                    ));
                }
            }
            (Some(own), Some(used)) if own == used => {}
            (Some(_) | None, _) => conflicts.push(format!(
                "peers at {} differ in their passwords: the first one's is used for all that dial us",
                key.address
            )),
        }
    }
    for (range, template) in &config.ranges {
        if template.password.is_none()
            && let Some(wider) = covering(&keys, range)
        {
            conflicts.push(format!(
                "the range {range} has no password, but {wider} around it has one: nobody can dial from it; give it one"
            ));
        }
    }
    conflicts
}

/// The longest keyed prefix around `prefix`.
fn covering<'a>(keys: &'a Keys, prefix: &Prefix) -> Option<&'a Prefix> {
    keys.keys()
        .filter(|keyed| keyed.covers(prefix))
        .max_by_key(|keyed| keyed.length())
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::rib::decision;
    use crate::speaker::config::{GracefulRestartConfig, PeerConfig, PeerKey, PeerSource};
    use crate::types::{Asn, LocalPref, RouterId};

    fn secret(text: &str) -> Secret {
        Secret::new(text).expect("length")
    }

    pub fn config(
        peers: &[(&str, u16, Option<&str>)],
        ranges: &[(&str, Option<&str>)],
    ) -> SpeakerConfig {
        let with = |password: &Option<&str>| PeerConfig {
            password: password.map(secret),
            ..PeerConfig::new("p", PeerSource::Peer, None)
        };
        SpeakerConfig {
            asn: Asn(64512),
            router_id: RouterId(Ipv4Addr::new(192, 0, 2, 1)),
            cluster_id: None,
            listen: Vec::new(),
            local_addresses: Vec::new(),
            local_pref: LocalPref::DEFAULT,
            peers: peers
                .iter()
                .map(|(address, port, password)| {
                    let address = address.parse().expect("address");
                    let key = PeerKey {
                        address,
                        port: *port,
                    };
                    (key, with(password))
                })
                .collect(),
            ranges: ranges
                .iter()
                .map(|(range, password)| (range.parse().expect("prefix"), with(password)))
                .collect(),
            max_dynamic_peers: 0,
            originated: BTreeMap::new(),
            aggregates: BTreeMap::new(),
            decision: decision::Options::default(),
            is_draining: false,
            graceful_restart: GracefulRestartConfig::default(),
        }
    }

    #[test]
    fn every_password_has_one_key_and_a_listed_peer_goes_first() {
        let config = config(
            &[
                ("192.0.2.7", 179, Some("listed")),
                ("192.0.2.7", 1790, Some("second port")),
                ("192.0.2.8", 179, None),
                ("2001:db8::7", 179, Some("six")),
            ],
            &[
                ("192.0.2.0/24", Some("range")),
                ("192.0.2.7/32", Some("range of one")),
            ],
        );
        let keys = listener_keys(&config);
        let ordered: Vec<_> = in_order(&keys, Family::Ipv4)
            .into_iter()
            .map(|(prefix, key)| (prefix.to_string(), key.clone()))
            .collect();
        assert_eq!(
            ordered,
            [
                ("192.0.2.0/24".to_owned(), secret("range")),
                ("192.0.2.7/32".to_owned(), secret("listed")),
            ]
        );
        assert_eq!(in_order(&keys, Family::Ipv6).len(), 1);
    }

    #[test]
    fn what_the_kernel_cannot_tell_apart_is_said() {
        for (name, config, conflict) in [
            (
                "all alike",
                config(
                    &[("192.0.2.7", 179, Some("x"))],
                    &[("192.0.2.0/24", Some("y"))],
                ),
                None,
            ),
            (
                "a peer without inside a range with",
                config(&[("192.0.2.7", 179, None)], &[("192.0.2.0/24", Some("y"))]),
                Some("192.0.2.7 has no password"),
            ),
            (
                "two ports, two passwords",
                config(
                    &[
                        ("192.0.2.7", 179, Some("x")),
                        ("192.0.2.7", 1790, Some("y")),
                    ],
                    &[],
                ),
                Some("peers at 192.0.2.7 differ"),
            ),
            (
                "two ports, one password",
                config(
                    &[("192.0.2.7", 179, None), ("192.0.2.7", 1790, Some("y"))],
                    &[],
                ),
                Some("peers at 192.0.2.7 differ"),
            ),
            (
                "a range without inside one with",
                config(&[], &[("192.0.2.0/25", None), ("192.0.2.0/24", Some("y"))]),
                Some("the range 192.0.2.0/25 has no password"),
            ),
            (
                "a range with inside one without",
                config(&[], &[("192.0.2.0/25", Some("y")), ("192.0.2.0/24", None)]),
                None,
            ),
        ] {
            let found = conflicts(&config);
            assert_eq!(found.len(), usize::from(conflict.is_some()), "{name}");
            assert!(
                conflict.is_none_or(|text| found[0].starts_with(text)),
                "{name}: {found:?}"
            );
        }
    }

    #[test]
    fn the_capacity_is_what_was_measured() {
        assert_eq!(
            (capacity(131_072), capacity(20_480), capacity(0)),
            (963, 150, 0)
        );
        for keys in [1, 150, 963, 5000] {
            assert_eq!(capacity(optmem_for(keys)), keys);
            assert_eq!(capacity(optmem_for(keys) - 1), keys - 1);
        }
    }
}
