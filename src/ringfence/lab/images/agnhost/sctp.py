# SPDX-License-Identifier: Apache-2.0
"""SCTP without the kernel's: one association, one message each way, over raw sockets (RFC 9260, sections 5 and 6).

Many kernels have no SCTP sockets; raw sockets are always there, and packets are what policy judges. Where the kernel
has SCTP it is used, because it would answer beside us. Small on purpose: one message each way that fits a packet, no
multi-homing, no congestion control; what is lost is sent again once a second.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable

from . import sctp_packets as wire
from .addresses import PROTOCOL_NUMBER, Address, join
from .sctp_packets import Chunk, Packet, Start

_RESEND_SECONDS = 1.0
_IP_RECVERR, _IPV6_RECVERR = 11, 25
_MOST_ASSOCIATIONS = 4096
_SCTP = PROTOCOL_NUMBER["sctp"]

Answer = Callable[[bytes, str], bytes]


def _random() -> int:
    """Return a random tag or TSN; no tag may be 0."""
    return int.from_bytes(os.urandom(4), "big") or 1


def _raw(family: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_RAW, _SCTP)
    # ICMP errors (unreachable, prohibited) come back as errors of the next receive.
    if family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
    return sock


def _kernel_socket(family: int) -> socket.socket | None:
    try:
        return socket.socket(family, socket.SOCK_STREAM, _SCTP)
    except OSError:
        return None


def _payload(family: int, data: bytes) -> bytes:
    """Return what follows the IP header: raw IPv4 sockets deliver the header, IPv6 ones do not."""
    return data[(data[0] & 0x0F) * 4 :] if family == socket.AF_INET and data else data


def exchange(address: Address, data: bytes, timeout: float) -> bytes:
    """Open an association, send ``data``, return the answer, and shut down.

    Raises ``TimeoutError`` after ``timeout`` seconds (0: at once, as agnhost does), ``OSError`` with ECONNREFUSED for
    an ABORT or an unreachable protocol, else whatever the network answered.
    """
    kernel = _kernel_socket(address.family)
    if kernel is not None:
        with kernel:
            kernel.settimeout(max(timeout, 1e-6))
            kernel.connect((address.host, address.port))
            kernel.sendall(data)
            return kernel.recv(1024)
    with _raw(address.family) as sock:
        sock.connect((address.host, 0))
        return _Client(sock, address, time.monotonic() + timeout).run(data)


class _Client:
    """One association from the client's side, driven to its end by ``run``."""

    def __init__(self, sock: socket.socket, address: Address, end: float) -> None:
        self._sock = sock
        self._address = address
        self._end = end
        self._port = 32768 + _random() % 28232  # Linux's ephemeral ports
        self._mine = Start(_random(), _random(), b"")
        self._peer_tag = 0

    def run(self, data: bytes) -> bytes:
        reply = self._ask(wire.start(wire.INIT, self._mine), wire.INIT_ACK)
        peer = wire.read_start(reply)
        if peer is None or not peer.cookie:
            raise OSError(errno.EPROTO, os.strerror(errno.EPROTO))
        self._peer_tag = peer.tag
        self._ask(Chunk(wire.COOKIE_ECHO, 0, peer.cookie), wire.COOKIE_ACK)
        reply = self._ask(wire.message(self._mine.tsn, data), wire.DATA)
        tsn, answer = wire.read_message(reply) or (peer.tsn, b"")
        try:
            self._ask(wire.shutdown(tsn), wire.SHUTDOWN_ACK)
        except OSError:
            return answer  # the answer is here; how the goodbye ends does not change it
        self._send(Chunk(wire.SHUTDOWN_COMPLETE, 0, b""))
        return answer

    def _send(self, chunk: Chunk) -> None:
        self._sock.send(wire.encode(Packet(self._port, self._address.port, self._peer_tag, (chunk,))))

    def _ask(self, chunk: Chunk, wanted: int) -> Chunk:
        """Send ``chunk`` until a chunk of the kind ``wanted`` comes back."""
        while True:
            self._send(chunk)
            again = min(time.monotonic() + _RESEND_SECONDS, self._end)
            while (left := again - time.monotonic()) > 0:
                self._sock.settimeout(left)
                try:
                    data = self._sock.recv(65536)
                except TimeoutError:
                    break
                found = self._find(wire.decode(_payload(self._address.family, data)), wanted)
                if found is not None:
                    return found
            if time.monotonic() >= self._end:
                raise TimeoutError

    def _find(self, packet: Packet | None, wanted: int) -> Chunk | None:
        if packet is None:
            return None
        ports = (packet.source, packet.destination)
        if ports == (self._port, self._address.port) and not _served(self._address.port):
            # Our own packet: we called ourselves, and this very socket keeps the kernel from refusing it.
            raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        if ports != (self._address.port, self._port):
            return None
        for chunk in packet.chunks:
            # An ABORT may carry our tag, or with the T bit the tag that we sent.
            if chunk.kind == wire.ABORT and packet.tag in (self._mine.tag, self._peer_tag):
                raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
            if chunk.kind == wanted and packet.tag == self._mine.tag:
                return chunk
        return None


class _Association:
    """What the server remembers of one client: both tags, and the next TSN to send."""

    def __init__(self, peer_tag: int, my_tag: int, tsn: int) -> None:
        self.peer_tag = peer_tag
        self.my_tag = my_tag
        self.tsn = tsn


def claim(port: int) -> socket.socket:
    """Take an SCTP port of this network namespace, or raise ``OSError`` (EADDRINUSE).

    Raw sockets know no ports. Abstract Unix names live and die with a network namespace and its processes, so they
    tell the servers of one pod's containers which ports the others serve.
    """
    name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        name.bind(f"\0ringfence-sctp-{port}")
    except OSError:
        name.close()
        raise
    return name


def _served(port: int) -> bool:
    try:
        claim(port).close()
    except OSError:
        return True
    return False


class Server:
    """Answers every SCTP message to one port, over one address family."""

    def __init__(self, family: int, port: int, answer: Answer) -> None:
        self._family = family
        self._port = port
        self._answer = answer
        self._sock = _raw(family)
        self._known: dict[tuple[str, int], _Association] = {}

    def serve(self) -> None:
        """Answer for ever."""
        while True:
            try:
                data, sender = self._sock.recvfrom(65536)
            except OSError:
                continue  # an ICMP error about an answer of ours; the client is gone
            packet = wire.decode(_payload(self._family, data))
            if packet is None:
                continue
            host = str(sender[0]).partition("%")[0]
            if packet.destination != self._port:
                self._refuse(packet, host)
                continue
            replies, tag = self._reply(packet, host)
            if replies:
                self._send(packet, host, tag, replies)

    def _send(self, packet: Packet, host: str, tag: int, chunks: tuple[Chunk, ...]) -> None:
        reply = Packet(packet.destination, packet.source, tag, chunks)
        try:
            self._sock.sendto(wire.encode(reply), (host, 0))
        except OSError:
            return  # as a lost packet: the client asks again

    def _refuse(self, packet: Packet, host: str) -> None:
        """Answer an INIT to a port that nobody serves as a kernel would: ABORT with the client's tag."""
        for chunk in packet.chunks:
            init = wire.read_start(chunk) if chunk.kind == wire.INIT else None
            if init is not None and not _served(packet.destination):
                self._send(packet, host, init.tag, (Chunk(wire.ABORT, 0, b""),))

    def _reply(self, packet: Packet, host: str) -> tuple[tuple[Chunk, ...], int]:
        """Return the chunks to send back and the tag to send them with."""
        key = (host, packet.source)
        replies: list[Chunk] = []
        for chunk in packet.chunks:
            if chunk.kind == wire.INIT:
                init = wire.read_start(chunk)
                return ((self._open(key, init),), init.tag) if init is not None else ((), 0)
            known = self._known.get(key)
            if known is None or packet.tag != known.my_tag:
                return (), 0
            replies += self._continue(known, chunk, key)
        known = self._known.get(key)
        if known is None:
            return (), 0
        if any(chunk.kind in (wire.SHUTDOWN_COMPLETE, wire.ABORT) for chunk in packet.chunks):
            del self._known[key]
        return tuple(replies), known.peer_tag

    def _open(self, key: tuple[str, int], init: Start) -> Chunk:
        if len(self._known) >= _MOST_ASSOCIATIONS:
            del self._known[next(iter(self._known))]
        my_tag, tsn = _random(), _random()
        self._known[key] = _Association(init.tag, my_tag, tsn)
        return wire.start(wire.INIT_ACK, Start(my_tag, tsn, b"ringfence"))

    def _continue(self, known: _Association, chunk: Chunk, key: tuple[str, int]) -> list[Chunk]:
        match chunk.kind:
            case wire.COOKIE_ECHO:
                return [Chunk(wire.COOKIE_ACK, 0, b"")]
            case wire.DATA:
                received = wire.read_message(chunk)
                if received is None:
                    return []
                tsn, data = received
                answer = self._answer(data, join(*key))
                # The same TSN for a repeated question: what was asked again was not heard.
                return [wire.acknowledge(tsn), *([wire.message(known.tsn, answer)] if answer else [])]
            case wire.HEARTBEAT:
                return [Chunk(wire.HEARTBEAT_ACK, 0, chunk.value)]
            case wire.SHUTDOWN:
                return [Chunk(wire.SHUTDOWN_ACK, 0, b"")]
            case _:
                return []


def serve_kernel(sock: socket.socket, port: int, answer: Answer) -> None:
    """Answer for ever through the kernel's own SCTP, on all addresses."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("::" if sock.family == socket.AF_INET6 else "0.0.0.0", port))  # noqa: S104 - a pod's server serves all
    sock.listen()
    while True:
        connection, sender = sock.accept()
        with connection:
            data = connection.recv(1024)
            reply = answer(data, join(str(sender[0]), int(sender[1]))) if data else b""
            if reply:
                connection.sendall(reply)


def servers(port: int, answer: Answer) -> list[Callable[[], None]]:
    """Return one endless function for each socket that must be served on this port; raises ``OSError``."""
    kernel = _kernel_socket(socket.AF_INET6) or _kernel_socket(socket.AF_INET)
    if kernel is not None:
        return [lambda: serve_kernel(kernel, port, answer)]
    claims.append(claim(port))
    return [Server(family, port, answer).serve for family in (socket.AF_INET, socket.AF_INET6)]


claims: list[socket.socket] = []  # the ports that this process serves, held until it ends
