# SPDX-License-Identifier: Apache-2.0
"""Netlink's framing, taken apart: a datagram into messages, and what a message holds into attributes. Pure.

Every subsystem of the kernel has it in common (linux/netlink.h). What kinds and attributes mean, the callers know.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

HEADER = 16
"""Bytes of ``struct nlmsghdr``."""

_ATTRIBUTE = 4  # bytes of struct nlattr
_TYPES = 0x3FFF  # NLA_TYPE_MASK: without the flags for nesting and byte order


class Message(NamedTuple):
    """One message: its type, its flags, and what follows its header."""

    kind: int
    flags: int
    content: bytes


def messages(datagram: bytes) -> Iterator[Message]:
    """Yield the messages of a datagram, in order."""
    at = 0
    while at + HEADER <= len(datagram):
        length, kind, flags = struct.unpack_from("=IHH", datagram, at)
        yield Message(kind, flags, datagram[at + HEADER : at + length])
        at += max(HEADER, length + 3 & ~3)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield types and values of attributes that stand one after the other, in order."""
    at = 0
    while at + _ATTRIBUTE <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        yield kind & _TYPES, data[at + _ATTRIBUTE : at + length]
        at += max(_ATTRIBUTE, length + 3 & ~3)
