# SPDX-License-Identifier: Apache-2.0
"""What engines that move no packet share: how the answer to each kind of question follows from the verdict of flows.

An open connection lives as long as its flow is allowed now (SEMANTICS 21), or for ever if connections are kept. A
path-MTU error about a connection reaches the connection's source if the connection is allowed; one about a connection
that nobody opened reaches no isolated pod (SEMANTICS 20).
"""

from __future__ import annotations

import abc
from collections.abc import Sequence

from ringfence.cases.script import Asks, Connection, Event, Fate, Probe, Way
from ringfence.model.addresses import Address
from ringfence.model.settings import DEFAULTS, Established, Settings


class WithoutPackets(abc.ABC):
    """An engine that answers from verdicts; subclasses give those."""

    def __init__(self, settings: Settings = DEFAULTS) -> None:
        self.settings = settings

    @abc.abstractmethod
    def change(self, events: Sequence[Event]) -> None:
        """Take the changes in, in order."""

    @abc.abstractmethod
    def passes(self, way: Way) -> bool:
        """Tell whether the source's egress and the destination's ingress both allow a connection."""

    @abc.abstractmethod
    def isolates(self, address: Address) -> bool:
        """Tell whether some policy isolates the pod at an address, in either direction."""

    def verdicts(self, probes: Sequence[Probe]) -> list[bool]:
        """Tell for each probe whether it is allowed."""
        return [
            not self.isolates(probe.source.address) if probe.asks is Asks.FORGED else self._allows(probe)
            for probe in probes
        ]

    def open(self, connections: Sequence[Connection]) -> list[bool]:
        """Tell for each connection whether it may be opened."""
        return self.verdicts([connection.probe for connection in connections])

    def established(self, connections: Sequence[Connection]) -> list[Fate]:
        """Tell for each connection whether it would be allowed now."""
        kept = self.settings.established is Established.KEEP
        return [Fate.ALIVE if kept or self._allows(connection.probe) else Fate.CUT for connection in connections]

    def close(self) -> None:  # noqa: B027 - no subclass has anything to give back
        """Hold nothing, give nothing back."""

    def _allows(self, probe: Probe) -> bool:
        # No way at all leads nowhere; where there are several, a case is refused unless they agree (``build``).
        return len(probe.ways) > 0 and all(self.passes(way) for way in probe.ways)
