"""How each router is configured and driven. They are Debian's, started in a namespace of their own.

Peers, by the last part of their address: 10 to 14 and 16 to 18 take routes (14 several paths to a
prefix, 18 IPv4 ones with IPv6 next hops), 20 to 27 see OPENs of all kinds, 30 to 38 provoke NOTIFICATIONs.
"""

import os

OPENS = range(20, 28)
FAULTS = range(30, 38)
LIMITED = 38


def asn(number):
    return 65001 if number in (10, 11, 14) else 4200000017 if number == 17 else 65000 + number


class Router:
    """`directory` is the router's own; `run` runs a command in its namespace."""

    def __init__(self, directory, run, spawn):
        self.directory, self.run, self.spawn = directory, run, spawn

    def write(self, name, text):
        path = os.path.join(self.directory, name)
        with open(path, "w") as file:
            file.write(text)
        return path

    # Faults that end the router itself: not provoked.
    crashes_on = ()
    # RFC 8950.
    has_extended_next_hop = True

    def mounts(self):
        return []

    def after(self):
        """More commands whose effect is captured: [(what, peer number, command)]"""
        return []


class Frr(Router):
    package = "frr"

    def mounts(self):
        os.system("chown -R frr:frr %s && chmod 755 %s" % (self.directory, self.directory))
        return [(self.directory, "/etc/frr"), (self.directory, "/run/frr")]

    def configuration(self):
        lines = ["hostname frr", "router bgp 65001", " bgp router-id 192.0.2.1",
                 " no bgp ebgp-requires-policy", " no bgp default ipv4-unicast",
                 " bgp cluster-id 192.0.2.1",
                 " coalesce-time 50"]
        families = {4: [], 6: []}

        def peer(number, families_of=(4, 6), extra=(), client=False, v6=False, limit=None):
            name = ("2001:db8::%d" if v6 else "192.0.2.%d") % number
            lines.append(" neighbor %s remote-as %d" % (name, asn(number)))
            lines.append(" neighbor %s passive" % name)
            lines.append(" neighbor %s advertisement-interval 0" % name)
            lines.extend(" neighbor %s %s" % (name, line) for line in extra)
            for family in families_of:
                families[family].append("  neighbor %s activate" % name)
                families[family].append("  neighbor %s soft-reconfiguration inbound" % name)
                if client:
                    families[family].append("  neighbor %s route-reflector-client" % name)
                if number == 14:
                    families[family].append("  neighbor %s addpath-tx-all-paths" % name)
                if limit:
                    families[family].append("  neighbor %s maximum-prefix %d" % (name, limit))

        for number in (10, 11, 14):
            peer(number, client=True)
        for number in (12, 13, 17):
            peer(number)
        peer(16, (6,), v6=True)
        peer(18, v6=True, extra=["capability extended-nexthop"])
        variants = [((4,), []), ((6,), []), ((4, 6), ["timers 1 3"]), ((4,), ["timers 0 0"]),
                    ((4,), ["dont-capability-negotiate"]), ((4,), ["local-as 4200000001"]),
                    ((4,), ["local-role customer"]), ((4, 6), ["graceful-restart-helper"])]
        for number, (families_of, extra) in zip(OPENS, variants):
            peer(number, families_of, extra)
        for number in FAULTS:
            peer(number, (4,), ["timers 3 9"] if number == 37 else [])
        peer(LIMITED, (4,), limit=1)
        for family in (4, 6):
            lines.append(" address-family ipv%d unicast" % family)
            lines.extend(families[family])
            lines.append(" exit-address-family")
        return "\n".join(lines) + "\n"

    def start(self):
        self.write("bgpd.conf", self.configuration())
        self.write("zebra.conf", "hostname frr\n")
        self.write("vtysh.conf", "")
        os.system("chown -R frr:frr " + self.directory)
        for daemon in ("zebra", "bgpd"):
            self.spawn(["/usr/lib/frr/" + daemon, "-f", "/etc/frr/%s.conf" % daemon,
                        "-A", "127.0.0.1", "--log", "stdout", "-i", "/run/frr/%s.pid" % daemon])

    def vtysh(self, *commands):
        words = ["vtysh"]
        for command in commands:
            words += ["-c", command]
        return words

    def after(self):
        conf = ("conf t", "router bgp 65001")
        return [
            ("refresh asked of it", 11, None),
            ("clear in", 12, self.vtysh("clear bgp ipv4 unicast 192.0.2.12 soft in",
                                        "clear bgp ipv6 unicast 192.0.2.12 soft in")),
            ("shutdown with a message", 12,
             self.vtysh(*conf, "neighbor 192.0.2.12 shutdown message maintenance at noon")),
            ("shutdown", 13, self.vtysh(*conf, "neighbor 192.0.2.13 shutdown")),
            ("reset", 14, self.vtysh("clear bgp 192.0.2.14")),
            ("removed", 17, self.vtysh(*conf, "no neighbor 192.0.2.17")),
        ]


class Bird(Router):
    package = "bird2"

    def configuration(self):
        out = ["log stderr all;", "router id 192.0.2.1;", "protocol device {}",
               "template bgp common { local as 65001; passive on; error wait time 1, 1;",
               " error forget time 1; hold time 90; strict bind off; }"]

        def peer(number, families=(4, 6), extra="", channel="", v6=False):
            name = ("2001:db8::%d" if v6 else "192.0.2.%d") % number
            own = "2001:db8::1" if v6 else "192.0.2.1"
            out.append("protocol bgp p%d from common { local %s as 65001; neighbor %s as %d; %s"
                       % (number, own, name, asn(number), extra))
            for family in families:
                out.append(" ipv%d { import all; export all; %s };" % (family, channel))
            out.append("}")

        for number in (10, 11):
            peer(number, extra="rr client; rr cluster id 192.0.2.1; graceful restart on;"
                 " enable extended messages on;")
        peer(14, extra="rr client; rr cluster id 192.0.2.1;", channel="add paths on;")
        peer(12, extra="direct;")
        peer(13, extra="direct; enable as4 on;")
        peer(17, extra="direct;")
        peer(16, (6,), extra="direct;", v6=True)
        peer(18, extra="direct;", channel="extended next hop on;", v6=True)
        variants = [((4,), ""), ((6,), ""), ((4, 6), "hold time 3;"),
                    ((4,), "hold time 0; enable as4 off; enable route refresh off;"),
                    ((4,), "capabilities off;"),
                    ((4, 6), "long lived graceful restart on; graceful restart on;"
                     " graceful restart time 77; long lived stale time 3600;"),
                    ((4,), "local role customer;"),
                    ((4, 6), "enable extended messages on; advertise hostname on;")]
        for number, (families, extra) in zip(OPENS, variants):
            peer(number, families, extra)
        for number in FAULTS:
            peer(number, (4,), "hold time 9;" if number == 37 else "")
        peer(LIMITED, (4,), channel="import limit 1 action disable;")
        return "\n".join(out) + "\n"

    def start(self):
        self.control = os.path.join(self.directory, "ctl")
        self.spawn(["bird", "-f", "-c", self.write("bird.conf", self.configuration()),
                    "-s", self.control])

    def birdc(self, *words):
        return ["birdc", "-s", self.control, *words]

    def after(self):
        return [
            ("refresh asked of it", 11, None),
            ("reload in", 12, self.birdc("reload", "in", "p12")),
            ("reload in", 11, self.birdc("reload", "in", "p11")),
            ("disabled with a message", 12, self.birdc("disable", "p12", '"maintenance at noon"')),
            ("disabled", 13, self.birdc("disable", "p13")),
            ("restarted", 14, self.birdc("restart", "p14")),
        ]


class Gobgp(Router):
    package = "gobgpd"
    crashes_on = ("a message of type 9",)

    def configuration(self):
        out = ["[global.config]", "as = 65001", 'router-id = "192.0.2.1"']

        def peer(number, families=(4, 6), config="", timers="", extra="", v6=False, restart=False,
                 long_lived=False, limit=None):
            name = ("2001:db8::%d" if v6 else "192.0.2.%d") % number
            out.extend(["[[neighbors]]", "[neighbors.config]", 'neighbor-address = "%s"' % name,
                        "peer-as = %d" % asn(number), config,
                        "[neighbors.transport.config]", "passive-mode = true",
                        "[neighbors.timers.config]", "idle-hold-time-after-reset = 1", timers, extra])
            if restart:
                out.extend(["[neighbors.graceful-restart.config]", "enabled = true",
                            "restart-time = 100", "notification-enabled = true",
                            "long-lived-enabled = %s" % str(long_lived).lower()])
            for family in families:
                out.extend(["[[neighbors.afi-safis]]", "[neighbors.afi-safis.config]",
                            'afi-safi-name = "ipv%d-unicast"' % family])
                if limit:
                    out.extend(["[neighbors.afi-safis.prefix-limit.config]",
                                "max-prefixes = %d" % limit])
                if restart:
                    out.extend(["[neighbors.afi-safis.mp-graceful-restart.config]",
                                "enabled = true"])
                if long_lived:
                    out.extend(["[neighbors.afi-safis.long-lived-graceful-restart.config]",
                                "enabled = true", "restart-time = 3600"])
                if number == 14:
                    out.extend(["[neighbors.afi-safis.add-paths.config]", "receive = true",
                                "send-max = 8"])

        client = ("[neighbors.route-reflector.config]\nroute-reflector-client = true\n"
                  'route-reflector-cluster-id = "192.0.2.1"')
        for number in (10, 11, 14):
            peer(number, extra=client, restart=number == 11)
        for number in (12, 13, 17):
            peer(number)
        # It offers IPv6 next hops wherever IPv4 is carried over IPv6.
        peer(18, v6=True)
        peer(16, (6,), v6=True)
        variants = [dict(families=(4,)), dict(families=(6,)), dict(timers="hold-time = 3"),
                    dict(timers="hold-time = 1800"), dict(config="local-as = 65099"),
                    dict(config="local-as = 4200000001"), dict(restart=True, long_lived=True),
                    dict(extra="[neighbors.ebgp-multihop.config]\nenabled = true")]
        for number, variant in zip(OPENS, variants):
            peer(number, **variant)
        for number in FAULTS:
            peer(number, (4,), timers="hold-time = 9" if number == 37 else "")
        peer(LIMITED, (4,), limit=1)
        return "\n".join(line for line in out if line) + "\n"

    def start(self):
        path = self.write("gobgpd.toml", self.configuration())
        self.spawn(["gobgpd", "-f", path, "-t", "toml", "--log-plain"])

    def after(self):
        gobgp = lambda number, *words: ["gobgp", "neighbor", "192.0.2.%d" % number, *words]
        return [
            ("refresh asked of it", 11, None),
            ("softresetin", 12, gobgp(12, "softresetin")),
            ("disabled with a message", 12, gobgp(12, "disable", "maintenance at noon")),
            ("shutdown with a message", 13, gobgp(13, "shutdown", "bye")),
            ("reset", 14, gobgp(14, "reset")),
        ]


class Openbgpd(Router):
    package = "openbgpd"
    has_extended_next_hop = False

    def mounts(self):
        # Where its processes change their root to.
        empty = os.path.join(self.directory, "empty")
        os.mkdir(empty, 0o755)
        return [(empty, "/run/openbgpd")]

    def configuration(self):
        self.control = os.path.join(self.directory, "bgpd.sock")
        out = ["AS 65001", "router-id 192.0.2.1", 'socket "%s"' % self.control,
               "fib-update no", "listen on 192.0.2.1", "listen on 2001:db8::1",
               "reject as-set no", "nexthop qualify via default"]

        def peer(number, extra=(), v6=False):
            name = ("2001:db8::%d" if v6 else "192.0.2.%d") % number
            own = "2001:db8::1" if v6 else "192.0.2.1"
            out.extend(["neighbor %s {" % name, " remote-as %d" % asn(number), " passive",
                        " local-address %s" % own])
            out.extend(" " + line for line in extra)
            out.append("}")

        both = ["announce IPv4 unicast", "announce IPv6 unicast"]
        for number in (10, 11, 14):
            peer(number, both + ["route-reflector 192.0.2.1"] + (
                ["announce add-path send all", "announce add-path recv yes"] if number == 14
                else ["announce enhanced refresh yes"] if number == 11 else []))
        for number in (12, 13, 17):
            peer(number, both + ["enforce neighbor-as no"])
        peer(16, ["announce IPv4 none", "announce IPv6 unicast"], v6=True)
        variants = [["announce IPv4 unicast"], ["announce IPv4 none", "announce IPv6 unicast"],
                    both + ["holdtime 3"], ["announce as-4byte no", "announce refresh no"],
                    ["announce capabilities no"], ["announce restart no"],
                    ["announce policy customer"], both + ["announce enhanced refresh yes",
                     "announce add-path recv yes"]]
        for number, extra in zip(OPENS, variants):
            peer(number, extra)
        for number in FAULTS:
            peer(number, ["holdtime 9"] if number == 37 else [])
        peer(LIMITED, ["max-prefix 1"])
        out += ["allow from any", "allow to any"]
        return "\n".join(out) + "\n"

    def start(self):
        path = self.write("bgpd.conf", self.configuration())
        os.chmod(path, 0o600)
        self.spawn(["/usr/sbin/bgpd", "-d", "-f", path])

    def after(self):
        bgpctl = lambda *words: ["bgpctl", "-s", self.control, "neighbor", *words]
        return [
            ("refresh asked of it", 11, None),
            ("neighbor refresh", 12, bgpctl("192.0.2.12", "refresh")),
            ("down with a message", 12, bgpctl("192.0.2.12", "down", "maintenance at noon")),
            ("down", 13, bgpctl("192.0.2.13", "down")),
            ("clear", 14, bgpctl("192.0.2.14", "clear")),
        ]


ROUTERS = {"frr": Frr, "bird": Bird, "gobgp": Gobgp, "openbgpd": Openbgpd}
