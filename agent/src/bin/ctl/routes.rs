//! `caracal routes`: which routes are best, why, and what the kernel has.

use std::net::IpAddr;

use agent::api::client::ClientError;
use agent::api::schema::{Items, RouteQuery};
use bgp::speaker::status::{KernelStatus, RouteStatus};
use bgp::types::Prefix;

use crate::output::{Format, columns_in_use, or_dash, show};
use crate::target::Target;
use crate::{Exit, peers};

/// Only with ADD-PATH (RFC 7911).
const PATH_ID: &str = "PATH ID";
const COMMUNITIES: &str = "COMMUNITIES";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Exactly this prefix; an address stands for its /32 or /128
    #[arg(value_parser = parse_prefix)]
    prefix: Option<Prefix>,
    /// What this peer (address or name) sent, before our policy
    #[arg(long, value_name = "PEER", conflicts_with = "advertised")]
    received: Option<String>,
    /// What we send to this peer
    #[arg(long, value_name = "PEER")]
    advertised: Option<String>,
}

pub(crate) fn run(target: &Target, format: Format, args: &Args) -> Result<Exit, ClientError> {
    let mut query = RouteQuery {
        prefix: args.prefix,
        ..RouteQuery::default()
    };
    for (wanted, slot) in [
        (&args.received, &mut query.received),
        (&args.advertised, &mut query.advertised),
    ] {
        if let Some(wanted) = wanted {
            let Some(peer) = find_peer(target, wanted)? else {
                return Ok(Exit::Finding);
            };
            *slot = Some(peer);
        }
    }
    let routes = target.routes(&query)?;
    show(format, &routes, table);
    match args.prefix {
        Some(prefix) if routes.items.is_empty() => {
            eprintln!("caracal: no route is exactly {prefix}");
            Ok(Exit::Finding)
        }
        _ => Ok(Exit::Fine),
    }
}

/// Also takes what has no length, as people type it.
pub(crate) fn parse_prefix(text: &str) -> Result<Prefix, String> {
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(Prefix::host(address)),
        Err(_) => text
            .parse()
            .map_err(|error: bgp::types::BadPrefix| error.to_string()),
    }
}

fn find_peer(target: &Target, wanted: &str) -> Result<Option<IpAddr>, ClientError> {
    let all = target.peers()?.items;
    Ok(peers::find_or_say(&all, wanted).map(|peer| peer.peer))
}

fn table(routes: &Items<RouteStatus>) -> String {
    let rows = routes.items.iter().map(|route| {
        [
            marks(route),
            route.prefix.to_string(),
            route.next_hop.to_string(),
            route
                .peer
                .map_or_else(|| String::from("local"), |peer| peer.to_string()),
            or_dash(route.path_id),
            if route.as_path.is_empty() {
                String::from("-")
            } else {
                route.as_path.clone()
            },
            route.origin.clone(),
            or_dash(route.local_pref),
            or_dash(route.med),
            or_dash(communities(route)),
            or_dash(route.kernel.as_ref().map(kernel_route)),
            or_dash(why(route)),
        ]
    });
    let header = [
        "",
        "PREFIX",
        "NEXT HOP",
        "PEER",
        PATH_ID,
        "AS PATH",
        "ORIGIN",
        "PREF",
        "MED",
        COMMUNITIES,
        "KERNEL",
        "WHY",
    ];
    columns_in_use(header, rows.collect(), &[PATH_ID, COMMUNITIES])
}

/// All that a route is marked with.
pub(crate) fn communities(route: &RouteStatus) -> Option<String> {
    let mut marks = route.communities.clone();
    marks.extend(route.large_communities.iter().cloned());
    marks.extend(
        route
            .only_to_customer
            .map(|asn| format!("only-to-customer:{asn}")),
    );
    (!marks.is_empty()).then(|| marks.join(" "))
}

/// `>` best, `=` multipath, `s` stale, `x` rejected.
pub(crate) fn marks(route: &RouteStatus) -> String {
    let marks = [
        (route.best, '>'),
        (route.multipath && !route.best, '='),
        (route.stale, 's'),
        (route.rejected_reason.is_some(), 'x'),
    ];
    marks
        .iter()
        .filter(|(is_set, _)| *is_set)
        .map(|(_, mark)| mark)
        .collect()
}

/// Why it is as it is: each reason once, though a refused route has the same one in the kernel.
fn why(route: &RouteStatus) -> Option<String> {
    let kernel = route
        .kernel
        .as_ref()
        .and_then(|kernel| kernel.reason.as_ref());
    let mut reasons = vec![];
    for reason in [
        route.rejected_reason.as_ref(),
        route.deciding_step.as_ref(),
        kernel,
    ] {
        reasons.extend(reason.filter(|reason| !reasons.contains(reason)));
    }
    let reasons: Vec<&str> = reasons.into_iter().map(String::as_str).collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

/// State and route with the reason.
pub(crate) fn kernel(kernel: &KernelStatus) -> String {
    let mut text = kernel_route(kernel);
    if let Some(reason) = &kernel.reason {
        text.push_str(&format!(": {reason}"));
    }
    text
}

/// In the words of `ip route`.
fn kernel_route(kernel: &KernelStatus) -> String {
    let mut text = kernel.state.clone();
    if let Some(via) = kernel.via {
        text.push_str(&format!(" via {via}"));
    }
    if let Some(dev) = &kernel.dev {
        text.push_str(&format!(" dev {dev}"));
    }
    if kernel.onlink == Some(true) {
        text.push_str(" onlink");
    }
    text
}
