# SPDX-License-Identifier: Apache-2.0
"""A case made into a script: what happens, what is asked between which addresses, and what to expect.

The objects are ``world``'s. Here names of ends become addresses, Services are looked through (``translation``), and
whatever cannot be asked is refused with the place where it stands.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ringfence.cases.format import Case, Expectation, SettingsSpec, Source, StepSpec, decode
from ringfence.cases.reference import Reference
from ringfence.cases.script import Asks, Connection, Event, EventType, Fate, Probe, Script, ScriptStep, Spot, Way
from ringfence.cases.tables import BadExpectation, Cell, Traffic, cells, parse_traffic
from ringfence.cases.translation import Translation, Untranslatable
from ringfence.cases.world import World
from ringfence.errors import FieldError, InvalidObject
from ringfence.model.ports import Protocol
from ringfence.model.settings import Established, NodeProbes, OwnNodeEgress, Settings

_CONVERSING = (Protocol.TCP, Protocol.UDP)


@dataclass(frozen=True, slots=True)
class Expected:
    """What a step expects: ``probes[n]`` and ``fates[n]`` answer the step's probes and established connections."""

    say: str
    probes: tuple[bool, ...]
    fates: tuple[Fate, ...]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A case ready to run: ``expected[n]`` answers ``script.steps[n]``."""

    shows: str
    script: Script
    expected: tuple[Expected, ...]

    @property
    def count(self) -> int:
        """How many answers the case compares."""
        asked = (len(step.opens) + len(step.established) + len(step.probes) for step in self.script.steps)
        return sum(asked)


def load(path: Path) -> Loaded:
    """Read a case file; raises ``InvalidObject`` naming file, line, column and field of the first mistake."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        place = FieldError("", f"not UTF-8: {error.reason} at byte {error.start}", "", 1, 1)
        raise InvalidObject("Case", path.name, [place], file=str(path)) from None
    source = Source(text, file=str(path))
    return build(decode(source), source, name=path.stem)


def build(case: Case, source: Source, *, name: str) -> Loaded:
    """Resolve a case. ``source`` is asked where a field stands, for complaints."""
    world = World(source)
    questions = _Questions(source, world, _settings(case.settings))
    first = [
        *world.nodes(case.cluster.nodes, "cluster.nodes"),
        *world.namespaces(case.cluster.namespaces),
        *world.pods(case.cluster.pods, "cluster.pods"),
        *world.services(case.cluster.services, "cluster.services"),
    ]
    steps: list[ScriptStep] = []
    expected: list[Expected] = []
    for index, step in enumerate(case.steps):
        path = f"steps[{index}]"
        events = (*first, *world.step(step, path))
        first = []
        questions.moment()
        opens = tuple(questions.opens(step, path))
        fates = list(questions.established(step, path))
        asked = list(questions.probes(step, path))
        established = tuple(connection for connection, _ in fates)
        steps.append(ScriptStep(events, tuple(probe for probe, _ in asked), opens, established))
        expected.append(Expected(step.say, tuple(a for _, a in asked), tuple(fate for _, fate in fates)))
    return Loaded(case.shows, Script(name, tuple(steps), questions.settings), tuple(expected))


def _settings(spec: SettingsSpec) -> Settings:
    return Settings(
        NodeProbes(spec.nodeProbes), OwnNodeEgress(spec.ownNodeEgress), Established(spec.establishedConnections)
    )


@dataclass(frozen=True, slots=True)
class _Opened:
    """A named connection in each family, and who held its ends when it was opened."""

    connections: tuple[Connection, ...]
    holders: tuple[tuple[str, str | None], ...]


class _Questions:
    """What the steps of a case ask, resolved in the world as it is when they ask."""

    def __init__(self, source: Source, world: World, settings: Settings) -> None:
        self.settings = settings
        self._source = source
        self._world = world
        self._connections: dict[str, _Opened] = {}
        self._translation = Translation([])
        self._oracle: Reference | None = None

    def moment(self) -> None:
        """Take note that the world has changed."""
        self._translation = Translation(self._world.all())
        self._oracle = None

    def opens(self, step: StepSpec, path: str) -> Iterator[Connection]:
        """Return the connections that a step opens, in every family that both ends have."""
        for name, spec in step.connections.items():
            here = f"{path}.connections.{name}"
            if name in self._connections:
                raise self._source.error(here, f"connection {name} is open already: take another name")
            try:
                cell = Cell(spec.source, spec.to, _conversation(spec.traffic), spec.family, allowed=True)
                found = tuple(Connection(name, probe) for probe, _ in self._cell_probes(cell, Asks.CONNECTION))
            except BadExpectation as error:
                raise self._source.error(f"{here}.{error.field}".rstrip("."), str(error)) from None
            self._connections[name] = _Opened(found, self._holders(spec.source, spec.to))
            yield from found

    def established(self, step: StepSpec, path: str) -> Iterator[tuple[Connection, Fate]]:
        """Return the open connections that a step asks for, and what must have become of each."""
        for name, word in step.established.items():
            if name not in self._connections:
                raise self._source.error(f"{path}.established.{name}", f"no connection {name} has been opened")
            opened = self._connections[name]
            if self._holders(*(end for end, _ in opened.holders)) != opened.holders:
                raise self._source.error(f"{path}.established.{name}", f"a pod of connection {name} is gone")
            yield from ((connection, Fate(word)) for connection in opened.connections)

    def _holders(self, *ends: str) -> tuple[tuple[str, str | None], ...]:
        """Return who holds each end of a connection: the pods' uids, None for what is no pod."""
        pods = [self._world.get("Pod", *end.split("/", 1)) if end.count("/") == 1 else None for end in ends]
        return tuple(
            (end, None if pod is None else str(pod["metadata"]["uid"])) for end, pod in zip(ends, pods, strict=True)
        )

    def probes(self, step: StepSpec, path: str) -> Iterator[tuple[Probe, bool]]:
        """Return a step's probes and whether each must be allowed, in every family that both ends have."""
        for index, expectation in enumerate(step.expect):
            here = f"{path}.expect[{index}]"
            try:
                asks = _asks(expectation)
                for cell in cells(expectation):
                    yield from self._cell_probes(cell, asks)
            except BadExpectation as error:
                raise self._source.error(f"{here}.{error.field}".rstrip("."), str(error)) from None

    def _cell_probes(self, cell: Cell, asks: Asks) -> Iterator[tuple[Probe, bool]]:
        if _is_service(cell.source):
            raise BadExpectation("", f"{cell.source}: connections come from pods, nodes and addresses")
        sources, destinations = self._end(cell.source), self._end(cell.destination)
        families = sorted(sources.keys() & destinations.keys() & ({cell.family} if cell.family else {4, 6}))
        if not families:
            raise BadExpectation("", f"{cell.source} and {cell.destination} share no address family")
        for version in families:
            traffic = cell.traffic.in_family(version)
            probe = Probe(sources[version], destinations[version], traffic.protocol, traffic.port, asks)
            yield self._translated(probe), cell.allowed

    def _translated(self, probe: Probe) -> Probe:
        """Return a probe with what Services make of it; refuse what cannot be asked, or has no one answer."""
        try:
            through = self._translation.ways(probe.flow)
        except Untranslatable as error:
            raise BadExpectation("", str(error)) from None
        if through is None and _is_service(str(probe.destination)):
            port = "" if probe.port is None else f"/{probe.port}"
            raise BadExpectation("", f"{probe.destination} has no port {probe.protocol.value}{port}")
        translated = replace(probe, through=through)
        ways = translated.ways
        if probe.asks is not Asks.CONNECTION and not _leaves_for_one_place(probe, ways):
            raise BadExpectation("error", "errors are about connections to one pod, node or address, and not to itself")
        if len(ways) > 1 and len({self._judged(probe=translated, number=n) for n in range(len(ways))}) > 1:
            places = ", ".join(f"{way.incoming.destination} port {way.incoming.port}" for way in ways)
            raise BadExpectation(
                "",
                f"{probe} has no one verdict: some of the pods that it may be sent to allow it, some do not ({places})",
            )
        return translated

    def _judged(self, *, probe: Probe, number: int) -> bool:
        if self._oracle is None:
            self._oracle = Reference(self.settings)
            self._oracle.change([Event(EventType.APPLY, obj) for obj in self._world.all()])
        return self._oracle.passes(probe.ways[number])

    def _end(self, name: str) -> dict[int, Spot]:
        """Return an end's address in each family that it has."""
        prefix, slash, rest = name.partition("/")
        if not slash:
            try:
                return {ipaddress.ip_address(name).version: Spot(ipaddress.ip_address(name))}
            except ValueError:
                raise BadExpectation(
                    "", f"{name!r} is no namespace/pod, node/NAME, service/ns/name or address"
                ) from None
        if prefix == "node":
            return _spots(self._found("Node", "", rest)["status"]["addresses"], key="address", name=name)
        if _is_service(name):
            namespace, _, service = rest.partition("/")
            addresses = self._found("Service", namespace, service)["spec"]["clusterIPs"]
            return _spots([{"ip": address} for address in addresses], key="ip", name=name)
        return _spots(self._found("Pod", prefix, rest)["status"].get("podIPs", ()), key="ip", pod=name)

    def _found(self, kind: str, namespace: str, name: str) -> Any:
        obj = self._world.get(kind, namespace, name)
        if obj is None:
            raise BadExpectation("", f"no such {kind.lower()}: {f'{namespace}/' if namespace else ''}{name}")
        return obj


def _asks(expectation: Expectation) -> Asks:
    if expectation.error is None:
        return Asks.CONNECTION
    for word in (expectation.traffic,) if isinstance(expectation.traffic, str) else expectation.traffic:
        _conversation(word)
    return Asks(expectation.error)


def _conversation(text: str) -> Traffic:
    """Read the traffic of a connection that stays open, or that an error is about."""
    try:
        traffic = parse_traffic(text)
    except ValueError as error:
        raise BadExpectation("traffic", str(error)) from None
    if traffic.protocol not in _CONVERSING:
        raise BadExpectation("traffic", f"an open connection is TCP or UDP, not {traffic.protocol.value}")
    return traffic


def _leaves_for_one_place(probe: Probe, ways: tuple[Way, ...]) -> bool:
    """Tell whether a router may see a probe's packets, as they were sent but for the destination."""
    return len(ways) == 1 and ways[0].outgoing == ways[0].incoming and str(probe.source) != str(probe.destination)


def _is_service(name: str) -> bool:
    return name.startswith("service/") and name.count("/") == 2


def _spots(found: Iterable[Mapping[str, str]], *, key: str, name: str = "", pod: str | None = None) -> dict[int, Spot]:
    spots: dict[int, Spot] = {}
    for address in (ipaddress.ip_address(entry[key]) for entry in found):
        spots.setdefault(address.version, Spot(address, pod, name))
    return spots
