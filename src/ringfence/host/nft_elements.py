# SPDX-License-Identifier: Apache-2.0
"""Elements of nftables sets and verdict maps, changed over netlink: encoded here, sent by ``host.nft``.

libnftables reads a whole interval set before it adds one element to it, and every set's name before it adds to any: 45
ms for one element among 10,000. The kernel itself needs 10 to 200 µs (decision 0003). So elements go the short way,
and everything else through libnftables, in words.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ringfence.errors import HostRefused

# linux/netfilter/nfnetlink.h and nf_tables.h
_BATCH_BEGIN, _BATCH_END = 16, 17
_SUBSYSTEM = 10
_NEW_ELEMENTS, _DELETE_ELEMENTS = _SUBSYSTEM << 8 | 12, _SUBSYSTEM << 8 | 14
_REQUEST, _ACK, _EXCLUSIVE, _CREATE, _NESTED = 0x1, 0x4, 0x200, 0x400, 0x8000
_INET = 1
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS, _LIST_ELEMENT = 1, 2, 3, 1
_KEY, _DATA, _FLAGS = 1, 2, 3
_VALUE, _VERDICT, _VERDICT_CODE, _VERDICT_CHAIN = 1, 2, 1, 2
_VERDICTS = {"jump": struct.pack(">i", -3), "goto": struct.pack(">i", -4)}
_INTERVAL_END = struct.pack(">I", 1)
_ROOM = 60_000  # of the 65,535 bytes that a netlink attribute can measure
_ERROR = 2


@dataclass(frozen=True, slots=True)
class Element:
    """One element: its key in network order, for verdict maps ``jump CHAIN`` or ``goto CHAIN``.

    An interval is two elements: its first key, and the key after its last with ``ends`` set.
    """

    key: bytes
    verdict: str = ""
    ends: bool = False


@dataclass(frozen=True, slots=True)
class ElementChange:
    """Elements that one set (or map) of an ``inet`` table gets or loses."""

    adds: bool
    table: str
    set: str
    elements: Sequence[Element]


def encode_batch(changes: Iterable[ElementChange]) -> tuple[bytes, int]:
    """Return one transaction as netlink messages, and the sequence number of the one that is acknowledged."""
    bodies = [body for change in changes for body in _bodies(change)]
    messages = [_message(_BATCH_BEGIN, _REQUEST, 0, struct.pack(">BBH", 0, 0, _SUBSYSTEM))]
    for number, (adds, body) in enumerate(bodies, 1):
        # Exclusive: an element that is there already would be passed over, and the transaction perhaps be none.
        kind, flags = (_NEW_ELEMENTS, _REQUEST | _CREATE | _EXCLUSIVE) if adds else (_DELETE_ELEMENTS, _REQUEST)
        messages.append(_message(kind, flags | (_ACK if number == len(bodies) else 0), number, body))
    messages.append(_message(_BATCH_END, _REQUEST, len(bodies) + 1, struct.pack(">BBH", 0, 0, _SUBSYSTEM)))
    return b"".join(messages), len(bodies)


def check_answers(data: bytes, last: int) -> bool:
    """Read answers; tell whether the transaction is over. Raises ``HostRefused`` if it was refused."""
    done = False
    while len(data) >= 20:
        length, kind, _, number = struct.unpack_from("=IHHI", data)
        if kind == _ERROR:
            code = -struct.unpack_from("=i", data, 16)[0]
            if code:
                raise HostRefused(
                    "nftables refused elements", asked=f"message {number} of {last}", answered=os.strerror(code)
                )
            done = done or number == last
        data = data[(length + 3) & ~3 :]
    return done


def _bodies(change: ElementChange) -> Iterator[tuple[bool, bytes]]:
    head = struct.pack(">BBH", _INET, 0, 0) + _text(_LIST_TABLE, change.table) + _text(_LIST_SET, change.set)
    waiting: list[bytes] = []
    room = _ROOM
    for element in map(_element, change.elements):
        if len(element) > room:
            yield change.adds, head + _attribute(_LIST_ELEMENTS | _NESTED, b"".join(waiting))
            waiting, room = [], _ROOM
        waiting.append(element)
        room -= len(element)
    if waiting:
        yield change.adds, head + _attribute(_LIST_ELEMENTS | _NESTED, b"".join(waiting))


def _element(element: Element) -> bytes:
    parts = [_attribute(_KEY | _NESTED, _attribute(_VALUE, element.key))]
    if element.verdict:
        word, _, chain = element.verdict.partition(" ")
        verdict = _attribute(_VERDICT_CODE, _VERDICTS[word]) + _text(_VERDICT_CHAIN, chain)
        parts.append(_attribute(_DATA | _NESTED, _attribute(_VERDICT | _NESTED, verdict)))
    if element.ends:
        parts.append(_attribute(_FLAGS, _INTERVAL_END))
    return _attribute(_LIST_ELEMENT | _NESTED, b"".join(parts))


def _message(kind: int, flags: int, number: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, number, 0) + body


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _text(kind: int, text: str) -> bytes:
    return _attribute(kind, text.encode() + b"\0")
