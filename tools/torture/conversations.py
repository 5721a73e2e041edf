# SPDX-License-Identifier: Apache-2.0
"""Open connections, and whether they live on: each is used both ways again and again, TCP and UDP.

A UDP flow's datagrams are observed one by one, each way. On a TCP connection one message at a time goes there and
back; TCP sends again what was dropped, so that only its arrival tells something, or its absence for a long time.
"""

from __future__ import annotations

import contextlib
import random
import select
import socket
import struct
import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from ringfence.host import netns
from tools.torture.messages import Kind, Observation
from tools.torture.places import Standing, ended, facing
from tools.torture.worlds import TCP_PORTS, UDP_PORTS

PAUSE = 0.1  # seconds between two exchanges
SILENCE = 0.5  # seconds after which a datagram counts as dropped
STANDSTILL = 5.0  # seconds without arrival, though TCP sends again, after which a connection counts as lost
_CROSSING = 0.05
_TURNOVER = 12.0  # seconds after which a connection is given up for another
_MESSAGE = struct.Struct("!cQI")
_THERE, _BACK = b"K", b"R"

Tell = Callable[[Observation], None]


@dataclass(slots=True)
class _Flow:
    """A connection's client side, and where it leads to."""

    number: int
    source: str
    destination: str
    protocol: str
    port: int
    client: socket.socket
    born: float
    due: float
    server: socket.socket | None = None  # TCP: once accepted
    serial: int = 0
    sent: dict[tuple[bytes, int], float] = field(default_factory=dict)  # UDP: on their way, by direction and serial
    waiting_since: float | None = None  # TCP: a message is on its way since
    leg: bytes = _THERE

    def seen(self, kind: Kind, began: float, until: float, *, passed: bool) -> Observation:
        return Observation(kind, self.source, self.destination, self.protocol, self.port, began, until, passed)


class Conversations:
    """As many open connections as wanted, half of them TCP."""

    def __init__(self, epoll: select.epoll, chance: random.Random, *, kept: int, tell: Tell) -> None:
        self._epoll = epoll
        self._random = chance
        self._kept = kept
        self._tell = tell
        self._flows: dict[int, _Flow] = {}
        self._by_descriptor: dict[int, _Flow] = {}
        self._expected: dict[tuple[str, int], _Flow] = {}  # TCP, by the client's address and port
        self._number = 0
        self._start_due = 0.0
        self.discarded = 0

    @property
    def count(self) -> int:
        """How many connections are open: TCP ones once both ends have them."""
        return sum(flow.protocol == "UDP" or flow.server is not None for flow in self._flows.values())

    def start(self, near: Standing, far: Standing, now: float) -> None:
        """Open a connection between two places, if there are too few."""
        if len(self._flows) >= self._kept or now < self._start_due:
            return
        self._start_due = now + 0.02
        source, destination = facing(near.place, far.place, self._random)
        self._number += 1
        try:
            if self._number % 2:
                self._open_tcp(near, source, destination, now)
            else:
                port = self._random.choice(UDP_PORTS)
                client = near.conversing(source, destination, port)
                self._register(_Flow(self._number, source, destination, "UDP", port, client, now, now), client)
        except OSError:
            self.discarded += 1

    def _open_tcp(self, near: Standing, source: str, destination: str, now: float) -> None:
        port = self._random.choice(TCP_PORTS)
        with netns.enter(near.place.netns):
            client = near.connecting(source)
        client.connect_ex((destination, port))
        flow = _Flow(self._number, source, destination, "TCP", port, client, now, now)
        self._expected[source, client.getsockname()[1]] = flow
        self._register(flow, client)

    def _register(self, flow: _Flow, client: socket.socket) -> None:
        self._flows[flow.number] = flow
        self._by_descriptor[client.fileno()] = flow
        self._epoll.register(client, select.EPOLLIN)

    def adopt(self, made: socket.socket, peer: tuple[str, int]) -> bool:
        """Take an accepted connection, if it is one of ours."""
        flow = self._expected.pop(peer, None)
        if flow is None or flow.server is not None:
            return False
        made.setblocking(False)
        flow.server = made
        self._by_descriptor[made.fileno()] = flow
        self._epoll.register(made, select.EPOLLIN)
        return True

    def tend(self, now: float) -> None:
        """Send what is due, and notice what does not arrive."""
        for flow in list(self._flows.values()):
            if flow.protocol == "UDP":
                self._tend_udp(flow, now)
            else:
                self._tend_tcp(flow, now)

    def _tend_udp(self, flow: _Flow, now: float) -> None:
        for key, sent in list(flow.sent.items()):
            if now - sent > SILENCE:
                del flow.sent[key]
                self._tell(flow.seen(Kind.KEPT_UDP, sent, sent + _CROSSING, passed=False))
        if now - flow.born > _TURNOVER and not flow.sent:
            self._close(flow)
        elif now >= flow.due and now - flow.born <= _TURNOVER:
            flow.due = now + PAUSE
            flow.serial += 1
            began = time.monotonic()
            with contextlib.suppress(OSError):
                flow.client.send(_MESSAGE.pack(_THERE, flow.number, flow.serial))
                flow.sent[_THERE, flow.serial] = began

    def _tend_tcp(self, flow: _Flow, now: float) -> None:
        if flow.server is None:
            if now - flow.born > SILENCE:  # never opened, which new connections are the measure of
                self._close(flow)
        elif flow.waiting_since is not None:
            if now - flow.waiting_since > STANDSTILL:
                self._tell(flow.seen(Kind.STUCK_TCP, flow.waiting_since, now, passed=False))
                self._close(flow)
        elif now - flow.born > _TURNOVER:
            self._close(flow)
        elif now >= flow.due:
            flow.due = now + PAUSE
            self._send(flow, flow.client, _THERE)

    def _send(self, flow: _Flow, end: socket.socket, leg: bytes) -> None:
        flow.leg = leg
        flow.waiting_since = time.monotonic()
        try:
            end.send(leg)
        except OSError:
            self._broken(flow)

    def handle(self, descriptor: int) -> None:
        """Hear what arrived."""
        flow = self._by_descriptor.get(descriptor)
        if flow is None:
            return
        if flow.protocol == "UDP":
            self._heard_udp(flow)
        elif descriptor == flow.client.fileno():
            self._heard_tcp(flow, flow.client, _BACK)
        elif flow.server is not None:
            self._heard_tcp(flow, flow.server, _THERE)

    def answer(self, receiver: socket.socket, payload: bytes, peer: object, now: float) -> None:
        """Take a datagram that arrived at a server, and send it back."""
        if len(payload) != _MESSAGE.size:
            return
        _, number, serial = _MESSAGE.unpack(payload)
        flow = self._flows.get(number)
        sent = flow.sent.pop((_THERE, serial), None) if flow is not None else None
        if flow is None or sent is None:
            self.discarded += 1
            return
        self._tell(flow.seen(Kind.KEPT_UDP, sent, now, passed=True))
        began = time.monotonic()
        with contextlib.suppress(OSError):
            receiver.sendto(_MESSAGE.pack(_BACK, number, serial), peer)  # type: ignore[call-overload]
            flow.sent[_BACK, serial] = began

    def _heard_udp(self, flow: _Flow) -> None:
        with contextlib.suppress(OSError):
            while True:
                _, number, serial = _MESSAGE.unpack(flow.client.recv(64))
                sent = flow.sent.pop((_BACK, serial), None)
                if number == flow.number and sent is not None:
                    self._tell(flow.seen(Kind.KEPT_UDP, sent, time.monotonic(), passed=True))

    def _heard_tcp(self, flow: _Flow, end: socket.socket, leg: bytes) -> None:
        try:
            heard = end.recv(64)
        except BlockingIOError:
            return
        except OSError:
            heard = b""
        if not heard:
            self._broken(flow)
            return
        now = time.monotonic()
        if flow.waiting_since is not None and flow.leg == leg:
            self._tell(flow.seen(Kind.KEPT_TCP, flow.waiting_since, now, passed=True))
            flow.waiting_since = None
            if leg == _THERE and flow.server is not None:
                self._send(flow, flow.server, _BACK)

    def _broken(self, flow: _Flow) -> None:
        """Nobody here closes while it is in use: whoever ended it, it is lost."""
        if flow.server is not None:
            now = time.monotonic()
            self._tell(flow.seen(Kind.STUCK_TCP, flow.waiting_since or now, now, passed=False))
        self._close(flow)

    def forget(self, addresses: AbstractSet[str]) -> None:
        """Close what leads to or from addresses, and say nothing about it."""
        for flow in list(self._flows.values()):
            if addresses & {flow.source, flow.destination}:
                self.discarded += 1
                self._close(flow)

    def renew(self) -> None:
        """Close all UDP flows, and say nothing about them."""
        for flow in list(self._flows.values()):
            if flow.protocol == "UDP":
                self.discarded += 1
                self._close(flow)

    def _close(self, flow: _Flow) -> None:
        self._flows.pop(flow.number, None)
        if flow.protocol == "TCP":
            self._expected = {place: each for place, each in self._expected.items() if each is not flow}
        for end in (flow.client, flow.server):
            if end is not None and self._by_descriptor.pop(end.fileno(), None) is not None:
                self._epoll.unregister(end)
                if flow.protocol == "TCP":
                    ended(end)
                else:
                    end.close()

    def close(self) -> None:
        """Close everything."""
        for flow in list(self._flows.values()):
            self._close(flow)
