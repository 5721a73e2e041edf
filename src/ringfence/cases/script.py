# SPDX-License-Identifier: Apache-2.0
"""What an engine is asked: steps of object events and probes. And the seam behind which every engine stands.

A script is what remains of a case once all names are resolved: plain API objects that come and go, and flows between
addresses. It knows no file format, and no expectation: those stay with the case.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ringfence.model.addresses import Address
from ringfence.model.flow import Flow
from ringfence.model.ports import Protocol as Traffic
from ringfence.model.settings import DEFAULTS, Settings

ObjectKey = tuple[str, str, str]
"""Kind, namespace (empty for cluster-wide kinds) and name of an object."""


class EventType(enum.Enum):
    """What happened to an object: it now is as shown, or it is gone."""

    APPLY = "apply"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Event:
    """One change of the cluster: a whole API object (plain JSON values), applied or deleted."""

    type: EventType
    object: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Spot:
    """An end of a probe: an address, the pod meant (``namespace/name``; None for other addresses), and what people
    call it (empty: the pod, or the address).
    """

    address: Address
    pod: str | None = None
    name: str = ""

    def __str__(self) -> str:
        return self.name or (str(self.address) if self.pod is None else self.pod)


@dataclass(frozen=True, slots=True)
class Way:
    """One way that a connection may take through a Service: its flow as policy at its source sees it, and as policy at
    its destination does. They differ where a node on the way puts its own address in (SEMANTICS 31, 32).
    """

    outgoing: Flow
    incoming: Flow


class Asks(enum.Enum):
    """What a probe wants to know: does a connection pass, does a path-MTU error ("packet too big") about that
    connection reach its source, or one about a connection that nobody opened (SEMANTICS 20)?
    """

    CONNECTION = "connection"
    TOO_BIG = "too-big"
    FORGED = "forged-too-big"


@dataclass(frozen=True, slots=True)
class Probe:
    """A new connection to try. Kernel engines send it from ``source.pod``; where that is None, from the address.

    ``through`` are the ways that it may take if the destination is a Service's (none at all: it leads nowhere); None
    if nothing translates it.
    """

    source: Spot
    destination: Spot
    protocol: Traffic
    port: int | None
    asks: Asks = Asks.CONNECTION
    through: tuple[Way, ...] | None = None

    @property
    def flow(self) -> Flow:
        """The probe's first packet, as it is sent."""
        return Flow(self.source.address, self.destination.address, self.protocol, self.port)

    @property
    def ways(self) -> tuple[Way, ...]:
        """The probe as policy judges it, after translation: all ways have the same verdict."""
        return (Way(self.flow, self.flow),) if self.through is None else self.through

    @property
    def traffic(self) -> str:
        """What is sent, as cases have it: the same word in both families."""
        return "ICMP" if self.port is None else f"{self.protocol.value}/{self.port}"

    @property
    def family(self) -> str:
        """The address family that it is sent in."""
        return f"IPv{self.destination.address.version}"

    def __str__(self) -> str:
        port = "" if self.port is None else f"/{self.port}"
        about = "" if self.asks is Asks.CONNECTION else f" {self.asks.value} error"
        return f"{self.source} -> {self.destination} {self.protocol.value}{port} {self.family}{about}"


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection that is opened, by TCP or UDP, and stays open until the script's end; named by a case."""

    name: str
    probe: Probe

    def __str__(self) -> str:
        return f"{self.name} ({self.probe})"


class Fate(enum.Enum):
    """What became of an open connection (SEMANTICS 20, 21): data passes in both directions, in neither, or in one."""

    ALIVE = "alive"
    CUT = "cut"
    ONE_WAY = "alive in one direction only"


@dataclass(frozen=True, slots=True)
class ScriptStep:
    """Changes, in order; then connections that are opened; then questions, all of them in the state after that: does
    data pass on ``established`` connections, and do ``probes``?
    """

    events: tuple[Event, ...]
    probes: tuple[Probe, ...]
    opens: tuple[Connection, ...] = ()
    established: tuple[Connection, ...] = ()


@dataclass(frozen=True, slots=True)
class Script:
    """A named sequence of steps, starting from an empty cluster, under an operator's choices."""

    name: str
    steps: tuple[ScriptStep, ...]
    settings: Settings = DEFAULTS


class Engine(Protocol):
    """Whatever can judge connections: told of changes, asked for verdicts, closed at the end."""

    def change(self, events: Sequence[Event]) -> None:
        """Take the changes in, in order. On return, verdicts are those of the new state."""
        ...

    def verdicts(self, probes: Sequence[Probe]) -> list[bool]:
        """Tell for each probe, in order, whether it is allowed."""
        ...

    def open(self, connections: Sequence[Connection]) -> list[bool]:
        """Open connections and keep them open; tell for each whether that could be done."""
        ...

    def established(self, connections: Sequence[Connection]) -> list[Fate]:
        """Tell what has become of connections that were opened."""
        ...

    def close(self) -> None:
        """Give back what the engine holds of the machine."""
        ...


SUPPORTED_POLICIES = frozenset({("networking.k8s.io/v1", "NetworkPolicy")})
_CLUSTER = frozenset({("v1", "Namespace"), ("v1", "Node"), ("v1", "Pod")})


def complaint_about(obj: Mapping[str, Any]) -> str | None:
    """Return what keeps engines from taking an object in, None if nothing does: no kind is silently left out."""
    meta = obj.get("metadata")
    kind, api_version = obj.get("kind"), obj.get("apiVersion")
    if not isinstance(kind, str) or not isinstance(meta, dict) or not isinstance(meta.get("name"), str):
        return "an object has a kind and a metadata.name"
    if (api_version, kind) not in SUPPORTED_POLICIES | _CLUSTER:
        return f"{kind} {api_version} is not supported yet"
    return None


def object_key(obj: Mapping[str, Any]) -> ObjectKey:
    """Return what names an object within a cluster."""
    meta = obj["metadata"]
    return obj["kind"], meta.get("namespace") or "", meta["name"]


class Objects:
    """The objects that exist after the events so far, for engines that compute from the whole state."""

    def __init__(self) -> None:
        self._by_key: dict[ObjectKey, Mapping[str, Any]] = {}

    def change(self, events: Sequence[Event]) -> None:
        """Take events in, in order."""
        for event in events:
            if event.type is EventType.APPLY:
                self._by_key[object_key(event.object)] = event.object
            else:
                self._by_key.pop(object_key(event.object), None)

    def all(self) -> list[Mapping[str, Any]]:
        """Return the objects in the order of their first appearance."""
        return list(self._by_key.values())
