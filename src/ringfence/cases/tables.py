# SPDX-License-Identifier: Apache-2.0
"""Expectations, read: tables of dots and crosses, single probes, and ``TCP/80``. Shape and words only, no addresses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ringfence.cases.format import Expectation
from ringfence.model.ports import LAST_PORT, Protocol

CORNER = "from\\to"
_MARKS = {".": True, "X": False, "-": None}
_PROTOCOLS = {protocol.value.upper(): protocol for protocol in Protocol}


class BadExpectation(ValueError):
    """An expectation that cannot be read: ``field`` of it is wrong, the message says how."""

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Traffic:
    """A protocol and a destination port. ``ICMP`` means the echo request of the flow's family."""

    protocol: Protocol
    port: int | None

    def in_family(self, version: int) -> Traffic:
        """Return the traffic of the same meaning in an address family."""
        if self.protocol in (Protocol.ICMP, Protocol.ICMPV6):
            return Traffic(Protocol.ICMP if version == 4 else Protocol.ICMPV6, None)
        return self


@dataclass(frozen=True, slots=True)
class Cell:
    """One expected verdict, between ends as they are written: ``namespace/pod``, ``node/NAME`` or an address."""

    source: str
    destination: str
    traffic: Traffic
    family: int | None
    allowed: bool


def parse_traffic(text: str) -> Traffic:
    """Read ``TCP/80``, ``sctp/132`` or ``ICMP``; raises ``ValueError``."""
    name, slash, port = text.partition("/")
    protocol = _PROTOCOLS.get(name.upper())
    if protocol is None:
        raise ValueError(f"no protocol: {name!r} (one of {', '.join(p.value for p in Protocol)})")
    if not protocol.has_ports:
        if slash:
            raise ValueError(f"{protocol.value} has no ports")
        return Traffic(protocol, None)
    if not port.isdecimal() or int(port) > LAST_PORT:
        raise ValueError(f"no port: {port!r} (write {protocol.value}/80)")
    return Traffic(protocol, int(port))


def cells(expectation: Expectation) -> Iterator[Cell]:
    """Return the verdicts that an expectation holds; raises ``BadExpectation``."""
    traffics = (expectation.traffic,) if isinstance(expectation.traffic, str) else expectation.traffic
    single = (expectation.source, expectation.to, expectation.verdict)
    if expectation.table is not None:
        if any(part is not None for part in single):
            raise BadExpectation("table", "either a table, or from, to and verdict")
        pairs = list(_read_table(expectation.table))
    elif expectation.source is None or expectation.to is None or expectation.verdict is None:
        raise BadExpectation("", "needs a table, or from, to and verdict")
    else:
        pairs = [(expectation.source, expectation.to, expectation.verdict == "allow")]
    for word in traffics:
        try:
            traffic = parse_traffic(word)
        except ValueError as error:
            raise BadExpectation("traffic", str(error)) from None
        for source, destination, allowed in pairs:
            yield Cell(source, destination, traffic, expectation.family, allowed)


def _read_table(text: str) -> Iterator[tuple[str, str, bool]]:
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if len(lines) < 2:
        raise BadExpectation("table", "needs a row of destinations, and a row for each source")
    corner, *columns = lines[0]
    if corner != CORNER:
        raise BadExpectation("table", f"its first line begins with {CORNER}, then come the destinations")
    for name, *marks in lines[1:]:
        if len(marks) != len(columns):
            raise BadExpectation("table", f"row {name} has {len(marks)} marks for {len(columns)} destinations")
        for column, mark in zip(columns, marks, strict=True):
            if mark not in _MARKS:
                raise BadExpectation("table", f"row {name}: {mark!r} is none of . (allow), X (deny), - (not asked)")
            allowed = _MARKS[mark]
            if allowed is not None:
                yield name, column, allowed
