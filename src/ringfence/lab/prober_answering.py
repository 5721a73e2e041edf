# SPDX-License-Identifier: Apache-2.0
"""The answering side of probes: what listens in the destinations' namespaces, driven by the prober's one thread.

TCP needs no more than a backlog: the kernel completes the handshake. UDP is echoed, since a closed port's ICMP error
is rate-limited away. SCTP is answered by hand (INIT with INIT ACK, or ABORT for a port that nobody listens on), since
few kernels have SCTP sockets. Answers leave from the address that was asked, whichever of a namespace's it is.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from ringfence.host import netns
from ringfence.lab.images.agnhost import sctp_packets as sctp
from ringfence.model.ports import Protocol

BACKLOG = 4096  # connections to one port that may wait before somebody accepts them: net.core.somaxconn's default

_SCTP = Protocol.SCTP.number
_IP_PKTINFO, _LARGEST = 8, 65536  # linux/in.h; bytes
_COOKIE = b"ringfence"


class Answerers:
    """Everything that listens, by namespace. ``handle`` must be called for each event of a descriptor in ``epoll``."""

    def __init__(self, epoll: select.epoll) -> None:
        self._epoll = epoll
        self._handlers: dict[int, Callable[[], None]] = {}
        self._open: dict[tuple[str, Protocol, int], socket.socket | None] = {}
        self._sctp: dict[str, tuple[_SctpAnswerer, ...]] = {}

    def listen(self, name: str, protocol: Protocol, port: int) -> None:
        """Listen on a port of all addresses of a namespace. If something there has the port, that will answer.

        Raises ``HostRefused`` if there is no such namespace.
        """
        key = name, protocol, port
        if key in self._open:
            return
        with netns.enter(name):
            if protocol is Protocol.SCTP:
                for answerer in self._sctp_answerers(name):
                    answerer.ports.add(port)
                self._open[key] = None
                return
            kind = socket.SOCK_STREAM if protocol is Protocol.TCP else socket.SOCK_DGRAM
            sock = socket.socket(socket.AF_INET6, kind)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        try:
            sock.bind(("::", port))
        except OSError as error:
            sock.close()
            if error.errno != errno.EADDRINUSE:
                raise
            self._open[key] = None
            return
        self._open[key] = sock
        if protocol is Protocol.TCP:
            sock.listen(BACKLOG)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            self._watch(sock, lambda: _echo(sock))

    def handle(self, descriptor: int) -> bool:
        """Answer what arrived; False if the descriptor is not of this side."""
        handler = self._handlers.get(descriptor)
        if handler is None:
            return False
        handler()
        return True

    def drain(self) -> None:
        """Take finished connections out of the backlogs, so that the next ones find room."""
        for (_, protocol, _), sock in self._open.items():
            if protocol is Protocol.TCP and sock is not None:
                with suppress(OSError):
                    while True:
                        sock.accept()[0].close()

    def accept(self, name: str, port: int) -> socket.socket | None:
        """Take a connection to a TCP port that is listened on, None if there is none."""
        sock = self._open.get((name, Protocol.TCP, port))
        try:
            return None if sock is None else sock.accept()[0]
        except OSError:
            return None

    def datagrams(self, name: str, port: int) -> socket.socket | None:
        """Return the socket that listens on a UDP port; what is read from it is not answered."""
        return self._open.get((name, Protocol.UDP, port))

    def forget(self, name: str) -> None:
        """Stop listening in a namespace."""
        for key in [key for key in self._open if key[0] == name]:
            self._close(self._open.pop(key))
        for answerer in self._sctp.pop(name, ()):
            self._close(answerer.sock)

    def close(self) -> None:
        """Stop listening."""
        for name in {name for name, _, _ in self._open}:
            self.forget(name)

    def _close(self, sock: socket.socket | None) -> None:
        if sock is not None:
            self._handlers.pop(sock.fileno(), None)
            sock.close()  # which takes it out of the epoll too

    def _sctp_answerers(self, name: str) -> tuple[_SctpAnswerer, ...]:
        if name not in self._sctp:
            self._sctp[name] = tuple(_SctpAnswerer(family) for family in (socket.AF_INET, socket.AF_INET6))
            for answerer in self._sctp[name]:
                self._watch(answerer.sock, answerer.answer)
        return self._sctp[name]

    def _watch(self, sock: socket.socket, handler: Callable[[], None]) -> None:
        self._handlers[sock.fileno()] = handler
        self._epoll.register(sock.fileno(), select.EPOLLIN)


class _SctpAnswerer:
    """Answers every INIT that reaches a namespace over one address family."""

    def __init__(self, family: socket.AddressFamily) -> None:
        self.ports: set[int] = set()
        self.sock = raw_sctp(family)
        if family == socket.AF_INET6:
            self.sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)

    def answer(self) -> None:
        with suppress(OSError):  # nothing more to read; or an ICMP error about an answer of ours
            while True:
                data, ancillary, _, sender = self.sock.recvmsg(_LARGEST, 128)
                packet = sctp.decode(sctp_payload(self.sock.family, data))
                if packet is not None:
                    self._answer(packet, str(sender[0]), _from_asked(self.sock.family, data, ancillary))

    def _answer(self, packet: sctp.Packet, sender: str, ancillary: list[tuple[int, int, bytes]]) -> None:
        for chunk in packet.chunks:
            asked = sctp.read_start(chunk) if chunk.kind == sctp.INIT else None
            if asked is None:
                continue
            if packet.destination in self.ports:
                reply = sctp.start(sctp.INIT_ACK, sctp.Start(random_tag(), random_tag(), _COOKIE))
            else:
                reply = sctp.Chunk(sctp.ABORT, 0, b"")  # without the T bit: conntrack drops it otherwise
            answer = sctp.encode(sctp.Packet(packet.destination, packet.source, asked.tag, (reply,)))
            self.sock.sendmsg([answer], ancillary, 0, (sender, 0))


def raw_sctp(family: socket.AddressFamily) -> socket.socket:
    """Return a non-blocking raw SCTP socket in the calling thread's namespace."""
    sock = socket.socket(family, socket.SOCK_RAW, _SCTP)
    sock.setblocking(False)
    return sock


def sctp_payload(family: int, data: bytes) -> bytes:
    """Return what follows the IP header: raw IPv4 sockets deliver the header, IPv6 ones do not."""
    return data[(data[0] & 0x0F) * 4 :] if family == socket.AF_INET and data else data


def random_tag() -> int:
    """Return a random tag or TSN; 0 is no tag."""
    return int.from_bytes(os.urandom(4), "big") or 1


@dataclass(frozen=True, slots=True)
class Heard:
    """A datagram, and what it takes to answer it from the address that it was sent to."""

    sock: socket.socket
    data: bytes
    sender: object
    ancillary: list[tuple[int, int, bytes]]

    @classmethod
    def all(cls, sock: socket.socket) -> Iterator[Heard]:
        """Read all datagrams that are there."""
        with suppress(OSError):  # nothing more to read; or an ICMP error about an answer of ours
            while True:
                data, ancillary, _, sender = sock.recvmsg(_LARGEST, 128)
                yield cls(sock, data, sender, _from_asked(sock.family, data, ancillary))

    def answer(self, data: bytes) -> None:
        """Send something back."""
        self.sock.sendmsg([data], self.ancillary, 0, self.sender)  # type: ignore[arg-type]  # as recvmsg gave it


def _echo(sock: socket.socket) -> None:
    with suppress(OSError):
        for heard in Heard.all(sock):
            heard.answer(heard.data)


def _from_asked(family: int, data: bytes, ancillary: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    """Return what makes an answer leave from the address that the question went to."""
    if family == socket.AF_INET:  # a raw socket's: the IP header tells
        return [(socket.IPPROTO_IP, _IP_PKTINFO, struct.pack("=i", 0) + data[16:20] + bytes(4))]
    for level, kind, value in ancillary:
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            if ipaddress.IPv6Address(value[:16]).is_link_local:
                return [(level, kind, value[:20])]
            return [(level, kind, value[:16] + bytes(4))]  # by whatever link leads back
    return []
