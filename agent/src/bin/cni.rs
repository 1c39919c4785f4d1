//! `caracal-cni`: the CNI plugin. It passes the runtime's call to the agent.

use std::io;
use std::process::ExitCode;

use agent::cni::plugin::{Environment, run};

fn main() -> ExitCode {
    let (stdin, stdout) = (io::stdin().lock(), io::stdout().lock());
    ExitCode::from(run(&Environment::from_process(), stdin, stdout))
}
