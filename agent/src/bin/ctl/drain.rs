//! `caracal drain`: has an agent or a reflector ask everybody to use its routes last (RFC 8326).

use std::time::Duration;

use agent::api::client::ClientError;
use agent::api::schema::Drain;

use crate::Exit;
use crate::output::{Format, show};
use crate::target::Target;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Be used like others again
    #[arg(long, conflicts_with = "wait")]
    off: bool,
    /// Give traffic so long to go elsewhere, then look again; exit code 1 if it does not drain then
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,
}

pub(crate) fn run(target: &Target, format: Format, args: &Args) -> Result<Exit, ClientError> {
    let asked = Drain {
        draining: !args.off,
    };
    let mut done = target.drain(asked)?;
    if let Some(seconds) = args.wait {
        std::thread::sleep(Duration::from_secs(seconds));
        done.draining = target.status()?.draining;
    }
    show(format, &done, |done| text(*done, args));
    Ok(if done == asked {
        Exit::Fine
    } else {
        Exit::Finding
    })
}

fn text(done: Drain, args: &Args) -> String {
    match (done.draining, args.off, args.wait) {
        (true, true, _) => "draining still: a BGPConfiguration says gracefulShutdown".to_owned(),
        (true, false, Some(seconds)) => format!("draining for {seconds} s"),
        (true, false, None) => "draining".to_owned(),
        (false, _, _) => "not draining".to_owned(),
    }
}
