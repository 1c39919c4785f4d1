//! `caracal` and `caracal-cni` as processes: exit codes and what they print.

use std::future::pending;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use agent::api::listener::PrivateSocket;
use agent::api::schema::{Drain, EndpointStatus, RouteQuery, Status};
use agent::api::serve::{ShuttingDown, Source, router, serve};
use bgp::speaker::counters::Counters;
use bgp::speaker::status::{PeerStatus, RouteStatus, WhyStatus};
use bgp::types::Prefix;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// What the fake agent answers, as the JSON of the interface.
#[derive(Debug, Default)]
struct Answers {
    status: Value,
    peers: Vec<Value>,
    routes: Vec<Value>,
    endpoints: Vec<Value>,
    why: Value,
    /// What its resources say.
    is_always_draining: bool,
    /// The state directory cannot be written.
    is_disk_full: bool,
    /// Routes and status are as given only after so many questions; before, empty and not ready.
    questions_until_ready: usize,
    last_query: RouteQuery,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Answers>>);

fn typed<T: DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error}: {value}"))
}

impl Fake {
    /// `None` while not ready.
    fn answer<T>(&self, read: impl Fn(&Answers) -> T) -> Option<T> {
        let mut answers = self.0.lock().expect("not poisoned");
        match answers.questions_until_ready.checked_sub(1) {
            Some(left) => {
                answers.questions_until_ready = left;
                None
            }
            None => Some(read(&answers)),
        }
    }
}

impl Source for Fake {
    async fn status(&self) -> Result<Status, ShuttingDown> {
        Ok(self
            .answer(|answers| typed(&answers.status))
            .unwrap_or_default())
    }

    async fn peers(&self) -> Result<Vec<PeerStatus>, ShuttingDown> {
        let answers = self.0.lock().expect("not poisoned");
        Ok(answers.peers.iter().map(typed).collect())
    }

    async fn routes(&self, query: RouteQuery) -> Result<Vec<RouteStatus>, ShuttingDown> {
        let prefix = query.prefix;
        self.0.lock().expect("not poisoned").last_query = query;
        let routes = self.answer(|answers| answers.routes.iter().map(typed).collect());
        let mut routes: Vec<RouteStatus> = routes.unwrap_or_default();
        routes.retain(|route| prefix.is_none_or(|prefix| route.prefix == prefix));
        Ok(routes)
    }

    async fn why(&self, prefix: Prefix) -> Result<WhyStatus, ShuttingDown> {
        let answers = self.0.lock().expect("not poisoned");
        let mut why: WhyStatus = typed(&answers.why);
        why.paths.retain(|path| path.prefix == prefix);
        Ok(why)
    }

    async fn counters(&self) -> Result<Counters, ShuttingDown> {
        Ok(Counters::default())
    }

    async fn endpoints(&self) -> Result<Vec<EndpointStatus>, ShuttingDown> {
        let answers = self.0.lock().expect("not poisoned");
        Ok(answers.endpoints.iter().map(typed).collect())
    }

    async fn drain(&self, asked: Drain) -> Result<Result<Drain, String>, ShuttingDown> {
        Ok(self.take_drain(asked))
    }
}

impl Fake {
    fn take_drain(&self, asked: Drain) -> Result<Drain, String> {
        let mut answers = self.0.lock().expect("not poisoned");
        if answers.is_disk_full {
            return Err("the state directory does not keep it: disk full".to_owned());
        }
        let draining = asked.draining || answers.is_always_draining;
        answers.status["draining"] = draining.into();
        Ok(Drain { draining })
    }
}

fn ready() -> Value {
    let ipip = json!({"kind": "ipip", "driver": "kernel", "device": "caracal-ipip", "mtu": 1480,
        "reason": "found"});
    let vxlan = json!({"kind": "vxlan", "driver": "none", "device": "", "mtu": 0,
        "reason": "x is in the way"});
    json!({"schemaVersion": 1, "node": "a1", "version": "1.2.3", "ready": true,
        "store": {"synced": true, "errors": []},
        "tunnel": ipip, "tunnels": [ipip, vxlan],
        "failed": [], "findings": [], "lastRepairs": [],
        "repairs": {"route": 2}, "draining": false})
}

fn peer(address: &str, name: &str, state: &str) -> Value {
    let none = json!({"ipv4": 0, "ipv6": 0});
    json!({"name": name, "source": "rack", "peer": address, "port": 179, "local": null,
        "peerAsn": 64512, "localAsn": 64512, "type": "ibgp", "client": false, "state": state,
        "since": "2025-01-01T00:00:00Z", "routerId": null, "holdTimeSeconds": null,
        "keepaliveSeconds": null, "families": ["ipv4"], "capabilities": [], "received": none,
        "accepted": none, "advertised": none, "flaps": 0, "lastError": null,
        "lastConnectError": {"reason": "refused", "at": "2025-01-01T00:00:01Z"},
        "updateErrors": {"treatAsWithdraw": 3, "attributeDiscard": 1}, "lastMalformed": null,
        "maxPrefixes": 100, "addPaths": {"send": [], "receive": ["ipv4"]}, "role": null})
}

fn route(prefix: &str, kernel: Value) -> Value {
    json!({"prefix": prefix, "peer": "192.168.100.2", "pathId": null, "nextHop": "192.168.200.101",
        "asPath": "64513", "origin": "igp", "localPref": 100, "med": null, "communities": [],
        "largeCommunities": [], "onlyToCustomer": null, "originatorId": null, "clusterList": [], "best": true,
        "multipath": false, "stale": false, "rejectedReason": null, "decidingStep": "only",
        "kernel": kernel})
}

fn kernel(state: &str, reason: Value) -> Value {
    json!({"state": state, "via": "192.168.200.101", "dev": "caracal-ipip", "onlink": true,
        "reason": reason})
}

struct Served {
    _runtime: tokio::runtime::Runtime,
    directory: tempfile::TempDir,
    fake: Fake,
}

impl Served {
    fn start(answers: Answers) -> Served {
        let directory = tempfile::tempdir().expect("a directory");
        let fake = Fake(Arc::new(Mutex::new(answers)));
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let guard = runtime.enter();
        let socket = PrivateSocket::bind(&directory.path().join("agent.sock")).expect("bound");
        tokio::spawn(serve(socket, router(Arc::new(fake.clone())), pending()));
        drop(guard);
        Served {
            _runtime: runtime,
            directory,
            fake,
        }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("agent.sock")
    }

    fn caracal(&self, args: &[&str]) -> (i32, String, String) {
        caracal(&self.socket(), args)
    }
}

fn caracal(socket: &std::path::Path, args: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_caracal"))
        .arg("--socket")
        .arg(socket)
        .args(args)
        .output()
        .expect("caracal starts");
    texts(output)
}

fn texts(output: Output) -> (i32, String, String) {
    (
        output.status.code().expect("not killed"),
        String::from_utf8(output.stdout).expect("text"),
        String::from_utf8(output.stderr).expect("text"),
    )
}

#[test]
fn exit_codes_tell_how_a_command_ended() {
    let served = Served::start(Answers {
        status: ready(),
        peers: vec![peer("192.168.100.2", "rack-a", "established")],
        routes: vec![route("172.17.10.0/24", kernel("installed", Value::Null))],
        ..Answers::default()
    });
    for (args, code, said) in [
        (&["status"][..], 0, ""),
        (&["peers"], 0, ""),
        (&["peers", "rack-a"], 0, ""),
        (&["peers", "rack-b"], 1, "known are: 192.168.100.2 (rack-a)"),
        (&["routes"], 0, ""),
        (&["routes", "172.17.10.0/24"], 0, ""),
        (&["endpoints", "-o", "json"], 0, ""),
        (
            &["routes", "172.17.99.0/24"],
            1,
            "no route is exactly 172.17.99.0/24",
        ),
        (
            &["routes", "172.17.10.1"],
            1,
            "no route is exactly 172.17.10.1/32",
        ),
        (
            &["routes", "--received", "rack-b"],
            1,
            "known are: 192.168.100.2 (rack-a)",
        ),
        (&[], 2, "Usage"),
        (&["frobnicate"], 2, "frobnicate"),
        (
            &["routes", "172.17.10.1/24"],
            2,
            "did you mean 172.17.10.0/24?",
        ),
        (
            &["routes", "--received", "x", "--advertised", "x"],
            2,
            "cannot be used with",
        ),
        (
            &["wait", "synced", "--timeout", "soon"],
            2,
            "not a number of seconds",
        ),
        (&["wait", "synced"], 0, ""),
        (&["wait", "established", "rack-a"], 0, ""),
        (&["wait", "established", "192.168.100.2"], 0, ""),
        (&["wait", "route", "172.17.10.0/24"], 0, ""),
        (
            &["wait", "--timeout", "1.5", "route", "172.17.99.0/24"],
            4,
            "route 172.17.99.0/24 not reached within 1.5 s: no such route",
        ),
        (
            &["wait", "established", "192.0.2.9", "--timeout", "0"],
            4,
            "no such peer; known are: 192.168.100.2",
        ),
    ] {
        let (exit, _, stderr) = served.caracal(args);
        assert_eq!(exit, code, "{args:?}: {stderr}");
        assert!(stderr.contains(said), "{args:?}: {stderr}");
    }
}

#[test]
fn draining_is_shown_until_it_is_taken_back() {
    let served = Served::start(Answers {
        status: ready(),
        ..Answers::default()
    });
    for (args, code, said, status) in [
        (&["drain"][..], 0, "draining", true),
        (&["drain", "--wait", "0"], 0, "draining for 0 s", true),
        (&["drain", "--off", "--wait", "1"], 2, "", true),
        (&["drain", "--wait", "soon"], 2, "", true),
        (&["drain", "--off"], 0, "not draining", false),
        (&["drain", "--off"], 0, "not draining", false),
    ] {
        let (exit, stdout, stderr) = served.caracal(args);
        assert_eq!((exit, stdout.trim()), (code, said), "{args:?}: {stderr}");
        let (_, stdout, _) = served.caracal(&["status"]);
        assert_eq!(
            stdout.contains("draining yes"),
            status,
            "{args:?}: {stdout}"
        );
    }
    let (_, stdout, _) = served.caracal(&["drain", "-o", "json"]);
    let said: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(said, json!({"draining": true}));
}

#[test]
fn draining_that_does_not_come_about_is_a_finding() {
    for (name, answers, args, text) in [
        (
            "the resources ask for it",
            Answers {
                status: ready(),
                is_always_draining: true,
                ..Answers::default()
            },
            &["drain", "--off"][..],
            "draining still: a BGPConfiguration says gracefulShutdown",
        ),
        (
            "it cannot be kept",
            Answers {
                status: ready(),
                is_disk_full: true,
                ..Answers::default()
            },
            &["drain"],
            "the state directory does not keep it: disk full",
        ),
    ] {
        let (exit, stdout, stderr) = Served::start(answers).caracal(args);
        assert_eq!(exit, 1, "{name}");
        assert!((stdout + &stderr).contains(text), "{name}: {stderr}");
    }
}

#[test]
fn one_peer_is_shown_with_all_that_is_known_of_it() {
    let served = Served::start(Answers {
        peers: vec![
            peer("192.168.100.2", "rack-a", "active"),
            peer("192.168.100.3", "rack-b", "established"),
        ],
        ..Answers::default()
    });
    for wanted in ["192.168.100.2", "rack-a"] {
        let (exit, stdout, _) = served.caracal(&["peers", wanted]);
        assert_eq!(exit, 0);
        for line in [
            "peer            192.168.100.2 port 179",
            "AS              64512, ours 64512 (ibgp)",
            "several paths   send none; receive ipv4",
            "maximum         100",
            "malformed       3 treated as withdraw, 1 attributes discarded",
            "cannot connect  refused at 2025-01-01T00:00:01Z",
        ] {
            assert!(
                stdout.lines().any(|shown| shown == line),
                "{line}:\n{stdout}"
            );
        }
        assert!(!stdout.contains("rack-b"), "{stdout}");
    }
}

#[test]
fn nobody_behind_the_socket_is_exit_code_3() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("agent.sock");
    let (exit, _, stderr) = caracal(&socket, &["peers"]);
    assert_eq!(exit, 3);
    let said = format!("failed to connect to {}: No such file", socket.display());
    assert!(stderr.contains(&said), "{stderr}");
    assert!(stderr.contains("name the socket with --socket"), "{stderr}");

    let (exit, _, stderr) = caracal(&socket, &["wait", "synced", "--timeout", "0.1s"]);
    assert_eq!(exit, 4);
    assert!(stderr.contains(&said), "{stderr}");
}

#[test]
fn what_is_wrong_is_a_finding() {
    let mut status = ready();
    status["ready"] = json!(false);
    status["store"] = json!({"synced": false, "errors": [{"file": "nodes.yaml",
        "object": "Node/a1", "field": "spec.podCIDRs", "reason": "missing"}]});
    status["failed"] = json!([{"object": "route 10.0.0.0/24", "error": "blocked", "attempts": 3}]);
    let served = Served::start(Answers {
        status,
        routes: vec![route(
            "172.17.10.0/24",
            kernel("failed", json!("blocked by proto static")),
        )],
        peers: vec![peer("192.168.100.2", "rack-a", "active")],
        ..Answers::default()
    });
    let (exit, stdout, _) = served.caracal(&["status"]);
    assert_eq!(exit, 1);
    let expected = "\
node     a1
version  1.2.3
ready    no: store not synced: nodes.yaml: Node/a1: spec.podCIDRs: missing
store    not synced
tunnel   kernel caracal-ipip mtu 1480: found
tunnel   none for vxlan: x is in the way
repairs  route 2

Problems in the store:
FILE        OBJECT   FIELD          REASON
nodes.yaml  Node/a1  spec.podCIDRs  missing

Failed objects, tried again:
OBJECT             ATTEMPTS  ERROR
route 10.0.0.0/24  3         blocked
";
    assert_eq!(stdout, expected);

    for (condition, evidence) in [
        (&["synced"][..], "store not synced: nodes.yaml"),
        (
            &["established", "rack-a"],
            "active since 2025-01-01T00:00:00Z",
        ),
        (&["route", "172.17.10.0/24"], "blocked by proto static"),
    ] {
        let args = [&["wait", "--timeout", "0.1"], condition].concat();
        let (exit, _, stderr) = served.caracal(&args);
        assert_eq!(exit, 4, "{condition:?}");
        assert!(stderr.contains(evidence), "{condition:?}: {stderr}");
    }
}

#[test]
fn wait_ends_when_the_state_is_reached() {
    for condition in [&["synced"][..], &["route", "172.17.10.0/24"]] {
        let served = Served::start(Answers {
            status: ready(),
            routes: vec![route("172.17.10.0/24", Value::Null)],
            questions_until_ready: 3,
            ..Answers::default()
        });
        let (exit, _, stderr) = served.caracal(&[&["wait"], condition].concat());
        assert_eq!((exit, stderr.as_str()), (0, ""), "{condition:?}");
    }
}

#[test]
fn json_is_what_the_socket_says() {
    let endpoint = json!({"workload": "default/web", "containerId": "c1",
        "iface": "cara0123456789a", "addresses": ["172.17.8.2"], "mac": "02:00:00:00:00:01",
        "state": "ready", "error": null});
    let served = Served::start(Answers {
        status: ready(),
        peers: vec![peer("192.168.100.2", "rack-a", "established")],
        routes: vec![route("172.17.10.0/24", kernel("installed", Value::Null))],
        endpoints: vec![endpoint.clone()],
        ..Answers::default()
    });
    let items = |item: Value| json!({"schemaVersion": 1, "items": [item]});
    for (command, expected) in [
        ("status", ready()),
        (
            "peers",
            items(peer("192.168.100.2", "rack-a", "established")),
        ),
        (
            "routes",
            items(route("172.17.10.0/24", kernel("installed", Value::Null))),
        ),
        ("endpoints", items(endpoint)),
    ] {
        let (_, stdout, _) = served.caracal(&[command, "-o", "json"]);
        let printed: Value = serde_json::from_str(&stdout).expect(command);
        assert_eq!(printed, expected, "{command}");
    }
}

#[test]
fn routes_table_reads_like_ip_route() {
    let served = Served::start(Answers {
        status: ready(),
        peers: vec![peer("192.168.100.2", "rack-a", "established")],
        routes: vec![route("172.17.10.0/24", kernel("installed", Value::Null))],
        ..Answers::default()
    });
    let (exit, stdout, _) = served.caracal(&["routes", "--advertised", "rack-a"]);
    assert_eq!(exit, 0);
    let row: Vec<_> = stdout
        .lines()
        .nth(1)
        .expect("a row")
        .split_whitespace()
        .collect();
    let expected = "> 172.17.10.0/24 192.168.200.101 192.168.100.2 64513 igp 100 - \
                    installed via 192.168.200.101 dev caracal-ipip onlink only";
    assert_eq!(row.join(" "), expected);
    let query = served
        .fake
        .0
        .lock()
        .expect("not poisoned")
        .last_query
        .clone();
    assert_eq!(query.advertised, "192.168.100.2".parse().ok());
}

#[test]
fn routes_table_gives_a_reason_once() {
    let reason = "outside every IPPool";
    let mut refused = route("203.0.113.0/24", kernel("none", json!(reason)));
    refused["best"] = json!(false);
    refused["rejectedReason"] = json!(reason);
    let served = Served::start(Answers {
        status: ready(),
        routes: vec![refused],
        ..Answers::default()
    });
    let (_, stdout, _) = served.caracal(&["routes"]);
    assert_eq!(stdout.matches(reason).count(), 1, "{stdout}");
}

#[test]
fn routes_table_shows_path_ids_and_communities_where_there_are_some() {
    let plain = route("10.1.0.0/24", kernel("installed", Value::Null));
    let mut marked = route("10.2.0.0/24", kernel("installed", Value::Null));
    marked["pathId"] = json!(7);
    marked["communities"] = json!(["graceful-shutdown"]);
    marked["largeCommunities"] = json!(["64512:1:1"]);
    marked["onlyToCustomer"] = json!(64520);
    for (name, routes, is_shown) in [
        ("none has any", vec![plain.clone()], false),
        ("one has some", vec![plain, marked], true),
    ] {
        let served = Served::start(Answers {
            status: ready(),
            routes,
            ..Answers::default()
        });
        let (_, stdout, _) = served.caracal(&["routes"]);
        for text in [
            "PATH ID",
            " 7 ",
            "COMMUNITIES",
            "graceful-shutdown 64512:1:1 only-to-customer:64520",
        ] {
            assert_eq!(stdout.contains(text), is_shown, "{name}: {text}:\n{stdout}");
        }
    }
}

#[test]
fn why_tells_of_paths_and_peers_with_their_reasons() {
    let mut best = route(
        "172.17.10.0/24",
        kernel("installed", json!("by the tunnel")),
    );
    best["decidingStep"] = json!("3 highest LOCAL_PREF");
    let mut lost = route("172.17.10.0/24", kernel("none", json!("not the best path")));
    lost["best"] = json!(false);
    lost["localPref"] = json!(50);
    lost["peer"] = json!("192.168.100.3");
    lost["decidingStep"] = best["decidingStep"].clone();
    let mut refused = lost.clone();
    refused["peer"] = json!("192.168.100.4");
    refused["rejectedReason"] = json!("own AS in AS_PATH");
    let telling = |peer: &str, advertised: bool, reason: Value| {
        json!({"peer": peer, "port": 179, "name": "rack-a", "from": "192.168.100.2",
            "advertised": advertised, "nextHop": advertised.then_some("192.168.200.101"),
            "pathId": null, "reason": reason})
    };
    let known = json!({"paths": [best, lost, refused], "peers": [
        telling("192.168.100.2", false, json!("its own route")),
        telling("192.168.100.3", true, Value::Null)]});
    let served = Served::start(Answers {
        why: known.clone(),
        ..Answers::default()
    });
    let (exit, stdout, stderr) = served.caracal(&["why", "172.17.10.0/24"]);
    assert_eq!((exit, stderr.as_str()), (0, ""));
    let words = |text: &str| -> Vec<String> {
        let lines = text.lines();
        lines
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect()
    };
    for line in [
        "Paths of 172.17.10.0/24:",
        "PEER NEXT HOP AS PATH PREF MED KERNEL WHY",
        "> 192.168.100.2 192.168.200.101 64513 100 - installed via 192.168.200.101 dev caracal-ipip \
         onlink: by the tunnel best, by step 3 highest LOCAL_PREF",
        "192.168.100.3 192.168.200.101 64513 50 - none via 192.168.200.101 dev caracal-ipip onlink: \
         not the best path lost at step 3 highest LOCAL_PREF",
        "x 192.168.100.4 192.168.200.101 64513 50 - none via 192.168.200.101 dev caracal-ipip \
         onlink: not the best path refused: own AS in AS_PATH",
        "PEER NAME TOLD PATH OF NEXT HOP WHY NOT",
        "192.168.100.2 rack-a no 192.168.100.2 - its own route",
        "192.168.100.3 rack-a yes 192.168.100.2 192.168.200.101 -",
    ] {
        let shown = words(&stdout);
        assert!(shown.iter().any(|one| one == line), "{line}:\n{stdout}");
    }

    let (_, stdout, _) = served.caracal(&["why", "172.17.10.0/24", "-o", "json"]);
    let printed: Value = serde_json::from_str(&stdout).expect("JSON");
    let mut expected = known;
    expected["schemaVersion"] = json!(1);
    expected["prefix"] = json!("172.17.10.0/24");
    assert_eq!(printed, expected);

    for (args, code, said) in [
        (
            &["why", "172.17.10.1"][..],
            1,
            "no route is exactly 172.17.10.1/32",
        ),
        (
            &["why", "172.17.10.1/24"],
            2,
            "did you mean 172.17.10.0/24?",
        ),
        (&["why"], 2, "PREFIX"),
    ] {
        let (exit, _, stderr) = served.caracal(args);
        assert_eq!(exit, code, "{args:?}: {stderr}");
        assert!(stderr.contains(said), "{args:?}: {stderr}");
    }
}

#[test]
fn peers_table_shows_the_newest_reason_for_a_session_that_is_not_up() {
    let error = |at: &str| {
        json!({"code": 6, "subcode": 2, "dataHex": "", "direction": "received",
            "reason": "Cease / Administrative Shutdown", "at": at})
    };
    let before = "received 6/2 Cease / Administrative Shutdown at 2025-01-01T00:00:00Z";
    let after = "received 6/2 Cease / Administrative Shutdown at 2025-01-01T00:00:02Z";
    let refused = "cannot connect: refused at 2025-01-01T00:00:01Z";
    for (name, state, last_error, shown) in [
        ("never had a session", "active", Value::Null, refused),
        (
            "gone since",
            "active",
            error("2025-01-01T00:00:00Z"),
            refused,
        ),
        (
            "answered since",
            "idle",
            error("2025-01-01T00:00:02Z"),
            after,
        ),
        (
            "connected again",
            "openConfirm",
            error("2025-01-01T00:00:00Z"),
            before,
        ),
        (
            "up again",
            "established",
            error("2025-01-01T00:00:00Z"),
            before,
        ),
    ] {
        let mut peer = peer("192.168.100.2", "rack-a", state);
        peer["lastError"] = last_error;
        let served = Served::start(Answers {
            peers: vec![peer],
            ..Answers::default()
        });
        let (_, stdout, _) = served.caracal(&["peers"]);
        let line = stdout.lines().last().unwrap_or_default();
        assert!(line.ends_with(shown), "{name}:\n{stdout}");
    }
}

#[test]
fn plugin_reads_its_environment_and_says_by_its_exit_code() {
    let plugin = |variables: &[(&str, &str)], stdin: &str| {
        let mut process = Command::new(env!("CARGO_BIN_EXE_caracal-cni"))
            .env_clear()
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("caracal-cni starts");
        let mut input = process.stdin.take().expect("piped");
        input.write_all(stdin.as_bytes()).expect("written");
        drop(input);
        texts(process.wait_with_output().expect("it ends"))
    };
    let (exit, stdout, _) = plugin(&[("CNI_COMMAND", "VERSION")], r#"{"cniVersion": "1.0.0"}"#);
    assert_eq!(exit, 0);
    let printed: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(printed["cniVersion"], json!("1.0.0"));

    let add = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/proc/self/ns/net"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin"),
    ];
    let config = r#"{"cniVersion": "1.0.0", "name": "x", "socket": "/nonexistent/agent.sock"}"#;
    let (exit, stdout, stderr) = plugin(&add, config);
    let printed: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!((exit, &printed["code"]), (1, &json!(11)));
    assert_eq!(
        printed["msg"],
        json!("the agent does not answer on /nonexistent/agent.sock")
    );
    assert_eq!(stderr, "");
}
