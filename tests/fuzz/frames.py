# SPDX-License-Identifier: Apache-2.0
"""Packets of a flow in every dress: options and extension headers, first fragments, other protocols, and broken ones.

A frame is three pieces: what stands before the addresses, the addresses, and what stands behind them. So the many
frames of one kind of traffic are made once, and any two addresses put into them.
"""

from __future__ import annotations

import enum
import random
import struct
from dataclasses import dataclass

from ringfence.model.ports import LAST_PORT, Protocol

LONGEST = 1024
_ETHERNET = 14
_SYN, _RST_ACK_SYN_FIN = 0x02, 0x17
_INIT = 1
_TRANSPORT = {Protocol.TCP: 14, Protocol.SCTP: 13, Protocol.UDP: 8}  # what must be there of it to be judged by
_DISCOVERY = range(133, 138)
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _DESTINATION, _MOBILITY = 0, 43, 44, 51, 60, 135
_EXTENSIONS = (_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _DESTINATION, _MOBILITY)
_MOST_EXTENSIONS = 7
_WITHOUT_PORTS = {
    4: [n for n in range(256) if n not in (6, 17, 132)],
    6: [n for n in range(256) if n not in (6, 17, 132, *_EXTENSIONS)],
}


class Kind(enum.Enum):
    """What is to be said of a packet."""

    OPENS = "judged by the policies, as the first packet of its flow"
    MIDST = "opens no connection"
    UNREADABLE = "what it is above IP cannot be told"
    DISCOVERS = "IPv6 neighbour discovery"
    NOTHING = "no IP packet"


@dataclass(frozen=True, slots=True)
class Dress:
    """All of a frame but its addresses, which come between the two pieces."""

    kind: Kind
    head: bytes
    tail: bytes

    def frame(self, addresses: bytes) -> bytes:
        """Return the frame of a packet between two addresses: source, then destination."""
        return self.head + addresses + self.tail


def dresses(version: int, protocol: Protocol, port: int | None, draw: random.Random, *, count: int) -> list[Dress]:
    """Return so many dresses of one kind of traffic: every other one is judged by the policies."""
    return [
        _opening(version, protocol, port, draw) if number % 2 == 0 else _other(version, protocol, port, draw)
        for number in range(count)
    ]


def _opening(version: int, protocol: Protocol, port: int | None, draw: random.Random) -> Dress:
    if port is None:
        number = draw.choice((protocol.number, draw.choice(_WITHOUT_PORTS[version])))
        content = draw.randbytes(draw.choice((0, 1, 8, 40)))
        if number == Protocol.ICMPV6.number:
            # What looks like neighbour discovery is none in IPv4; in IPv6 it is, also where chance wrote it.
            content = bytes((draw.choice((128, 129, 1, 2, 132, 138) if version == 6 else _DISCOVERY),)) + content[1:]
        return _packet(Kind.OPENS, version, number, content, draw)
    return _packet(Kind.OPENS, version, protocol.number, _transport(protocol, port, draw, opens=True), draw)


def _other(version: int, protocol: Protocol, port: int | None, draw: random.Random) -> Dress:
    if draw.randrange(40) == 0:
        return _of_no_version(version, draw)
    if protocol is Protocol.ICMPV6 and draw.randrange(2):
        return _discovery(draw)
    if protocol in (Protocol.TCP, Protocol.SCTP) and draw.randrange(2):
        content = _transport(protocol, port or 0, draw, opens=False)
        return _packet(Kind.MIDST, version, protocol.number, content, draw)
    content = b"" if port is None else _transport(protocol, port, draw, opens=True)
    choices = [_later_fragment]
    if version == 6:
        choices.append(_too_many_extensions)
    else:
        choices.append(_impossible_header)
    if port is not None:
        choices.append(_truncated)
    return draw.choice(choices)(version, protocol, content, draw)


def _transport(protocol: Protocol, port: int, draw: random.Random, *, opens: bool) -> bytes:
    ports = struct.pack("!HH", draw.choice((0, 1024, 40000, LAST_PORT, port)), port)
    match protocol:
        case Protocol.TCP:
            spared = draw.getrandbits(8) & ~_RST_ACK_SYN_FIN
            combination = _SYN if opens else draw.choice([n for n in range(32) if n & 0x17 == n and n != _SYN])
            return ports + draw.randbytes(8) + bytes((5 << 4, spared | combination)) + draw.randbytes(6)
        case Protocol.SCTP:
            chunk = _INIT if opens else draw.choice([n for n in range(256) if n != _INIT])
            return ports + draw.randbytes(8) + bytes((chunk,)) + draw.randbytes(19)
        case _:
            return ports + struct.pack("!HH", 8, draw.getrandbits(16))


def _packet(kind: Kind, version: int, protocol: int, content: bytes, draw: random.Random) -> Dress:
    """Return a whole packet, perhaps with options or extension headers, perhaps the first fragment of one."""
    hops = draw.choice((1, 64, 254, 255))
    trailer = draw.randbytes(draw.choice((0, 0, 20)))
    if version == 4:
        options = draw.randbytes(4 * draw.choice((0, 0, 1, 3, 10)))
        fragment = draw.choice((0, 0x4000, 0x2000, 0x8000))  # whole, not to be fragmented, the first, a reserved bit
        return _ipv4(kind, protocol, options + content + trailer, draw, fragment=fragment, hops=hops, of=len(options))
    count = draw.choice((0, 0, 1, 2, _MOST_EXTENSIONS))
    chain = [_extension(draw.choice(_EXTENSIONS), draw) for _ in range(count)]
    return _ipv6(kind, chain, protocol, content + trailer, draw, hops=hops)


def _discovery(draw: random.Random) -> Dress:
    """Return a message of neighbour discovery from the same link; or one that only looks like it: from farther away."""
    hops = draw.choice((255, 255, 254, 64))
    content = bytes((draw.choice(_DISCOVERY),)) + draw.randbytes(draw.choice((0, 23)))
    chain = [_extension(draw.choice(_EXTENSIONS), draw) for _ in range(draw.choice((0, 0, 1)))]
    kind = Kind.DISCOVERS if hops == 255 else Kind.OPENS
    return _ipv6(kind, chain, Protocol.ICMPV6.number, content, draw, hops=hops)


def _later_fragment(version: int, protocol: Protocol, content: bytes, draw: random.Random) -> Dress:
    """Return a fragment that has no transport header: what stands there is data, though it may look like one."""
    place = draw.choice((1, 2, 185, 0x1FFF))
    if version == 4:
        return _ipv4(Kind.UNREADABLE, protocol.number, content, draw, fragment=place | draw.choice((0, 0x2000)))
    header = struct.pack("!BBHI", 0, 0, place << 3 | draw.randrange(2), draw.getrandbits(32))
    chain = [_extension(draw.choice(_EXTENSIONS), draw) for _ in range(draw.randrange(3))]
    return _ipv6(Kind.UNREADABLE, [*chain, (_FRAGMENT, header)], protocol.number, content, draw)


def _too_many_extensions(version: int, protocol: Protocol, content: bytes, draw: random.Random) -> Dress:
    assert version == 6
    chain = [_extension(draw.choice(_EXTENSIONS), draw) for _ in range(_MOST_EXTENSIONS + draw.choice((1, 5)))]
    return _ipv6(Kind.UNREADABLE, chain, protocol.number, content, draw)


def _impossible_header(version: int, protocol: Protocol, content: bytes, draw: random.Random) -> Dress:
    """Return a packet whose header claims to be shorter than any."""
    assert version == 4
    return _ipv4(Kind.UNREADABLE, protocol.number, content, draw, words=draw.randrange(5))


def _truncated(version: int, protocol: Protocol, content: bytes, draw: random.Random) -> Dress:
    """Return a packet that ends within its transport header, or before it."""
    content = content[: draw.randrange(_TRANSPORT[protocol])]
    if version == 4:
        options = draw.randbytes(4 * draw.choice((0, 1)))
        return _ipv4(Kind.UNREADABLE, protocol.number, options + content, draw, of=len(options))
    if draw.randrange(3) == 0:  # an extension header that leads beyond the end, or is not all there
        number, header = _extension(draw.choice((_HOP_BY_HOP, _ROUTING, _DESTINATION)), draw)
        broken = header[:1] + b"\xff" + header[2:] if draw.randrange(2) else header[: draw.randrange(4)]
        return _ipv6(Kind.UNREADABLE, [(number, broken)], protocol.number, b"", draw)
    return _ipv6(Kind.UNREADABLE, [], protocol.number, content, draw)


def _of_no_version(version: int, draw: random.Random) -> Dress:
    """Return a packet that says that it is of another version than its frame. (The kernel gives none to a program that
    is shorter than its IP header.)
    """
    whole = _packet(Kind.NOTHING, version, Protocol.UDP.number, bytes(8), draw)
    first = whole.head[_ETHERNET] ^ draw.choice((0x10, 0x20, 0x80))
    return Dress(Kind.NOTHING, whole.head[:_ETHERNET] + bytes((first,)) + whole.head[_ETHERNET + 1 :], whole.tail)


def _ipv4(
    kind: Kind,
    protocol: int,
    tail: bytes,
    draw: random.Random,
    *,
    fragment: int = 0,
    hops: int = 64,
    of: int = 0,
    words: int | None = None,
) -> Dress:
    """``of`` is how much of the tail is options; ``words`` is what the header says of its length if not that."""
    said = 5 + of // 4 if words is None else words
    head = struct.pack(
        "!BBHHHBBH", 4 << 4 | said, draw.choice((0, 0xB8)), 20 + len(tail), 7, fragment, hops, protocol, 0
    )
    return Dress(kind, bytes(12) + b"\x08\x00" + head, tail)


def _ipv6(
    kind: Kind,
    chain: list[tuple[int, bytes]],
    protocol: int,
    content: bytes,
    draw: random.Random,
    *,
    hops: int = 64,
) -> Dress:
    numbers = [*(number for number, _ in chain), protocol]
    tail = b"".join(
        header and bytes((after,)) + header[1:] for (_, header), after in zip(chain, numbers[1:], strict=True)
    )
    head = struct.pack("!IHBB", 6 << 28 | draw.getrandbits(28), len(tail) + len(content), numbers[0], hops)
    return Dress(kind, bytes(12) + b"\x86\xdd" + head, tail + content)


def _extension(number: int, draw: random.Random) -> tuple[int, bytes]:
    """Return an extension header: its number, and itself, with the next one's number left open."""
    match number:
        case 44:
            more = draw.randrange(2)  # the first fragment, or an atomic one
            return number, struct.pack("!BBHI", 0, 0, more, draw.getrandbits(32))
        case 51:
            words = draw.choice((1, 2, 4))
            return number, bytes((0, words)) + draw.randbytes(4 * words + 6)
        case _:
            eights = draw.choice((0, 0, 1, 3))
            return number, bytes((0, eights)) + draw.randbytes(8 * eights + 6)
