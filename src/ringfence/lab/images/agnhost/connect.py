# SPDX-License-Identifier: Apache-2.0
"""``connect``: one attempt to reach a host and port, and one word about how it failed.

::

    reached       nothing printed, exit code 0
    TIMEOUT       no answer in time            REFUSED   an answer that says no
    DNS           the name or port is unknown  OTHER     another network error, with its sentence
    UNKNOWN       the destination cannot be read

All failures go to stderr with exit code 1. UDP and SCTP send a payload and count as reached when anything comes back.
"""

from __future__ import annotations

import errno
import socket
import sys
import time
from collections.abc import Sequence

from .addresses import Address, Unresolved, explain, resolve, split
from .flags import Flag, WrongUsage, parse

ABOUT = "Attempts a TCP, UDP or SCTP connection and prints TIMEOUT, REFUSED, DNS, OTHER or UNKNOWN if it fails"
USE = "connect [host:port]"
FLAGS = (
    Flag("timeout", 0.0, "Longest time to wait before giving up; 0 waits as long as the system does"),
    Flag("protocol", "tcp", "tcp, udp or sctp"),
    Flag("udp-data", "hostname", "What to send over UDP"),
    Flag("sctp-data", "hostname", "What to send over SCTP"),
)

# What Linux answers when a path is open but the port is not: port unreachable (UDP), a reset, or, for SCTP on a
# kernel without it, protocol unreachable.
_REFUSED = frozenset({errno.ECONNREFUSED, errno.ENOPROTOOPT})


class Failed(Exception):
    """The attempt failed; ``str()`` is the line to print."""


def main(words: Sequence[str]) -> int:
    """Run ``connect`` and return its exit code; raises ``WrongUsage``."""
    values, arguments = parse(words, FLAGS)
    if len(arguments) != 1:
        raise WrongUsage(f"accepts 1 arg(s), received {len(arguments)}")
    timeout = values["timeout"]
    assert isinstance(timeout, float)
    protocol = str(values["protocol"]) or "tcp"
    try:
        match protocol:
            case "tcp":
                _tcp(arguments[0], timeout)
            case "udp":
                _udp(arguments[0], timeout, f"{values['udp-data']}\n".encode())
            case "sctp":
                _sctp(arguments[0], timeout, f"{values['sctp-data']}\n".encode())
            case _:
                raise Failed(f"Unsupported protocol\n{protocol}")  # noqa: TRY301 - one way out for all failures
    except Failed as failure:
        sys.stderr.write(f"{failure}\n")
        return 1
    return 0


def _addresses(destination: str, protocol: str) -> list[Address]:
    try:
        return resolve(destination, protocol)
    except Unresolved as error:
        raise Failed(f"DNS: {error}") from None


def _tcp(destination: str, timeout: float) -> None:
    try:
        split(destination)
    except ValueError as error:
        raise Failed(f"UNKNOWN: {error}") from None
    addresses = _addresses(destination, "tcp")
    end = time.monotonic() + timeout
    failure = Failed("TIMEOUT")
    for tried, address in enumerate(addresses):
        # Go shares what is left of the time between the addresses still to try.
        left = (end - time.monotonic()) / (len(addresses) - tried)
        if timeout and left <= 0:
            break
        try:
            with socket.socket(address.family, socket.SOCK_STREAM) as sock:
                sock.settimeout(left if timeout else None)
                sock.connect((address.host, address.port))
        except TimeoutError:
            failure = Failed("TIMEOUT")
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:
                failure = Failed("REFUSED")
            else:
                failure = Failed(f"OTHER: dial tcp {address}: connect: {explain(error)}")
        else:
            return
    raise failure


def _udp(destination: str, timeout: float, data: bytes) -> None:
    address = _addresses(destination, "udp")[0]
    with socket.socket(address.family, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((address.host, address.port))
        except OSError as error:
            raise Failed(f"OTHER: dial udp {address}: connect: {explain(error)}") from None
        mine = sock.getsockname()
        path = f"{Address(address.family, mine[0], mine[1])}->{address}"
        sock.settimeout(timeout or None)
        doing = "write"
        try:
            sock.send(data)
            doing = "read"
            answer = sock.recv(1024)
        except TimeoutError:
            raise Failed(f"TIMEOUT: {doing} udp {path}: i/o timeout") from None
        except OSError as error:
            word = "REFUSED" if error.errno in _REFUSED else "UNKNOWN"
            raise Failed(f"{word}: {doing} udp {path}: {doing}: {explain(error)}") from None
    if not answer:
        raise Failed("OTHER: No data received from the server. Cannot guarantee the server received the request.")


def _sctp(destination: str, timeout: float, data: bytes) -> None:
    from . import sctp  # noqa: PLC0415 - most connections need no SCTP

    address = _addresses(destination, "sctp")[0]
    try:
        sctp.exchange(address, data, timeout)
    except TimeoutError:
        raise Failed("TIMEOUT") from None
    except OSError as error:
        sentence = "connection refused" if error.errno in _REFUSED else explain(error)
        raise Failed(f"OTHER: {sentence}") from None
