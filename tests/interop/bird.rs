//! BIRD 2 as a client of a rack's reflector, accepted from the reflector's range.

use std::fs;
use std::process::Command;

use agent::lab::topology::{NODES, Rack};
use agent::lab::{Scenario, machine};
use anyhow::{Result, ensure};
use harness::needs_root;
use harness::product::{TIMEOUT, eventually, lab, peers};

const NAME: &str = "bird";

#[test]
fn bird_learns_every_pod_cidr_from_the_reflector() -> Result<()> {
    needs_root!();
    let mut lab = lab(Scenario::Racks)?;
    let rack = Rack::A;
    let address = rack.host(50);
    let bird = lab.plug(&rack, NAME, address)?;
    let directory = lab.directory().join(NAME);
    let file = directory.join("bird.conf");
    fs::write(&file, configuration(&rack))?;
    let mut command = Command::new("bird");
    command.arg("-f").arg("-c").arg(&file);
    command.arg("-s").arg(directory.join("bird.ctl"));
    lab.start_other(NAME, &mut command)?;

    eventually("the pod routes in BIRD's kernel", TIMEOUT, || {
        let table = machine::routes(&bird)?;
        for node in &NODES {
            let gateway = if node.rack == rack {
                node.address
            } else {
                rack.router()
            };
            let held = table
                .get(&node.pod_cidr())
                .and_then(|route| route.gateway.clone());
            if held != Some(gateway.to_string()) {
                return Ok(Some(format!(
                    "{} via {held:?}\n{}",
                    node.pod_cidr(),
                    lab.last_lines(NAME)
                )));
            }
        }
        Ok(None)
    })?;
    let peers = peers(&lab, &rack.reflector_name())?;
    let shown = peers.iter().find(|peer| peer.peer == address);
    ensure!(
        shown.is_some_and(|peer| peer.source == "range"
            && peer.client
            && peer.state == "established"),
        "{shown:?}"
    );
    Ok(())
}

fn configuration(rack: &Rack) -> String {
    format!(
        "log stderr all;\n\
         router id {own};\n\
         protocol device {{}}\n\
         protocol direct {{ ipv4; }}\n\
         protocol static {{ ipv4; route {other} via {router}; }}\n\
         protocol kernel {{ ipv4 {{ export where source = RTS_BGP; }}; }}\n\
         protocol bgp reflector {{\n  \
           local {own} as {asn};\n  \
           neighbor {reflector} as {asn};\n  \
           connect delay time 1;\n  \
           ipv4 {{ import all; export none; }};\n\
         }}\n",
        own = rack.host(50),
        other = rack.other().subnet(),
        router = rack.router(),
        asn = rack.asn,
        reflector = rack.reflector(),
    )
}
