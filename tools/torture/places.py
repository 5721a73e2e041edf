# SPDX-License-Identifier: Apache-2.0
"""Sockets in namespaces: what answers at a place, and what datagrams leave it through. Decides nothing."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
from collections.abc import Iterator
from random import Random

from ringfence.host import netns
from tools.torture.messages import Place
from tools.torture.worlds import OUTSIDERS, TCP_PORTS, UDP_PORTS

_SO_ATTACH_FILTER, _SO_RCVBUFFORCE, _IPV6_CHECKSUM = 26, 33, 7
_IP_BIND_ADDRESS_NO_PORT = 24
_BACKLOG = 4096
_NO_LINGER = struct.pack("ii", 1, 0)


def family(address: str) -> socket.AddressFamily:
    """Return an address's family."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def facing(near: Place, far: Place, chance: Random) -> tuple[str, str]:
    """Choose an address of one place, and one of the same family of the other."""
    source = chance.choice(near.addresses)
    return source, next(each for each in far.addresses if family(each) == family(source))


def ended(made: socket.socket) -> None:
    """Close a TCP socket at once, so that no state of it stays."""
    with contextlib.suppress(OSError):
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    made.close()


class Standing:
    """The lasting sockets of one place: listeners, receivers and raw senders."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.is_pod = all(place.name != outsider.name for outsider in OUTSIDERS)
        self.listeners: list[socket.socket] = []
        self.receivers: list[socket.socket] = []
        self._senders: dict[str, socket.socket] = {}
        with netns.enter(place.netns):
            for version in (socket.AF_INET, socket.AF_INET6):
                self.listeners += [_listener(version, port) for port in TCP_PORTS]
                self.receivers += [_receiver(version, port) for port in UDP_PORTS]
            self._senders = {address: _sender(address) for address in place.addresses}

    def send(self, source: str, source_port: int, destination: str, port: int, payload: bytes) -> None:
        """Send a datagram from any port, without a socket of its own for each: it is a new flow each time."""
        header = struct.pack("!HHHH", source_port, port, 8 + len(payload), 0)  # IPv4: no checksum; IPv6: the kernel's
        self._senders[source].sendto(header + payload, (destination, 0))

    def connecting(self, source: str) -> socket.socket:
        """Return a TCP socket here that does not block. To be called inside of the namespace."""
        made = socket.socket(family(source), socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        made.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        made.bind((source, 0))
        return made

    def conversing(self, source: str, destination: str, port: int) -> socket.socket:
        """Return a connected UDP socket here."""
        with netns.enter(self.place.netns):
            made = socket.socket(family(source), socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        made.bind((source, 0))
        made.connect((destination, port))
        return made

    def sockets(self) -> Iterator[socket.socket]:
        """Yield every socket."""
        yield from (*self.listeners, *self.receivers, *self._senders.values())

    def close(self) -> None:
        """Close every socket: one that stays open would keep the namespace alive."""
        for each in self.sockets():
            each.close()


def _listener(version: socket.AddressFamily, port: int) -> socket.socket:
    made = socket.socket(version, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    if version == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("::" if version == socket.AF_INET6 else "0.0.0.0", port))
    made.listen(_BACKLOG)
    return made


def _receiver(version: socket.AddressFamily, port: int) -> socket.socket:
    made = socket.socket(version, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    if version == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 22)
    made.bind(("::" if version == socket.AF_INET6 else "0.0.0.0", port))
    return made


def _sender(address: str) -> socket.socket:
    made = socket.socket(family(address), socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_UDP)
    code = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))  # BPF "return 0": receives nothing
    made.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(code)))
    if ":" in address:
        made.setsockopt(socket.IPPROTO_IPV6, _IPV6_CHECKSUM, 6)
    made.bind((address, 0))
    return made
