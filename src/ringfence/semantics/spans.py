# SPDX-License-Identifier: Apache-2.0
"""Elementary traffic: protocols and port spans that no rule tells apart.

The ports of each protocol are cut at every number and range that a rule names, and at every number that a port name
which some rule uses has on some pod. Protocols without ports are one span each. A set of spans is an ``int``, bit n
for span n, so that unions, intersections and differences are what ``|``, ``&`` and ``& ~`` do.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ringfence.model.ports import LAST_PORT, PortRange, Protocol


@dataclass(frozen=True, slots=True)
class Span:
    """Traffic that is judged alike: ports of a protocol, or a protocol that has none (``ports`` None)."""

    protocol: Protocol
    ports: PortRange | None

    @property
    def port(self) -> int | None:
        """A port of the span, None exactly for protocols without ports; not 0 where there is another."""
        return None if self.ports is None else min(max(self.ports.first, 1), self.ports.last)

    def __str__(self) -> str:
        return self.protocol.value if self.ports is None else f"{self.protocol.value}/{self.ports}"


class Spans:
    """All elementary traffic, numbered: every flow is in exactly one span."""

    __slots__ = ("_first", "_starts", "all", "members")

    def __init__(self, cuts: Iterable[tuple[Protocol, PortRange]]) -> None:
        starts: dict[Protocol, set[int]] = {protocol: {0} for protocol in Protocol if protocol.has_ports}
        for protocol, ports in cuts:
            if protocol.has_ports:
                starts[protocol] |= {ports.first, ports.last + 1} - {LAST_PORT + 1}
        self._starts = {protocol: sorted(each) for protocol, each in starts.items()}
        self._first: dict[Protocol, int] = {}
        members: list[Span] = []
        for protocol in Protocol:
            self._first[protocol] = len(members)
            members += _cut(protocol, self._starts.get(protocol))
        self.members: tuple[Span, ...] = tuple(members)
        self.all = (1 << len(members)) - 1

    def number(self, protocol: Protocol, port: int | None) -> int:
        """Return the number of the span that a packet is in."""
        if port is None:
            return self._first[protocol]
        return self._first[protocol] + bisect_right(self._starts[protocol], port) - 1

    def of_protocol(self, protocol: Protocol) -> int:
        """Return the set of all spans of a protocol."""
        return self._between(self._first[protocol], self.number(protocol, LAST_PORT if protocol.has_ports else None))

    def of_ports(self, protocol: Protocol, ports: PortRange) -> int:
        """Return the set of spans that a range of ports is, which must be one of the cuts; none without ports."""
        if not protocol.has_ports:
            return 0
        return self._between(self.number(protocol, ports.first), self.number(protocol, ports.last))

    def within(self, mask: int) -> Iterator[Span]:
        """Yield the spans of a set, in their order."""
        return (span for number, span in enumerate(self.members) if mask >> number & 1)

    @staticmethod
    def _between(first: int, last: int) -> int:
        return (1 << (last + 1)) - (1 << first)


def _cut(protocol: Protocol, starts: list[int] | None) -> Iterator[Span]:
    if starts is None:
        yield Span(protocol, None)
        return
    for first, after in zip(starts, [*starts[1:], LAST_PORT + 1], strict=True):
        yield Span(protocol, PortRange(first, after - 1))
