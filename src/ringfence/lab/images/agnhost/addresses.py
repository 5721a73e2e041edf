# SPDX-License-Identifier: Apache-2.0
"""Destinations as Go reads them: ``host:port``, ``[v6]:port``, names; and how addresses are printed in messages."""

from __future__ import annotations

import os
import socket
from typing import NamedTuple

PROTOCOL_NUMBER = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "sctp": 132}


class Address(NamedTuple):
    """One resolved destination: ``family`` is AF_INET or AF_INET6, ``host`` a literal without brackets."""

    family: socket.AddressFamily
    host: str
    port: int

    def __str__(self) -> str:
        return join(self.host, self.port)


class Unresolved(Exception):
    """A name or port that cannot be resolved; ``str()`` is worded as Go's resolver words it."""


def join(host: str, port: int | str) -> str:
    """Return ``host:port``, with brackets round IPv6; IPv4-mapped addresses print as IPv4."""
    host = host.removeprefix("::ffff:") if host.startswith("::ffff:") and "." in host else host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split(destination: str) -> tuple[str, str]:
    """Split ``host:port``; raises ``ValueError`` in the words of Go's ``net.SplitHostPort``."""
    if destination.startswith("["):
        host, bracket, rest = destination[1:].partition("]")
        if not bracket:
            raise ValueError(f"address {destination}: missing ']' in address")
        if not rest:
            raise ValueError(f"address {destination}: missing port in address")
        if not rest.startswith(":") or ":" in rest[1:]:
            raise ValueError(f"address {destination}: too many colons in address")
        return host, rest[1:]
    if ":" not in destination:
        raise ValueError(f"address {destination}: missing port in address")
    if destination.count(":") > 1:
        raise ValueError(f"address {destination}: too many colons in address")
    host, _, port = destination.partition(":")
    return host, port


def resolve(destination: str, protocol: str) -> list[Address]:
    """Return the addresses of ``host:port`` in the order to try them; raises ``Unresolved``.

    An empty host is this machine. A name that no server answers for is an error at once: pods have no DNS.
    """
    try:
        host, port_text = split(destination)
    except ValueError as error:
        raise Unresolved(str(error)) from None
    port = _port(port_text, protocol)
    try:
        # As bytes: a name given as text loads Python's slow codec for international names.
        found = socket.getaddrinfo((host or "localhost").encode("ascii"), port, type=socket.SOCK_DGRAM)
    except (socket.gaierror, UnicodeError):
        raise Unresolved(f"lookup {host}: no such host") from None
    return list(dict.fromkeys(Address(family, str(sockaddr[0]), port) for family, _, _, _, sockaddr in found))


def _port(text: str, protocol: str) -> int:
    if text.isascii() and text.isdigit():
        if int(text) > 65535:
            raise Unresolved(f"address {text}: invalid port")
        return int(text)
    try:
        return socket.getservbyname(text, "udp" if protocol == "udp" else "tcp")
    except OSError:
        raise Unresolved(f"lookup {protocol}/{text}: unknown port") from None


def explain(error: OSError) -> str:
    """Return the kernel's sentence for an error as Go prints it (lower case, no number)."""
    text = os.strerror(error.errno) if error.errno else str(error)
    return text[:1].lower() + text[1:]
