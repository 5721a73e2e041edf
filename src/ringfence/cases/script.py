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
    """An end of a probe: an address, and the pod meant (``namespace/name``), None for other addresses."""

    address: Address
    pod: str | None = None

    def __str__(self) -> str:
        return str(self.address) if self.pod is None else self.pod


@dataclass(frozen=True, slots=True)
class Probe:
    """A new connection to try. Kernel engines send it from ``source.pod``; where that is None, from the address."""

    source: Spot
    destination: Spot
    protocol: Traffic
    port: int | None

    @property
    def flow(self) -> Flow:
        """The probe's first packet, as policy judges it."""
        return Flow(self.source.address, self.destination.address, self.protocol, self.port)

    def __str__(self) -> str:
        port = "" if self.port is None else f"/{self.port}"
        return f"{self.source} -> {self.destination} {self.protocol.value}{port} IPv{self.destination.address.version}"


@dataclass(frozen=True, slots=True)
class ScriptStep:
    """Changes, in order; then probes, all of them in the state after the last change."""

    events: tuple[Event, ...]
    probes: tuple[Probe, ...]


@dataclass(frozen=True, slots=True)
class Script:
    """A named sequence of steps, starting from an empty cluster."""

    name: str
    steps: tuple[ScriptStep, ...]


class Engine(Protocol):
    """Whatever can judge connections: told of changes, asked for verdicts, closed at the end."""

    def change(self, events: Sequence[Event]) -> None:
        """Take the changes in, in order. On return, verdicts are those of the new state."""
        ...

    def verdicts(self, probes: Sequence[Probe]) -> list[bool]:
        """Tell for each probe, in order, whether it is allowed."""
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
