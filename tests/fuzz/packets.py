# SPDX-License-Identifier: Apache-2.0
"""First packets of flows, as bytes; each carries a number by which it is known where it arrives."""

from __future__ import annotations

import struct

from ringfence.lab.images.agnhost.sctp_packets import crc32c
from ringfence.model.flow import Flow
from ringfence.model.ports import Protocol

_SYN = 2
_ECHO_REQUESTS = (8, 128)
_SCTP_INIT = 1
_TTL = 64


def first_packet(flow: Flow, *, source_port: int, number: int) -> bytes:
    """Return the IP packet that opens a flow: a TCP SYN, a UDP datagram, an SCTP INIT or an echo request.

    ``number`` is from 1 (an SCTP tag is never 0) and fits 32 bits.
    """
    source, destination = flow.source.packed, flow.destination.packed
    message = _message(flow, source_port, number)
    protocol = flow.protocol.number
    if flow.protocol is Protocol.SCTP:
        message = message[:8] + struct.pack("<I", crc32c(message)) + message[12:]
    elif flow.protocol is Protocol.ICMP:
        message = message[:2] + _checksum(message) + message[4:]
    else:
        place = {Protocol.TCP: 16, Protocol.UDP: 6, Protocol.ICMPV6: 2}[flow.protocol]
        pseudo = source + destination + struct.pack("!II", len(message), protocol)
        message = message[:place] + _checksum(pseudo + message) + message[place + 2 :]
    if flow.source.version == 6:
        return struct.pack("!IHBB", 6 << 28, len(message), protocol, _TTL) + source + destination + message
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(message), 0, 0x4000, _TTL, protocol, 0) + source + destination
    return head[:10] + _checksum(head) + head[12:] + message


def number_of(packet: bytes) -> int | None:
    """Return the number of a first packet, with its IP header; None if it is anything else."""
    if packet[0] >> 4 == 4:
        return number_in(packet[9], packet[(packet[0] & 15) * 4 :])
    return number_in(packet[6], packet[40:])


def number_in(protocol: int, message: bytes) -> int | None:
    """Return the number of a first packet without its IP header; None if it is anything else."""
    match protocol:
        case 6 if len(message) >= 20 and message[13] == _SYN:
            return int.from_bytes(message[4:8], "big")
        case 17 if len(message) == 12:
            return int.from_bytes(message[8:12], "big")
        case 132 if len(message) >= 32 and message[12] == _SCTP_INIT:
            return int.from_bytes(message[16:20], "big")
        case 1 | 58 if len(message) == 12 and message[0] in _ECHO_REQUESTS:
            return int.from_bytes(message[8:12], "big")
        case _:
            return None


def _message(flow: Flow, source_port: int, number: int) -> bytes:
    port = flow.port or 0
    match flow.protocol:
        case Protocol.TCP:
            return struct.pack("!HHIIBBHHH", source_port, port, number, 0, 5 << 4, _SYN, 1024, 0, 0)
        case Protocol.UDP:
            return struct.pack("!HHHHI", source_port, port, 12, 0, number)
        case Protocol.SCTP:
            init = struct.pack("!BBHIIHHI", _SCTP_INIT, 0, 20, number, 65536, 1, 1, 1)
            return struct.pack("!HHII", source_port, port, 0, 0) + init
        case Protocol.ICMP | Protocol.ICMPV6:
            kind = _ECHO_REQUESTS[0] if flow.protocol is Protocol.ICMP else _ECHO_REQUESTS[1]
            return struct.pack("!BBHHHI", kind, 0, 0, source_port, 1, number)


def _checksum(data: bytes) -> bytes:
    # The ones' complement sum of 16-bit words is the number's remainder modulo 0xFFFF (RFC 1071).
    return struct.pack("!H", 0xFFFF - int.from_bytes(data + bytes(len(data) % 2), "big") % 0xFFFF)
