# SPDX-License-Identifier: Apache-2.0
"""A probe and what it may meet, as values; and what the kernel's error numbers mean for it."""

from __future__ import annotations

import enum
import errno
import socket
from dataclasses import dataclass

from ringfence.errors import HostRefused
from ringfence.model.addresses import Address
from ringfence.model.ports import Protocol


class Outcome(enum.Enum):
    """What a probe met."""

    ANSWERED = "answered"  # a connection: the way is open, and somebody listens
    REFUSED = "refused"  # an answer that says no: the way is open and nobody listens, or something rejects
    SILENT = "silent"  # no answer at all: dropped
    UNREACHABLE = "unreachable"  # a router said that no way leads there (TCP does not always hear it: then silent)

    @property
    def passed(self) -> bool:
        """Tell whether packets got through: a refusal is an answer of the destination too."""
        return self in (Outcome.ANSWERED, Outcome.REFUSED)


@dataclass(frozen=True, slots=True)
class Probe:
    """One question: can a new connection be made from a namespace (by its name) to an address? ICMP and ICMPv6 ask for
    an echo.

    ``source`` is the address that it comes from, one of the namespace's own; None lets the kernel choose.
    """

    netns: str
    destination: Address
    protocol: Protocol
    port: int | None
    source: Address | None = None

    def __post_init__(self) -> None:
        if not self.protocol.has_ports:
            if self.port is not None:
                raise ValueError(f"{self.protocol.value} has no ports")
        elif self.port is None or not 1 <= self.port <= 65535:
            raise ValueError(f"no port to probe: {self.port}")


_OUTCOMES = {
    0: Outcome.ANSWERED,
    errno.ECONNREFUSED: Outcome.REFUSED,
    errno.ECONNRESET: Outcome.REFUSED,
    errno.ENOPROTOOPT: Outcome.REFUSED,  # "protocol unreachable": an SCTP packet arrived where nobody speaks it
    errno.EPROTO: Outcome.UNREACHABLE,
    errno.EHOSTUNREACH: Outcome.UNREACHABLE,
    errno.ENETUNREACH: Outcome.UNREACHABLE,
    errno.EACCES: Outcome.UNREACHABLE,
    errno.ETIMEDOUT: Outcome.SILENT,
    errno.ENOBUFS: Outcome.SILENT,  # lost before it left: a link that goes down, or a full queue
    errno.EPERM: Outcome.SILENT,  # dropped on its way out of this very namespace
    errno.EINVAL: Outcome.SILENT,  # what a blackhole route says to whoever is in its own namespace
}
_IP_RECVERR, _IPV6_RECVERR = 11, 25  # linux/in.h, linux/in6.h


def hear_errors(sock: socket.socket) -> None:
    """Have the kernel report all ICMP errors, with the packet that each is about, and not only the fatal ones."""
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)


def family_of(address: Address) -> socket.AddressFamily:
    """Return the socket family of an address."""
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def meaning(error: OSError, probe: Probe) -> Outcome:
    """Return what an error says of a probe; raises ``HostRefused`` if the probe could not be made at all."""
    outcome = _OUTCOMES.get(error.errno or 0)
    if outcome is None:
        raise HostRefused(
            f"could not probe {probe.destination} from {probe.netns}", asked=str(probe), answered=error.strerror or ""
        ) from error
    return outcome
