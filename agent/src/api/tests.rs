//! The socket and the HTTP listener with canned answers, over real connections.

use std::fs;
use std::future::pending;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bgp::rib::adj_out::group::Encoded;
use bgp::speaker::counters::{Counters, GroupCounts, PeerCounters};
use bgp::speaker::status::{
    FamilyCounts, KernelStatus, PeerStatus, RouteStatus, UpdateErrorCounts, WhyStatus,
};
use bgp::speaker::traffic::FlowCounts;
use bgp::types::{Asn, Prefix};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, bind, listen,
    sendmsg, socket,
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::bounded::MAX_CONNECTIONS;
use super::client::{Client, ClientError};
use super::health;
use super::listener::{BindError, PrivateSocket};
use super::schema::{Drain, EndpointStatus, RouteQuery, Status, StoreError};
use super::serve::{ShuttingDown, Source, router, serve};

/// Answers what it holds; `None`: shutting down.
#[derive(Clone, Default)]
struct Canned {
    status: Option<Status>,
    peers: Vec<PeerStatus>,
    routes: Vec<RouteStatus>,
    counters: Counters,
}

impl Source for Canned {
    async fn status(&self) -> Result<Status, ShuttingDown> {
        self.status.clone().ok_or(ShuttingDown)
    }

    async fn peers(&self) -> Result<Vec<PeerStatus>, ShuttingDown> {
        Ok(self.peers.clone())
    }

    async fn routes(&self, query: RouteQuery) -> Result<Vec<RouteStatus>, ShuttingDown> {
        let mut routes = self.routes.clone();
        routes.retain(|route| query.prefix.is_none_or(|prefix| route.prefix == prefix));
        Ok(routes)
    }

    async fn why(&self, prefix: Prefix) -> Result<WhyStatus, ShuttingDown> {
        let mut paths = self.routes.clone();
        paths.retain(|route| route.prefix == prefix);
        let peers = Vec::new();
        Ok(WhyStatus { paths, peers })
    }

    async fn counters(&self) -> Result<Counters, ShuttingDown> {
        Ok(self.counters.clone())
    }

    async fn endpoints(&self) -> Result<Vec<EndpointStatus>, ShuttingDown> {
        Ok(Vec::new())
    }

    async fn drain(&self, asked: Drain) -> Result<Result<Drain, String>, ShuttingDown> {
        Ok(Ok(asked))
    }
}

fn route(prefix: &str, state: Option<&str>) -> RouteStatus {
    RouteStatus {
        prefix: prefix.parse().expect(prefix),
        peer: "192.0.2.1".parse().ok(),
        path_id: None,
        next_hop: "192.0.2.1".parse().expect("an address"),
        as_path: String::new(),
        origin: String::from("igp"),
        local_pref: None,
        med: None,
        communities: Vec::new(),
        large_communities: Vec::new(),
        only_to_customer: None,
        originator_id: None,
        cluster_list: Vec::new(),
        best: true,
        multipath: false,
        stale: false,
        rejected_reason: None,
        deciding_step: None,
        kernel: state.map(|state| KernelStatus {
            state: state.to_owned(),
            via: None,
            dev: None,
            onlink: None,
            reason: None,
        }),
    }
}

fn peer(state: &str) -> PeerStatus {
    PeerStatus {
        name: String::from("rr"),
        source: String::from("rack"),
        peer: "192.0.2.1".parse().expect("an address"),
        port: 179,
        local: None,
        peer_asn: Some(Asn(64512)),
        local_asn: Asn(64512),
        kind: String::from("ibgp"),
        client: false,
        state: state.to_owned(),
        since: String::from("2025-01-01T00:00:00Z"),
        router_id: None,
        hold_time_seconds: None,
        keepalive_seconds: None,
        families: Vec::new(),
        capabilities: Vec::new(),
        received: Default::default(),
        accepted: Default::default(),
        advertised: Default::default(),
        flaps: 0,
        last_error: None,
        last_connect_error: None,
        update_errors: Default::default(),
        last_malformed: None,
        max_prefixes: None,
        add_paths: Default::default(),
        role: None,
    }
}

fn counted(peer: &str, state: &'static str) -> PeerCounters {
    PeerCounters {
        peer: peer.to_owned(),
        state,
        received: FamilyCounts { ipv4: 5, ipv6: 1 },
        accepted: FamilyCounts { ipv4: 4, ipv6: 1 },
        is_lagging: false,
        flaps: 2,
        update_errors: UpdateErrorCounts {
            treat_as_withdraw: 3,
            attribute_discard: 0,
        },
        messages_in: FlowCounts {
            messages: 7,
            octets: 700,
        },
        messages_out: FlowCounts {
            messages: 8,
            octets: 800,
        },
    }
}

fn counters() -> Counters {
    let mut counters = Counters {
        peers: vec![
            counted("192.0.2.1", "established"),
            counted("192.0.2.2", "idle"),
            counted("192.0.2.3", "idle"),
        ],
        groups: vec![GroupCounts {
            group: 0,
            ebgp: false,
            client: true,
            members: 1,
            encoded: Encoded {
                messages: 6,
                octets: 600,
            },
        }],
        ..Counters::default()
    };
    // At most 0.1 ms, at most 5 ms, and above all bounds.
    for (bucket, count) in [(0, 1), (5, 2), (16, 1)] {
        counters.convergence.buckets[bucket] = count;
    }
    counters.convergence.sum = Duration::from_millis(12_500);
    counters
}

fn canned() -> Canned {
    let mut status = Status {
        node: String::from("a1"),
        version: String::from("1.2.3"),
        ready: true,
        ..Status::default()
    };
    status.store.synced = true;
    status.repairs.insert(String::from("route"), 3);
    Canned {
        status: Some(status),
        peers: vec![peer("established"), peer("idle"), peer("idle")],
        routes: vec![
            route("10.0.0.0/24", Some("installed")),
            route("10.0.1.0/24", Some("failed")),
            route("10.0.2.0/24", None),
        ],
        counters: counters(),
    }
}

struct Served {
    _runtime: Runtime,
    directory: tempfile::TempDir,
}

impl Served {
    fn start(source: Canned) -> Served {
        let directory = tempfile::tempdir().expect("a directory");
        let runtime = Runtime::new().expect("a runtime");
        let guard = runtime.enter();
        let socket = PrivateSocket::bind(&directory.path().join("agent.sock")).expect("bound");
        tokio::spawn(serve(socket, router(Arc::new(source)), pending()));
        drop(guard);
        Served {
            _runtime: runtime,
            directory,
        }
    }

    fn client(&self) -> Client {
        Client::new(&self.directory.path().join("agent.sock"))
    }
}

#[test]
fn socket_answers_as_documented() {
    let served = Served::start(canned());
    let client = served.client();
    let status: Value = client.get("/v1/status").expect("an answer");
    assert_eq!(
        (&status["node"], &status["tunnel"]),
        (&json!("a1"), &Value::Null)
    );
    let peers: Value = client.get("/v1/peers").expect("an answer");
    assert_eq!(peers["schemaVersion"], json!(1));
    assert_eq!(peers["items"][0]["type"], json!("ibgp"));
    for (target, count) in [
        ("/v1/routes", 3),
        ("/v1/routes?", 3),
        ("/v1/routes?prefix=10.0.1.0/24", 1),
        ("/v1/routes?prefix=2001:db8::/32&received=192.0.2.1", 0),
        ("/v1/endpoints", 0),
    ] {
        let answer: Value = client.get(target).expect(target);
        let items = answer["items"].as_array().expect("a list");
        assert_eq!(items.len(), count, "{target}");
    }
}

#[test]
fn why_answers_with_the_prefix_and_its_paths() {
    let served = Served::start(canned());
    let why: Value = served
        .client()
        .get("/v1/why?prefix=10.0.1.0/24")
        .expect("an answer");
    assert_eq!(
        (&why["schemaVersion"], &why["prefix"], &why["peers"]),
        (&json!(1), &json!("10.0.1.0/24"), &json!([]))
    );
    assert_eq!(why["paths"][0]["kernel"]["state"], json!("failed"));
}

#[test]
fn bad_questions_are_refused_with_the_reason() {
    let served = Served::start(Canned::default());
    for (target, status, text) in [
        ("/v1/nothing", 404, "no such path"),
        ("/v1/routes?prefix=10.0.0.1/24", 400, "10.0.0.0/24"),
        ("/v1/routes?received=rr", 400, "received"),
        ("/v1/why", 400, "prefix"),
        ("/v1/routes?prefx=10.0.0.0/24", 400, "prefx"),
        (
            "/v1/routes?received=192.0.2.1&advertised=192.0.2.1",
            400,
            "exclude",
        ),
        ("/v1/status", 503, "shutting down"),
    ] {
        match served.client().get::<Value>(target) {
            Err(ClientError::Refused {
                status: got,
                reason,
            }) => {
                assert_eq!(got, status, "{target}");
                assert!(reason.contains(text), "{target}: {reason}");
            }
            other => panic!("{target}: {other:?}"),
        }
    }
}

#[test]
fn client_tells_an_absent_server_from_a_silent_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("x.sock");
    let client = Client::new(&path).deadline(Duration::from_millis(50));
    let absent = client.get::<Value>("/v1/status");
    assert!(
        matches!(absent, Err(ClientError::Unreachable { .. })),
        "{absent:?}"
    );
    let listener = UnixListener::bind(&path).expect("bound");
    let silent = client.get::<Value>("/v1/status");
    assert!(
        matches!(silent, Err(ClientError::TimedOut { .. })),
        "{silent:?}"
    );
    drop(listener);
    let closed = client.get::<Value>("/v1/status");
    assert!(
        matches!(closed, Err(ClientError::Unreachable { .. })),
        "{closed:?}"
    );
}

#[tokio::test]
async fn socket_file_is_private_and_a_stale_one_is_replaced() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("run/agent.sock");
    let mode = |path: &Path| fs::metadata(path).expect("a file").permissions().mode() & 0o777;

    let first = PrivateSocket::bind(&path).expect("bound");
    assert_eq!(mode(&path), 0o600);
    let second = PrivateSocket::bind(&path);
    assert!(matches!(second, Err(BindError::InUse(_))), "{second:?}");
    drop(first);
    assert!(!path.exists());

    // A killed process leaves its file.
    drop(UnixListener::bind(&path).expect("bound"));
    drop(PrivateSocket::bind(&path).expect("a stale file is replaced"));
    fs::write(&path, "precious").expect("written");
    let other = PrivateSocket::bind(&path);
    assert!(matches!(other, Err(BindError::NotASocket(_))), "{other:?}");
    assert_eq!(fs::read_to_string(&path).expect("still there"), "precious");
}

#[test]
fn a_socket_that_nobody_accepts_on_is_in_use_and_not_waited_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("agent.sock");
    let family = AddressFamily::Unix;
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("made");
    let address = UnixAddr::new(&path).expect("short");
    bind(socket.as_raw_fd(), &address).expect("bound");
    listen(&socket, Backlog::new(0).expect("allowed")).expect("listens");
    let _waits = UnixStream::connect(&path).expect("into the backlog");
    let bound = PrivateSocket::bind(&path).expect_err("its owner may be only slow");
    assert!(matches!(bound, BindError::InUse(_)), "{bound}");
}

#[test]
fn descriptors_nobody_takes_are_closed() {
    let served = Served::start(canned());
    let mut stream = UnixStream::connect(served.client().socket()).expect("connected");
    let (first, first_end) = std::io::pipe().expect("a pipe");
    let (second, second_end) = std::io::pipe().expect("a pipe");
    let request = b"GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n";
    sendmsg::<()>(
        stream.as_raw_fd(),
        &[IoSlice::new(request)],
        &[ControlMessage::ScmRights(&[
            first_end.as_raw_fd(),
            second_end.as_raw_fd(),
        ])],
        MsgFlags::empty(),
        None,
    )
    .expect("sent");
    drop((first_end, second_end));
    stream.flush().expect("flushed");

    assert_ends(second);
    drop(stream);
    assert_ends(first);
}

/// A pipe ends when its last writer is closed.
fn assert_ends(mut pipe: std::io::PipeReader) {
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(pipe.read(&mut [0; 1])));
    let read = ended.recv_timeout(Duration::from_secs(10));
    let length = read.expect("a writer is left open").expect("read");
    assert_eq!(length, 0);
}

/// Serves HTTP until the runtime is dropped.
fn serve_http(source: Canned) -> (Runtime, SocketAddr) {
    let runtime = Runtime::new().expect("a runtime");
    let listener = runtime
        .block_on(health::bind("127.0.0.1:0".parse().expect("an address")))
        .expect("bound");
    let address = listener.local_addr().expect("an address");
    runtime.spawn(health::serve(listener, Arc::new(source), pending()));
    (runtime, address)
}

/// The status line's number and the body.
fn http_get(source: Canned, path: &str) -> (u16, String) {
    let (_runtime, address) = serve_http(source);
    get_from(address, path)
}

fn get_from(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("connected");
    let patience = Some(Duration::from_secs(10));
    stream.set_read_timeout(patience).expect("set");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    )
    .expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    (status.expect("a status"), body.to_owned())
}

#[test]
fn connections_that_get_no_answer_make_way_for_those_that_ask() {
    let (_runtime, address) = serve_http(canned());
    let connect = || TcpStream::connect(address).expect("connected");
    let mut scraper = connect();
    let mut slow: Vec<TcpStream> = Vec::new();
    for round in 0..2 * MAX_CONNECTIONS {
        let mut stream = connect();
        if round % 2 == 0 {
            stream.write_all(b"GET /livez HTTP/1.1\r\n").expect("sent");
        }
        slow.push(stream);
        if round % 50 == 0 {
            // Who is answered now and then stays.
            let request = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";
            scraper.write_all(request).expect("sent");
            assert_ne!(scraper.read(&mut [0; 4096]).expect("read"), 0, "{round}");
            assert_eq!(get_from(address, "/livez").0, 200, "{round}");
        }
    }
    let patience = Some(Duration::from_secs(10));
    slow[0].set_read_timeout(patience).expect("set");
    let first = slow[0].read(&mut [0; 1]);
    let is_timeout = |error: &std::io::Error| error.kind() == ErrorKind::WouldBlock;
    assert!(!first.is_err_and(|error| is_timeout(&error)), "it is over");
}

#[test]
fn connections_that_ask_nothing_make_way_on_the_socket_and_one_that_asks_stays() {
    let served = Served::start(canned());
    let path = served.directory.path().join("agent.sock");
    let patience = Some(Duration::from_secs(10));
    let connect = || {
        let stream = UnixStream::connect(&path).expect("connected");
        stream.set_read_timeout(patience).expect("set");
        stream
    };
    let mut asking = connect();
    asking
        .write_all(b"GET /v1/status HTTP/1.1\r\n")
        .expect("sent");
    let mut idle: Vec<UnixStream> = (1..MAX_CONNECTIONS).map(|_| connect()).collect();
    let status: Value = served.client().get("/v1/status").expect("an answer");
    assert_eq!(status["node"], json!("a1"));
    assert_eq!(idle[0].read(&mut [0; 1]).ok(), Some(0), "it is over");
    asking.write_all(b"host: x\r\n\r\n").expect("sent");
    let mut answer = [0; 12];
    asking.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200");
}

#[test]
fn liveness_never_depends_on_readiness() {
    let unready = Canned {
        status: Some(Status {
            store: super::schema::StoreStatus {
                synced: false,
                errors: vec![StoreError {
                    file: String::from("nodes.yaml"),
                    object: String::from("Node/a1"),
                    field: String::from("spec"),
                    reason: String::from("missing"),
                }],
            },
            ..Status::default()
        }),
        ..Canned::default()
    };
    let without_node = Canned {
        status: Some(Status {
            node: String::from("a1"),
            store: super::schema::StoreStatus {
                synced: true,
                errors: vec![StoreError {
                    file: String::from("-"),
                    object: String::from("Node/a1"),
                    field: String::from("metadata.name"),
                    reason: String::from("not in the store"),
                }],
            },
            ..Status::default()
        }),
        ..Canned::default()
    };
    for (name, source, ready) in [
        ("ready", canned(), (200, "ok\n")),
        (
            "a file that waits to be mended",
            unmended(),
            (
                200,
                "ok\nthe newest configuration is not in use; the one before goes on\n\
                 rack-a.yaml: BGPPeer/nodes: spec.asNumber: not a number\n",
            ),
        ),
        (
            "without its Node",
            without_node,
            (503, "Node/a1: not in the store\n"),
        ),
        (
            "not synced",
            unready,
            (
                503,
                "store not synced: nodes.yaml: Node/a1: spec: missing\n",
            ),
        ),
        ("going down", Canned::default(), (503, "shutting down\n")),
    ] {
        let live = http_get(source.clone(), "/livez");
        assert_eq!(live, (200, String::from("ok\n")), "{name}");
        let (status, text) = http_get(source, "/readyz");
        assert_eq!((status, text.as_str()), ready, "{name}");
    }
}

/// A reflector that goes on with the configuration of before.
fn unmended() -> Canned {
    let mut source = canned();
    let status = source.status.as_mut().expect("canned");
    status.store.synced = false;
    status.store.errors.push(StoreError {
        file: String::from("rack-a.yaml"),
        object: String::from("BGPPeer/nodes"),
        field: String::from("spec.asNumber"),
        reason: String::from("not a number"),
    });
    source
}

#[test]
fn metrics_say_whether_the_newest_configuration_is_in_use() {
    for (name, source, current, errors) in [("in use", canned(), 1, 0), ("bad", unmended(), 0, 1)] {
        let (_, text) = http_get(source, "/metrics");
        for line in [
            format!("caracal_config_current {current}"),
            format!("caracal_config_errors {errors}"),
        ] {
            assert!(text.lines().any(|one| one == line), "{name}: {text}");
        }
    }
}

#[test]
fn metrics_tell_of_each_peer_and_group_and_of_convergence() {
    let (_, text) = http_get(canned(), "/metrics");
    for line in [
        "caracal_bgp_peer_state{peer=\"192.0.2.1\"} 6",
        "caracal_bgp_peer_state{peer=\"192.0.2.3\"} 1",
        "caracal_bgp_peer_prefixes_received{peer=\"192.0.2.2\",family=\"ipv4\"} 5",
        "caracal_bgp_peer_prefixes_accepted{peer=\"192.0.2.2\",family=\"ipv6\"} 1",
        "caracal_bgp_peer_lagging{peer=\"192.0.2.2\"} 0",
        "caracal_bgp_peer_flaps_total{peer=\"192.0.2.1\"} 2",
        "caracal_bgp_peer_messages_total{peer=\"192.0.2.1\",direction=\"in\"} 7",
        "caracal_bgp_peer_bytes_total{peer=\"192.0.2.1\",direction=\"out\"} 800",
        "caracal_bgp_peer_update_errors_total{peer=\"192.0.2.1\",action=\"treatAsWithdraw\"} 3",
        "caracal_bgp_group_members{group=\"0\",type=\"ibgp\",client=\"true\"} 1",
        "caracal_bgp_group_messages_total{group=\"0\",type=\"ibgp\",client=\"true\"} 6",
        "caracal_bgp_group_bytes_total{group=\"0\",type=\"ibgp\",client=\"true\"} 600",
        "# TYPE caracal_bgp_convergence_seconds histogram",
        "caracal_bgp_convergence_seconds_sum 12.5",
        "caracal_bgp_convergence_seconds_count 4",
        "caracal_bgp_convergence_seconds_bucket{le=\"0.0001\"} 1",
        "caracal_bgp_convergence_seconds_bucket{le=\"0.0025\"} 1",
        "caracal_bgp_convergence_seconds_bucket{le=\"10.0\"} 3",
        "caracal_bgp_convergence_seconds_bucket{le=\"+Inf\"} 4",
    ] {
        assert!(
            text.lines().any(|one| one == line),
            "{line} is not in:\n{text}"
        );
    }
}

#[test]
fn metrics_have_one_sample_per_state() {
    let (status, text) = http_get(canned(), "/metrics");
    assert_eq!(status, 200);
    for line in [
        "caracal_build_info{version=\"1.2.3\"} 1",
        "caracal_ready 1",
        "caracal_bgp_peers{state=\"established\"} 1",
        "caracal_bgp_peers{state=\"idle\"} 2",
        "caracal_bgp_peers{state=\"openSent\"} 0",
        "caracal_routes{state=\"installed\"} 1",
        "caracal_routes{state=\"failed\"} 1",
        "caracal_routes{state=\"none\"} 1",
        "caracal_repairs_total{kind=\"route\"} 3",
        "caracal_store_errors 0",
        "# EOF",
    ] {
        assert!(
            text.lines().any(|one| one == line),
            "{line} is not in:\n{text}"
        );
    }
}
