//! The agent's configuration file: YAML, one level of keys, all optional.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use serde_json::Value;

use super::{
    ConfigError, ConfigProblem, HostFirewallChoice, HttpListen, LogFormat, LogLevel,
    NextHopObjects, TunnelDriverChoice,
};

/// From the least an IPv4 host must take to the most an IPIP packet can hold.
pub const MTU_RANGE: RangeInclusive<i64> = 576..=65515;
/// RFC 4724 §3: the restart time has 12 bits.
const GRACEFUL_RESTART_RANGE: RangeInclusive<i64> = 0..=4095;
const RESYNC_RANGE: RangeInclusive<i64> = 1..=86400;
const MAX_FILE_BYTES: usize = 1024 * 1024;

const KEYS: [&str; 12] = [
    "cniBinDir",
    "cniConfDir",
    "gracefulRestartSeconds",
    "hostFirewall",
    "httpListen",
    "logFormat",
    "logLevel",
    "mtu",
    "nextHopObjects",
    "nic",
    "resyncSeconds",
    "tunnelDriver",
];

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FileConfig {
    pub cni_bin_dir: Option<PathBuf>,
    pub cni_conf_dir: Option<PathBuf>,
    pub graceful_restart: Option<Duration>,
    pub host_firewall: Option<HostFirewallChoice>,
    pub http_listen: Option<HttpListen>,
    pub log_format: Option<LogFormat>,
    pub log_level: Option<LogLevel>,
    pub mtu: Option<u32>,
    pub next_hop_objects: Option<NextHopObjects>,
    pub nic: Option<String>,
    pub resync: Option<Duration>,
    pub tunnel_driver: Option<TunnelDriverChoice>,
}

impl FileConfig {
    /// All keys absent where no file is named.
    ///
    /// # Errors
    /// As for `read`.
    pub fn read_if_named(path: Option<&Path>) -> Result<FileConfig, ConfigError> {
        path.map_or_else(|| Ok(FileConfig::default()), FileConfig::read)
    }

    /// # Errors
    /// If it cannot be read, or with everything wrong in it.
    pub fn read(path: &Path) -> Result<FileConfig, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| whole_file(path, format!("the file cannot be read: {error}")))?;
        FileConfig::parse(path, &text)
    }

    /// # Errors
    /// Everything wrong in `text`; `path` is for the messages.
    pub fn parse(path: &Path, text: &str) -> Result<FileConfig, ConfigError> {
        if text.len() > MAX_FILE_BYTES {
            return Err(whole_file(
                path,
                format!("longer than {MAX_FILE_BYTES} bytes"),
            ));
        }
        // An empty file, or one with comments only, is null.
        let values: Option<BTreeMap<String, Value>> =
            serde_saphyr::from_str(text).map_err(|error| whole_file(path, error.to_string()))?;
        let mut keys = Keys {
            file: path,
            values: values.unwrap_or_default(),
            problems: Vec::new(),
        };
        let config = FileConfig {
            cni_bin_dir: keys.take("cniBinDir", absolute_path),
            cni_conf_dir: keys.take("cniConfDir", absolute_path),
            graceful_restart: keys.take("gracefulRestartSeconds", |value| {
                seconds(value, GRACEFUL_RESTART_RANGE)
            }),
            host_firewall: keys.take("hostFirewall", choice),
            http_listen: keys.take("httpListen", |value| text_of(value)?.parse()),
            log_format: keys.take("logFormat", choice),
            log_level: keys.take("logLevel", |value| text_of(value)?.parse()),
            mtu: keys.take("mtu", |value| number(value, MTU_RANGE)),
            next_hop_objects: keys.take("nextHopObjects", choice),
            nic: keys.take("nic", |value| text_of(value).map(str::to_owned)),
            resync: keys.take("resyncSeconds", |value| seconds(value, RESYNC_RANGE)),
            tunnel_driver: keys.take("tunnelDriver", choice),
        };
        keys.finish().map(|()| config)
    }
}

/// The values not yet taken, and the problems found.
struct Keys<'a> {
    file: &'a Path,
    values: BTreeMap<String, Value>,
    problems: Vec<ConfigProblem>,
}

impl Keys<'_> {
    fn take<T>(&mut self, key: &str, read: impl Fn(&Value) -> Result<T, String>) -> Option<T> {
        let value = self.values.remove(key)?;
        match read(&value) {
            Ok(value) => Some(value),
            Err(reason) => {
                self.report(key, reason);
                None
            }
        }
    }

    fn finish(mut self) -> Result<(), ConfigError> {
        for key in std::mem::take(&mut self.values).into_keys() {
            let reason = format!("unknown key; the keys are {}", KEYS.join(", "));
            self.report(&key, reason);
        }
        if self.problems.is_empty() {
            return Ok(());
        }
        Err(ConfigError(self.problems))
    }

    fn report(&mut self, key: &str, reason: String) {
        self.problems.push(ConfigProblem {
            file: self.file.to_owned(),
            key: Some(key.to_owned()),
            reason,
        });
    }
}

fn whole_file(path: &Path, reason: String) -> ConfigError {
    ConfigError(vec![ConfigProblem {
        file: path.to_owned(),
        key: None,
        reason,
    }])
}

fn text_of(value: &Value) -> Result<&str, String> {
    match value.as_str() {
        Some(text) if !text.is_empty() => Ok(text),
        _ => Err(format!("{value} is not a non-empty string")),
    }
}

fn choice<T: ValueEnum>(value: &Value) -> Result<T, String> {
    let text = text_of(value)?;
    T::from_str(text, false).map_err(|_| {
        let names = T::value_variants().iter().filter_map(T::to_possible_value);
        let names: Vec<_> = names.map(|name| name.get_name().to_owned()).collect();
        format!("{text:?} is none of {}", names.join(", "))
    })
}

fn absolute_path(value: &Value) -> Result<PathBuf, String> {
    let text = text_of(value)?;
    if !text.starts_with('/') {
        return Err(format!("{text:?} is not an absolute path"));
    }
    Ok(PathBuf::from(text))
}

fn number(value: &Value, range: RangeInclusive<i64>) -> Result<u32, String> {
    value
        .as_i64()
        .filter(|number| range.contains(number))
        .and_then(|number| u32::try_from(number).ok())
        .ok_or_else(|| {
            let (first, last) = range.into_inner();
            format!("{value} is not a whole number from {first} to {last}")
        })
}

fn seconds(value: &Value, range: RangeInclusive<i64>) -> Result<Duration, String> {
    number(value, range).map(|seconds| Duration::from_secs(u64::from(seconds)))
}
