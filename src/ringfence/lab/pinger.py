# SPDX-License-Identifier: Apache-2.0
"""ICMP and ICMPv6 echo between namespaces: what ``prober`` is for the protocols without ports."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from ringfence.host import netns
from ringfence.model.addresses import Address

_ECHO_REQUEST, _ECHO_REQUEST_V6 = 8, 128
_AGAIN_AFTER = 0.15  # seconds; one lost packet must not look like a denial


@dataclass(frozen=True, slots=True)
class Ping:
    """One question: does an echo request from a namespace, sent from ``source``, come back from ``destination``?"""

    netns: str
    source: Address
    destination: Address


def ping(pings: Sequence[Ping], *, timeout: float) -> list[bool]:
    """Send all echo requests, twice where no answer comes, and tell for each whether it was answered in ``timeout``.

    Uses the kernel's ping sockets (``net.ipv4.ping_group_range``), which see only the answers to their own requests.
    """
    with ExitStack() as stack:
        sockets = [stack.enter_context(_open(one)) for one in pings]
        answered = [False] * len(pings)
        began = time.monotonic()
        for until in (_AGAIN_AFTER, timeout):
            for number, sock in enumerate(sockets):
                if not answered[number]:
                    _send(sock, pings[number].destination)
            while not all(answered) and (left := began + until - time.monotonic()) > 0:
                ready, _, _ = select.select([s for n, s in enumerate(sockets) if not answered[n]], [], [], left)
                for sock in ready:
                    answered[sockets.index(sock)] = _answers(sock)
        return answered


def _open(one: Ping) -> socket.socket:
    six = one.destination.version == 6
    with netns.enter(one.netns):
        family, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if six else (socket.AF_INET, socket.IPPROTO_ICMP)
        sock = socket.socket(family, socket.SOCK_DGRAM, protocol)
    sock.setblocking(False)
    sock.bind((str(one.source), 0))
    return sock


def _send(sock: socket.socket, destination: Address) -> None:
    kind = _ECHO_REQUEST_V6 if destination.version == 6 else _ECHO_REQUEST
    try:
        sock.sendto(struct.pack(">BBHHH", kind, 0, 0, 0, 1), (str(destination), 0))
    except OSError:  # dropped on its way out of this very namespace, or no way leads there: no answer will come
        return


def _answers(sock: socket.socket) -> bool:
    try:
        return bool(sock.recv(2048))
    except OSError:  # an error came back in place of an answer
        return False
