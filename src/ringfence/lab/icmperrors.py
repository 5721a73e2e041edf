# SPDX-License-Identifier: Apache-2.0
"""Path-MTU errors ("packet too big") about a connection, made as a router would make them, and whether they arrive.

The error is sent from the lab's fabric, by an address that nobody has, and holds the head of a packet of the
connection that it is about, as RFC 792 and RFC 4443 have it. It is looked for in the namespace that sent that packet.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from ringfence.host import netns
from ringfence.model.addresses import Address
from ringfence.model.ports import Protocol

_ROUTER = {4: "192.0.2.254", 6: "2001:db8:ffff::fe"}
_SMALLEST, _LARGEST = 1280, 1500  # of the MTUs that errors name: which one it is tells errors apart
_TOO_BIG = {4: (3, 4), 6: (2, 0)}  # ICMP type and code: destination unreachable, fragmentation needed; packet too big
_ICMP, _ICMPV6 = 1, 58
_SILENCE, _AGAIN = 0.4, 0.1  # seconds


@dataclass(frozen=True, slots=True)
class TooBig:
    """An error about a packet that ``netns`` sent from ``source``."""

    netns: str
    source: Address
    source_port: int
    destination: Address
    destination_port: int
    protocol: Protocol


def arrivals(fabric_netns: str, errors: Sequence[TooBig]) -> list[bool]:
    """Send all errors from the fabric, and tell for each whether it reached the namespace that it is for."""
    arrived = [False] * len(errors)
    mtus = [_SMALLEST + (int.from_bytes(os.urandom(2)) + n) % (_LARGEST - _SMALLEST) for n in range(len(errors))]
    with ExitStack() as stack:
        listening = {key: stack.enter_context(_listen(*key)) for key in {(e.netns, e.source.version) for e in errors}}
        sending = {version: stack.enter_context(_open_sender(fabric_netns, version)) for version in (4, 6)}
        began = said = now = time.monotonic()
        until, first = began + _SILENCE, True
        while not all(arrived) and now < until:
            if first or now - said > _AGAIN:
                first, said = False, now
                for error, mtu in zip(errors, mtus, strict=True):
                    sending[error.source.version].sendto(_packet(error, mtu), (str(error.source), 0))
            ready, _, _ = select.select(list(listening.values()), [], [], _AGAIN / 5)
            found = {(key, *each) for key, sock in listening.items() if sock in ready for each in _read(sock, key[1])}
            for number, (error, mtu) in enumerate(zip(errors, mtus, strict=True)):
                arrived[number] |= ((error.netns, error.source.version), error.source_port, mtu) in found
            before, now = now, time.monotonic()
            if now - before > _SILENCE / 4:  # this thread was kept from running, and so may the kernel have been
                until += 2 * (now - before)
    return arrived


def _listen(name: str, version: int) -> socket.socket:
    family, protocol = (socket.AF_INET, _ICMP) if version == 4 else (socket.AF_INET6, _ICMPV6)
    with netns.enter(name):
        sock = socket.socket(family, socket.SOCK_RAW, protocol)
    sock.setblocking(False)
    return sock


def _open_sender(name: str, version: int) -> socket.socket:
    with netns.enter(name):  # IPPROTO_RAW: headers are ours, the source address included
        return socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)


def _read(sock: socket.socket, version: int) -> Iterator[tuple[int, int]]:
    """Yield source port and MTU of the errors that have arrived."""
    with suppress(OSError):
        while True:
            data = sock.recv(65536)
            if version == 4:  # raw IPv4 sockets deliver the IP header, IPv6 ones do not
                data = data[(data[0] & 0x0F) * 4 :]
            if len(data) < 8 or (data[0], data[1]) != _TOO_BIG[version]:
                continue
            mtu, inner = struct.unpack_from("!I", data, 4)[0], data[8:]
            head = 40 if version == 6 else (inner[0] & 0x0F) * 4
            if len(inner) >= head + 2:
                yield struct.unpack_from("!H", inner, head)[0], mtu & 0xFFFF


def _packet(error: TooBig, mtu: int) -> bytes:
    version = error.source.version
    ports = struct.pack("!HH", error.source_port, error.destination_port)
    about = _header(error.source, error.destination, error.protocol.number, 1400) + ports + bytes(16)
    router = socket.inet_pton(socket.AF_INET if version == 4 else socket.AF_INET6, _ROUTER[version])
    kind, code = _TOO_BIG[version]
    number = _ICMP if version == 4 else _ICMPV6
    blank = struct.pack("!BBHI", kind, code, 0, mtu) + about
    pseudo = b"" if version == 4 else router + error.source.packed + struct.pack("!II", len(blank), number)
    message = blank[:2] + struct.pack("!H", checksum(pseudo + blank)) + blank[4:]
    return _raw_header(router, error.source.packed, number, len(message)) + message


def _header(source: Address, destination: Address, protocol: int, length: int) -> bytes:
    return _raw_header(source.packed, destination.packed, protocol, length)


def _raw_header(source: bytes, destination: bytes, protocol: int, length: int) -> bytes:
    """Return an IP header for a payload of ``length`` bytes."""
    if len(source) == 16:
        return struct.pack("!IHBB", 6 << 28, length, protocol, 64) + source + destination
    blank = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 1, 0x4000, 64, protocol, 0) + source + destination
    return blank[:10] + struct.pack("!H", checksum(blank)) + blank[12:]


def checksum(data: bytes) -> int:
    """Return the checksum of the Internet protocols (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
