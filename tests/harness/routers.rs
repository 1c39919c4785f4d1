//! Routers by others, as Debian has them: how each is configured, started and asked.
//!
//! The router is 192.0.2.2 of AS 64512, with two internal peers of ours at 192.0.2.1 and 192.0.2.3,
//! both families in each session. It announces 10.2.0.0/16 and 2001:db8:2::/48, the first with the
//! large community 64512:1:2.

use std::fs;
use std::path::Path;
use std::process::Command;

use agent::lab::{Mounts, frr};
use anyhow::{Result, ensure};

use crate::site::Site;

/// What a test wants of the router beside the usual.
#[derive(Clone, Copy, Default)]
pub struct Setting {
    /// Our speakers are clients of it.
    pub reflects: bool,
    /// It dials as well as it listens.
    pub dials: bool,
}

pub trait Router: Sync {
    fn name(&self) -> &'static str;

    /// The program by which a missing package is noticed.
    fn program(&self) -> &'static str;

    /// Writes its configuration.
    fn prepare(&self, directory: &Path, setting: Setting, mounts: &mut Mounts) -> Result<()>;

    fn commands(&self, directory: &Path, again: bool) -> Vec<Command>;

    /// Makes it announce its routes, where its configuration does not.
    fn announce(&self, site: &Site) -> Result<()>;

    fn route(&self, site: &Site, prefix: &str) -> Result<String>;

    /// Has it ask 192.0.2.1 for all routes again.
    fn refresh(&self, site: &Site) -> Result<String>;

    /// Has it dial 192.0.2.1 at once, whatever it waits for after a session that ended.
    fn dial_now(&self, _: &Site) -> Result<()> {
        Ok(())
    }
}

pub struct Frr;
pub struct Bird;
pub struct Gobgp;
pub struct Openbgpd;

const PEERS: [&str; 2] = ["192.0.2.1", "192.0.2.3"];

impl Router for Frr {
    fn name(&self) -> &'static str {
        "frr"
    }

    fn program(&self) -> &'static str {
        "vtysh"
    }

    fn prepare(&self, directory: &Path, setting: Setting, mounts: &mut Mounts) -> Result<()> {
        let mut text = "router bgp 64512\n bgp router-id 192.0.2.2\n bgp graceful-restart\n \
                        bgp graceful-restart select-defer-time 5\n \
                        bgp graceful-restart preserve-fw-state\n \
                        no bgp network import-check\n"
            .to_owned();
        for peer in PEERS {
            text +=
                &format!(" neighbor {peer} remote-as 64512\n neighbor {peer} timers connect 1\n");
            if !setting.dials {
                text += &format!(" neighbor {peer} passive\n");
            }
        }
        for (family, network) in [
            ("ipv4", "10.2.0.0/16 route-map large"),
            ("ipv6", "2001:db8:2::/48 route-map hop"),
        ] {
            text += &format!(" address-family {family} unicast\n  network {network}\n");
            for peer in PEERS {
                text += &format!("  neighbor {peer} activate\n");
                if setting.reflects {
                    text += &format!("  neighbor {peer} route-reflector-client\n");
                }
            }
            text += " exit-address-family\n";
        }
        text += "route-map large permit 10\n set large-community 64512:1:2\n\
                 route-map hop permit 10\n set ipv6 next-hop global 2001:db8::2\n";
        frr::prepare_with(directory, &text, mounts)?;
        Ok(())
    }

    fn commands(&self, _: &Path, _: bool) -> Vec<Command> {
        let daemon = |name: &str| {
            let mut command = Command::new(format!("/usr/lib/frr/{name}"));
            command.args(["-f", &format!("/etc/frr/{name}.conf"), "-A", "127.0.0.1"]);
            command.args(["-i", &format!("/run/frr/{name}.pid"), "--log", "stdout"]);
            command
        };
        vec![daemon("zebra"), daemon("bgpd")]
    }

    fn announce(&self, _: &Site) -> Result<()> {
        Ok(())
    }

    fn route(&self, site: &Site, prefix: &str) -> Result<String> {
        let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
        let show = format!("show bgp {family} unicast {prefix}");
        site.ask(&["vtysh", "-c", &show])
    }

    fn refresh(&self, site: &Site) -> Result<String> {
        site.ask(&["vtysh", "-c", "clear bgp ipv4 unicast 192.0.2.1 soft in"])
    }
}

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

impl Router for Gobgp {
    fn name(&self) -> &'static str {
        "gobgp"
    }

    fn program(&self) -> &'static str {
        "gobgpd"
    }

    fn prepare(&self, directory: &Path, setting: Setting, _: &mut Mounts) -> Result<()> {
        let mut text = "[global.config]\nas = 64512\nrouter-id = \"192.0.2.2\"\n".to_owned();
        for peer in PEERS {
            text += &format!(
                "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{peer}\"\npeer-as = 64512\n\
                 [neighbors.transport.config]\npassive-mode = {}\n\
                 [neighbors.timers.config]\nconnect-retry = 1\nidle-hold-time-after-reset = 1\n\
                 [neighbors.graceful-restart.config]\nenabled = true\nrestart-time = 60\n\
                 deferral-time = 5\n",
                !setting.dials
            );
            if setting.reflects {
                text += "[neighbors.route-reflector.config]\nroute-reflector-client = true\n\
                         route-reflector-cluster-id = \"192.0.2.2\"\n";
            }
            for family in ["ipv4", "ipv6"] {
                text += &format!(
                    "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\n\
                     afi-safi-name = \"{family}-unicast\"\n\
                     [neighbors.afi-safis.mp-graceful-restart.config]\nenabled = true\n"
                );
            }
        }
        fs::write(directory.join("gobgpd.toml"), text)?;
        Ok(())
    }

    fn commands(&self, directory: &Path, again: bool) -> Vec<Command> {
        let mut command = Command::new("gobgpd");
        command.arg("-f").arg(directory.join("gobgpd.toml"));
        command.args(["-t", "toml", "--log-plain"]);
        if again {
            command.arg("-r");
        }
        vec![command]
    }

    fn announce(&self, site: &Site) -> Result<()> {
        for (family, words) in [
            (
                "ipv4",
                "10.2.0.0/16 nexthop 192.0.2.2 large-community 64512:1:2",
            ),
            ("ipv6", "2001:db8:2::/48 nexthop 2001:db8::2"),
        ] {
            let mut command = vec!["gobgp", "global", "rib", "add", "-a", family];
            command.extend(words.split(' '));
            let said = site.ask(&command)?;
            ensure!(said.is_empty(), "{said}");
        }
        Ok(())
    }

    fn route(&self, site: &Site, prefix: &str) -> Result<String> {
        let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
        site.ask(&["gobgp", "global", "rib", "-a", family, prefix])
    }

    fn refresh(&self, site: &Site) -> Result<String> {
        site.ask(&["gobgp", "neighbor", "192.0.2.1", "softresetin"])
    }
}

impl Router for Openbgpd {
    fn name(&self) -> &'static str {
        "openbgpd"
    }

    fn program(&self) -> &'static str {
        "bgpctl"
    }

    fn prepare(&self, directory: &Path, setting: Setting, mounts: &mut Mounts) -> Result<()> {
        let control = directory.join("control");
        let mut text = format!(
            "AS 64512\nrouter-id 192.0.2.2\nsocket \"{}\"\nfib-update no\n\
             listen on 192.0.2.2\nnexthop qualify via default\n\
             network 10.2.0.0/16 set {{ large-community 64512:1:2 nexthop 192.0.2.2 }}\n\
             network 2001:db8:2::/48 set nexthop 2001:db8::2\n",
            control.display()
        );
        for peer in PEERS {
            let client = if setting.reflects {
                "\n route-reflector"
            } else {
                ""
            };
            let passive = if setting.dials { "" } else { "\n passive" };
            text += &format!(
                "neighbor {peer} {{\n remote-as 64512\n local-address 192.0.2.2{client}{passive}\n \
                 announce IPv4 unicast\n announce IPv6 unicast\n}}\n"
            );
        }
        text += "allow from any\nallow to any\n";
        let file = directory.join("bgpd.conf");
        fs::write(&file, text)?;
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        // Where its processes change their root to.
        let empty = directory.join("empty");
        fs::create_dir_all(&empty)?;
        mounts.run.push((empty, "openbgpd".to_owned()));
        Ok(())
    }

    fn commands(&self, directory: &Path, _: bool) -> Vec<Command> {
        let mut command = Command::new("/usr/sbin/bgpd");
        command.arg("-d").arg("-f").arg(directory.join("bgpd.conf"));
        vec![command]
    }

    fn announce(&self, _: &Site) -> Result<()> {
        Ok(())
    }

    fn route(&self, site: &Site, prefix: &str) -> Result<String> {
        let control = site.control().display().to_string();
        site.ask(&["bgpctl", "-s", &control, "show", "rib", "detail", prefix])
    }

    fn refresh(&self, site: &Site) -> Result<String> {
        let control = site.control().display().to_string();
        site.ask(&["bgpctl", "-s", &control, "neighbor", "192.0.2.1", "refresh"])
    }

    /// It stays idle for 30 s, and twice as long each time.
    fn dial_now(&self, site: &Site) -> Result<()> {
        let control = site.control().display().to_string();
        site.ask(&["bgpctl", "-s", &control, "neighbor", "192.0.2.1", "clear"])?;
        Ok(())
    }
}
