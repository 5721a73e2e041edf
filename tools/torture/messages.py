# SPDX-License-Identifier: Apache-2.0
"""What the hammer's process is told, and what it tells. Values only; times are of CLOCK_MONOTONIC, one for all."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Place:
    """Somewhere that connections start and end: a pod's or an outsider's namespace, and its addresses."""

    name: str
    netns: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Add:
    """Hammer a place from now on."""

    place: Place


@dataclass(frozen=True, slots=True)
class Drop:
    """Leave a place alone, and forget what is on its way from and to it. Answered by ``Dropped``."""

    name: str


@dataclass(frozen=True, slots=True)
class Renew:
    """Give up all open UDP flows for others. Answered by ``Dropped`` with ``RENEWED``."""


@dataclass(frozen=True, slots=True)
class Stop:
    """End, after what is on its way has arrived or has not."""


Command = Add | Drop | Renew | Stop
RENEWED = ""


class Kind(enum.Enum):
    """What was observed."""

    NEW_TCP = "new TCP connections"
    NEW_UDP = "new UDP flows"
    KEPT_UDP = "datagrams of open UDP flows, both ways"
    KEPT_TCP = "exchanges on open TCP connections"
    STUCK_TCP = "open TCP connections that came to a standstill"


class Observation(NamedTuple):
    """One packet's fate: of a flow, judged at some time between ``began`` and ``ended``.

    Of ``STUCK_TCP``: nothing arrived from ``began`` to ``ended``, though something was sent.
    """

    kind: Kind
    source: str
    destination: str
    protocol: str
    port: int
    began: float
    ended: float
    passed: bool


@dataclass(frozen=True, slots=True)
class Dropped:
    """The answer to ``Drop``."""

    name: str


@dataclass(frozen=True, slots=True)
class Batch:
    """What was observed since the last batch; everything that began before ``settled`` has been told by now.

    ``lag`` is the longest that the hammer itself was kept waiting; ``unclear`` counts connections that ended in an
    error of the sending side, ``late`` packets that came when they had been given up.
    """

    observations: tuple[Observation, ...]
    lag: float
    unclear: int
    late: int
    discarded: int
    open_connections: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """The last word."""


Report = Batch | Dropped | Stopped
