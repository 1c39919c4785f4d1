"""A peer that says what it is told and keeps every message it hears."""

import socket
import struct
import threading
import time

from feeds import message
from reading import KEEPALIVE, NOTIFICATION, OPEN


def capability(code, value=b""):
    return bytes([code, len(value)]) + value


V4, V6 = capability(1, b"\0\1\0\1"), capability(1, b"\0\2\0\1")
REFRESH = capability(2)
ENHANCED = capability(70)
EXTENDED_MESSAGE = capability(6)
ADD_PATH = capability(69, b"\0\1\1\3\0\2\1\3")
EXTENDED_NEXT_HOP = capability(5, b"\0\1\0\1\0\2")
RESTART = capability(64, b"\0\x78\0\1\1\x80\0\2\1\x80")


def as4(asn):
    return capability(65, struct.pack("!I", asn))


def open_message(asn, router_id, capabilities, hold=90, version=4):
    parameters = bytes([2, len(capabilities)]) + capabilities if capabilities else b""
    short = asn if asn < 65536 else 23456
    fixed = struct.pack("!BHH4sB", version, short, hold, bytes(router_id), len(parameters))
    return message(OPEN, fixed + parameters)


class Peer:
    """`number` is the last part of its addresses; it dials the router."""

    def __init__(self, number, asn, capabilities, session, v6=False, hold=90):
        self.number, self.asn, self.session = number, asn, session
        self.capabilities, self.v6, self.hold = capabilities, v6, hold
        self.messages, self.heard, self.socket = [], time.monotonic(), None
        self.lock = threading.Lock()

    def address(self):
        return ("2001:db8::%d" if self.v6 else "192.0.2.%d") % self.number

    def dial(self, deadline):
        """A connection, however often it takes."""
        family = socket.AF_INET6 if self.v6 else socket.AF_INET
        router = "2001:db8::1" if self.v6 else "192.0.2.1"
        while True:
            made = socket.socket(family, socket.SOCK_STREAM)
            made.settimeout(3)
            try:
                made.bind((self.address(), 0))
                made.connect((router, 179))
                return made
            except OSError:
                made.close()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def frames(self, made, deadline=None):
        buffer = b""
        made.settimeout(0.3)
        while deadline is None or time.monotonic() < deadline:
            while len(buffer) >= 19:
                size = struct.unpack("!H", buffer[16:18])[0]
                if len(buffer) < size:
                    break
                yield buffer[:size]
                buffer = buffer[size:]
            try:
                octets = made.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                return
            if not octets:
                return
            buffer += octets

    def keep(self, frame):
        with self.lock:
            self.messages.append(frame)
            self.heard = time.monotonic()

    def our_open(self):
        return open_message(self.asn, [192, 0, 2, self.number], self.capabilities, self.hold)

    def establish(self, seconds=40):
        """Dials until the router's KEEPALIVE has come; then listens in a thread."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            made = self.dial(deadline)
            frames = self.frames(made)
            try:
                made.sendall(self.our_open())
                for frame in frames:
                    self.keep(frame)
                    if frame[18] == OPEN:
                        made.sendall(message(KEEPALIVE))
                    elif frame[18] == KEEPALIVE:
                        self.socket = made
                        threading.Thread(target=self.listen, args=(frames,), daemon=True).start()
                        threading.Thread(target=self.live, daemon=True).start()
                        return
                    elif frame[18] == NOTIFICATION:
                        break
            except OSError:
                pass
            made.close()
            time.sleep(0.3)
        raise SystemExit("no session of peer %d" % self.number)

    def listen(self, frames):
        for frame in frames:
            self.keep(frame)

    def live(self):
        while True:
            time.sleep(min(20, max(1, self.hold / 4)))
            try:
                self.say(message(KEEPALIVE))
            except OSError:
                return

    def say(self, octets):
        self.socket.sendall(octets)

    def provoke(self, octets, seconds=30, after_open=False):
        """What the router answers to `octets`, up to a NOTIFICATION."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                made = self.dial(deadline)
            except OSError:
                return
            try:
                sent = not after_open
                made.sendall(self.our_open() if after_open else octets)
                for frame in self.frames(made, deadline):
                    self.keep(frame)
                    if frame[18] == OPEN and after_open:
                        made.sendall(message(KEEPALIVE))
                    if frame[18] == KEEPALIVE and not sent:
                        made.sendall(octets)
                        sent = True
                    if frame[18] == NOTIFICATION:
                        made.close()
                        return
            except OSError:
                pass
            made.close()
            time.sleep(0.3)


def wait_quiet(peers, quiet=1.5, most=20):
    """Until nobody has heard anything for a while from now on."""
    begin = time.monotonic()
    while time.monotonic() < begin + most:
        if all(time.monotonic() - max(begin, peer.heard) > quiet for peer in peers):
            return
        time.sleep(0.1)
