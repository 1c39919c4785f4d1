//! `caracal why`: one prefix, its paths, and who hears of them, each with its reason.

use agent::api::client::ClientError;
use agent::api::schema::Why;
use bgp::speaker::status::{RouteStatus, TellingStatus};
use bgp::types::Prefix;

use crate::Exit;
use crate::output::{Format, columns_in_use, or_dash, show};
use crate::routes::{communities, kernel, marks, parse_prefix};
use crate::target::Target;

const COMMUNITIES: &str = "COMMUNITIES";
const KERNEL: &str = "KERNEL";
const PATH_ID: &str = "PATH ID";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Exactly this prefix; an address stands for its /32 or /128
    #[arg(value_parser = parse_prefix)]
    prefix: Prefix,
}

pub(crate) fn run(target: &Target, format: Format, args: &Args) -> Result<Exit, ClientError> {
    let why = target.why(args.prefix)?;
    show(format, &why, text);
    if why.known.paths.is_empty() {
        eprintln!("caracal: no route is exactly {}", args.prefix);
        return Ok(Exit::Finding);
    }
    Ok(Exit::Fine)
}

fn text(why: &Why) -> String {
    format!(
        "Paths of {}:\n{}\n\nTold to peers:\n{}",
        why.prefix,
        paths(&why.known.paths),
        peers(&why.known.peers)
    )
}

fn paths(paths: &[RouteStatus]) -> String {
    let rows = paths.iter().map(|path| {
        [
            marks(path),
            from(path.peer),
            or_dash(path.path_id),
            path.next_hop.to_string(),
            or_dash(Some(&path.as_path).filter(|path| !path.is_empty())),
            or_dash(path.local_pref),
            or_dash(path.med),
            or_dash(communities(path)),
            or_dash(path.kernel.as_ref().map(kernel)),
            standing(path),
        ]
    });
    let header = [
        "",
        "PEER",
        PATH_ID,
        "NEXT HOP",
        "AS PATH",
        "PREF",
        "MED",
        COMMUNITIES,
        KERNEL,
        "WHY",
    ];
    columns_in_use(header, rows.collect(), &[PATH_ID, COMMUNITIES, KERNEL])
}

fn from(peer: Option<std::net::IpAddr>) -> String {
    peer.map_or_else(|| String::from("local"), |peer| peer.to_string())
}

/// What the decision made of a path, in words. A step begins with its number.
fn standing(path: &RouteStatus) -> String {
    let stale = if path.stale { "; stale" } else { "" };
    if let Some(reason) = &path.rejected_reason {
        return format!("refused: {reason}{stale}");
    }
    let standing = match (&path.deciding_step, path.best, path.multipath) {
        (None, true, _) => String::from("the only usable path"),
        (None, false, _) => String::from("not used"),
        (Some(step), true, _) => format!("best, by step {step}"),
        (Some(step), false, true) => format!("used beside the best, which is first by step {step}"),
        (Some(step), false, false) => format!("lost at step {step}"),
    };
    standing + stale
}

fn peers(peers: &[TellingStatus]) -> String {
    let rows = peers.iter().map(|one| {
        let has_path = one.advertised || one.from.is_some();
        [
            one.peer.to_string(),
            one.name.clone(),
            if one.advertised { "yes" } else { "no" }.to_owned(),
            or_dash(has_path.then(|| from(one.from))),
            or_dash(one.path_id),
            or_dash(one.next_hop),
            or_dash(one.reason.as_ref()),
        ]
    });
    let header = [
        "PEER", "NAME", "TOLD", "PATH OF", PATH_ID, "NEXT HOP", "WHY NOT",
    ];
    columns_in_use(header, rows.collect(), &[PATH_ID])
}
