"""What a BGP message means, read by rules of its own: nothing here comes from the product's decoder.

Also whether the product's encoder, which writes every message in one way only, can give the same
octets again, and if not, what differs.
"""

import ipaddress
import struct

MARKER = b"\xff" * 16
OPEN, UPDATE, NOTIFICATION, KEEPALIVE, REFRESH = 1, 2, 3, 4, 5
FAMILY = {(1, 1): "ipv4", (2, 1): "ipv6"}
SPECIFIED = {1: 0x40, 2: 0x40, 3: 0x40, 4: 0x80, 5: 0x40, 6: 0x40, 7: 0xC0, 8: 0xC0, 9: 0x80,
             10: 0x80, 14: 0x80, 15: 0x80, 16: 0xC0, 17: 0xC0, 18: 0xC0, 32: 0xC0, 35: 0xC0}


def ip(octets):
    address = ipaddress.ip_address(bytes(octets))
    mapped = getattr(address, "ipv4_mapped", None)
    return "::ffff:%s" % mapped if mapped else str(address)


def attribute(flags, code, value):
    if len(value) > 255:
        return struct.pack("!BBH", flags | 0x10, code, len(value)) + value
    return struct.pack("!BBB", flags & ~0x10, code, len(value)) + value


def prefixes(octets, family, add_path):
    found, size = [], 4 if family == "ipv4" else 16
    while octets:
        path_id = ""
        if add_path:
            path_id, octets = "%d@" % struct.unpack("!I", octets[:4]), octets[4:]
        bits, count = octets[0], (octets[0] + 7) // 8
        address = ip(octets[1:1 + count].ljust(size, b"\0"))
        network = ipaddress.ip_network("%s/%d" % (address, bits), strict=False)
        found.append(path_id + str(network))
        octets = octets[1 + count:]
    return found


def segments(octets, width):
    found = []
    while octets:
        kind, count = octets[0], octets[1]
        numbers = octets[2:2 + count * width]
        form = "!%d%s" % (count, "I" if width == 4 else "H")
        found.append((kind, list(struct.unpack(form, numbers))))
        octets = octets[2 + count * width:]
    return found


def path_text(path):
    marks = {1: "{%s}", 2: "%s", 3: "(%s)", 4: "[%s]"}
    return " ".join(marks[kind] % " ".join(map(str, numbers)) for kind, numbers in path)


def path_length(path):
    return sum(len(numbers) if kind == 2 else 1 if kind == 1 else 0 for kind, numbers in path)


def merge(path, as4):
    """RFC 6793 section 4.2.3, for paths that begin with sequences."""
    surplus = path_length(path) - path_length(as4)
    if surplus < 0:
        return path
    leading = []
    for kind, numbers in path:
        if surplus <= 0:
            break
        taken = numbers[:surplus] if kind == 2 else numbers
        surplus -= len(taken) if kind == 2 else 1
        leading.append((kind, taken))
    merged = leading + as4
    joined = []
    for kind, numbers in merged:
        if joined and joined[-1][0] == kind == 2 and len(joined[-1][1]) + len(numbers) <= 255:
            joined[-1] = (2, joined[-1][1] + numbers)
        else:
            joined.append((kind, numbers))
    return joined


class Update:
    def __init__(self, body, session):
        self.ebgp = "ebgp" in session
        self.width = 2 if "as2" in session else 4
        self.add_path = "addpath" in session
        length = struct.unpack("!H", body[:2])[0]
        self.withdrawn, rest = body[2:2 + length], body[2 + length:]
        length = struct.unpack("!H", rest[:2])[0]
        self.block, self.nlri = rest[2:2 + length], rest[2 + length:]
        self.attributes, block = [], self.block
        while block:
            flags, code = block[0], block[1]
            if flags & 0x10:
                size, at = struct.unpack("!H", block[2:4])[0], 4
            else:
                size, at = block[2], 3
            self.attributes.append((flags, code, block[at:at + size]))
            block = block[at + size:]
        self.by_code = {code: value for _, code, value in self.attributes}

    def signature(self):
        parts = [str(code) for code in sorted(self.by_code)]
        if 14 in self.by_code and self.mp_reach()[0] == "ipv4":
            parts.append("ipv4")
        return ",".join(parts + ["w"] * bool(self.withdrawn) + ["n"] * bool(self.nlri))

    def mp_reach(self):
        value = self.by_code[14]
        afi, safi, size = struct.unpack("!HBB", value[:4])
        return FAMILY[(afi, safi)], value[4:4 + size], value[5 + size:]

    def mp_unreach(self):
        value = self.by_code[15]
        return FAMILY[struct.unpack("!HB", value[:3])], value[3:]

    def discarded(self):
        codes = []
        for _, code, _ in self.attributes:
            if self.ebgp and code in (5, 9, 10) or self.width == 4 and code in (17, 18):
                codes.append(code)
        return codes

    def path(self):
        path = segments(self.by_code.get(2, b""), self.width)
        if self.width == 2 and 17 in self.by_code and not self.ignores_as4():
            path = merge(path, segments(self.by_code[17], 4))
        return path

    def ignores_as4(self):
        return 7 in self.by_code and 18 in self.by_code and self.by_code[7][:2] != b"\x5b\xa0"

    def aggregator(self):
        value = self.by_code[7]
        if self.width == 2 and 18 in self.by_code and not self.ignores_as4():
            value = self.by_code[18]
        number, address = value[:-4], value[-4:]
        return "%d@%s" % (int.from_bytes(number, "big"), ip(address))

    def properties(self):
        by_code, discarded = self.by_code, self.discarded()
        words = ["origin %s" % ["igp", "egp", "incomplete"][by_code[1][0]],
                 "path [%s]" % path_text(self.path())]
        number = lambda code: int.from_bytes(by_code[code], "big")
        items = lambda code, size: [by_code[code][at:at + size]
                                    for at in range(0, len(by_code[code]), size)]
        if 4 in by_code:
            words.append("med %d" % number(4))
        if 5 in by_code and 5 not in discarded:
            words.append("pref %d" % number(5))
        if 6 in by_code:
            words.append("atomic")
        if 7 in by_code:
            words.append("aggregator " + self.aggregator())
        if 8 in by_code:
            words.append("communities " + " ".join("%d:%d" % struct.unpack("!HH", c)
                                                   for c in items(8, 4)))
        if 9 in by_code and 9 not in discarded:
            words.append("originator " + ip(by_code[9]))
        if 10 in by_code and 10 not in discarded:
            words.append("clusters " + " ".join(map(ip, items(10, 4))))
        if 16 in by_code:
            words.append("extended " + " ".join(c.hex() for c in items(16, 8)))
        if 32 in by_code:
            words.append("large " + " ".join("%d:%d:%d" % struct.unpack("!III", c)
                                             for c in dict.fromkeys(items(32, 12))))
        if 35 in by_code:
            words.append("otc %d" % number(35))
        for flags, code, value in sorted(self.attributes, key=lambda a: a[1]):
            if code not in SPECIFIED and flags & 0xC0 == 0xC0:
                words.append("unknown %d=%s" % (code, value.hex()))
        return words

    def meaning(self):
        parts, codes = [], set(self.by_code)
        run = lambda what, family, octets: "%s %s %s" % (
            what, family, " ".join(prefixes(octets, family, self.add_path)))
        if self.withdrawn:
            parts.append(run("withdraw", "ipv4", self.withdrawn))
        if 15 in codes and self.mp_unreach()[1]:
            parts.append(run("withdraw", *self.mp_unreach()))
        if self.nlri:
            parts.append(run("announce", "ipv4", self.nlri) + " via " + ip(self.by_code[3]))
        if 14 in codes:
            family, hop, octets = self.mp_reach()
            via = ip(hop[:16] if len(hop) == 32 else hop)
            if len(hop) == 32 and hop[16:18] == b"\xfe\x80":
                via += "%" + ip(hop[16:])
            parts.append(run("announce", family, octets) + " via " + via)
        if self.nlri or 14 in codes:
            parts.append(", ".join(self.properties()))
            parts += ["discard %d" % code for code in self.discarded()]
        if not self.withdrawn and not self.nlri:
            if not codes:
                parts.append("end-of-rib ipv4")
            elif codes == {15} and not self.mp_unreach()[1]:
                parts.append("end-of-rib " + self.mp_unreach()[0])
        return "UPDATE " + "; ".join(parts)

    def differs(self):
        """Why the product's encoder would write other octets; empty if it would not."""
        reasons = []
        runs = [bool(self.withdrawn), bool(self.nlri), 14 in self.by_code,
                15 in self.by_code]
        if sum(runs) > 1:
            reasons.append("several runs of prefixes")
        if 14 in self.by_code and 3 in self.by_code:
            reasons.append("a NEXT_HOP beside MP_REACH_NLRI")
        if 14 in self.by_code:
            hop = self.mp_reach()[1]
            if len(hop) == 32 and hop[16:18] != b"\xfe\x80":
                reasons.append("a second next hop that is not link-local")
            if self.mp_reach()[0] == "ipv4" and len(hop) == 4:
                reasons.append("IPv4 with an IPv4 next hop in MP_REACH_NLRI")
        if 15 in self.by_code and self.mp_unreach()[0] == "ipv4":
            reasons.append("IPv4 in MP_UNREACH_NLRI")
        order = [code for _, code, _ in self.attributes]
        if order != sorted(order, key=lambda code: (code not in (14, 15), code)):
            reasons.append("order of attributes")
        for flags, code, value in self.attributes:
            if flags & 0x10 and len(value) < 256:
                reasons.append("longer form of a length")
            wanted = SPECIFIED.get(code)
            if wanted is None and flags & 0xC0 == 0x80:
                reasons.append("an attribute that is not passed on")
            elif wanted is None and not flags & 0x20:
                reasons.append("Partial is set on what we do not know")
            elif code in (17, 18) and flags & 0x20:
                reasons.append("Partial on what is written anew")
            elif wanted is not None and flags & 0x20 and wanted & 0xC0 != 0xC0:
                reasons.append("flags")
        if self.discarded():
            reasons.append("discarded attributes")
        if self.width == 2 and 17 in self.by_code:
            whole = self.path()
            if segments(self.by_code[17], 4) != whole:
                reasons.append("AS4_PATH without the part that AS_PATH says as well")
        return list(dict.fromkeys(reasons))


def open_parameters(body):
    """[(parameter type, value)], and whether lengths have two octets."""
    octets, long = body[10:], False
    if body[9] == 255 and octets and octets[0] == 255:
        octets, long = octets[3:], True
    found = []
    while octets:
        size = struct.unpack("!H", octets[1:3])[0] if long else octets[1]
        at = 3 if long else 2
        found.append((octets[0], octets[at:at + size]))
        octets = octets[at + size:]
    return found, long


def capabilities(body):
    found = []
    for kind, value in open_parameters(body)[0]:
        while kind == 2 and value:
            found.append((value[0], value[2:2 + value[1]]))
            value = value[2 + value[1]:]
    return found


def capability_text(code, value):
    entries = lambda form: [struct.unpack(form, value[at:at + struct.calcsize(form)])
                            for at in range(0, len(value), struct.calcsize(form))]
    slash = lambda rows: "".join(" " + "/".join(map(str, row)) for row in rows)
    if code == 1:
        return "mp %d/%d" % struct.unpack("!HxB", value)
    if code in (2, 6, 70):
        return {2: "refresh", 6: "extended-message", 70: "enhanced-refresh"}[code]
    if code == 5:
        return "extended-next-hop" + slash(entries("!HHH"))
    if code == 9:
        return "role %d" % value[0]
    if code == 64:
        flags = struct.unpack("!H", value[:2])[0]
        value = value[2:]
        words = ["restart %d" % (flags & 0xFFF)] + ["R"] * (flags >> 15) + ["N"] * (flags >> 14 & 1)
        for afi, safi, bits in entries("!HBB"):
            if (afi, safi) in FAMILY:
                words.append(FAMILY[(afi, safi)] + ("+F" if bits & 0x80 else ""))
        return " ".join(words)
    if code == 65:
        return "as4 %d" % struct.unpack("!I", value)
    if code == 69:
        return "add-path" + slash(entries("!HBB"))
    if code == 71:
        rows = [(afi, safi, flags, high << 16 | low)
                for afi, safi, flags, high, low in entries("!HBBBH")]
        return "long-lived" + slash(rows)
    if code == 73:
        host = value[1:1 + value[0]]
        domain = value[2 + len(host):]
        return "fqdn '%s' '%s'" % (host.decode(), domain.decode())
    return "unknown %d=%s" % (code, value.hex())


def open_meaning(body):
    _, asn, hold = struct.unpack("!BHH", body[:5])
    for code, value in capabilities(body):
        if code == 65:
            asn = struct.unpack("!I", value)[0]
    texts = [capability_text(code, value) for code, value in capabilities(body)]
    return "OPEN as %d, hold %d, id %s; %s" % (asn, hold, ip(body[5:9]), ", ".join(texts))


def open_differs(body):
    parameters, long = open_parameters(body)
    reasons = []
    if len(parameters) > 1:
        reasons.append("several parameters")
    if long and len(body) < 255:
        reasons.append("RFC 9072 without need")
    for code, value in capabilities(body):
        if code == 64:
            foreign = [value[at:at + 3] for at in range(2, len(value), 4)
                       if struct.unpack("!HB", value[at:at + 3]) not in FAMILY]
            if foreign:
                reasons.append("graceful restart of other families")
            if value[0] & 0x30 or any(value[at + 3] & 0x7F for at in range(2, len(value), 4)):
                reasons.append("reserved bits")
    return reasons


def refresh_meaning(body):
    afi, kind, safi = struct.unpack("!HBB", body[:4])
    return "REFRESH %s %s" % (FAMILY[(afi, safi)], ["request", "begin", "end"][kind])


def read(message, session):
    """(type, signature, meaning, why re-encoding differs) of a whole message."""
    kind, body = message[18], message[19:]
    if kind == OPEN:
        codes = ",".join(str(code) for code, _ in capabilities(body))
        return "OPEN", codes, open_meaning(body), open_differs(body)
    if kind == UPDATE:
        update = Update(body, session)
        return "UPDATE", update.signature(), update.meaning(), update.differs()
    if kind == NOTIFICATION:
        data = body[2:].hex() or "-"
        text = "NOTIFICATION %d/%d %s" % (body[0], body[1], data)
        return "NOTIFICATION", "%d/%d" % (body[0], body[1]), text, []
    if kind == REFRESH:
        return "REFRESH", body.hex(), refresh_meaning(body), []
    return "KEEPALIVE", "", "KEEPALIVE", []
