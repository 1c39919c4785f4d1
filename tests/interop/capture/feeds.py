"""What is told to a router so that it says as many different UPDATEs as possible.

Every feed has prefixes of its own: by them its echo is known.
"""

import ipaddress
import struct

from reading import MARKER, attribute

NEXT_HOP = ipaddress.ip_address("192.0.2.10").packed
NEXT_HOP6 = ipaddress.ip_address("2001:db8::10").packed


def message(kind, body=b""):
    return MARKER + struct.pack("!HB", 19 + len(body), kind) + body


def nlri(text):
    network = ipaddress.ip_network(text)
    bits = network.prefixlen
    return bytes([bits]) + network.network_address.packed[:(bits + 7) // 8]


def path(*items):
    """Numbers are a sequence; a set of numbers is an AS_SET."""
    out, run = b"", []

    def flush():
        nonlocal out, run
        for at in range(0, len(run), 255):
            part = run[at:at + 255]
            out += bytes([2, len(part)]) + b"".join(struct.pack("!I", n) for n in part)
        run = []

    for item in items:
        if isinstance(item, frozenset):
            flush()
            out += bytes([1, len(item)]) + b"".join(struct.pack("!I", n) for n in sorted(item))
        else:
            run.append(item)
    flush()
    return out


def words(*numbers):
    return b"".join(struct.pack("!I", number) for number in numbers)


def community(*texts):
    pairs = [text.split(":") for text in texts]
    return b"".join(struct.pack("!HH", int(high), int(low)) for high, low in pairs)


RT = bytes.fromhex("0002fde900000007")
SOO = bytes.fromhex("0003fde900000009")
RT_ADDRESS = bytes.fromhex("0102c00002070005")
RT_LONG = bytes.fromhex("0202fa56ea000003")

# name -> {code: value} beside ORIGIN, AS_PATH, NEXT_HOP and LOCAL_PREF; "path" and "flags CODE" too.
SETS = {
    "plain": {},
    "egp": {1: b"\1"},
    "incomplete": {1: b"\2"},
    "path of two": {"path": (65100, 65101)},
    "path of five": {"path": (65100, 65101, 65102, 65103, 65104)},
    "path repeated": {"path": (65100, 65100, 65100)},
    "path with a set": {"path": (65100, frozenset([65200, 65201]))},
    "path of 4 octets": {"path": (65100, 4200000000)},
    "path of 4 octets only": {"path": (4200000000, 4200000001)},
    "path of 300": {"path": tuple(range(1000, 1300))},
    "med": {4: words(50)},
    "med 0": {4: words(0)},
    "med most": {4: words(0xFFFFFFFF)},
    "pref 200": {5: words(200)},
    "pref 0 and med": {5: words(0), 4: words(7)},
    "communities": {8: community("65001:7", "65001:8", "64512:1")},
    "no-export": {8: community("65535:65281")},
    "graceful shutdown": {8: community("65535:0", "65001:9")},
    "70 communities": {8: community(*["65001:%d" % n for n in range(70)])},
    "atomic": {6: b""},
    "aggregator": {7: words(65100) + bytes([192, 0, 2, 77]), "path": (65100,)},
    "aggregator of 4 octets": {6: b"", 7: words(4200000005) + bytes([192, 0, 2, 78]),
                               "path": (65100, 4200000005)},
    "extended": {16: RT},
    "extended of all kinds": {16: RT + SOO + RT_ADDRESS + RT_LONG},
    "large": {32: words(65001, 1, 2)},
    "large three": {32: words(65001, 1, 2) + words(4200000000, 0, 0xFFFFFFFF) + words(1, 1, 1)},
    "all communities": {8: community("65001:7"), 16: RT + SOO, 32: words(65001, 3, 4)},
    "reflected before": {9: bytes([192, 0, 2, 99]), 10: bytes([198, 51, 100, 1])},
    "reflected twice": {9: bytes([192, 0, 2, 99]), 10: bytes([198, 51, 100, 1, 198, 51, 100, 2])},
    "unknown": {99: b"\1\2\3"},
    "unknown long": {200: bytes(range(256)) + b"end"},
    "unknown partial": {99: b"\4\5", "flags 99": 0xE0},
    "unknown not transitive": {98: b"\1", "flags 98": 0x80},
    "two unknown": {99: b"\6", 201: b"\7"},
    "otc": {35: words(65100), "path": (65100,)},
    "everything": {1: b"\2", "path": (65100, 4200000000, frozenset([65200, 65201])), 4: words(10),
                   5: words(150), 6: b"", 7: words(65100) + bytes([192, 0, 2, 79]),
                   8: community("65001:1"), 16: RT, 32: words(1, 2, 3), 99: b"\x0a"},
}

MANY4 = ["172.16.0.0/12", "172.16.0.0/13", "172.17.128.0/17", "172.18.3.0/24", "172.18.4.0/25",
         "172.18.4.192/26", "172.18.5.1/32", "172.18.5.2/31", "128.0.0.0/1"]
MANY6 = ["2001:db8:ff00::/40", "2001:db8:ff01::/48", "2001:db8:ff02:8000::/49",
         "2001:db8:ff03:1::/64", "2001:db8:ff04::1/128", "2001:db8:ff05::/127", "3fff::/20"]


def feeds():
    """[(name, family, [prefixes], set name)]"""
    out = []
    for at, name in enumerate(SETS):
        out.append((name, 4, ["10.%d.0.0/16" % (at + 1)], name))
        out.append((name + " v6", 6, ["2001:db8:%x::/48" % (at + 0x100)], name))
    out.append(("lengths", 4, MANY4, "communities"))
    out.append(("lengths v6", 6, MANY6, "communities"))
    out.append(("default", 4, ["0.0.0.0/0"], "med"))
    out.append(("default v6", 6, ["::/0"], "med"))
    out.append(("hundred", 4, ["100.64.%d.0/24" % n for n in range(100)], "pref 200"))
    out.append(("hundred v6", 6, ["3fff:%x::/32" % n for n in range(100)], "pref 200"))
    return out


def attributes(name, family):
    given = SETS[name]
    values = {1: b"\0", 2: path(*given.get("path", ())), 5: words(100)}
    if family == 4:
        values[3] = NEXT_HOP
    values.update({code: value for code, value in given.items() if isinstance(code, int)})
    flags = {1: 0x40, 2: 0x40, 3: 0x40, 4: 0x80, 5: 0x40, 6: 0x40, 9: 0x80, 10: 0x80}
    out = b""
    for code in sorted(values):
        out += attribute(given.get("flags %d" % code, flags.get(code, 0xC0)), code, values[code])
    return out


def announce(feed):
    name, family, prefixes, set_name = feed
    block, run = attributes(set_name, family), b"".join(map(nlri, prefixes))
    if family == 6:
        reach = struct.pack("!HBB", 2, 1, 16) + NEXT_HOP6 + b"\0" + run
        block, run = attribute(0x80, 14, reach) + block, b""
    return message(2, struct.pack("!HH", 0, len(block)) + block + run)


def withdraw(feed):
    _, family, prefixes, _ = feed
    run = b"".join(map(nlri, prefixes))
    if family == 6:
        block = attribute(0x80, 15, struct.pack("!HB", 2, 1) + run)
        return message(2, struct.pack("!HH", 0, len(block)) + block)
    return message(2, struct.pack("!H", len(run)) + run + b"\0\0")
