//! BIRD 2.

use std::fs;
use std::path::Path;
use std::process::Command;

use agent::lab::Mounts;
use anyhow::Result;

use super::{PEERS, Router, Setting};
use crate::site::Site;

pub struct Bird;

impl Router for Bird {
    fn name(&self) -> &'static str {
        "bird"
    }

    fn program(&self) -> &'static str {
        "bird"
    }

    fn prepare(&self, directory: &Path, setting: Setting, _: &mut Mounts) -> Result<()> {
        let mut text = "log stderr all;\nrouter id 192.0.2.2;\ngraceful restart wait 5;\n\
             protocol device {}\n\
             protocol direct { ipv4; ipv6; }\n\
             protocol static { ipv4; route 10.2.0.0/16 via 192.0.2.2 \
             { bgp_large_community.add((64512, 1, 2)); }; }\n\
             protocol static { ipv6; route 2001:db8:2::/48 via 2001:db8::2; }\n\
             protocol kernel { ipv4 { export none; }; }\n"
            .to_owned();
        for (at, peer) in PEERS.iter().enumerate() {
            let client = if setting.reflects { "rr client; " } else { "" };
            let passive = if setting.dials { "off" } else { "on" };
            text += &format!(
                "protocol bgp peer{at} {{ local 192.0.2.2 as 64512; neighbor {peer} as 64512; {client}\
                 passive {passive}; graceful restart on; connect delay time 1; connect retry time 1; \
                 error wait time 1, 1; \
                 ipv4 {{ import all; export where source ~ [RTS_STATIC, RTS_BGP]; }}; \
                 ipv6 {{ import all; export where source ~ [RTS_STATIC, RTS_BGP]; }}; }}\n"
            );
        }
        // A gateway of one's own is none to BIRD: routes to nowhere, with the next hop set.
        let text = text
            .replace("via 192.0.2.2 {", "blackhole {")
            .replace("via 2001:db8::2;", "blackhole;");
        fs::write(directory.join("bird.conf"), text)?;
        Ok(())
    }

    fn commands(&self, directory: &Path, again: bool) -> Vec<Command> {
        let mut command = Command::new("bird");
        command.arg("-f").arg("-c").arg(directory.join("bird.conf"));
        command.arg("-s").arg(directory.join("control"));
        if again {
            command.arg("-R");
        }
        vec![command]
    }

    fn announce(&self, _: &Site) -> Result<()> {
        Ok(())
    }

    fn route(&self, site: &Site, prefix: &str) -> Result<String> {
        let control = site.control().display().to_string();
        site.ask(&["birdc", "-s", &control, "show", "route", prefix, "all"])
    }

    fn refresh(&self, site: &Site) -> Result<String> {
        let control = site.control().display().to_string();
        site.ask(&["birdc", "-s", &control, "reload", "in", "peer0"])
    }
}
