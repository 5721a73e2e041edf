# SPDX-License-Identifier: Apache-2.0
"""Ports that lead nowhere: a Service's number where policy sees the pod's, and names that no pod has.

A number is a finding only if every pod that the rule can lead to stands behind a Service that offers it and leads
elsewhere, none declares it itself, and the rule does not name the right one too. A name is one if pods are known and
none of them has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from ringfence.model.cluster import Endpoint
from ringfence.model.labels import Operator
from ringfence.model.policy import ANY_PEER, BlockPeer, Direction, PodPeer, Rule
from ringfence.model.ports import NamedPort, PortMatch, PortRange, Protocol
from ringfence.semantics.lint.findings import Finding
from ringfence.semantics.lint.parts import PlacedPort, Written, block_peers, found, pod_peers, ports_of, rules_of
from ringfence.semantics.lint.world import World

_Targets = dict[int, str]
"""The numbers that a Service port leads to, each with the Service's name."""
_Led = Sequence[tuple[Endpoint, ...]]
"""The pods that a rule can lead to, peer by peer: never put together, since one of many tells mostly enough."""


def numbers(world: World, written: Written) -> Iterator[Finding]:
    """Find ports that are a Service's."""
    for direction, rule in rules_of(written):
        led = _led_to(world, written, direction, rule)
        entries = ports_of(rule)
        for entry in entries:
            match entry.match.port:
                case PortRange(first, last) if first == last:
                    yield from _service_port(world, written, led, entry, entries)
                case _:
                    pass


def names(world: World, written: Written) -> Iterator[Finding]:
    """Find names of ports that match nothing."""
    for direction, rule in rules_of(written):
        for entry in ports_of(rule):
            if isinstance(entry.match.port, NamedPort):
                yield from _missing(world, written, direction, rule, entry)
        if direction is Direction.EGRESS:
            yield from _outside(world, written, rule)


def _led_to(world: World, written: Written, direction: Direction, rule: Rule) -> _Led:
    """Return the pods that a rule can lead to, none where it leads to others too or they are not known."""
    if direction is Direction.INGRESS:
        selections = [written.policy.subject]
    else:
        selections = pod_peers(rule)
        if rule.peers is ANY_PEER or len(selections) < len(rule.peers.members):
            return ()
    if not world.whole and not all(map(_is_particular, selections)):
        return ()
    return tuple(world.pods(selection).pods for selection in selections)


def _is_particular(selection: PodPeer) -> bool:
    """Tell whether a selection asks for some labels; all pods of a namespace are hardly ever all in the files."""
    return any(each.operator in (Operator.IN, Operator.EXISTS) for each in selection.pods.requirements)


def _service_port(
    world: World, written: Written, led: _Led, entry: PlacedPort, entries: Iterable[PlacedPort]
) -> Iterator[Finding]:
    assert isinstance(entry.match.port, PortRange)
    number, protocol = entry.match.port.first, entry.match.protocol
    targets: _Targets = {}
    for pod in chain.from_iterable(led):
        behind = world.targets(pod.key, protocol, number)
        if not behind or number in behind:
            return
        if any(port.number == number and port.protocol is protocol for port in pod.ports):
            return
        targets.update(behind)
    if not targets or any(_admits(each.match, protocol, target, led) for each in entries for target in targets):
        return
    service = next(iter(targets.values()))
    listed = " or ".join(map(str, sorted(targets)))
    message = f"{protocol.value} {number} is the port of {service}; its pods listen on {listed}"
    yield found("service-port", written, f"{entry.path}.port", message, f"write port {listed}")


def _admits(match: PortMatch, protocol: Protocol, number: int, led: _Led) -> bool:
    if match.protocol is not protocol:
        return False
    match match.port:
        case PortRange() as numbers_:
            return numbers_.contains(number)
        case NamedPort(name):
            return any(number in pod.port_numbers(name, protocol) for pod in chain.from_iterable(led))
        case _:
            return True


def _missing(world: World, written: Written, direction: Direction, rule: Rule, entry: PlacedPort) -> Iterator[Finding]:
    assert isinstance(entry.match.port, NamedPort)
    name, protocol = entry.match.port.name, entry.match.protocol
    if direction is Direction.EGRESS and rule.peers is ANY_PEER:
        led: _Led = (tuple(world.cluster.endpoints.values()),) if world.whole else ()
    else:
        led = _led_to(world, written, direction, rule)
    if any(pod.port_numbers(name, protocol) for pod in chain.from_iterable(led)):
        return
    pods = list(chain.from_iterable(led))
    if not pods:
        return
    others = sorted({port.protocol.value for pod in pods for port in pod.ports if port.name == name})
    known = sorted({port.name for pod in pods for port in pod.ports if port.name and port.protocol is protocol})
    if others:
        more = f"; there it is a port of {', '.join(others)}"
    else:
        more = f"; their {protocol.value} ports are called {', '.join(known)}" if known else ""
    message = f"no port of {world.called(pods)} is called {name} for {protocol.value}{more}"
    yield found("named-port-missing", written, f"{entry.path}.port", message)


def _outside(world: World, written: Written, rule: Rule) -> Iterator[Finding]:
    """Find blocks that a rule admits by named ports alone, and in which no known pod has one of them."""
    named = [entry.match for entry in ports_of(rule) if isinstance(entry.match.port, NamedPort)]
    if not named or len(named) < len(ports_of(rule)):
        return
    for peer, path in block_peers(Direction.EGRESS, rule):
        if not _has_pods(world, peer, named):
            listed = ", ".join(str(match.port) for match in named)
            yield found("named-port-outside", written, path, f"{peer.block} has no port called {listed}")


def _has_pods(world: World, peer: BlockPeer, named: Iterable[PortMatch]) -> bool:
    real = world.ranges.pods
    return any(
        address in real and peer.covers(address) and any(pod.port_numbers(str(m.port), m.protocol) for m in named)
        for pod in world.cluster.endpoints.values()
        for address in pod.addresses
    )
