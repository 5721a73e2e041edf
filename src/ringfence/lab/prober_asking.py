# SPDX-License-Identifier: Apache-2.0
"""The asking side of probes: one new connection each, without blocking, and what its answer means.

An answer is taken from the first packets only: SYN and SYN-ACK, a datagram and its echo; what ``prober_raw`` asks
likewise. How long to wait for it, and whether to ask once more, ``prober`` decides.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections.abc import Iterator

from ringfence.lab.prober_answering import random_tag
from ringfence.lab.prober_question import Outcome, Probe, family_of, hear_errors, meaning
from ringfence.lab.prober_raw import EchoSource, SctpSource
from ringfence.model.addresses import Address
from ringfence.model.ports import Protocol

_IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h
_RESET_ON_CLOSE = struct.pack("=ii", 1, 0)
_FIRST_PORT, _LAST_PORT = 32768, 60999  # Linux's ephemeral ports


_RawSource = SctpSource | EchoSource
_RawKey = tuple[str, Address | None, Protocol, int]


class Askers:
    """All probes that are under way. ``handle`` must be called for each event of a descriptor in ``epoll``.

    ``outcomes`` has what is known so far, by the number that ``start`` was given; ``slowest`` is the longest time, in
    seconds, that an answer has taken.
    """

    def __init__(self, epoll: select.epoll) -> None:
        self.outcomes: dict[int, Outcome] = {}
        self.slowest = 0.0
        self._epoll = epoll
        self._connections: dict[int, _Connection] = {}
        self._raw: dict[_RawKey, _RawSource] = {}
        self._raw_by_descriptor: dict[int, _RawSource] = {}
        self._ports: dict[str, Iterator[int]] = {}

    def start(self, number: int, probe: Probe) -> None:
        """Send a probe's first packet; the calling thread must be in its namespace. Asking once more is allowed."""
        ports = self._ports.setdefault(probe.netns, _source_ports())
        try:
            if probe.protocol not in (Protocol.TCP, Protocol.UDP):
                self._raw_source(probe).ask(number, probe, next(ports))
            else:
                asking = _Connection(number, probe, ports)
                self._connections[asking.sock.fileno()] = asking
                self._epoll.register(asking.sock.fileno(), asking.wanted)
        except OSError as error:
            self._known(number, meaning(error, probe))

    def repeat(self) -> None:
        """Send once more what has had no answer, for the protocols that do not do that by themselves."""
        for asking in list(self._connections.values()):
            if asking.number not in self.outcomes:
                asking.repeat()
        for source in self._raw.values():
            source.repeat(self.outcomes)

    def handle(self, descriptor: int) -> bool:
        """Take an answer; False if the descriptor is not of this side."""
        asking = self._connections.get(descriptor)
        if asking is not None:
            outcome = asking.outcome()
            if outcome is not None:
                self._known(asking.number, outcome, asking.started)
                self._drop(descriptor)
            return True
        source = self._raw_by_descriptor.get(descriptor)
        if source is None:
            return False
        for number, outcome, started in source.outcomes():
            self._known(number, outcome, started)
        return True

    def finish(self) -> None:
        """Give up what is under way, and forget all outcomes."""
        for descriptor in list(self._connections):
            self._drop(descriptor)
        for source in self._raw.values():
            source.forget()
        self.outcomes.clear()
        self.slowest = 0.0

    def forget(self, name: str) -> None:
        """Close what is open in a namespace between probes."""
        for key in [key for key in self._raw if key[0] == name]:
            source = self._raw.pop(key)
            del self._raw_by_descriptor[source.sock.fileno()]
            source.sock.close()

    def close(self) -> None:
        """Close everything."""
        self.finish()
        for source in self._raw.values():
            source.sock.close()
        self._raw.clear()
        self._raw_by_descriptor.clear()

    def _known(self, number: int, outcome: Outcome, started: float | None = None) -> None:
        if self.outcomes.setdefault(number, outcome) is Outcome.SILENT and outcome is not Outcome.SILENT:
            self.outcomes[number] = outcome  # a late answer
        if started is not None:
            self.slowest = max(self.slowest, time.monotonic() - started)

    def _drop(self, descriptor: int) -> None:
        self._epoll.unregister(descriptor)
        self._connections.pop(descriptor).sock.close()

    def _raw_source(self, probe: Probe) -> _RawSource:
        key = probe.netns, probe.source, probe.protocol, probe.destination.version
        if key not in self._raw:
            kind = SctpSource if probe.protocol is Protocol.SCTP else EchoSource
            source = self._raw[key] = kind(family_of(probe.destination), probe.source)
            self._raw_by_descriptor[source.sock.fileno()] = source
            self._epoll.register(source.sock.fileno(), select.EPOLLIN)
        return self._raw[key]


class _Connection:
    """A TCP or UDP probe: a connected socket of its own."""

    __slots__ = ("_probe", "number", "sock", "started", "wanted")

    def __init__(self, number: int, probe: Probe, ports: Iterator[int]) -> None:
        self.number = number
        self.started = time.monotonic()
        self._probe = probe
        stream = probe.protocol is Protocol.TCP
        self.wanted = select.EPOLLOUT if stream else select.EPOLLIN
        self.sock = socket.socket(family_of(probe.destination), socket.SOCK_STREAM if stream else socket.SOCK_DGRAM)
        try:
            self.sock.setblocking(False)
            if stream:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            else:
                hear_errors(self.sock)
            _bind(self.sock, probe, ports)
            self._begin()
        except BaseException:
            self.sock.close()
            raise

    def _begin(self) -> None:
        code = self.sock.connect_ex((str(self._probe.destination), self._probe.port))
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, os.strerror(code))
        if self._probe.protocol is Protocol.UDP:
            self.sock.send(b"ringfence")

    def repeat(self) -> None:
        if self._probe.protocol is Protocol.UDP:
            try:
                self.sock.send(b"ringfence")
            except OSError:
                return  # an error that came in for the first one: the next event tells

    def outcome(self) -> Outcome | None:
        try:
            code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code == 0 and self._probe.protocol is Protocol.UDP:
                self.sock.recv(64)
        except BlockingIOError:
            return None
        except OSError as error:
            return meaning(error, self._probe)
        return meaning(OSError(code, os.strerror(code)), self._probe)


def _bind(sock: socket.socket, probe: Probe, ports: Iterator[int]) -> None:
    if probe.protocol is Protocol.TCP:
        if probe.source is not None:
            sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((str(probe.source), 0))
        return
    # A port of our own choosing, each one once: a flow that conntrack still remembers from an earlier probe would be
    # let through as part of that one.
    anywhere = "0.0.0.0" if probe.destination.version == 4 else "::"  # noqa: S104 - a sending socket
    while True:
        try:
            sock.bind((anywhere if probe.source is None else str(probe.source), next(ports)))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return


def _source_ports() -> Iterator[int]:
    count = _LAST_PORT - _FIRST_PORT + 1
    port = random_tag() % count
    while True:
        yield _FIRST_PORT + port
        port = (port + 1) % count
