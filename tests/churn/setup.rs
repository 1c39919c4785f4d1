//! The reflector's configuration: as a value that the oracle reads, and as the file the product does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::Ipv4Addr;

use agent::datastore::{self, passwords};
use agent::resolve::peering;
use bgp::speaker::config::SpeakerConfig;
use bgp::types::{Asn, ClusterId, Family, Prefix, RouterId};

pub const AS: Asn = Asn(64512);
pub const REFLECTOR: Ipv4Addr = Ipv4Addr::new(10, 77, 9, 1);
pub const ROUTER_ID: RouterId = RouterId(REFLECTOR);
pub const CLUSTER: ClusterId = ClusterId(REFLECTOR);
/// Prefixes come in so many blocks, which filters name.
pub const BLOCKS: u8 = 5;
/// Prefixes of one block and family.
pub const PER_BLOCK: u8 = 12;
/// Clients of the listen range, by the last octet of their address.
pub const RANGE: [u8; 6] = [8, 9, 10, 11, 12, 13];
/// What the import filter adds to routes of tagged blocks.
pub const TAG: u16 = 77;
/// A peer that is configured and never there: its number says which configuration is in effect.
const MARKER: [u8; 2] = [10, 78];

pub fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 9, last)
}

pub fn prefix(family: Family, block: u8, number: u8) -> Prefix {
    let text = match family {
        Family::Ipv4 => format!("10.{block}.{number}.0/24"),
        Family::Ipv6 => format!("2001:db8:{block:x}:{number:x}::/64"),
    };
    text.parse().expect("a prefix")
}

/// The block a prefix is of.
pub fn block(prefix: &Prefix) -> u8 {
    match prefix {
        Prefix::V4 { bits, .. } => (bits >> 16) as u8,
        Prefix::V6 { bits, .. } => bits[5],
    }
}

/// A peer that is configured by its address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listed {
    pub asn: Asn,
    pub is_client: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setup {
    /// Counts the configurations.
    pub serial: u16,
    pub listed: BTreeMap<u8, Listed>,
    /// Blocks that are refused from everybody.
    pub refused: BTreeSet<u8>,
    /// Blocks whose routes get [`TAG`] from iBGP peers.
    pub tagged: BTreeSet<u8>,
    /// Blocks that listed peers do not hear of.
    pub hidden: BTreeSet<u8>,
    /// Of external peers, by family.
    pub max_prefixes: u32,
    pub is_draining: bool,
    pub always_compare_med: bool,
}

impl Setup {
    /// Where everything begins, and comes back to every hour.
    pub fn base() -> Setup {
        let listed = |asn, is_client| Listed { asn, is_client };
        Setup {
            serial: 0,
            listed: BTreeMap::from([
                (20, listed(AS, true)),
                (21, listed(AS, true)),
                (22, listed(AS, false)),
                (23, listed(AS, false)),
                (30, listed(Asn(65030), false)),
                (31, listed(Asn(65031), false)),
                (32, listed(Asn(65030), false)),
            ]),
            refused: BTreeSet::new(),
            tagged: BTreeSet::new(),
            hidden: BTreeSet::new(),
            max_prefixes: 50,
            is_draining: false,
            always_compare_med: false,
        }
    }

    pub fn all_clients() -> BTreeMap<u8, Asn> {
        let listed = Setup::base().listed.into_iter();
        let listed = listed.map(|(last, listed)| (last, listed.asn));
        RANGE
            .map(|last| (last, AS))
            .into_iter()
            .chain(listed)
            .collect()
    }

    pub fn is_configured(&self, last: u8) -> bool {
        RANGE.contains(&last) || self.listed.contains_key(&last)
    }

    pub fn is_ebgp(&self, last: u8) -> bool {
        self.listed
            .get(&last)
            .is_some_and(|listed| listed.asn != AS)
    }

    pub fn is_client(&self, last: u8) -> bool {
        RANGE.contains(&last)
            || self
                .listed
                .get(&last)
                .is_some_and(|listed| listed.is_client)
    }

    pub fn hides(&self, block: u8, from: u8) -> bool {
        !RANGE.contains(&from) && self.hidden.contains(&block)
    }

    /// The address of the peer that is there in this configuration only.
    pub fn marker(&self) -> Ipv4Addr {
        let [high, low] = self.serial.to_be_bytes();
        Ipv4Addr::new(MARKER[0], MARKER[1], high, low)
    }

    pub fn speaker_config(&self) -> SpeakerConfig {
        let text = self.text();
        let documents = datastore::parse_stream("churn.yaml", &text);
        let (snapshot, mut errors) = datastore::load(&documents);
        let (config, more) = peering::reflector_config(&snapshot, &passwords::read(&snapshot));
        errors.extend(more);
        assert_eq!(errors, [], "{text}");
        config
    }

    /// The file.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut object = |kind: &str, name: &str, spec: &str| {
            let head = "apiVersion: caracal.dev/v1alpha1\nkind: ";
            writeln!(
                text,
                "---\n{head}{kind}\nmetadata: {{name: {name}}}\nspec: {spec}"
            )
            .expect("a string takes all");
        };
        object(
            "BGPConfiguration",
            "default",
            &format!(
                "{{asNumber: {AS}, listenAddresses: [{REFLECTOR}], \
                 gracefulShutdown: {}, alwaysCompareMED: {}}}",
                self.is_draining, self.always_compare_med
            ),
        );
        let mut import = String::new();
        let mut export = String::new();
        for (family, version) in [(Family::Ipv4, "V4"), (Family::Ipv6, "V6")] {
            let tag = format!("operations: [{{addCommunity: {{value: '64512:{TAG}'}}}}]");
            let refused = self.refused.iter();
            let refused = refused.map(|block| rule(family, *block, "action: Reject"));
            let tagged = self.tagged.iter().map(|block| {
                rule(
                    family,
                    *block,
                    &format!("action: Accept, peerType: iBGP, {tag}"),
                )
            });
            let rules: Vec<String> = refused.chain(tagged).collect();
            write!(import, "import{version}: [{}], ", rules.join(", ")).expect("a string");
            let hidden = self.hidden.iter();
            let rules: Vec<String> = hidden
                .map(|block| rule(family, *block, "action: Reject"))
                .collect();
            write!(export, "export{version}: [{}], ", rules.join(", ")).expect("a string");
        }
        object("BGPFilter", "closed", &format!("{{{import}}}"));
        object("BGPFilter", "hidden", &format!("{{{export}}}"));
        object(
            "BGPPeer",
            "range",
            &format!(
                "{{peerPrefixes: [10.77.9.8/29], asNumber: {AS}, routeReflectorClient: true, \
                 addPaths: send, filters: [closed]}}"
            ),
        );
        for (last, listed) in &self.listed {
            let kind = match listed.asn == AS {
                true => format!("routeReflectorClient: {}, addPaths: send", listed.is_client),
                false => format!("maxPrefixes: {}", self.max_prefixes),
            };
            object(
                "BGPPeer",
                &format!("peer-{last}"),
                &format!(
                    "{{peerIP: '{}', asNumber: {}, {kind}, filters: [closed, hidden]}}",
                    address(*last),
                    listed.asn
                ),
            );
        }
        object(
            "BGPPeer",
            "marker",
            &format!(
                "{{peerIP: {}, asNumber: {AS}, passive: true}}",
                self.marker()
            ),
        );
        text
    }
}

fn rule(family: Family, block: u8, what: &str) -> String {
    let cidr = match family {
        Family::Ipv4 => format!("10.{block}.0.0/16"),
        Family::Ipv6 => format!("2001:db8:{block:x}::/48"),
    };
    format!("{{{what}, cidr: '{cidr}', matchOperator: In}}")
}
