//! Logs: to standard error, as text or as one JSON object a line.

use std::io;
use std::str::FromStr;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// A level, or filters by module: `info,bgp=debug`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogLevel(String);

impl Default for LogLevel {
    fn default() -> LogLevel {
        LogLevel(String::from("info"))
    }
}

impl LogLevel {
    pub fn errors() -> LogLevel {
        LogLevel(String::from("error"))
    }
}

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<LogLevel, String> {
        const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
        // A bare word that is no level would be taken for the name of a module, and silence all.
        let is_filter = text.contains('=') && EnvFilter::try_new(text).is_ok();
        if LEVELS.contains(&text) || is_filter {
            return Ok(LogLevel(text.to_owned()));
        }
        Err(format!(
            "{text:?} is neither {} nor filters such as info,bgp=debug",
            LEVELS.join(", ")
        ))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Starts logging. Once per process.
///
/// # Errors
/// If it was started before.
pub fn init(level: &LogLevel, format: LogFormat) -> Result<(), TryInitError> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&level.0))
        .with_writer(io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(false).finish().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init(),
    }
}
