//! Logs: to standard error, as text or as one JSON object a line.

use std::io;
use std::str::FromStr;

use clap::ValueEnum;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// A level, or levels by module: `info,bgp=debug`.
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
        let are_targets = text.contains('=') && Targets::from_str(text).is_ok();
        if LEVELS.contains(&text) || are_targets {
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
    let layer = fmt::layer().with_writer(io::stderr);
    let layer = match format {
        LogFormat::Text => layer.with_ansi(false).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    let targets = Targets::from_str(&level.0).expect("it was checked when it was read");
    registry().with(targets).with(layer).try_init()
}
