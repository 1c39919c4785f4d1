//! `caracal peers`: BGP peers and their sessions.

use std::net::IpAddr;

use agent::api::client::ClientError;
use agent::api::schema::Items;
use bgp::speaker::status::{ConnectErrorStatus, FamilyCounts, LastErrorStatus, PeerStatus};

use crate::Exit;
use crate::output::{Format, columns, or_dash, show};
use crate::target::Target;

mod detail;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Everything about this peer: its address or name; peers of a range share one
    #[arg(value_name = "PEER")]
    peer: Option<String>,
}

pub(crate) fn run(target: &Target, format: Format, args: &Args) -> Result<Exit, ClientError> {
    let all = target.peers()?;
    let Some(wanted) = &args.peer else {
        show(format, &all, table);
        return Ok(Exit::Fine);
    };
    if find_or_say(&all.items, wanted).is_none() {
        return Ok(Exit::Finding);
    }
    let matching = matching(&all.items, wanted).cloned().collect();
    show(format, &Items::new(matching), |peers| {
        let texts: Vec<String> = peers.items.iter().map(detail::text).collect();
        texts.join("\n")
    });
    Ok(Exit::Fine)
}

/// The peer that is wanted; else says on stderr which there are.
pub(crate) fn find_or_say<'a>(peers: &'a [PeerStatus], wanted: &str) -> Option<&'a PeerStatus> {
    let found = find(peers, wanted);
    if found.is_none() {
        let known: Vec<_> = peers.iter().map(known).collect();
        eprintln!("caracal: no peer {wanted}; known are: {}", known.join(", "));
    }
    found
}

/// The peer with this address or name. Several sessions with one address are told apart by name.
pub(crate) fn find<'a>(peers: &'a [PeerStatus], wanted: &str) -> Option<&'a PeerStatus> {
    // Of several, an established one speaks for the peer.
    matching(peers, wanted).min_by_key(|peer| peer.state != "established")
}

fn matching<'a>(peers: &'a [PeerStatus], wanted: &str) -> impl Iterator<Item = &'a PeerStatus> {
    let address: Option<IpAddr> = wanted.parse().ok();
    peers
        .iter()
        .filter(move |peer| peer.name == wanted || Some(peer.peer) == address)
}

/// Both ways to name a peer.
pub(crate) fn known(peer: &PeerStatus) -> String {
    format!("{} ({})", peer.peer, peer.name)
}

fn table(peers: &Items<PeerStatus>) -> String {
    let rows = peers.items.iter().map(|peer| {
        [
            peer.peer.to_string(),
            peer.name.clone(),
            peer.source.clone(),
            or_dash(peer.peer_asn),
            peer.kind.clone(),
            peer.state.clone(),
            peer.since.clone(),
            counts(peer.received),
            counts(peer.accepted),
            counts(peer.advertised),
            or_dash(why(peer)),
        ]
    });
    let header = [
        "PEER",
        "NAME",
        "SOURCE",
        "ASN",
        "TYPE",
        "STATE",
        "SINCE",
        "RECEIVED",
        "ACCEPTED",
        "ADVERTISED",
        "LAST ERROR",
    ];
    columns(header, rows.collect())
}

fn counts(counts: FamilyCounts) -> String {
    match counts.ipv6 {
        0 => counts.ipv4.to_string(),
        ipv6 => format!("{}+{ipv6}", counts.ipv4),
    }
}

/// The newest error. That the peer cannot be reached counts while there is no connection.
fn why(peer: &PeerStatus) -> Option<String> {
    let error = peer.last_error.as_ref();
    let is_connected = ["openSent", "openConfirm", "established"].contains(&peer.state.as_str());
    let connect = peer.last_connect_error.as_ref().filter(|connect| {
        // RFC 3339 in UTC sorts as text.
        !is_connected && error.is_none_or(|error| error.at < connect.at)
    });
    connect.map(connect_error).or_else(|| error.map(last_error))
}

fn connect_error(error: &ConnectErrorStatus) -> String {
    format!("cannot connect: {} at {}", error.reason, error.at)
}

pub(crate) fn last_error(error: &LastErrorStatus) -> String {
    format!(
        "{} {}/{} {} at {}",
        error.direction, error.code, error.subcode, error.reason, error.at
    )
}
