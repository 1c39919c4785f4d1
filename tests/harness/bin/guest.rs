//! `caracal-guest COMMAND…`: runs a command in the guest kernel, and exits as it did.

use std::process::ExitCode;
use std::time::Duration;

use harness::guest;

const LIMIT: Duration = Duration::from_secs(600);

fn main() -> anyhow::Result<ExitCode> {
    let command: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let finished = guest::run(&words, LIMIT)?;
    print!("{}", finished.stdout);
    let code = finished
        .status
        .code()
        .and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}
