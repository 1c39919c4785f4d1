//! BIRD 2.

use std::fs;
use std::path::Path;
use std::process::Command;

use agent::lab::Mounts;
use anyhow::Result;

use super::{Hops, Router, Setting, own_address};
use crate::site::Site;
use crate::speaker::ASN;

pub struct Bird;

impl Bird {
    fn birdc(site: &Site, words: &[&str]) -> Result<String> {
        let control = site.control().display().to_string();
        site.ask(&[&["birdc", "-s", &control], words].concat())
    }

    fn configuration_file(directory: &Path) -> std::path::PathBuf {
        directory.join("bird.conf")
    }
}

impl Router for Bird {
    fn name(&self) -> &'static str {
        "bird"
    }

    fn program(&self) -> &'static str {
        "bird"
    }

    fn has_fib(&self) -> bool {
        true
    }

    fn prepare(&self, directory: &Path, setting: &Setting, _: &mut Mounts) -> Result<()> {
        fs::write(Bird::configuration_file(directory), configuration(setting))?;
        Ok(())
    }

    fn commands(&self, directory: &Path, again: bool) -> Vec<Command> {
        let mut command = Command::new("bird");
        command.arg("-f");
        command.arg("-c").arg(Bird::configuration_file(directory));
        command.arg("-s").arg(directory.join("control"));
        if again {
            command.arg("-R");
        }
        vec![command]
    }

    fn announce(&self, _: &Site) -> Result<()> {
        Ok(())
    }

    fn announce_more(&self, site: &Site, prefix: &str) -> Result<()> {
        let file = Bird::configuration_file(site.directory());
        let text = fs::read_to_string(&file)?;
        let more = format!("{text}protocol static {{ ipv4; route {prefix} blackhole; }}\n");
        fs::write(&file, more)?;
        Bird::birdc(site, &["configure"])?;
        Ok(())
    }

    fn route(&self, site: &Site, prefix: &str) -> Result<String> {
        Bird::birdc(site, &["show", "route", prefix, "all"])
    }

    fn graceful_shutdown(&self) -> &'static str {
        "(65535,0)"
    }

    fn refresh(&self, site: &Site) -> Result<String> {
        Bird::birdc(site, &["reload", "in", "peer0"])
    }
}

fn configuration(setting: &Setting) -> String {
    let drains = if setting.drains {
        "bgp_community.add((65535, 0)); "
    } else {
        ""
    };
    // A gateway of one's own is none to BIRD: routes to nowhere.
    let mut text = format!(
        "log stderr all;\nrouter id 192.0.2.2;\ngraceful restart wait 5;\n\
         protocol device {{}}\n\
         protocol direct {{ ipv4; ipv6; interface \"v0\"; }}\n\
         protocol static {{ ipv4; route 10.2.0.0/16 blackhole \
         {{ bgp_large_community.add((64512, 1, 2)); {drains}}}; }}\n\
         protocol static {{ ipv6; route 2001:db8:2::/48 blackhole {{ {drains}}}; }}\n\
         protocol kernel {{ graceful restart on; ipv4 {{ export where source = RTS_BGP; }}; }}\n"
    );
    let passive = if setting.dials { "off" } else { "on" };
    for (at, peer) in setting.peers.iter().enumerate() {
        let mut options = format!("passive {passive}; ");
        if setting.reflects {
            options += "rr client; ";
        }
        if let Some(password) = setting.password {
            options += &format!("password \"{password}\"; ");
        }
        if let Some(role) = setting.role {
            options += &format!("local role {role}; ");
        }
        match setting.hops {
            Hops::Unsaid => {}
            Hops::Secured => options += "direct; ttl security on; ",
            Hops::Many(hops) => options += &format!("multihop {hops}; "),
        }
        let mut channel = setting.max_prefixes.map_or(String::new(), |most| {
            format!("import limit {most} action disable; ")
        });
        if setting.add_paths {
            channel += "add paths on; ";
        }
        let extended = if setting.extended_next_hop {
            "extended next hop on; "
        } else {
            ""
        };
        text += &format!(
            "protocol bgp peer{at} {{ local {own} as {own_asn}; neighbor {peer} as {ASN}; {options}\
             graceful restart on; enable extended messages on; \
             connect delay time 1; connect retry time 1; error wait time 1, 1; \
             ipv4 {{ import all; export where source ~ [RTS_STATIC, RTS_BGP]; {channel}{extended}}}; \
             ipv6 {{ import all; export where source ~ [RTS_STATIC, RTS_BGP]; {channel}}}; }}\n",
            own = own_address(peer),
            own_asn = setting.asn(),
        );
    }
    text
}
