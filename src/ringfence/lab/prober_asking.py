# SPDX-License-Identifier: Apache-2.0
"""The asking side of probes: one new connection each, without blocking, and what its answer means.

An answer is taken from the first packets only: SYN and SYN-ACK, a datagram and its echo, INIT and INIT ACK. How long
to wait for it, and whether to ask once more, ``prober`` decides.
"""

from __future__ import annotations

import enum
import errno
import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

from ringfence.errors import HostRefused
from ringfence.lab.images.agnhost import sctp_packets as sctp
from ringfence.lab.prober_answering import random_tag, raw_sctp, sctp_payload
from ringfence.model.addresses import Address
from ringfence.model.ports import Protocol


class Outcome(enum.Enum):
    """What a probe met."""

    ANSWERED = "answered"  # a connection: the way is open, and somebody listens
    REFUSED = "refused"  # an answer that says no: the way is open and nobody listens, or something rejects
    SILENT = "silent"  # no answer at all: dropped
    UNREACHABLE = "unreachable"  # a router said that no way leads there (TCP does not always hear it: then silent)

    @property
    def passed(self) -> bool:
        """Tell whether packets got through: a refusal is an answer of the destination too."""
        return self in (Outcome.ANSWERED, Outcome.REFUSED)


@dataclass(frozen=True, slots=True)
class Probe:
    """One question: can a new connection be made from a namespace (by its name) to an address?

    ``source`` is the address that it comes from, one of the namespace's own; None lets the kernel choose.
    """

    netns: str
    destination: Address
    protocol: Protocol
    port: int
    source: Address | None = None

    def __post_init__(self) -> None:
        if not self.protocol.has_ports:
            raise ValueError(f"probes are TCP, UDP or SCTP, not {self.protocol.value}")
        if not 1 <= self.port <= 65535:
            raise ValueError(f"no port to probe: {self.port}")


_OUTCOMES = {
    0: Outcome.ANSWERED,
    errno.ECONNREFUSED: Outcome.REFUSED,
    errno.ECONNRESET: Outcome.REFUSED,
    errno.ENOPROTOOPT: Outcome.REFUSED,  # "protocol unreachable": an SCTP packet arrived where nobody speaks it
    errno.EPROTO: Outcome.UNREACHABLE,
    errno.EHOSTUNREACH: Outcome.UNREACHABLE,
    errno.ENETUNREACH: Outcome.UNREACHABLE,
    errno.EACCES: Outcome.UNREACHABLE,
    errno.ETIMEDOUT: Outcome.SILENT,
    errno.EPERM: Outcome.SILENT,  # dropped on its way out of this very namespace
    errno.EINVAL: Outcome.SILENT,  # what a blackhole route says to whoever is in its own namespace
}
_IP_BIND_ADDRESS_NO_PORT, _IP_RECVERR, _IPV6_RECVERR, _MSG_ERRQUEUE = 24, 11, 25, 0x2000
_RESET_ON_CLOSE = struct.pack("=ii", 1, 0)
_FIRST_PORT, _LAST_PORT = 32768, 60999  # Linux's ephemeral ports


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
        self._sctp: dict[tuple[str, Address | None, int], _SctpSource] = {}
        self._sctp_by_descriptor: dict[int, _SctpSource] = {}
        self._ports: dict[str, Iterator[int]] = {}

    def start(self, number: int, probe: Probe) -> None:
        """Send a probe's first packet; the calling thread must be in its namespace. Asking once more is allowed."""
        ports = self._ports.setdefault(probe.netns, _source_ports())
        try:
            if probe.protocol is Protocol.SCTP:
                self._sctp_source(probe).ask(number, probe, next(ports))
            else:
                asking = _Connection(number, probe, ports)
                self._connections[asking.sock.fileno()] = asking
                self._epoll.register(asking.sock.fileno(), asking.wanted)
        except OSError as error:
            self._known(number, _meaning(error, probe))

    def repeat(self) -> None:
        """Send once more what has had no answer, for the protocols that do not do that by themselves."""
        for asking in list(self._connections.values()):
            if asking.number not in self.outcomes:
                asking.repeat()
        for source in self._sctp.values():
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
        source = self._sctp_by_descriptor.get(descriptor)
        if source is None:
            return False
        for number, outcome, started in source.outcomes():
            self._known(number, outcome, started)
        return True

    def finish(self) -> None:
        """Give up what is under way, and forget all outcomes."""
        for descriptor in list(self._connections):
            self._drop(descriptor)
        for source in self._sctp.values():
            source.forget()
        self.outcomes = {}
        self.slowest = 0.0

    def forget(self, name: str) -> None:
        """Close what is open in a namespace between probes."""
        for key in [key for key in self._sctp if key[0] == name]:
            source = self._sctp.pop(key)
            del self._sctp_by_descriptor[source.sock.fileno()]
            source.sock.close()

    def close(self) -> None:
        """Close everything."""
        self.finish()
        for source in self._sctp.values():
            source.sock.close()
        self._sctp.clear()
        self._sctp_by_descriptor.clear()

    def _known(self, number: int, outcome: Outcome, started: float | None = None) -> None:
        if self.outcomes.setdefault(number, outcome) is Outcome.SILENT and outcome is not Outcome.SILENT:
            self.outcomes[number] = outcome  # a late answer
        if started is not None:
            self.slowest = max(self.slowest, time.monotonic() - started)

    def _drop(self, descriptor: int) -> None:
        self._epoll.unregister(descriptor)
        self._connections.pop(descriptor).sock.close()

    def _sctp_source(self, probe: Probe) -> _SctpSource:
        key = probe.netns, probe.source, probe.destination.version
        if key not in self._sctp:
            source = self._sctp[key] = _SctpSource(_family(probe.destination), probe.source)
            self._sctp_by_descriptor[source.sock.fileno()] = source
            self._epoll.register(source.sock.fileno(), select.EPOLLIN)
        return self._sctp[key]


class _Connection:
    """A TCP or UDP probe: a connected socket of its own."""

    __slots__ = ("_probe", "number", "sock", "started", "wanted")

    def __init__(self, number: int, probe: Probe, ports: Iterator[int]) -> None:
        self.number = number
        self.started = time.monotonic()
        self._probe = probe
        stream = probe.protocol is Protocol.TCP
        self.wanted = select.EPOLLOUT if stream else select.EPOLLIN
        self.sock = socket.socket(_family(probe.destination), socket.SOCK_STREAM if stream else socket.SOCK_DGRAM)
        try:
            self.sock.setblocking(False)
            if stream:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            else:
                _hear_errors(self.sock)
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
            return _meaning(error, self._probe)
        return _meaning(OSError(code, os.strerror(code)), self._probe)


class _SctpSource:
    """Asks all SCTP probes from one address of one namespace: an INIT each, told apart by port and tag."""

    def __init__(self, family: socket.AddressFamily, source: Address | None) -> None:
        self.sock = raw_sctp(family)
        try:
            _hear_errors(self.sock)
            if source is not None:
                self.sock.bind((str(source), 0))
        except BaseException:
            self.sock.close()
            raise
        self._asked: dict[int, _Init] = {}

    def ask(self, number: int, probe: Probe, port: int) -> None:
        tag = random_tag()
        chunk = sctp.start(sctp.INIT, sctp.Start(tag, random_tag(), b""))
        packet = sctp.encode(sctp.Packet(port, probe.port, 0, (chunk,)))
        self._asked[port] = _Init(number, probe, tag, packet, time.monotonic())
        self._send(self._asked[port])

    def repeat(self, known: dict[int, Outcome]) -> None:
        for init in self._asked.values():
            if init.number not in known:
                try:
                    self._send(init)
                except OSError:
                    continue  # as a lost packet

    def outcomes(self) -> Iterator[tuple[int, Outcome, float]]:
        yield from self._errors()
        while True:
            try:
                data = self.sock.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error, already read from the error queue
            packet = sctp.decode(sctp_payload(self.sock.family, data))
            init = None if packet is None else self._asked.get(packet.destination)
            if packet is None or init is None or (packet.source, packet.tag) != (init.probe.port, init.tag):
                continue
            for chunk in packet.chunks:
                if chunk.kind in (sctp.INIT_ACK, sctp.ABORT):
                    answered = chunk.kind == sctp.INIT_ACK
                    yield init.number, Outcome.ANSWERED if answered else Outcome.REFUSED, init.started

    def forget(self) -> None:
        self._asked.clear()

    def _send(self, init: _Init) -> None:
        self.sock.sendto(init.packet, (str(init.probe.destination), 0))

    def _errors(self) -> Iterator[tuple[int, Outcome, float]]:
        while True:
            try:
                data, ancillary, _, _ = self.sock.recvmsg(65536, 512, _MSG_ERRQUEUE)
            except OSError:
                return
            if len(data) < 4 or not ancillary:
                continue
            port, destination = struct.unpack_from("!HH", data)
            init = self._asked.get(port)
            if init is not None and init.probe.port == destination:
                code = struct.unpack_from("=I", ancillary[0][2])[0]  # struct sock_extended_err, ee_errno
                yield init.number, _meaning(OSError(code, os.strerror(code)), init.probe), init.started


@dataclass(frozen=True, slots=True)
class _Init:
    number: int
    probe: Probe
    tag: int
    packet: bytes
    started: float


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


def _hear_errors(sock: socket.socket) -> None:
    """Have the kernel report all ICMP errors, with the packet that each is about, and not only the fatal ones."""
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)


def _source_ports() -> Iterator[int]:
    count = _LAST_PORT - _FIRST_PORT + 1
    port = random_tag() % count
    while True:
        yield _FIRST_PORT + port
        port = (port + 1) % count


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def _meaning(error: OSError, probe: Probe) -> Outcome:
    outcome = _OUTCOMES.get(error.errno or 0)
    if outcome is None:
        raise HostRefused(
            f"could not probe {probe.destination} from {probe.netns}", asked=str(probe), answered=error.strerror or ""
        ) from error
    return outcome
