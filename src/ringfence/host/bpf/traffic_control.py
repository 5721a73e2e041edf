# SPDX-License-Identifier: Apache-2.0
"""Programs at interfaces as traffic control's filters, for kernels that have no TCX links (before 6.6).

A filter has no holder: it stays until somebody takes it away or its interface goes. Its place, of all owners' filters
at the interface, is its priority and handle. All of it happens in the network namespace of the *calling thread*.
"""

from __future__ import annotations

import enum
import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ringfence.errors import HostLacks, HostRefused
from ringfence.host.bpf.programs import BpfProgram
from ringfence.host.netlink import HEADER, attributes, messages

# linux/rtnetlink.h, linux/netlink.h
_NEW_QDISC, _NEW_FILTER, _DELETE_FILTER, _GET_FILTER = 36, 44, 45, 46
_REQUEST, _ACK, _DUMP, _EXCL, _CREATE = 0x1, 0x4, 0x300, 0x200, 0x400
_ERROR, _DONE, _NESTED = 2, 3, 0x8000
_TCMSG = 20
# linux/pkt_sched.h, linux/pkt_cls.h, linux/if_ether.h
_CLSACT, _CLSACT_HANDLE = 0xFFFFFFF1, 0xFFFF0000
_TCA_KIND, _TCA_OPTIONS = 1, 2
_BPF_FD, _BPF_NAME, _BPF_FLAGS, _BPF_ID, _BPF_DIRECT = 6, 7, 8, 11, 1
_ALL_PROTOCOLS = socket.htons(3)
_NOT_THERE = frozenset({errno.ENOENT, errno.EINVAL})  # EINVAL: there is no clsact at all


class Direction(enum.IntEnum):
    """Which packets: those that come in at the interface, or those that go out. linux/pkt_sched.h, TC_H_MIN_*."""

    INGRESS = 0xFFFFFFF2
    EGRESS = 0xFFFFFFF3


@dataclass(frozen=True, slots=True)
class FilterPlace:
    """A filter's place at an interface. Lower priorities come first."""

    index: int
    direction: Direction
    priority: int
    handle: int = 1

    def __str__(self) -> str:
        return f"interface {self.index} {self.direction.name.lower()}, priority {self.priority}, handle {self.handle}"


@dataclass(frozen=True, slots=True)
class Filter:
    """A BPF filter that is there, whoever's it is."""

    place: FilterPlace
    name: str
    program_id: int


def attach(program: BpfProgram, place: FilterPlace) -> None:
    """Run a program at a place, instead of the one that may be there: between two packets. About 0.5 ms.

    Makes the interface's clsact queueing discipline if it has none. What the program returns is the verdict.
    """
    with _socket() as route:
        clsact = struct.pack("=BxxxiIII", 0, place.index, _CLSACT_HANDLE, _CLSACT, 0) + _text(_TCA_KIND, "clsact")
        _ask(
            route, _NEW_QDISC, _CREATE | _EXCL, clsact, f"make a clsact at {place}", forgives=frozenset({errno.EEXIST})
        )
        options = _attribute(_BPF_FD, struct.pack("=I", program.fd)) + _text(_BPF_NAME, program.name)
        options += _attribute(_BPF_FLAGS, struct.pack("=I", _BPF_DIRECT))
        body = _head(place) + _text(_TCA_KIND, "bpf") + _attribute(_TCA_OPTIONS | _NESTED, options)
        _ask(route, _NEW_FILTER, _CREATE, body, f"attach {program.name} at {place}")


def detach(place: FilterPlace) -> None:
    """Take the program at a place away, if there is one. The clsact stays: others may have filters there."""
    with _socket() as route:
        body = _head(place) + _text(_TCA_KIND, "bpf")
        _ask(route, _DELETE_FILTER, 0, body, f"detach from {place}", forgives=_NOT_THERE | {errno.ENODEV})


def listing(index: int, direction: Direction) -> list[Filter]:
    """Return the BPF filters at an interface, in the order in which packets meet them."""
    found: list[Filter] = []
    with _socket() as route:
        request = struct.pack("=BxxxiIII", 0, index, 0, direction, 0)
        route.send(struct.pack("=IHHII", HEADER + len(request), _GET_FILTER, _REQUEST | _DUMP, 1, 0) + request)
        for kind, body in _answers(route):
            if kind == _ERROR and _number(body) not in _NOT_THERE:
                raise _refusal(_number(body), f"list the filters at interface {index}")
            if kind == _NEW_FILTER:
                found += _filter(body, direction)
    return found


def _filter(body: bytes, direction: Direction) -> Iterator[Filter]:
    index, handle, _, info = struct.unpack_from("=4xiIII", body)
    said = dict(attributes(body[_TCMSG:]))
    options = dict(attributes(said.get(_TCA_OPTIONS, b"")))
    if said.get(_TCA_KIND) == b"bpf\0" and _BPF_ID in options:  # else it is another classifier, or a chain's head
        name = options.get(_BPF_NAME, b"").rstrip(b"\0").decode(errors="replace")
        place = FilterPlace(index, direction, info >> 16, handle)
        yield Filter(place, name, struct.unpack("=I", options[_BPF_ID])[0])


def _socket() -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    made.settimeout(60)
    return made


def _ask(
    route: socket.socket, kind: int, flags: int, body: bytes, text: str, *, forgives: frozenset[int] = frozenset()
) -> None:
    route.send(struct.pack("=IHHII", HEADER + len(body), kind, flags | _REQUEST | _ACK, 1, 0) + body)
    for answer, content in _answers(route):
        if answer == _ERROR and _number(content) not in forgives | {0}:
            raise _refusal(_number(content), text)


def _answers(route: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Yield the messages of an answer: up to its end, or to the error or success that it consists of."""
    while True:
        for kind, _, content in messages(route.recv(1 << 16)):
            yield kind, content
            if kind in {_ERROR, _DONE}:
                return


def _number(error: bytes) -> int:
    return -int(struct.unpack_from("=i", error)[0])


def _refusal(number: int, text: str) -> HostLacks | HostRefused:
    if number == errno.EPERM:
        return HostLacks("traffic control needs CAP_NET_ADMIN", remedy="run this as root")
    return HostRefused(f"the kernel refused to {text}", asked=text, answered=os.strerror(number))


def _head(place: FilterPlace) -> bytes:
    info = place.priority << 16 | _ALL_PROTOCOLS
    return struct.pack("=BxxxiIII", 0, place.index, place.handle, place.direction, info)


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")
