//! `caracal wait`: returns when a state is reached, or says what is there instead.

use std::thread;
use std::time::{Duration, Instant};

use agent::api::client::ClientError;
use agent::api::health::why_not_ready;
use agent::api::schema::RouteQuery;
use bgp::types::Prefix;

use crate::routes::parse_prefix;
use crate::target::Target;
use crate::{Exit, exit_for, peers, routes};

const INTERVAL: Duration = Duration::from_millis(50);
/// A question that takes longer is asked anew.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    condition: Condition,
    /// Seconds to wait
    #[arg(long, value_name = "SECONDS", global = true, default_value = "30", value_parser = parse_seconds)]
    timeout: Duration,
}

#[derive(Debug, clap::Subcommand)]
enum Condition {
    /// The store is read and the kernel holds what it should
    Synced,
    /// The session with this peer is established
    Established {
        /// Address or name
        peer: String,
    },
    /// There is a best route to this prefix, and it is in the kernel if this is an agent
    Route {
        /// Exactly this prefix; an address stands for its /32 or /128
        #[arg(value_parser = parse_prefix)]
        prefix: Prefix,
    },
}

/// What one look showed: the state is reached, or the evidence that it is not.
type Look = Result<(), String>;

pub(crate) fn run(target: &Target, args: &Args) -> Result<Exit, ClientError> {
    let until = Instant::now() + args.timeout;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        // At least one proper look, however short the wait.
        let patient = target.within(left.clamp(Duration::from_millis(100), ANSWER_DEADLINE));
        let evidence = match look(&patient, &args.condition) {
            Ok(Ok(())) => return Ok(Exit::Fine),
            Ok(Err(evidence)) => evidence,
            Err(error) if exit_for(&error) == Exit::Usage => return Err(error),
            // Perhaps it starts just now.
            Err(error) => format!("{:#}", anyhow::Error::from(error)),
        };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let waited = args.timeout.as_secs_f64();
            eprintln!(
                "caracal: {} not reached within {waited} s: {evidence}",
                describe(&args.condition)
            );
            return Ok(Exit::TimedOut);
        }
        thread::sleep(INTERVAL.min(left));
    }
}

fn describe(condition: &Condition) -> String {
    match condition {
        Condition::Synced => String::from("synced"),
        Condition::Established { peer } => format!("established {peer}"),
        Condition::Route { prefix } => format!("route {prefix}"),
    }
}

fn look(target: &Target, condition: &Condition) -> Result<Look, ClientError> {
    match condition {
        Condition::Synced => synced(target),
        Condition::Established { peer } => established(target, peer),
        Condition::Route { prefix } => route(target, *prefix),
    }
}

fn synced(target: &Target) -> Result<Look, ClientError> {
    let status = target.status()?;
    Ok(match status.ready {
        true => Ok(()),
        false => Err(why_not_ready(&status)),
    })
}

fn established(target: &Target, wanted: &str) -> Result<Look, ClientError> {
    let all = target.peers()?.items;
    let Some(peer) = peers::find(&all, wanted) else {
        let known: Vec<_> = all.iter().map(peers::known).collect();
        return Ok(Err(format!(
            "no such peer; known are: {}",
            known.join(", ")
        )));
    };
    if peer.state == "established" {
        return Ok(Ok(()));
    }
    let mut evidence = format!("{} since {}", peer.state, peer.since);
    if let Some(error) = &peer.last_error {
        evidence.push_str(&format!("; last error: {}", peers::last_error(error)));
    }
    Ok(Err(evidence))
}

fn route(target: &Target, prefix: Prefix) -> Result<Look, ClientError> {
    let query = RouteQuery {
        prefix: Some(prefix),
        ..RouteQuery::default()
    };
    let found = target.routes(&query)?.items;
    let Some(best) = found.iter().find(|route| route.best) else {
        let reasons: Vec<_> = found
            .iter()
            .filter_map(|route| route.rejected_reason.clone())
            .collect();
        return Ok(Err(match reasons.as_slice() {
            [] => String::from("no such route"),
            reasons => format!("all rejected: {}", reasons.join("; ")),
        }));
    };
    Ok(match &best.kernel {
        // A route of our own need not be in the kernel as such.
        Some(kernel) if best.peer.is_some() && kernel.state != "installed" => Err(format!(
            "next hop {}, kernel: {}",
            best.next_hop,
            routes::kernel(kernel)
        )),
        Some(_) | None => Ok(()),
    })
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text);
    number
        .parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        // A year: beyond, the sum with the present could overflow.
        .filter(|timeout| *timeout <= Duration::from_secs(366 * 86400))
        .ok_or_else(|| format!("{text:?} is not a number of seconds"))
}
