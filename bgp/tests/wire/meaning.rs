//! What we made of a message, in the words of the vector files.

use bgp::types::{Family, FamilySet, PathPrefix};
use bgp::wire::attribute::{Origin, PathAttributes};
use bgp::wire::capability::{Capability, GracefulRestart};
use bgp::wire::nlri::Nlri;
use bgp::wire::open::Open;
use bgp::wire::refresh::{RefreshKind, RouteRefresh};
use bgp::wire::update::Update;

pub fn open_text(open: &Open) -> String {
    format!(
        "OPEN as {}, hold {}, id {}; {}",
        open.asn,
        open.hold_time.seconds(),
        open.router_id,
        joined(&open.capabilities, ", ", capability_text)
    )
}

pub fn refresh_text(refresh: &RouteRefresh) -> String {
    let kind = match refresh.kind {
        RefreshKind::Request => "request",
        RefreshKind::Begin => "begin",
        RefreshKind::End => "end",
    };
    format!("REFRESH {} {kind}", refresh.family)
}

/// Prefixes of families in `add_path` are written with their path identifiers, as `7@10.0.0.0/8`.
pub fn update_text(update: &Update<'_>, add_path: FamilySet) -> String {
    let run_text = |run| run_text(run, add_path);
    let mut parts = Vec::new();
    for run in &update.withdrawn {
        parts.push(format!("withdraw {}", run_text(run)));
    }
    for announcement in &update.announced {
        let next_hop = &announcement.attributes.next_hop;
        let link_local = next_hop.link_local.map(|local| format!("%{local}"));
        parts.push(format!(
            "announce {} via {next_hop}{}",
            run_text(&announcement.nlri),
            link_local.unwrap_or_default()
        ));
    }
    if let Some(announcement) = update.announced.last() {
        parts.push(properties(&announcement.attributes).join(", "));
    }
    for error in &update.errors {
        let what = if error.treat_as_withdraw {
            "fault"
        } else {
            "discard"
        };
        parts.push(format!("{what} {}", error.code));
    }
    if let Some(family) = update.end_of_rib {
        parts.push(format!("end-of-rib {family}"));
    }
    format!("UPDATE {}", parts.join("; "))
}

fn run_text(run: &Nlri<'_>, add_path: FamilySet) -> String {
    let text = |path: PathPrefix| match add_path.contains(run.family()) {
        true => format!("{}@{}", path.path_id, path.prefix),
        false => path.prefix.to_string(),
    };
    let prefixes: Vec<String> = run.paths().map(text).collect();
    format!("{} {}", run.family(), prefixes.join(" "))
}

fn properties(attributes: &PathAttributes) -> Vec<String> {
    let origin = match attributes.origin {
        Origin::Igp => "igp",
        Origin::Egp => "egp",
        Origin::Incomplete => "incomplete",
    };
    let mut words = vec![
        format!("origin {origin}"),
        format!("path [{}]", attributes.as_path),
    ];
    words.extend(attributes.med.map(|med| format!("med {}", med.0)));
    words.extend(attributes.local_pref.map(|pref| format!("pref {}", pref.0)));
    words.extend(attributes.atomic_aggregate.then(|| "atomic".to_owned()));
    words.extend(
        attributes
            .aggregator
            .map(|aggregator| format!("aggregator {}@{}", aggregator.asn, aggregator.address)),
    );
    let mut list = |name: &str, items: String| {
        if !items.is_empty() {
            words.push(format!("{name} {items}"));
        }
    };
    let pair = |c: &bgp::wire::community::Community| format!("{}:{}", c.0 >> 16, c.0 & 0xFFFF);
    list("communities", joined(&attributes.communities, " ", pair));
    let originator = attributes.originator_id.map(|id| id.to_string());
    list("originator", originator.unwrap_or_default());
    list(
        "clusters",
        joined(&attributes.cluster_list, " ", ToString::to_string),
    );
    list(
        "extended",
        joined(&attributes.extended_communities, " ", |c| hex(&c.0)),
    );
    list(
        "large",
        joined(&attributes.large_communities, " ", |large| {
            let [a, b, c] = large.0;
            format!("{a}:{b}:{c}")
        }),
    );
    let only_to_customer = attributes.only_to_customer.map(|asn| asn.to_string());
    list("otc", only_to_customer.unwrap_or_default());
    for unknown in &attributes.unknown {
        words.push(format!("unknown {}={}", unknown.code, hex(&unknown.value)));
    }
    words
}

fn capability_text(capability: &Capability) -> String {
    match capability {
        Capability::MultiProtocol { afi, safi } => format!("mp {afi}/{safi}"),
        Capability::RouteRefresh => "refresh".to_owned(),
        Capability::ExtendedNextHop(rows) => {
            let rows = joined(rows, "", |(afi, safi, hop)| format!(" {afi}/{safi}/{hop}"));
            format!("extended-next-hop{rows}")
        }
        Capability::ExtendedMessage => "extended-message".to_owned(),
        Capability::Role(role) => format!("role {role}"),
        Capability::GracefulRestart(restart) => restart_text(restart),
        Capability::FourOctetAs(asn) => format!("as4 {asn}"),
        Capability::AddPath(rows) => {
            let rows = joined(rows, "", |(afi, safi, way)| format!(" {afi}/{safi}/{way}"));
            format!("add-path{rows}")
        }
        Capability::EnhancedRouteRefresh => "enhanced-refresh".to_owned(),
        Capability::LongLivedGracefulRestart(rows) => {
            let rows = joined(rows, "", |(afi, safi, flags, time)| {
                format!(" {afi}/{safi}/{flags}/{time}")
            });
            format!("long-lived{rows}")
        }
        Capability::Fqdn { host, domain } => format!("fqdn '{host}' '{domain}'"),
        Capability::Unknown { code, data } => format!("unknown {code}={}", hex(data)),
    }
}

fn restart_text(restart: &GracefulRestart) -> String {
    let mut words = vec![format!("restart {}", restart.restart_time_secs)];
    words.extend(restart.restart_state.then(|| "R".to_owned()));
    words.extend(restart.notification.then(|| "N".to_owned()));
    for (family, preserved) in &restart.families {
        let family: &Family = family;
        words.push(format!("{family}{}", if *preserved { "+F" } else { "" }));
    }
    words.join(" ")
}

fn joined<T>(items: &[T], between: &str, text: impl Fn(&T) -> String) -> String {
    let texts: Vec<String> = items.iter().map(text).collect();
    texts.join(between)
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}
