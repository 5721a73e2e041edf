# SPDX-License-Identifier: Apache-2.0
"""SCTP packets as bytes (RFC 9260, section 3): builds them, reads them, checks their CRC32c. Knows no socket."""

from __future__ import annotations

import struct
from typing import NamedTuple

DATA, INIT, INIT_ACK, SACK, HEARTBEAT, HEARTBEAT_ACK, ABORT = 0, 1, 2, 3, 4, 5, 6
SHUTDOWN, SHUTDOWN_ACK, COOKIE_ECHO, COOKIE_ACK, SHUTDOWN_COMPLETE = 7, 8, 10, 11, 14

WINDOW = 65536
_STATE_COOKIE = 7
_UNFRAGMENTED = 0x03  # the B and E bits: this DATA chunk is a whole message
_COMMON = struct.Struct("!HHII")
_INIT = struct.Struct("!IIHHI")
_DATA = struct.Struct("!IHHI")
_table: list[int] = []


class Chunk(NamedTuple):
    """One chunk: its type, flags and value (without padding)."""

    kind: int
    flags: int
    value: bytes


class Packet(NamedTuple):
    """One packet: ports, verification tag and chunks."""

    source: int
    destination: int
    tag: int
    chunks: tuple[Chunk, ...]


class Start(NamedTuple):
    """What INIT and INIT ACK say: the sender's tag, its first TSN, and the cookie (INIT ACK only)."""

    tag: int
    tsn: int
    cookie: bytes


def crc32c(data: bytes) -> int:
    """Return the CRC32c (Castagnoli) of ``data``."""
    if not _table:
        for byte in range(256):
            crc = byte
            for _ in range(8):
                crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
            _table.append(crc)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def encode(packet: Packet) -> bytes:
    """Return the packet's bytes; the checksum is stored little endian, the one thing in SCTP that is."""
    body = b""
    for chunk in packet.chunks:
        body += struct.pack("!BBH", chunk.kind, chunk.flags, 4 + len(chunk.value)) + chunk.value
        body += bytes(-len(chunk.value) % 4)
    header = _COMMON.pack(packet.source, packet.destination, packet.tag, 0)
    return header[:8] + struct.pack("<I", crc32c(header + body)) + body


def decode(data: bytes) -> Packet | None:
    """Return the packet in ``data``, or None if it is cut short or its checksum is wrong."""
    if len(data) < _COMMON.size:
        return None
    source, destination, tag, _ = _COMMON.unpack_from(data)
    if struct.unpack_from("<I", data, 8)[0] != crc32c(data[:8] + bytes(4) + data[12:]):
        return None
    chunks: list[Chunk] = []
    at = _COMMON.size
    while at + 4 <= len(data):
        kind, flags, length = struct.unpack_from("!BBH", data, at)
        if length < 4 or at + length > len(data):
            return None
        chunks.append(Chunk(kind, flags, data[at + 4 : at + length]))
        at += length + (-length % 4)
    return Packet(source, destination, tag, tuple(chunks))


def start(kind: int, mine: Start) -> Chunk:
    """Return an INIT or INIT ACK chunk for one stream each way."""
    value = _INIT.pack(mine.tag, WINDOW, 1, 1, mine.tsn)
    if mine.cookie:
        value += struct.pack("!HH", _STATE_COOKIE, 4 + len(mine.cookie)) + mine.cookie + bytes(-len(mine.cookie) % 4)
    return Chunk(kind, 0, value)


def read_start(chunk: Chunk) -> Start | None:
    """Return what an INIT or INIT ACK says, or None if it is malformed."""
    if len(chunk.value) < _INIT.size:
        return None
    tag, _, _, _, tsn = _INIT.unpack_from(chunk.value)
    at, cookie = _INIT.size, b""
    while at + 4 <= len(chunk.value):
        parameter, length = struct.unpack_from("!HH", chunk.value, at)
        if length < 4:
            return None
        if parameter == _STATE_COOKIE:
            cookie = chunk.value[at + 4 : at + length]
        at += length + (-length % 4)
    return Start(tag, tsn, cookie)


def message(tsn: int, data: bytes) -> Chunk:
    """Return a DATA chunk with a whole message on stream 0."""
    return Chunk(DATA, _UNFRAGMENTED, _DATA.pack(tsn, 0, 0, 0) + data)


def read_message(chunk: Chunk) -> tuple[int, bytes] | None:
    """Return the TSN and payload of a DATA chunk, or None if it is malformed."""
    if len(chunk.value) < _DATA.size:
        return None
    return _DATA.unpack_from(chunk.value)[0], chunk.value[_DATA.size :]


def acknowledge(tsn: int) -> Chunk:
    """Return a SACK for everything up to ``tsn``."""
    return Chunk(SACK, 0, struct.pack("!IIHH", tsn, WINDOW, 0, 0))


def shutdown(tsn: int) -> Chunk:
    """Return a SHUTDOWN that acknowledges everything up to ``tsn``."""
    return Chunk(SHUTDOWN, 0, struct.pack("!I", tsn))
