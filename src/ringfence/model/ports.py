# SPDX-License-Identifier: Apache-2.0
"""Protocols and ports: what a rule may ask of a packet above its addresses."""

from __future__ import annotations

import enum
from dataclasses import dataclass

LAST_PORT = 65535


class Protocol(enum.Enum):
    """The protocols that policies and flows name; the value is the name in Kubernetes' spelling."""

    TCP = "TCP"
    UDP = "UDP"
    SCTP = "SCTP"
    ICMP = "ICMP"
    ICMPV6 = "ICMPv6"

    @property
    def number(self) -> int:
        """The protocol number in an IP header (IANA)."""
        return _NUMBERS[self]

    @property
    def has_ports(self) -> bool:
        """Tell whether packets of this protocol carry port numbers."""
        return self in WITH_PORTS


_NUMBERS = {Protocol.TCP: 6, Protocol.UDP: 17, Protocol.SCTP: 132, Protocol.ICMP: 1, Protocol.ICMPV6: 58}
WITH_PORTS = frozenset({Protocol.TCP, Protocol.UDP, Protocol.SCTP})


class AnyPort(enum.Enum):
    """Sentinel: every port of a protocol."""

    ANY = "any port"


ANY_PORT = AnyPort.ANY


@dataclass(frozen=True, slots=True, order=True)
class PortRange:
    """Port numbers from ``first`` to ``last``, both included (0-65535)."""

    first: int
    last: int

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last <= LAST_PORT:
            raise ValueError(f"no port range: {self.first}-{self.last}")

    def contains(self, port: int) -> bool:
        """Tell whether a port number lies in the range."""
        return self.first <= port <= self.last

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


@dataclass(frozen=True, slots=True, order=True)
class NamedPort:
    """A port by its name, looked up on the destination pod, together with the protocol (SEMANTICS 9)."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class PortMatch:
    """One entry of a rule's ports: a protocol, and every port, a range or a name of it."""

    protocol: Protocol
    port: AnyPort | PortRange | NamedPort = ANY_PORT

    def __str__(self) -> str:
        return self.protocol.value if self.port is ANY_PORT else f"{self.protocol.value}/{self.port}"


class AnyTraffic(enum.Enum):
    """Sentinel: every port of every protocol, port-less protocols included."""

    ANY = "any traffic"


ANY_TRAFFIC = AnyTraffic.ANY


@dataclass(frozen=True, slots=True)
class Ports:
    """Exactly these port entries; none at all matches nothing."""

    matches: tuple[PortMatch, ...]

    def __str__(self) -> str:
        return ", ".join(map(str, self.matches)) or "no port"
