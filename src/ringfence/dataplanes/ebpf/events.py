# SPDX-License-Identifier: Apache-2.0
"""What the programs report: ``struct event`` of the ring buffer, and their counters. Keeps ``verdicts.Reports``.

The programs count every verdict, and report so many a second for each endpoint; what they leave out an endpoint's next
event counts.
"""

from __future__ import annotations

import ipaddress
import os
import select
import struct
import threading
from collections import Counter
from collections.abc import Mapping

from ringfence.compiler.flat import RuleId
from ringfence.compiler.program import RulesetId
from ringfence.dataplanes.ebpf.layout import digits
from ringfence.dataplanes.ebpf.render import PROTOCOLS
from ringfence.dataplanes.verdicts import Reason, VerdictEvent, VerdictKind
from ringfence.host.bpf.maps import BpfMap
from ringfence.host.bpf.ring import RingReader
from ringfence.model.addresses import Address
from ringfence.model.policy import Direction
from ringfence.model.ports import Protocol

# bpf/maps.h: struct event, enum reason, enum direction, rf_counters
_EVENT = struct.Struct("=4Q16s16sHBBBBBB")
_REASONS = (Reason.RULE, Reason.NO_RULE, Reason.NO_CONNECTION, Reason.MID_CONNECTION, Reason.UNPARSABLE)
_DIRECTIONS = (None, Direction.INGRESS, Direction.EGRESS)
_KINDS = {
    allowed << 5 | direction << 3 | reason: VerdictKind(bool(allowed), word, _REASONS[reason])
    for allowed in (0, 1)
    for direction, word in enumerate(_DIRECTIONS)
    for reason in range(len(_REASONS))
}
_COUNT = struct.Struct("=Q")


def unpack_event(record: bytes) -> VerdictEvent:
    """Read ``struct event``."""
    at, rule, ruleset, lost, client, server, port, protocol, family, allowed, direction, reason, _ = _EVENT.unpack(
        record
    )
    named = PROTOCOLS.get(protocol, protocol)
    return VerdictEvent(
        at_ns=at,
        allowed=bool(allowed),
        reason=_REASONS[reason],
        direction=_DIRECTIONS[direction],
        client=_address(client, family),
        server=_address(server, family),
        protocol=named,
        port=port if isinstance(named, Protocol) and named.has_ports else None,
        ruleset=RulesetId(digits(ruleset)) if ruleset else None,
        rule=RuleId(digits(rule)) if rule else None,
        lost=lost,
    )


def _address(data: bytes, family: int) -> Address:
    return ipaddress.ip_address(data[:4] if family == 4 else data)


class Reporting:
    """Reads the reports of the instance that is in force, one after the other; for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ready = select.epoll()  # one descriptor, whichever ring is read
        self._kept = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)  # readable while an earlier ring's events are
        self._ready.register(self._kept, select.EPOLLIN)
        self._ring: tuple[BpfMap, RingReader] | None = None
        self._counters: BpfMap | None = None
        self._unread: list[VerdictEvent] = []
        self._counted: Counter[VerdictKind] = Counter()  # by instances that are gone

    def follow(self, events: BpfMap, counters: BpfMap) -> None:
        """Read another instance's reports from now on; what the last one still had to say is kept."""
        with self._lock:
            self._leave()
            self._counters = counters
            self._ring = events, RingReader(events)
            self._ready.register(events.fd, select.EPOLLIN)

    def leave(self) -> None:
        """Read nobody's reports."""
        with self._lock:
            self._leave()

    def fileno(self) -> int:
        """Return the descriptor that is readable while there are events."""
        return self._ready.fileno()

    def read(self) -> list[VerdictEvent]:
        """Return the events that there are."""
        with self._lock:
            events, self._unread = self._unread, []
            if events:
                os.eventfd_read(self._kept)
            if self._ring is not None:
                events += map(unpack_event, self._ring[1].read())
            return events

    def counts(self) -> Mapping[VerdictKind, int]:
        """Return how often each kind of verdict was given."""
        with self._lock:
            return self._counted + self._count()

    def close(self) -> None:
        """Give back what this process holds."""
        self.leave()
        self._ready.close()
        os.close(self._kept)

    def _count(self) -> Counter[VerdictKind]:
        found: Counter[VerdictKind] = Counter()
        if self._counters is not None:
            for index, kind in _KINDS.items():
                values = self._counters.lookup(struct.pack("=I", index)) or b""
                found[kind] = sum(number for (number,) in _COUNT.iter_unpack(values))
        return found

    def _leave(self) -> None:
        if self._ring is not None:
            events, reader = self._ring
            left = list(map(unpack_event, reader.read()))
            if left and not self._unread:
                os.eventfd_write(self._kept, 1)
            self._unread += left
            self._ready.unregister(events.fd)
            reader.close()
            self._counted += self._count()
        self._ring = self._counters = None
