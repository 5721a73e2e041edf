# SPDX-License-Identifier: Apache-2.0
"""Probes that one raw socket asks for many: SCTP by an INIT each, ICMP and ICMPv6 by an echo request each.

Few kernels have SCTP sockets, and ping sockets need a setting. Both answers tell which probe they answer: by the port
and the tag, by the identifier and what the request held.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ringfence.lab.icmperrors import checksum
from ringfence.lab.images.agnhost import sctp_packets as sctp
from ringfence.lab.prober_answering import random_tag, raw_sctp, sctp_payload
from ringfence.lab.prober_question import Outcome, Probe, hear_errors, meaning
from ringfence.model.addresses import Address
from ringfence.model.ports import Protocol

_MSG_ERRQUEUE = 0x2000
_ECHO = {4: (8, 0), 6: (128, 129)}  # types of request and reply
_NUMBERS = {4: Protocol.ICMP.number, 6: Protocol.ICMPV6.number}


class SctpSource:
    """Asks all SCTP probes from one address of one namespace: an INIT each, told apart by port and tag."""

    def __init__(self, family: socket.AddressFamily, source: Address | None) -> None:
        self.sock = raw_sctp(family)
        try:
            hear_errors(self.sock)
            if source is not None:
                self.sock.bind((str(source), 0))
        except BaseException:
            self.sock.close()
            raise
        self._asked: dict[int, _Init] = {}

    def ask(self, number: int, probe: Probe, port: int) -> None:
        """Send a probe's INIT, from a port that no other probe has."""
        assert probe.port is not None, "SCTP has ports"
        tag = random_tag()
        chunk = sctp.start(sctp.INIT, sctp.Start(tag, random_tag(), b""))
        packet = sctp.encode(sctp.Packet(port, probe.port, 0, (chunk,)))
        init = self._asked[port] = _Init(number, probe, tag, packet, time.monotonic())
        self._send(init)

    def repeat(self, known: Mapping[int, Outcome]) -> None:
        """Send once more what has had no answer."""
        for init in self._asked.values():
            if init.number not in known:
                try:
                    self._send(init)
                except OSError:
                    continue  # as a lost packet

    def outcomes(self) -> Iterator[tuple[int, Outcome, float]]:
        """Yield what has arrived: a probe's number, what it means, and when the probe was sent."""
        yield from self._errors()
        while True:
            try:
                data = self.sock.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error, already read from the error queue
            packet = sctp.decode(sctp_payload(self.sock.family, data))
            init = None if packet is None else self._asked.get(packet.destination)
            if packet is None or init is None or (packet.source, packet.tag) != (init.probe.port, init.tag):
                continue
            for chunk in packet.chunks:
                if chunk.kind in (sctp.INIT_ACK, sctp.ABORT):
                    answered = chunk.kind == sctp.INIT_ACK
                    yield init.number, Outcome.ANSWERED if answered else Outcome.REFUSED, init.started

    def forget(self) -> None:
        """Give up what is under way."""
        self._asked.clear()

    def _send(self, init: _Init) -> None:
        self.sock.sendto(init.packet, (str(init.probe.destination), 0))

    def _errors(self) -> Iterator[tuple[int, Outcome, float]]:
        while True:
            try:
                data, ancillary, _, _ = self.sock.recvmsg(65536, 512, _MSG_ERRQUEUE)
            except OSError:
                return
            if len(data) < 4 or not ancillary:
                continue
            port, destination = struct.unpack_from("!HH", data)
            init = self._asked.get(port)
            if init is not None and init.probe.port == destination:
                code = struct.unpack_from("=I", ancillary[0][2])[0]  # struct sock_extended_err, ee_errno
                yield init.number, meaning(OSError(code, os.strerror(code)), init.probe), init.started


@dataclass(frozen=True, slots=True)
class _Init:
    number: int
    probe: Probe
    tag: int
    packet: bytes
    started: float


class EchoSource:
    """Asks all echo probes from one address of one namespace, each with an identifier of its own: for the connection
    tracker, a new flow.
    """

    def __init__(self, family: socket.AddressFamily, source: Address | None) -> None:
        self._version = 4 if family == socket.AF_INET else 6
        self.sock = socket.socket(family, socket.SOCK_RAW, _NUMBERS[self._version])
        self.sock.setblocking(False)
        try:
            if source is not None:
                self.sock.bind((str(source), 0))
        except BaseException:
            self.sock.close()
            raise
        self._identifier = random_tag()
        self._token = os.urandom(8)
        self._asked: dict[int, _Request] = {}

    def ask(self, number: int, probe: Probe, port: int) -> None:  # noqa: ARG002 - as SctpSource has it
        """Send a probe's echo request."""
        self._identifier = (self._identifier + 1) & 0xFFFF
        request = self._asked[self._identifier] = _Request(number, probe, self._identifier, time.monotonic())
        self._send(request)

    def repeat(self, known: Mapping[int, Outcome]) -> None:
        """Send once more what has had no answer."""
        for request in self._asked.values():
            if request.number not in known:
                try:
                    self._send(request)
                except OSError:
                    continue  # as a lost packet

    def outcomes(self) -> Iterator[tuple[int, Outcome, float]]:
        """Yield what has arrived: a probe's number, what it means, and when the probe was sent."""
        while True:
            try:
                data = self.sock.recv(65536)
            except OSError:
                return
            if self._version == 4:  # raw IPv4 sockets deliver the IP header, IPv6 ones do not
                data = data[(data[0] & 0x0F) * 4 :]
            if len(data) < 16 or data[0] != _ECHO[self._version][1] or data[8:16] != self._token:
                continue
            request = self._asked.get(struct.unpack_from("!H", data, 4)[0])
            if request is not None:
                yield request.number, Outcome.ANSWERED, request.started

    def forget(self) -> None:
        """Give up what is under way."""
        self._asked.clear()

    def _send(self, request: _Request) -> None:
        blank = struct.pack("!BBHHH", _ECHO[self._version][0], 0, 0, request.identifier, 1) + self._token
        # For IPv6 the kernel writes the checksum itself.
        packet = blank if self._version == 6 else blank[:2] + struct.pack("!H", checksum(blank)) + blank[4:]
        self.sock.sendto(packet, (str(request.probe.destination), 0))


@dataclass(frozen=True, slots=True)
class _Request:
    number: int
    probe: Probe
    identifier: int
    started: float
