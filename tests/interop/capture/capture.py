#!/usr/bin/python3
"""Captures wire vectors: drives a router in a namespace and writes down what it says.

    sudo tests/interop/capture/capture.py frr|bird|gobgp|openbgpd|exabgp
    tests/interop/capture/capture.py --read-again FILE...

Writes bgp/tests/vectors/NAME.txt. Only what the router itself sent is kept, at most ten rows of one
type and attribute set. The meaning in a row is read by reading.py, not by the product. Everything
happens in namespaces that end with this program.
"""

import ctypes
import os
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True

from collector import (ADD_PATH, ENHANCED, EXTENDED_MESSAGE, EXTENDED_NEXT_HOP, REFRESH, RESTART, V4,
                       V6, Peer, as4, open_message, wait_quiet)
from exabgp import Exabgp
from feeds import announce, feeds, message, withdraw
from reading import UPDATE, Update, read
from routers import FAULTS, LIMITED, OPENS, ROUTERS, asn

VECTORS = os.path.join(HERE, "../../../bgp/tests/vectors")
MOST = 10
END_OF_RIBS = message(2, bytes(4)) + message(2, bytes.fromhex("00000006800f03000201"))


class Site:
    """Two namespaces with a cable: ours, and the router's."""

    def __init__(self, make):
        # PR_SET_PDEATHSIG: what was started ends with us.
        self.die = lambda: ctypes.CDLL(None).prctl(1, 9)
        self.directory = tempfile.mkdtemp(prefix="capture-")
        os.chmod(self.directory, 0o755)
        self.children = []
        self.holder = self.child(["unshare", "-n", "-m", "--propagation", "private",
                                  "sleep", "infinity"])
        own = os.readlink("/proc/self/ns/net")
        while os.readlink("/proc/%d/ns/net" % self.holder.pid) == own:
            time.sleep(0.01)
        self.sh("ip link set lo up")
        self.sh("ip link add v0 type veth peer name v1 netns %d" % self.holder.pid)
        self.sh("ip addr add 192.0.2.2/24 dev v0; ip addr add 2001:db8::2/64 dev v0 nodad")
        for number in range(10, 60):
            self.sh("ip addr add 192.0.2.%d/24 dev v0; ip addr add 2001:db8::%d/64 dev v0 nodad"
                    % (number, number))
        self.sh("ip link set v0 up")
        self.inside(["sh", "-c", "ip link set lo up; ip link set v1 up;"
                     "ip addr add 192.0.2.1/24 dev v1; ip addr add 2001:db8::1/64 dev v1 nodad;"
                     "ip route add default via 192.0.2.2"])
        self.router = make(self.directory, self.inside, self.spawn)
        self.inside(["mount", "-t", "tmpfs", "tmpfs", "/run"])
        for source, target in self.router.mounts():
            self.inside(["sh", "-c", "mkdir -p %s; mount --bind %s %s" % (target, source, target)])

    def sh(self, text):
        subprocess.run(text, shell=True, check=True)

    def child(self, words, **options):
        started = subprocess.Popen(words, preexec_fn=self.die, **options)
        self.children.append(started)
        return started

    def enter(self, words):
        return ["nsenter", "-t", str(self.holder.pid), "-n", "-m", *words]

    def inside(self, words):
        done = subprocess.run(self.enter(words), capture_output=True, text=True)
        if done.returncode:
            print(words, done.stdout, done.stderr, file=sys.stderr)
        return done.stdout

    def spawn(self, words, **options):
        log = open(os.path.join(self.directory, "log"), "a")
        return self.child(self.enter(words), stdout=log, stderr=log, **options)

    def end(self):
        for child in reversed(self.children):
            child.terminate()
        for child in self.children:
            try:
                child.wait(3)
            except subprocess.TimeoutExpired:
                child.kill()


class Rows:
    def __init__(self):
        self.rows, self.counts, self.seen = [], {}, set()

    def add(self, what, session, octets):
        try:
            kind, signature, meaning, differs = read(octets, session)
        except Exception as error:
            print("not read (%s): %s" % (error, octets.hex()), file=sys.stderr)
            return
        key = (kind, signature)
        if octets in self.seen or self.counts.get(key, 0) >= MOST or len(octets) > 2000:
            return
        if any(row[5] == meaning and row[3] == session for row in self.rows):
            return
        self.seen.add(octets)
        self.counts[key] = self.counts.get(key, 0) + 1
        self.rows.append((kind, signature, what, session, octets, meaning, differs))

    def write(self, path, sender):
        order = ["OPEN", "KEEPALIVE", "UPDATE", "REFRESH", "NOTIFICATION"]
        self.rows.sort(key=lambda row: order.index(row[0]))
        with open(path, "w") as file:
            file.write("# Sent by %s. Written by tests/interop/capture/capture.py.\n" % sender)
            for _, _, what, session, octets, meaning, differs in self.rows:
                again = "other octets: " + ", ".join(differs) if differs else "same octets"
                file.write("\nhow: %s\nsession: %s\nbytes: %s\nmeans: %s\nagain: %s\n"
                           % (what, session, octets.hex(), meaning, again))


def echo_name(octets, session, names):
    """The feed that a message is the echo of."""
    if octets[18] != UPDATE:
        return None
    update = Update(octets[19:], session)
    texts = update.meaning().replace("@", " ").split()
    return next((names[text] for text in texts if text in names), None)


def collect(rows, peers, what, names):
    for peer in peers:
        with peer.lock:
            heard, peer.messages = peer.messages, []
        for octets in heard:
            name = echo_name(octets, peer.session, names)
            rows.add("%s: %s" % (what, name) if name else what, peer.session, octets)


def faults():
    """(name, octets, whether they follow the OPENs)"""
    good = lambda n, **more: open_message(65000 + n, [192, 0, 2, n], V4 + as4(65000 + n), **more)
    origin, path, hop = (bytes.fromhex(h) for h in ("40010100", "400206020100000000", "400304c0000209"))
    update = lambda block, nlri=b"\x10\x0a\xc8": message(
        2, struct.pack("!HH", 0, len(block)) + block + nlri)
    return [
        ("OPEN of version 3", lambda n: good(n, version=3), False),
        ("OPEN of another AS", lambda n: open_message(65199, [192, 0, 2, n], V4), False),
        ("OPEN with a hold time of 1 s", lambda n: good(n, hold=1), False),
        ("a broken marker", lambda n: b"\0" + good(n)[1:], False),
        ("a message of type 9", lambda n: good(n)[:18] + b"\x09" + good(n)[19:], False),
        ("an unknown well-known attribute",
         lambda n: update(origin + b"\x40\x63\x01\x00" + hop), True),
        ("a prefix of 33 bits", lambda n: update(
            origin + bytes.fromhex("4002060201") + struct.pack("!I", 65000 + n) + hop,
            b"\x21\x0a\0\0\0\0"), True),
        ("silence for the hold time", lambda n: b"", True),
    ]


def capture(name):
    site = Site(ROUTERS[name])
    router, rows = site.router, Rows()
    router.start()
    both = V4 + V6 + REFRESH
    injector = Peer(10, 65001, both + as4(65001), "ibgp as4")
    takers = [
        Peer(11, 65001, both + ENHANCED + RESTART + EXTENDED_MESSAGE + as4(65001), "ibgp as4"),
        Peer(12, 65012, both + as4(65012), "ebgp as4"),
        Peer(13, 65013, both, "ebgp as2"),
        Peer(17, 4200000017, both + as4(4200000017), "ebgp as4"),
        Peer(14, 65001, both + ADD_PATH + as4(65001), "ibgp as4 addpath"),
        Peer(16, 65016, V6 + REFRESH + as4(65016), "ebgp as4", v6=True),
    ]
    if router.has_extended_next_hop:
        takers.append(Peer(18, 65018, both + EXTENDED_NEXT_HOP + as4(65018), "ebgp as4", v6=True))
    for peer in [injector] + takers:
        peer.establish()
        if not peer.v6:
            peer.say(END_OF_RIBS)
    wait_quiet(takers)
    collect(rows, [injector] + takers, "as the session begins", {})
    fed = feeds()
    names = {prefix: feed[0] for feed in fed for prefix in feed[2]}
    for feed in fed:
        injector.say(announce(feed))
    wait_quiet(takers)
    collect(rows, takers, "told by an internal client", names)
    takers[0].say(message(5, b"\0\1\0\1") + message(5, b"\0\2\0\1"))
    wait_quiet(takers)
    collect(rows, takers, "refresh asked of it", names)
    # Once all in one go, once one by one: routers pack them differently.
    for feed in fed:
        injector.say(withdraw(feed))
    wait_quiet(takers)
    collect(rows, takers, "withdrawn together", names)
    for feed in fed[:24]:
        injector.say(announce(feed))
        wait_quiet(takers, 0.15)
        injector.say(withdraw(feed))
        wait_quiet(takers, 0.15)
    wait_quiet(takers)
    collect(rows, takers, "withdrawn one by one", names)

    for number in OPENS:
        peer = Peer(number, asn(number), b"", "ebgp as4")
        peer.capabilities = V4 + V6 + REFRESH + as4(asn(number))
        peer.provoke(b"", seconds=4, after_open=True)
        collect(rows, [peer], "OPEN variant %d" % (number - OPENS[0]), {})
    for number, (what, octets, after_open) in zip(FAULTS, faults()):
        if what in router.crashes_on:
            continue
        peer = Peer(number, asn(number), V4 + as4(asn(number)), "ebgp as4",
                    hold=9 if number == FAULTS[-1] else 90)
        peer.provoke(octets(number), seconds=14, after_open=after_open)
        collect(rows, [peer], "provoked by " + what, {})
    limited = Peer(LIMITED, asn(LIMITED), V4 + as4(asn(LIMITED)), "ebgp as4")
    block = bytes.fromhex("400101004002060201") + struct.pack("!I", asn(LIMITED)) + \
        bytes.fromhex("400304c0000226")
    flood = message(2, struct.pack("!HH", 0, len(block)) + block + b"\x08\x0b\x08\x0c\x08\x0d")
    limited.provoke(flood, seconds=6, after_open=True)
    collect(rows, [limited], "provoked by more prefixes than admitted", {})

    for what, number, command in router.after():
        if command:
            peer = next(peer for peer in takers if peer.number == number)
            router.run(command)
            peer.heard = time.monotonic()
            wait_quiet([peer], 1.0)
            collect(rows, [peer], what, names)
    site.children[-1].terminate()
    wait_quiet(takers, 1.0, 5)
    collect(rows, [injector] + takers, "the router is ended", names)
    return site, rows


def read_again(path):
    """Meanings anew, from the octets of a file."""
    text = open(path).read()
    rows = Rows()
    for block in text.split("\n\n")[1:]:
        row = dict(line.split(": ", 1) for line in block.strip().split("\n"))
        rows.add(row["how"], row["session"], bytes.fromhex(row["bytes"]))
    rows.write(path, text.split("\n")[0][len("# Sent by "):].split(". Written")[0])


def main():
    if sys.argv[1:2] == ["--read-again"]:
        return [read_again(path) for path in sys.argv[2:]]
    name = sys.argv[1] if len(sys.argv) == 2 else sys.exit(__doc__)
    if os.environ.get("CAPTURE_INSIDE") != "1":
        os.environ["CAPTURE_INSIDE"] = "1"
        os.execvp("unshare", ["unshare", "-n", "-m", "--propagation", "private",
                              sys.executable, *sys.argv])
    ROUTERS["exabgp"] = Exabgp
    package = ROUTERS[name].package
    version = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package],
                             capture_output=True, text=True).stdout
    begin = time.monotonic()
    site, rows = Exabgp.capture(Site, Rows, collect) if name == "exabgp" else capture(name)
    site.end()
    rows.write(os.path.join(VECTORS, name + ".txt"), "%s %s (Debian)" % (package, version))
    print("%s: %d rows in %.0f s; log in %s/log" % (name, len(rows.rows), time.monotonic() - begin,
                                                    site.directory))


if __name__ == "__main__":
    main()
