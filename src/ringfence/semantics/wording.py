# SPDX-License-Identifier: Apache-2.0
"""Sets of spans in words: "all", "none", "TCP/80,443 UDP".

People have no port 0, and one ICMP: the one of the address family that they speak. ``told`` translates a set of spans
so that what people call the same is the same set in both families.
"""

from __future__ import annotations

from ringfence.model.ports import LAST_PORT, PortRange, Protocol
from ringfence.semantics.spans import Spans

_ECHO = {4: Protocol.ICMP, 6: Protocol.ICMPV6}


class Wording:
    """Says sets of spans. ``whole`` is all traffic, as told; ``wanted`` (a part of it) is all that is asked about."""

    __slots__ = ("_icmp", "_spans", "_texts", "wanted", "whole")

    def __init__(self, spans: Spans, *, protocol: Protocol | None = None, port: int | None = None) -> None:
        self._spans = spans
        self._texts: dict[int, str] = {0: "none"}
        self._icmp = spans.of_protocol(Protocol.ICMP)
        self.whole = sum(
            1 << number
            for number, span in enumerate(spans.members)
            if span.protocol is not Protocol.ICMPV6 and (span.ports is None or span.ports.last > 0)
        )
        asked = self.whole if protocol is None else spans.of_protocol(protocol)
        if port is not None:
            # Without a protocol, a port of TCP, as in a rule.
            asked = 1 << spans.number(protocol or Protocol.TCP, port)
        self.wanted = asked & self.whole

    def told(self, mask: int, version: int) -> int:
        """Return what of a set of spans is asked about, as people tell it."""
        echo = mask >> self._spans.number(_ECHO[version], None) & 1
        return ((mask & ~self._icmp) | echo * self._icmp) & self.wanted

    def untold(self, version: int) -> int:
        """Return what is asked about as a set of spans of a family: what ``told`` was told of."""
        echo = self._spans.of_protocol(_ECHO[version]) if self.wanted & self._icmp else 0
        return (self.wanted & ~self._icmp) | echo

    def listed(self, mask: int) -> list[tuple[Protocol, tuple[PortRange, ...]]]:
        """Return a set by protocol, ports joined to as few ranges as possible; no ranges where there are no ports."""
        found: dict[Protocol, list[PortRange]] = {}
        for span in self._spans.within(mask):
            ranges = found.setdefault(span.protocol, [])
            if span.ports is not None:
                ports = PortRange(max(span.ports.first, 1), span.ports.last)
                if ranges and ranges[-1].last + 1 == ports.first:
                    ports = PortRange(ranges.pop().first, ports.last)
                ranges.append(ports)
        return [(protocol, tuple(ranges)) for protocol, ranges in found.items()]

    def text(self, mask: int) -> str:
        """Say a set: "all", "none", "TCP/80,443 UDP", or "all except TCP/25" where that is shorter."""
        found = self._texts.get(mask)
        if found is None:
            plain = self._plain(mask)
            except_for = f"all except {self._plain(self.whole & ~mask)}"
            short = plain if len(plain) <= len(except_for) else except_for
            found = self._texts[mask] = "all" if mask == self.whole else short
        return found

    def _plain(self, mask: int) -> str:
        words = []
        for protocol, ranges in self.listed(mask):
            everything = not ranges or ranges == (PortRange(1, LAST_PORT),)
            words.append(protocol.value if everything else f"{protocol.value}/{','.join(map(str, ranges))}")
        return " ".join(words)
