"""ExaBGP only says what its configuration tells it, so its routes are written there."""


from collector import ADD_PATH, EXTENDED_NEXT_HOP, REFRESH, V4, V6, Peer, as4, wait_quiet
from routers import FAULTS, Router, asn

ROUTES = [
    "", "origin egp", "origin incomplete", "as-path [ 65100 ]", "as-path [ 65100 65101 65102 ]",
    "as-path [ 65100 ( 65200 65201 ) ]", "as-path [ 65100 4200000000 ]", "med 50", "med 0",
    "local-preference 200", "local-preference 0 med 7", "community [ 65001:7 65001:8 ]",
    "community [ no-export ]", "community [ 65535:0 ]", "large-community [ 65001:1:2 ]",
    "large-community [ 65001:1:2 4200000000:0:1 ]", "extended-community [ target:65001:7 ]",
    "extended-community [ target:65001:7 origin:65001:9 target:192.0.2.7:5 ]", "atomic-aggregate",
    "aggregator ( 65100:192.0.2.77 )", "atomic-aggregate aggregator ( 4200000005:192.0.2.78 )",
    "originator-id 192.0.2.99 cluster-list [ 198.51.100.1 198.51.100.2 ]",
    "attribute [ 0x63 0xc0 0x010203 ]", "attribute [ 0x63 0xe0 0x0405 ]",
    "community [ 65001:7 ] large-community [ 1:2:3 ] extended-community [ target:65001:7 ]",
    "as-path [ 65100 4200000000 ] med 10 atomic-aggregate aggregator ( 65100:192.0.2.79 )"
    " community [ 65001:1 ] large-community [ 1:2:3 ] extended-community [ target:65001:7 ]",
]
PEERS = [(11, "ibgp as4", V4 + V6 + REFRESH + as4(65001)),
         (12, "ebgp as4", V4 + V6 + REFRESH + as4(65012)),
         (13, "ebgp as2", V4 + V6 + REFRESH),
         (14, "ibgp as4 addpath", V4 + V6 + REFRESH + ADD_PATH + as4(65001)),
         (18, "ebgp as4", V4 + V6 + REFRESH + EXTENDED_NEXT_HOP + as4(65018))]


class Exabgp(Router):
    package = "exabgp"

    def configuration(self):
        variants = {20: "route-refresh enable;", 21: "graceful-restart 120; route-refresh enable;",
                    22: "add-path send/receive;", 23: "asn4 disable;", 24: "operational enable;",
                    25: "extended-message disable;", 26: "nexthop enable;",
                    27: "multi-session enable;", 14: "add-path send/receive; route-refresh enable;",
                    18: "nexthop enable; route-refresh enable;"}
        out = ["process control { run /bin/sh -c \"sleep 8; "
               "echo withdraw route 10.1.0.0/16 next-hop 192.0.2.1; "
               "echo withdraw route 2001:db8:100::/48 next-hop 2001:db8::1; "
               "echo announce route-refresh ipv4 unicast; "
               "echo announce route-refresh ipv6 unicast; "
               "echo announce route 10.99.0.0/16 next-hop 192.0.2.1; "
               "echo announce eor ipv4 unicast; sleep 100\"; encoder text; }"]
        for number in [11, 12, 13, 14, 18, *range(20, 28), *FAULTS]:
            out.append("neighbor 192.0.2.%d { local-address 192.0.2.1; router-id 192.0.2.1;"
                       " local-as 65001; peer-as %d; passive true; listen 179; hold-time %d;"
                       % (number, asn(number), 9 if number == FAULTS[-1] else 90))
            out.append(" family { ipv4 unicast; ipv6 unicast; }")
            out.append(" capability { %s }" % variants.get(number, "route-refresh enable;"))
            if number in (18, 26):
                out.append(" nexthop { ipv4 unicast ipv6; }")
            if number < 20:
                out.append(" api { processes [ control ]; }")
                out.append(" static {")
                hop = "2001:db8::1" if number == 18 else "192.0.2.1"
                # The path identifier, and a second path to every prefix.
                for path_id in ("0.0.0.7", "1.2.3.4") if number == 14 else ("",):
                    information = "path-information %s" % path_id if path_id else ""
                    for at, words in enumerate(ROUTES):
                        out.append("  route 10.%d.0.0/16 next-hop %s %s %s;"
                                   % (at + 1, hop, information, words))
                        out.append("  route 2001:db8:%x::/48 next-hop 2001:db8::1 %s %s;"
                                   % (at + 0x100, information, words))
                out.append(" }")
            out.append("}")
        return "\n".join(out) + "\n"

    def start(self):
        path = self.write("exabgp.conf", self.configuration())
        self.spawn(["env", "exabgp.daemon.user=root", "exabgp.log.destination=stdout",
                    "exabgp.api.cli=false", "exabgp.tcp.delay=0", "exabgp", path])

    @staticmethod
    def capture(site_class, rows_class, collect):
        site, rows = site_class(Exabgp), rows_class()
        site.router.start()
        names = {}
        for at, words in enumerate(ROUTES):
            for prefix in ("10.%d.0.0/16" % (at + 1), "2001:db8:%x::/48" % (at + 0x100)):
                names[prefix] = words or "plain"
        takers = [Peer(number, asn(number), octets, session) for number, session, octets in PEERS]
        for peer in takers:
            peer.establish()
        wait_quiet(takers, 10, 25)
        collect(rows, takers, "its configuration and commands", names)
        for number in range(20, 28):
            peer = Peer(number, asn(number), V4 + V6 + REFRESH + as4(asn(number)), "ebgp as4")
            peer.provoke(b"", seconds=3, after_open=True)
            collect(rows, [peer], "OPEN variant %d" % (number - 20), {})
        from capture import faults
        for number, (what, octets, after_open) in zip(FAULTS, faults()):
            peer = Peer(number, asn(number), V4 + as4(asn(number)), "ebgp as4",
                        hold=9 if number == FAULTS[-1] else 90)
            peer.provoke(octets(number), seconds=14, after_open=after_open)
            collect(rows, [peer], "provoked by " + what, {})
        site.children[-1].terminate()
        wait_quiet(takers, 2.0, 5)
        collect(rows, takers, "the router is ended", names)
        return site, rows
