//! Options and configuration file, apart and together.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{CommandFactory, Parser};

use super::file::FileConfig;
use super::*;

fn parse(text: &str) -> Result<FileConfig, String> {
    FileConfig::parse(Path::new("agent.yaml"), text).map_err(|error| error.to_string())
}

fn settings(options: &[&str]) -> Result<Settings, String> {
    let base = [
        "caracal-agent",
        "run",
        "--node",
        "a1",
        "--store",
        "dir:/store",
    ];
    let cli = Cli::try_parse_from(base.iter().chain(options)).map_err(|error| error.to_string())?;
    match cli.command {
        Command::Run(args) => Settings::load(&args).map_err(|error| error.to_string()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn defaults_are_those_documented() {
    let settings = settings(&[]).expect("valid");
    assert_eq!(settings.node, "a1");
    assert_eq!(
        settings.store,
        StoreLocation::Directory(PathBuf::from("/store"))
    );
    assert_eq!(settings.socket(), Path::new("/run/caracal/agent.sock"));
    assert_eq!(settings.state_dir, Path::new("/var/lib/caracal"));
    assert_eq!(settings.http_listen, "127.0.0.1:9179".parse().ok());
    assert_eq!(settings.tunnel_driver, TunnelDriverChoice::Auto);
    assert_eq!(
        (settings.mtu, settings.nic, settings.dry_run),
        (None, None, false)
    );
    assert_eq!(settings.graceful_restart, Duration::from_secs(120));
}

#[test]
fn every_key_is_read() {
    let config = parse(
        "tunnelDriver: userspace\nmtu: 1400\nnic: eth1\nlogLevel: info,bgp=debug\n\
         logFormat: json\nhttpListen: none\ncniBinDir: /b\ncniConfDir: /c\n\
         resyncSeconds: 5\ngracefulRestartSeconds: 0\nhostFirewall: insert\nnextHopObjects: never\n",
    );
    let expected = FileConfig {
        cni_bin_dir: Some(PathBuf::from("/b")),
        cni_conf_dir: Some(PathBuf::from("/c")),
        graceful_restart: Some(Duration::ZERO),
        host_firewall: Some(HostFirewallChoice::Insert),
        http_listen: Some(HttpListen(None)),
        log_format: Some(LogFormat::Json),
        log_level: Some("info,bgp=debug".parse().expect("a filter")),
        mtu: Some(1400),
        next_hop_objects: Some(NextHopObjects::Never),
        nic: Some(String::from("eth1")),
        resync: Some(Duration::from_secs(5)),
        tunnel_driver: Some(TunnelDriverChoice::Userspace),
    };
    assert_eq!(config, Ok(expected));
    for empty in ["", "# nothing\n", "{}"] {
        assert_eq!(parse(empty), Ok(FileConfig::default()), "{empty:?}");
    }
}

#[test]
fn all_problems_of_a_file_are_reported() {
    let error = parse(
        "mtu: 10\ntunneldriver: kernel\ntunnelDriver: gre\nhttpListen: 9179\n\
         logLevel: verbose\ncniBinDir: bin\nresyncSeconds: soon\n",
    );
    let keys = "cniBinDir, cniConfDir, gracefulRestartSeconds, hostFirewall, httpListen, logFormat, \
                logLevel, mtu, nextHopObjects, nic, resyncSeconds, tunnelDriver";
    let expected = [
        "agent.yaml: cniBinDir: \"bin\" is not an absolute path",
        "agent.yaml: httpListen: 9179 is not a non-empty string",
        "agent.yaml: logLevel: \"verbose\" is neither error, warn, info, debug, trace nor filters \
         such as info,bgp=debug",
        "agent.yaml: mtu: 10 is not a whole number from 576 to 65515",
        "agent.yaml: resyncSeconds: \"soon\" is not a whole number from 1 to 86400",
        "agent.yaml: tunnelDriver: \"gre\" is none of auto, kernel, userspace",
        &format!("agent.yaml: tunneldriver: unknown key; the keys are {keys}"),
    ];
    assert_eq!(parse_error(error), expected);
}

fn parse_error(result: Result<FileConfig, String>) -> Vec<String> {
    let error = result.expect_err("it has problems");
    error.lines().map(str::to_owned).collect()
}

#[test]
fn file_that_is_no_mapping_is_refused() {
    for text in ["- mtu\n", "mtu", "mtu: [1", "mtu: 1400\nmtu: 1500\n"] {
        let error = parse(text).expect_err(text);
        assert!(error.starts_with("agent.yaml: "), "{error}");
    }
}

#[test]
fn options_override_the_file() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(
        file.path(),
        "mtu: 1400\nnic: eth1\nhttpListen: none\ntunnelDriver: kernel\n",
    )
    .expect("written");
    let path = file.path().to_str().expect("text");
    let all = settings(&["--config", path]).expect("valid");
    assert_eq!(all.http_listen, None);
    assert_eq!((all.mtu, all.nic.as_deref()), (Some(1400), Some("eth1")));

    let options = [
        "--config",
        path,
        "--mtu",
        "1300",
        "--http-listen",
        "127.0.0.1:1",
    ];
    let some = settings(&options).expect("valid");
    assert_eq!(some.http_listen, "127.0.0.1:1".parse().ok());
    assert_eq!((some.mtu, some.nic.as_deref()), (Some(1300), Some("eth1")));
    assert_eq!(some.tunnel_driver, TunnelDriverChoice::Kernel);
}

#[test]
fn bad_options_are_refused() {
    for options in [
        &["--store", "etcd"][..],
        &["--store", "dir:"],
        &["--mtu", "1"],
        &["--http-listen", "9179"],
        &["--tunnel-driver", "gre"],
        &["--log-level", "loud"],
        &["--config", "/nonexistent/agent.yaml"],
    ] {
        assert!(settings(options).is_err(), "{options:?}");
    }
}

#[test]
fn directories_of_the_plugin_come_from_options_then_the_file() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "cniBinDir: /b\ncniConfDir: /c\nmtu: 1400\n").expect("written");
    let path = file.path().to_str().expect("text");
    for (options, bin, conf) in [
        (&[][..], "/opt/cni/bin", "/etc/cni/net.d"),
        (&["--config", path], "/b", "/c"),
        (&["--config", path, "--cni-bin-dir", "/o"], "/o", "/c"),
    ] {
        for command in ["install-cni", "uninstall"] {
            let words = [&["caracal-agent", command], options].concat();
            let cli = Cli::try_parse_from(words).expect("valid");
            let (Command::InstallCni(InstallCniArgs { cni, .. })
            | Command::Uninstall(UninstallArgs { cni, .. })) = cli.command
            else {
                panic!("{command} is another command");
            };
            let directories = CniDirectories::load(&cni).expect("valid");
            let expected = CniDirectories {
                bin: PathBuf::from(bin),
                conf: PathBuf::from(conf),
            };
            assert_eq!(directories, expected, "{command} {options:?}");
        }
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = FileConfig::read(Path::new("/nonexistent/agent.yaml")).expect_err("none");
    let said = error.to_string();
    let expected = "/nonexistent/agent.yaml: the file cannot be read: No such file";
    assert!(said.starts_with(expected), "{said}");
}
