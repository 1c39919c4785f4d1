//! The rules of kube-proxy, for services with one endpoint each: chains at the same hooks and
//! priorities, with the same marks and verdicts, as kube-proxy 1.34.4 was seen to write them.
//! kube-proxy itself would need a whole Kubernetes.

use std::net::Ipv4Addr;

/// A service of TCP port 80.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    pub name: &'static str,
    pub cluster_ip: Ipv4Addr,
    pub node_port: u16,
    pub endpoint: (Ipv4Addr, u16),
}

/// Workloads' addresses (`clusterCIDR`): others have their source translated.
const PODS: &str = "172.17.0.0/16";
const SERVICES: &str = "10.96.0.0/16";
/// A service without endpoints, of TCP port 80.
pub const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 14);

/// Jumps from the chains of iptables: made once, in front of what is there. Input of iptables-restore.
pub const JUMPS: &str = "\
*filter
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SERVICES - [0:0]
-I INPUT 1 -j KUBE-FIREWALL
-I INPUT 2 -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-I INPUT 3 -j KUBE-NODEPORTS
-I INPUT 4 -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES
-I FORWARD 1 -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-I FORWARD 2 -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD
-I FORWARD 3 -m conntrack --ctstate NEW -j KUBE-SERVICES
-I FORWARD 4 -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES
-I OUTPUT 1 -j KUBE-FIREWALL
-I OUTPUT 2 -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-I OUTPUT 3 -m conntrack --ctstate NEW -j KUBE-SERVICES
COMMIT
*nat
:KUBE-POSTROUTING - [0:0]
:KUBE-SERVICES - [0:0]
-I PREROUTING 1 -j KUBE-SERVICES
-I OUTPUT 1 -j KUBE-SERVICES
-I POSTROUTING 1 -j KUBE-POSTROUTING
COMMIT
";

/// What each synchronisation writes: the chains it names are emptied first. Input of
/// iptables-restore --noflush.
pub fn iptables(services: &[Service]) -> String {
    let mut text = format!(
        "\
*filter
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SERVICES - [0:0]
-A KUBE-FIREWALL -d 127.0.0.0/8 ! -s 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A KUBE-SERVICES -d {NOBODY} -p tcp --dport 80 -j REJECT
COMMIT
*nat
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SERVICES - [0:0]
"
    );
    for Service { name, .. } in services {
        for kind in ["EXT", "SVC", "SEP"] {
            text += &format!(":KUBE-{kind}-{name} - [0:0]\n");
        }
    }
    text += "\
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
";
    for service in services {
        let Service {
            name,
            cluster_ip,
            node_port,
            endpoint: (endpoint, port),
        } = service;
        text += &format!(
            "-A KUBE-SERVICES -d {cluster_ip} -p tcp --dport 80 -j KUBE-SVC-{name}\n\
             -A KUBE-NODEPORTS -p tcp --dport {node_port} -j KUBE-EXT-{name}\n\
             -A KUBE-EXT-{name} -j KUBE-MARK-MASQ\n\
             -A KUBE-EXT-{name} -j KUBE-SVC-{name}\n\
             -A KUBE-SVC-{name} ! -s {PODS} -d {cluster_ip} -p tcp --dport 80 -j KUBE-MARK-MASQ\n\
             -A KUBE-SVC-{name} -j KUBE-SEP-{name}\n\
             -A KUBE-SEP-{name} -s {endpoint} -j KUBE-MARK-MASQ\n\
             -A KUBE-SEP-{name} -p tcp -j DNAT --to-destination {endpoint}:{port}\n"
        );
    }
    text + "-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\nCOMMIT\n"
}

/// Its table in nftables, as after its start: the one before goes and a new one comes, at once.
/// `node` has the node ports.
pub fn nftables(services: &[Service], node: Ipv4Addr) -> String {
    let (mut chains, mut by_address, mut by_port, mut addresses) = (
        String::new(),
        Vec::new(),
        Vec::new(),
        vec![NOBODY.to_string()],
    );
    for service in services {
        let Service {
            name,
            cluster_ip,
            node_port,
            endpoint: (endpoint, port),
        } = service;
        addresses.push(cluster_ip.to_string());
        by_address.push(format!("{cluster_ip} . tcp . 80 : goto service-{name}"));
        by_port.push(format!("tcp . {node_port} : goto external-{name}"));
        chains += &format!(
            "chain endpoint-{name} {{
                ip saddr {endpoint} jump mark-for-masquerade
                meta l4proto tcp dnat to {endpoint}:{port}
            }}
            chain service-{name} {{
                ip daddr {cluster_ip} ip saddr != {PODS} jump mark-for-masquerade
                numgen random mod 1 vmap {{ 0 : goto endpoint-{name} }}
            }}
            chain external-{name} {{
                jump mark-for-masquerade
                goto service-{name}
            }}\n"
        );
    }
    let (addresses, by_address, by_port) = (
        addresses.join(", "),
        by_address.join(", "),
        by_port.join(", "),
    );
    format!(
        "add table ip kube-proxy
        delete table ip kube-proxy
        table ip kube-proxy {{
            chain mark-for-masquerade {{
                meta mark set meta mark or 0x4000
            }}
            {chains}
            set cluster-ips {{ type ipv4_addr; elements = {{ {addresses} }}; }}
            set nodeport-ips {{ type ipv4_addr; elements = {{ {node} }}; }}
            chain reject-chain {{
                reject
            }}
            map no-endpoint-services {{
                type ipv4_addr . inet_proto . inet_service : verdict
                elements = {{ {NOBODY} . tcp . 80 : goto reject-chain }}
            }}
            map service-ips {{
                type ipv4_addr . inet_proto . inet_service : verdict
                elements = {{ {by_address} }}
            }}
            map service-nodeports {{
                type inet_proto . inet_service : verdict
                elements = {{ {by_port} }}
            }}
            chain services {{
                ip daddr . meta l4proto . th dport vmap @service-ips
                ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
            }}
            chain masquerading {{
                meta mark and 0x4000 == 0 return
                meta mark set meta mark xor 0x4000
                masquerade fully-random
            }}
            chain cluster-ips-check {{
                ip daddr @cluster-ips reject
                ip daddr {{ {SERVICES} }} drop
            }}
            chain service-endpoints-check {{
                ip daddr . meta l4proto . th dport vmap @no-endpoint-services
            }}
            chain nat-prerouting {{
                type nat hook prerouting priority -100;
                jump services
            }}
            chain nat-output {{
                type nat hook output priority -100;
                jump services
            }}
            chain nat-postrouting {{
                type nat hook postrouting priority 100;
                jump masquerading
            }}
            chain filter-forward {{
                type filter hook forward priority 0;
                ct state new jump service-endpoints-check
                ct state new jump cluster-ips-check
            }}
            chain filter-input {{
                type filter hook input priority 0;
                ct state new jump service-endpoints-check
            }}
            chain filter-output {{
                type filter hook output priority 0;
                ct state new jump service-endpoints-check
                ct state new jump cluster-ips-check
            }}
        }}\n"
    )
}
