# SPDX-License-Identifier: Apache-2.0
"""Which verdicts are allowed at a moment: what was sent by then, what each agent was proven to have committed. Pure.

An agent follows pods, namespaces and policies in three streams, each in order, but not in step with one another. So
what a node enforces at a moment is one version of each stream: at least the versions that a fence proved committed
there, at most the versions that were sent to the API server by then. Every combination in between is allowed.

A flow has two halves: its source's node judges egress, its destination's node ingress. On one node both are of the
same program, so of one combination; on two nodes the combinations are independent.
"""

from __future__ import annotations

import bisect
import enum
import ipaddress
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ringfence.apis.core import NamespaceObject, Pod, build_cluster, convert
from ringfence.apis.networkpolicy import lower, policy_set
from ringfence.model.cluster import Cluster
from ringfence.model.flow import Flow
from ringfence.model.policy import Direction, PolicySet
from ringfence.model.ports import Protocol
from ringfence.semantics.evaluate import judge_half

Object = Mapping[str, Any]
_MEMO_LIMIT = 400_000


class Stream(enum.IntEnum):
    """What an agent follows by itself; the value is its place in a ``Version``."""

    PODS = 0
    NAMESPACES = 1
    POLICIES = 2


class Version(NamedTuple):
    """How many changes of each stream have happened."""

    pods: int = 0
    namespaces: int = 0
    policies: int = 0

    def raised(self, other: Version) -> Version:
        """Return the newer of both, stream by stream."""
        return Version(*map(max, self, other))


class Snapshot:
    """All objects of one stream after one change, by name (``namespace/name``)."""

    __slots__ = ("_by_address", "_by_namespace", "objects")

    def __init__(self, objects: Mapping[str, Object]) -> None:
        self.objects = objects
        self._by_address = {
            entry["ip"]: obj
            for obj in objects.values()
            if obj["kind"] == "Pod" and obj["status"]["phase"] != "Succeeded"
            for entry in obj["status"]["podIPs"]
        }
        self._by_namespace: dict[str, tuple[Object, ...]] = {}
        for obj in objects.values():
            space = obj["metadata"].get("namespace", "")
            self._by_namespace[space] = (*self._by_namespace.get(space, ()), obj)

    def holding(self, address: str) -> Object | None:
        """Return the running pod that has an address."""
        return self._by_address.get(address)

    def inside(self, namespace: str) -> tuple[Object, ...]:
        """Return the objects of a namespace."""
        return self._by_namespace.get(namespace, ())


class Asked(NamedTuple):
    """A flow in plain words, which are quicker to look up than addresses are."""

    source: str
    destination: str
    protocol: str
    port: int

    @property
    def flow(self) -> Flow:
        """The flow as the oracle takes it."""
        source, destination = ipaddress.ip_address(self.source), ipaddress.ip_address(self.destination)
        return Flow(source, destination, Protocol(self.protocol), self.port)

    def subject(self, direction: Direction) -> str:
        """Return the address whose policies judge a half."""
        return self.source if direction is Direction.EGRESS else self.destination


@dataclass(frozen=True, slots=True)
class Span:
    """The versions that a node may enforce in some interval: from ``oldest`` to ``newest``, stream by stream."""

    oldest: Version
    newest: Version

    def ranges(self) -> tuple[range, range, range]:
        """Return the versions of each stream."""
        pods, namespaces, policies = (range(low, high + 1) for low, high in zip(self.oldest, self.newest, strict=True))
        return pods, namespaces, policies


class _End(NamedTuple):
    """One half of a flow: who judges it, and since which version of the pods its subject is the pod that it is."""

    direction: Direction
    node: str | None
    floor: int


class _Line:
    """Versions over time: each entry holds from its time on."""

    def __init__(self) -> None:
        self._times: list[float] = [0.0]
        self._versions: list[Version] = [Version()]

    def add(self, at: float, version: Version) -> None:
        self._versions.append(self._versions[-1].raised(version))
        self._times.append(max(at, self._times[-1]))

    def at(self, moment: float) -> Version:
        return self._versions[bisect.bisect_right(self._times, moment) - 1]


class History:
    """Everything that was sent, and what is known to be in force where. One thread adds, another may ask."""

    def __init__(self, homes: Mapping[str, str | None]) -> None:
        """``homes``: the node of each address, None for addresses outside of the cluster."""
        self._homes = homes
        self._snapshots: dict[Stream, list[Snapshot]] = {stream: [Snapshot({})] for stream in Stream}
        self._sent = _Line()
        self._proven = {node: _Line() for node in homes.values() if node is not None}
        self._clusters: dict[tuple[int, int], Cluster] = {}
        self._policies: dict[int, PolicySet] = {}
        self._memo: dict[object, bool] = {}
        self._born: dict[str, list[tuple[float, int]]] = {}

    @property
    def current(self) -> Version:
        """The version that includes everything sent so far."""
        return self._sent.at(float("inf"))

    def latest(self, stream: Stream) -> dict[str, Object]:
        """Return the objects of a stream as they were sent last (a copy)."""
        return dict(self._snapshots[stream][-1].objects)

    def send(self, stream: Stream, objects: Mapping[str, Object], *, at: float) -> Version:
        """Note that a stream is about to have these objects; to be called before the API server is asked."""
        self._snapshots[stream].append(Snapshot(objects))
        place = list(self.current)
        place[stream] = len(self._snapshots[stream]) - 1
        self._sent.add(at, Version(*place))
        return self.current

    def prove(self, node: str, version: Version, *, at: float) -> None:
        """Note that a node was seen to enforce at least a version."""
        self._proven[node].add(at, version)

    def born(self, address: str, pods: int, *, at: float) -> None:
        """Note at which version of the pods an address's pod started, before its first packet: its own node judges it
        as that pod from then on, whatever else it has committed. An address that is used again is never its last
        holder.
        """
        self._born.setdefault(address, []).append((at, pods))

    def span(self, node: str, began: float, ended: float) -> Span:
        """Return what a node may have enforced in an interval."""
        oldest = self._proven[node].at(began)
        return Span(oldest, self._sent.at(ended).raised(oldest))

    def expected(self, asked: Asked, began: float, ended: float) -> frozenset[bool]:
        """Return the verdicts that a packet may have got in an interval; usually one."""
        egress, ingress = self._end(asked, Direction.EGRESS, began), self._end(asked, Direction.INGRESS, began)
        if egress.node == ingress.node and egress.node is not None:
            versions = self._versions(asked, egress.node, began, ended)
            return _either(self._half(asked, egress, each) and self._half(asked, ingress, each) for each in versions)
        outs, ins = (self._halves(asked, end, began, ended) for end in (egress, ingress))
        return frozenset(out and into for out in outs for into in ins)

    def snapshot(self, version: Version, stream: Stream) -> Snapshot:
        """Return a stream's objects at a version."""
        return self._snapshots[stream][version[stream]]

    def _end(self, asked: Asked, direction: Direction, began: float) -> _End:
        address = asked.subject(direction)
        floor = max((pods for at, pods in self._born.get(address, ()) if at <= began), default=0)
        return _End(direction, self._homes[address], floor)

    def _halves(self, asked: Asked, end: _End, began: float, ended: float) -> frozenset[bool]:
        if end.node is None:  # no policy is enforced outside of the cluster
            return frozenset({True})
        return _either(self._half(asked, end, each) for each in self._versions(asked, end.node, began, ended))

    def _versions(self, asked: Asked, node: str, began: float, ended: float) -> Iterator[Version]:
        """Yield the combinations that a node may have enforced: one of each that differ in what the flow depends on.

        That is: both ends' pods, their namespaces' labels, their namespaces' policies. NetworkPolicies are of one
        namespace and know no others' (SEMANTICS 12, 13). Objects stand by their identity: a snapshot shares what did
        not change with the one before, and all snapshots are kept.
        """
        pods, namespaces, policies = self.span(node, began, ended).ranges()
        ends = {version: self._pods(version, asked) for version in pods}
        spaces = sorted({pod["metadata"]["namespace"] for both in ends.values() for pod in both if pod is not None})
        labels = self._snapshots[Stream.NAMESPACES]
        rules = self._snapshots[Stream.POLICIES]
        return map(
            Version._make,
            itertools.product(
                _distinct(pods, lambda version: tuple(map(id, ends[version]))),
                _distinct(namespaces, lambda version: tuple(id(labels[version].objects.get(s)) for s in spaces)),
                _distinct(policies, lambda version: tuple(id(p) for s in spaces for p in rules[version].inside(s))),
            ),
        )

    def _pods(self, version: int, asked: Asked) -> tuple[Object | None, Object | None]:
        pods = self._snapshots[Stream.PODS][version]
        return pods.holding(asked.source), pods.holding(asked.destination)

    def _half(self, asked: Asked, end: _End, version: Version) -> bool:
        version = version._replace(pods=max(version.pods, end.floor))
        key = (asked, end.direction, *self._depends_on(asked, end.direction, version))
        if key not in self._memo:
            if len(self._memo) > _MEMO_LIMIT:
                self._memo.clear()
            cluster, policies = self.meaning(version)
            self._memo[key] = judge_half(asked.flow, end.direction, cluster, policies).allowed
        return self._memo[key]

    def _depends_on(self, asked: Asked, direction: Direction, version: Version) -> Iterator[object]:
        namespaces = self.snapshot(version, Stream.NAMESPACES).objects
        policies = self.snapshot(version, Stream.POLICIES)
        for address, pod in zip(asked[:2], self._pods(version.pods, asked), strict=True):
            yield id(pod)
            if pod is not None:
                space = pod["metadata"]["namespace"]
                yield id(namespaces.get(space))
                if address == asked.subject(direction):
                    yield tuple(map(id, policies.inside(space)))

    def meaning(self, version: Version) -> tuple[Cluster, PolicySet]:
        """Return a version's cluster and policies, as the oracle takes them."""
        place = version.pods, version.namespaces
        if place not in self._clusters:
            if len(self._clusters) > 256:
                self._clusters.clear()
            pods = [convert(Pod, each) for each in self.snapshot(version, Stream.PODS).objects.values()]
            names = self.snapshot(version, Stream.NAMESPACES).objects.values()
            self._clusters[place] = build_cluster([convert(NamespaceObject, each) for each in names], (), pods)
        if version.policies not in self._policies:
            if len(self._policies) > 256:
                self._policies.clear()
            found = self.snapshot(version, Stream.POLICIES).objects.values()
            self._policies[version.policies] = policy_set(lower(each).policy for each in found)
        return self._clusters[place], self._policies[version.policies]


def _distinct(versions: Iterable[int], key: Callable[[int], object]) -> list[int]:
    """Return one version, the newest, of each that have the same key."""
    return list({key(version): version for version in versions}.values())


def _either(verdicts: Iterable[bool]) -> frozenset[bool]:
    """Return which verdicts there are, without looking for more once both are found."""
    found: set[bool] = set()
    for verdict in verdicts:
        found.add(verdict)
        if len(found) == 2:
            break
    return frozenset(found)
