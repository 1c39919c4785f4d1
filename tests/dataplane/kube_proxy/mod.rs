//! kube-proxy beside an agent, in both of its modes: services work over every path, and neither
//! touches the other's tables.

mod rules;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use agent::lab::topology::{NODES, ROUTER};
use agent::lab::{Lab, Namespace, Scenario, machine, process};
use anyhow::{Context, Result, ensure};
use harness::needs_root;
use harness::product::{TIMEOUT, eventually, kill, lab, program, status};
use harness::traffic::{IPIP, Stream, address, set_mode, wait_for_device};

use self::rules::Service;

/// The node whose kube-proxy translates.
const NODE: Ipv4Addr = Ipv4Addr::new(192, 168, 100, 100);
/// The address of its tunnel.
const TUNNEL: Ipv4Addr = Ipv4Addr::new(172, 17, 8, 1);
/// Where endpoints listen; streams have a port of their own.
const PORT: u16 = 7080;
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Iptables,
    Nftables,
}

fn feed(namespace: &Namespace, program: &str, arguments: &[&str], input: &str) -> Result<String> {
    let mut command = Command::new(program);
    let (command, timeout) = (command.args(arguments), machine::COMMAND_TIMEOUT);
    let said = process::output(Some(namespace), command, input, timeout)?;
    Ok(said)
}

impl Mode {
    fn start(self, namespace: &Namespace) -> Result<()> {
        if self == Mode::Iptables {
            feed(namespace, "iptables-nft-restore", &[], rules::JUMPS)?;
        }
        Ok(())
    }

    fn synchronise(
        self,
        namespace: &Namespace,
        services: &[Service],
        node: Ipv4Addr,
    ) -> Result<()> {
        match self {
            Mode::Iptables => {
                let text = rules::iptables(services);
                feed(namespace, "iptables-nft-restore", &["--noflush"], &text)?;
            }
            Mode::Nftables => {
                let text = rules::nftables(services, node);
                feed(namespace, "nft", &["-f", "-"], &text)?;
            }
        }
        Ok(())
    }

    fn tables(self) -> &'static [&'static str] {
        match self {
            Mode::Iptables => &["filter", "nat"],
            Mode::Nftables => &["kube-proxy"],
        }
    }
}

/// Tables of nftables without counters.
fn shown(namespace: &Namespace, family: &str, tables: &[&str]) -> Result<String> {
    let mut text = String::new();
    for table in tables {
        text += &feed(
            namespace,
            "nft",
            &["-s", "list", "table", family, table],
            "",
        )?;
    }
    Ok(text)
}

/// Answers every connection with the address it came from.
fn serve(lab: &Lab, workload: &str) -> Result<()> {
    let listens = (address(lab, workload)?, PORT);
    let namespace = lab.namespace(workload)?;
    let listener = namespace.enter(|| TcpListener::bind(listens))?;
    std::thread::spawn(move || {
        while let Ok((mut stream, peer)) = listener.accept() {
            // Whoever asked may have gone.
            let _ = stream.write_all(peer.ip().to_string().as_bytes());
        }
    });
    Ok(())
}

/// The source that a service's endpoint sees.
fn source_seen(from: &Namespace, target: SocketAddr) -> Result<IpAddr> {
    let stream = from.enter(|| TcpStream::connect_timeout(&target, PATIENCE));
    let mut stream = stream.with_context(|| format!("from {} to {target}", from.name))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text.parse()?)
}

/// Whoever asks a service without endpoints is told at once.
fn check_refused(lab: &Lab, from: &str) -> Result<()> {
    let target = SocketAddr::from((rules::NOBODY, 80));
    let namespace = lab.namespace(from)?;
    let asked = namespace.enter(|| {
        let connected = TcpStream::connect_timeout(&target, PATIENCE);
        Ok(connected.err().map(|error| error.kind()))
    })?;
    ensure!(
        asked == Some(ErrorKind::ConnectionRefused),
        "{from}: {asked:?}"
    );
    Ok(())
}

fn services(lab: &Lab) -> Result<[Service; 3]> {
    let service = |number: u8, name, workload| -> Result<Service> {
        Ok(Service {
            name,
            cluster_ip: Ipv4Addr::new(10, 96, 0, number),
            node_port: 30080 + u16::from(number),
            endpoint: (address(lab, workload)?, PORT),
        })
    };
    Ok([
        service(10, "near", "a2-1")?,
        service(11, "far", "b1-1")?,
        service(12, "local", "a1-2")?,
    ])
}

/// Of every way to a service, which source its endpoint sees.
fn check_services(lab: &Lab, services: &[Service; 3], host_to_near: Ipv4Addr) -> Result<()> {
    let workload = address(lab, "a1-1")?;
    let [near, far, local] = services;
    let cluster = |service: &Service| SocketAddr::from((service.cluster_ip, 80));
    let port = |service: &Service| SocketAddr::from((NODE, service.node_port));
    for (from, target, expected) in [
        // A workload keeps its address.
        ("a1-1", cluster(near), workload),
        ("a1-1", cluster(far), workload),
        ("a1-1", cluster(local), workload),
        // A host's address was chosen by the route to the service, before it was known whose
        // endpoint that is; beyond the tunnel it has to be the tunnel's.
        ("a1", cluster(near), host_to_near),
        ("a1", cluster(far), TUNNEL),
        // From outside, in at one node and on to another's workload.
        (ROUTER, port(far), TUNNEL),
        (ROUTER, port(near), host_to_near),
    ] {
        let seen = source_seen(lab.namespace(from)?, target)?;
        ensure!(
            seen == expected,
            "{from} to {target}: {seen}, not {expected}"
        );
    }
    for from in ["a1-1", "a1"] {
        check_refused(lab, from)?;
    }
    // To itself by way of the service: its own address would be answered without the node.
    let seen = source_seen(lab.namespace("a1-2")?, cluster(local))?;
    ensure!(seen != local.endpoint.0, "{seen}");
    Ok(())
}

fn restart_agent(lab: &mut Lab) -> Result<()> {
    kill(&program(lab, "a1")?)?;
    lab.start_agent("a1")?;
    Ok(lab.wait_synced("a1")?)
}

fn beside(mode: Mode) -> Result<()> {
    let mut lab = lab(Scenario::Mesh)?;
    let a1 = lab.namespace("a1")?.clone();
    let services = services(&lab)?;
    for workload in ["a2-1", "b1-1", "a1-2"] {
        serve(&lab, workload)?;
    }
    let ours = shown(&a1, "inet", &["caracal"])?;
    let repaired = status(&lab, "a1")?.repairs;
    for node in &NODES {
        let namespace = lab.namespace(node.name)?;
        mode.start(namespace)?;
        mode.synchronise(namespace, &services, node.address)?;
    }
    let theirs = shown(&a1, "ip", mode.tables())?;

    check_services(&lab, &services, NODE).context("direct and IPIP")?;
    // A connection to a service outlives a change of tunnel, although kube-proxy drops what
    // connection tracking calls invalid.
    let far = SocketAddr::from((services[1].cluster_ip, 80));
    let stream_service = [Service {
        endpoint: (services[1].endpoint.0, harness::traffic::PORT),
        ..services[1]
    }];
    mode.synchronise(&a1, &stream_service, NODE)?;
    let stream = Stream::start_to(&lab, "a1-1", "b1-1", far)?;
    mode.synchronise(&a1, &services, NODE)?;
    set_mode(&lab, "vxlanMode: CrossSubnet")?;
    let far_ways = [("a1", "172.17.10.0/24"), ("b1", "172.17.8.0/24")];
    wait_for_device(&lab, &far_ways, "caracal-vxlan")?;
    check_services(&lab, &services, NODE).context("direct and VXLAN")?;
    stream.wait_turns(stream.turns() + 5)?;
    stream.stop()?;

    // There through the tunnel, and back beside it.
    set_mode(&lab, "vxlanMode: Always")?;
    let near_ways = [("a1", "172.17.9.0/24"), ("a2", "172.17.8.0/24")];
    wait_for_device(&lab, &near_ways, "caracal-vxlan")?;
    let a2 = lab.namespace("a2")?.clone();
    let beside_tunnel = ["172.17.8.0/24", "via", "192.168.100.100", "metric", "9"];
    machine::ip(&a2, &[&["route", "add"], &beside_tunnel[..]].concat())?;
    check_services(&lab, &services, TUNNEL).context("VXLAN there and direct back")?;
    machine::ip(&a2, &[&["route", "del"], &beside_tunnel[..]].concat())?;

    // The mode back, our table is as before all of it.
    set_mode(&lab, "ipipMode: CrossSubnet")?;
    wait_for_device(&lab, &far_ways, IPIP)?;
    eventually("our table as it was", TIMEOUT, || {
        let now = shown(&a1, "inet", &["caracal"])?;
        Ok((now != ours).then_some(now))
    })?;
    let repairs = status(&lab, "a1")?.repairs;
    ensure!(repairs == repaired, "{repairs:?}, before {repaired:?}");
    let check = lab.caracal("a1", &["check"])?;
    ensure!(check.stdout == "nothing found\n", "{check:?}");

    // And theirs is left alone, come what may of ours.
    restart_agent(&mut lab)?;
    feed(&a1, "nft", &["delete", "table", "inet", "caracal"], "")?;
    eventually("our table again", TIMEOUT, || {
        Ok(shown(&a1, "inet", &["caracal"])
            .err()
            .map(|error| format!("{error:#}")))
    })?;
    lab.attach("a1", "late")?;
    let now = shown(&a1, "ip", mode.tables())?;
    ensure!(now == theirs, "{now}\nbefore:\n{theirs}");
    check_services(&lab, &services, NODE).context("after a restart")
}

#[test]
fn services_work_beside_kube_proxy_of_iptables() -> Result<()> {
    needs_root!();
    beside(Mode::Iptables)
}

#[test]
fn services_work_beside_kube_proxy_of_nftables() -> Result<()> {
    needs_root!();
    beside(Mode::Nftables)
}

#[test]
fn check_says_that_kube_proxy_does_not_open_a_firewall_for_workloads() -> Result<()> {
    needs_root!();
    let mut lab = lab(Scenario::Mesh)?;
    let a1 = lab.namespace("a1")?.clone();
    let services = services(&lab)?;
    serve(&lab, "b1-1")?;
    Mode::Iptables.start(&a1)?;
    Mode::Iptables.synchronise(&a1, &services, NODE)?;
    feed(&a1, "iptables-nft", &["-P", "FORWARD", "DROP"], "")?;
    restart_agent(&mut lab)?;
    eventually("the finding", TIMEOUT, || {
        let check = lab.caracal("a1", &["check"])?;
        let is_found = check.stdout.contains("chain ip filter FORWARD stops");
        Ok((!is_found).then(|| format!("{check:?}")))
    })?;
    // What kube-proxy marked passes, and its answers; what it only sent elsewhere does not.
    let [_, far, _] = &services;
    let seen = source_seen(lab.namespace(ROUTER)?, (NODE, far.node_port).into())?;
    ensure!(seen == TUNNEL, "{seen}");
    let seen = source_seen(lab.namespace("a1-1")?, (far.cluster_ip, 80).into());
    ensure!(seen.is_err(), "{seen:?}");
    Ok(())
}
