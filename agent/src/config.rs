//! How the agent is started: command line, configuration file, and the settings both make.
//!
//! Every setting has one name: an option `--tunnel-driver`, a key `tunnelDriver`. The option wins.
//! All problems are reported, not only the first.

pub mod file;
pub mod logging;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use file::FileConfig;
pub use logging::{LogFormat, LogLevel};

use crate::carrier::Encapsulation;

pub const DEFAULT_RUN_DIR: &str = "/run/caracal";
pub const DEFAULT_STATE_DIR: &str = "/var/lib/caracal";
pub const DEFAULT_CNI_BIN_DIR: &str = "/opt/cni/bin";
pub const DEFAULT_CNI_CONF_DIR: &str = "/etc/cni/net.d";
/// The agent's HTTP listener; the reflector has the port before.
pub const DEFAULT_HTTP_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9179);
const DEFAULT_RESYNC: Duration = Duration::from_secs(90);
const DEFAULT_GRACEFUL_RESTART: Duration = Duration::from_secs(120);

/// Caracal's node agent: container networking that is just routing.
#[derive(Clone, Debug, Parser)]
#[command(name = "caracal-agent", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run the agent of one node
    Run(Box<RunArgs>),
    /// Prepare this machine: names of our route protocols for `ip route`, and files that keep
    /// systemd-networkd and NetworkManager off what is ours
    Install,
    /// Install the CNI plugin and its network configuration
    InstallCni(InstallCniArgs),
    /// Remove everything of ours from this machine: routes, interfaces, CNI plugin, and the files
    /// of `install`; stop the agent first
    Uninstall(UninstallArgs),
    /// Run the userspace tunnel (started by the agent)
    Carrier(CarrierArgs),
}

#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Name of this node in the store
    #[arg(long, value_name = "NAME")]
    pub node: String,
    /// Where the resources are: dir:PATH (`kubernetes` is not supported yet)
    #[arg(long, value_name = "STORE")]
    pub store: StoreLocation,
    #[command(flatten)]
    pub directories: Directories,
    /// Configuration file; options override it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Show what would be written to the kernel, write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How a dry run is shown
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        default_value = "text",
        requires = "dry_run"
    )]
    pub output: OutputFormat,
    /// Address of /livez, /readyz and /metrics, or none [default: 127.0.0.1:9179]
    #[arg(long, value_name = "ADDRESS")]
    pub http_listen: Option<HttpListen>,
    /// Who does IPIP [default: auto]
    #[arg(long, value_name = "DRIVER")]
    pub tunnel_driver: Option<TunnelDriverChoice>,
    /// What to do about a host firewall that does not forward for workloads [default: ignore]
    #[arg(long, value_name = "WHAT")]
    pub host_firewall: Option<HostFirewallChoice>,
    /// Whether hops that many learned routes share are next-hop objects of the kernel [default: auto]
    #[arg(long, value_name = "WHEN")]
    pub next_hop_objects: Option<NextHopObjects>,
    /// MTU of all tunnels, and so of workloads where there is a tunnel [default: follows the NIC]
    #[arg(long, value_parser = clap::value_parser!(u32).range(file::MTU_RANGE))]
    pub mtu: Option<u32>,
    /// Interface towards the other nodes [default: the one with the node's address]
    #[arg(long, value_name = "INTERFACE")]
    pub nic: Option<String>,
    #[command(flatten)]
    pub logging: LogArgs,
}

#[derive(Clone, Debug, Args)]
pub struct Directories {
    /// Directory of sockets and of the carrier's log
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN_DIR)]
    pub run_dir: PathBuf,
    /// Directory of what survives a restart: attachments, addresses, accepted resources
    #[arg(long, value_name = "DIR", default_value = DEFAULT_STATE_DIR)]
    pub state_dir: PathBuf,
}

#[derive(Clone, Debug, Args)]
pub struct LogArgs {
    /// error, warn, info, debug, trace, or filters such as info,bgp=debug [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<LogLevel>,
    /// How a log line is written [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// Where the container runtime looks for what `install-cni` writes and `uninstall` removes.
#[derive(Clone, Debug, Args)]
pub struct CniArgs {
    /// The agent's configuration file, for its cniBinDir and cniConfDir; options override it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the runtime looks for plugins [default: /opt/cni/bin]
    #[arg(long, value_name = "DIR")]
    pub cni_bin_dir: Option<PathBuf>,
    /// Where the runtime looks for network configurations [default: /etc/cni/net.d]
    #[arg(long, value_name = "DIR")]
    pub cni_conf_dir: Option<PathBuf>,
}

/// What `CniArgs` come to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CniDirectories {
    pub bin: PathBuf,
    pub conf: PathBuf,
}

impl CniDirectories {
    /// # Errors
    /// Everything that is wrong with the configuration file.
    pub fn load(args: &CniArgs) -> Result<CniDirectories, ConfigError> {
        let file = FileConfig::read_if_named(args.config.as_deref())?;
        let first = |option: &Option<PathBuf>, key, default: &str| {
            option.clone().or(key).unwrap_or_else(|| default.into())
        };
        Ok(CniDirectories {
            bin: first(&args.cni_bin_dir, file.cni_bin_dir, DEFAULT_CNI_BIN_DIR),
            conf: first(&args.cni_conf_dir, file.cni_conf_dir, DEFAULT_CNI_CONF_DIR),
        })
    }
}

#[derive(Clone, Debug, Args)]
pub struct InstallCniArgs {
    /// Directory of the agent's socket
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN_DIR)]
    pub run_dir: PathBuf,
    #[command(flatten)]
    pub cni: CniArgs,
    /// The plugin [default: caracal-cni beside this program]
    #[arg(long, value_name = "FILE")]
    pub plugin: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub struct UninstallArgs {
    #[command(flatten)]
    pub directories: Directories,
    #[command(flatten)]
    pub cni: CniArgs,
}

#[derive(Clone, Debug, Args)]
pub struct CarrierArgs {
    /// Directory of carrier.sock
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN_DIR)]
    pub run_dir: PathBuf,
    /// This node's address: the outer source
    #[arg(long, value_name = "ADDRESS")]
    pub local: Ipv4Addr,
    /// What packets travel in
    #[arg(long, value_enum, default_value = "ipip")]
    pub encapsulation: Encapsulation,
    /// Go on with what the running carrier has open, and end it
    #[arg(long)]
    pub take_over: bool,
    #[command(flatten)]
    pub logging: LogArgs,
}

/// `dir:PATH` or `kubernetes`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreLocation {
    Directory(PathBuf),
    Kubernetes,
}

impl FromStr for StoreLocation {
    type Err = String;

    fn from_str(text: &str) -> Result<StoreLocation, String> {
        match text.strip_prefix("dir:") {
            Some("") => Err(String::from("dir: needs a path")),
            Some(path) => Ok(StoreLocation::Directory(PathBuf::from(path))),
            None if text == "kubernetes" => Ok(StoreLocation::Kubernetes),
            None => Err(String::from("neither dir:PATH nor kubernetes")),
        }
    }
}

/// An address, or `none`: no listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HttpListen(pub Option<SocketAddr>);

impl FromStr for HttpListen {
    type Err = String;

    fn from_str(text: &str) -> Result<HttpListen, String> {
        if text == "none" {
            return Ok(HttpListen(None));
        }
        let address = text
            .parse()
            .map_err(|_| format!("{text:?} is neither ADDRESS:PORT nor none"))?;
        Ok(HttpListen(Some(address)))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum TunnelDriverChoice {
    /// The kernel's ipip if there is one, else userspace.
    #[default]
    Auto,
    /// The kernel's ipip: caracal-ipip.
    Kernel,
    /// The carrier: caracal-tun.
    Userspace,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum OutputFormat {
    #[default]
    Text,
    Json,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum HostFirewallChoice {
    /// Leave it alone; `caracal check` tells.
    #[default]
    Ignore,
    /// Put rules in front of its chain that accept what comes from and goes to workloads.
    Insert,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum NextHopObjects {
    /// From 256 routes of one hop on.
    #[default]
    Auto,
    /// Routes stand over a loss of carrier while no agent runs; a full table takes longer.
    Never,
}

/// What the agent runs with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    pub node: String,
    pub store: StoreLocation,
    pub run_dir: PathBuf,
    pub state_dir: PathBuf,
    pub dry_run: bool,
    pub output: OutputFormat,
    pub http_listen: Option<SocketAddr>,
    pub tunnel_driver: TunnelDriverChoice,
    pub host_firewall: HostFirewallChoice,
    pub next_hop_objects: NextHopObjects,
    /// `None`: follows the NIC.
    pub mtu: Option<u32>,
    /// `None`: the interface with the node's address.
    pub nic: Option<String>,
    pub log_level: LogLevel,
    pub log_format: LogFormat,
    /// Between two complete comparisons with the kernel.
    pub resync: Duration,
    /// Zero: no graceful restart.
    pub graceful_restart: Duration,
}

/// One thing wrong with the configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigProblem {
    pub file: PathBuf,
    /// `None`: the file as a whole.
    pub key: Option<String>,
    pub reason: String,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.file.display())?;
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.reason)
    }
}

/// All problems, one per line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError(pub Vec<ConfigProblem>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl Settings {
    /// Reads the configuration file, if one is named, and merges it under the options.
    ///
    /// # Errors
    /// Everything that is wrong with the file.
    pub fn load(args: &RunArgs) -> Result<Settings, ConfigError> {
        let file = FileConfig::read_if_named(args.config.as_deref())?;
        Ok(Settings::merge(args, file))
    }

    fn merge(args: &RunArgs, file: FileConfig) -> Settings {
        let http_listen = args.http_listen.or(file.http_listen);
        Settings {
            node: args.node.clone(),
            store: args.store.clone(),
            run_dir: args.directories.run_dir.clone(),
            state_dir: args.directories.state_dir.clone(),
            dry_run: args.dry_run,
            output: args.output,
            http_listen: http_listen.map_or(Some(DEFAULT_HTTP_LISTEN), |listen| listen.0),
            tunnel_driver: args
                .tunnel_driver
                .or(file.tunnel_driver)
                .unwrap_or_default(),
            host_firewall: args
                .host_firewall
                .or(file.host_firewall)
                .unwrap_or_default(),
            next_hop_objects: args
                .next_hop_objects
                .or(file.next_hop_objects)
                .unwrap_or_default(),
            mtu: args.mtu.or(file.mtu),
            nic: args.nic.clone().or(file.nic),
            log_level: args
                .logging
                .log_level
                .clone()
                .or(file.log_level)
                .unwrap_or_else(|| match args.dry_run {
                    // It prints what it found; a log would say that it was done.
                    true => LogLevel::errors(),
                    false => LogLevel::default(),
                }),
            log_format: args
                .logging
                .log_format
                .or(file.log_format)
                .unwrap_or_default(),
            resync: file.resync.unwrap_or(DEFAULT_RESYNC),
            graceful_restart: file.graceful_restart.unwrap_or(DEFAULT_GRACEFUL_RESTART),
        }
    }

    /// Where the agent's socket is.
    pub fn socket(&self) -> PathBuf {
        self.run_dir.join("agent.sock")
    }
}

#[cfg(test)]
mod tests;
