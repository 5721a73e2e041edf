# SPDX-License-Identifier: Apache-2.0
"""Blocks for what is inside of the cluster: pods, Services, nodes; and blocks in old forms.

A block that merely contains such addresses beside many others (0.0.0.0/0, 10.0.0.0/8) is no finding. It is one if it
was plainly written for them: it lies within what pods get their addresses from, it is the address of one of them, or
it holds all of them and nobody of the other kinds.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from typing import NamedTuple, assert_never

from ringfence.apis.cidrs import CidrForm, cidr_errors, parse_cidr
from ringfence.model.addresses import Address, Block
from ringfence.model.cluster import Endpoint
from ringfence.model.policy import BlockPeer, Direction, Peers, PodPeer, Rule
from ringfence.model.ports import AnyTraffic, NamedPort, PortRange, Ports, Protocol
from ringfence.semantics.lint.findings import Finding
from ringfence.semantics.lint.parts import Written, block_peers, found, ports_of, rules_of
from ringfence.semantics.lint.ranges import Ranges, is_within
from ringfence.semantics.lint.world import World, sorted_texts
from ringfence.semantics.services import Backend, Service

_DNS = 53
_AFTER = "policy judges after translation, and sees what is behind it"
# Whole ranges of private addresses: whoever names one means more than the pods in it.
_WIDE = frozenset(
    map(
        ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7", "fd00::/8")
    )
)
_WIDEST = {4: 12, 6: 32}


class _Spot(NamedTuple):
    """A block of a policy, and the rule that it stands in."""

    written: Written
    direction: Direction
    rule: Rule
    block: Block
    path: str


def inside(world: World, written: Written) -> Iterator[Finding]:
    """Judge each block of a policy by what it holds of the cluster."""
    for direction, rule in rules_of(written):
        for peer, path in block_peers(direction, rule):
            spot = _Spot(written, direction, rule, peer.block, path)
            if peer.block.cidr.prefixlen == peer.block.cidr.max_prefixlen:
                yield from _address(world, spot, peer.block.cidr.network_address)
            else:
                yield from _range(world.ranges, spot)


def old_forms(written: Written) -> Iterator[Finding]:
    """Find CIDRs that were accepted once and are no longer."""
    for direction, rule in rules_of(written):
        for _, path in block_peers(direction, rule):
            for at, text in _texts(written, direction, rule, path):
                for error in cidr_errors(at, text, CidrForm.STRICT):
                    yield found("old-cidr", written, at, f"{error.message}; it is read as {_read(text)}")


def _address(world: World, spot: _Spot, address: Address) -> Iterator[Finding]:
    own = world.ranges
    if address in own.services:
        service = own.services[address]
        if not _for_node_local_dns(world, spot.rule, service) and not _names_backends(world, spot, address):
            message = f"{address} is the address of {service}; {_AFTER}"
            yield found("service-address", spot.written, spot.path, message)
    elif address in own.nodes:
        node = world.cluster.node_at(address)
        message = f"{address} is the address of node {node.name if node else ''}"
        yield found("node-address", spot.written, spot.path, message)
    elif address in own.pods:
        pod = world.cluster.endpoint_at(address)
        name = f"{world.called([pod])} now" if pod else "a pod now"
        message = f"{address} is the address of {name}, and may be another's later"
        yield found("pod-address", spot.written, spot.path, message)


def _range(own: Ranges, spot: _Spot) -> Iterator[Finding]:
    if _is_for_pods(spot.block, own):
        yield found("pod-address", spot.written, spot.path, f"{spot.block} is where pods have their addresses")
    elif _holds_all(spot.block, own.services, (own.nodes, own.pods)):
        some = ", ".join(sorted_texts(own.services)[:2])
        message = f"{spot.block} is where Services have theirs ({some}); {_AFTER}"
        yield found("service-address", spot.written, spot.path, message)


def _is_for_pods(block: Block, own: Ranges) -> bool:
    """Tell whether a block was plainly written for pods: their addresses, or the networks that these come from."""
    version = block.cidr.version
    around = own.around.get(version)
    if around is not None and around.prefixlen >= _WIDEST[version] and is_within(block.cidr, around):
        return any(is_within(block.cidr, each) or is_within(each, block.cidr) for each in own.networks[version])
    return _holds_all(block, own.pods, (own.nodes, own.services))


def _holds_all(block: Block, known: Iterable[Address], others: Iterable[Iterable[Address]]) -> bool:
    """Tell whether a block holds every address of a kind, two at least, and none of the other kinds."""
    if block.cidr in _WIDE or block.cidr.prefixlen < _WIDEST[block.cidr.version]:
        return False
    count = 0
    for address in known:
        if address.version == block.cidr.version:
            if not block.contains(address):
                return False
            count += 1
    return count >= 2 and not any(block.contains(address) for kind in others for address in kind)


def _names_backends(world: World, spot: _Spot, address: Address) -> bool:
    """Tell whether a rule names all that is behind a Service too.

    The Service's own address then stands there for engines that judge before translation, and does no harm.
    """
    if spot.direction is Direction.INGRESS:
        return False
    service = world.ranges.services[address]
    led = [
        _lets(spot.rule, protocol, backend.port) and _leads_to(world, spot.rule, backend, where)
        for port in service.spec.ports or ()
        if _lets(spot.rule, protocol := Protocol(port.protocol), port.port)
        for backend in world.services.behind(service, port, protocol)
        if (where := _addresses(backend, address.version))
    ]
    return bool(led) and all(led)


def _addresses(backend: Backend, version: int) -> list[Address]:
    """Return the addresses of one family at which a backend is reached."""
    if isinstance(backend.holder, Endpoint):
        return [address for address in backend.holder.addresses if address.version == version]
    try:
        address = ipaddress.ip_address(backend.holder)
    except ValueError:  # an EndpointSlice may hold names
        return []
    return [address] if address.version == version else []


def _leads_to(world: World, rule: Rule, backend: Backend, addresses: Iterable[Address]) -> bool:
    for peer in rule.peers.members if isinstance(rule.peers, Peers) else ():
        match peer:
            case PodPeer():
                if isinstance(backend.holder, Endpoint) and peer.covers(backend.holder, world.cluster):
                    return True
            case BlockPeer():
                if any(map(peer.covers, addresses)):
                    return True
            case _:
                assert_never(peer)
    return False


def _lets(rule: Rule, protocol: Protocol, number: int) -> bool:
    """Tell whether a rule is about a port; of names, nothing is said."""
    match rule.traffic:
        case AnyTraffic():
            return True
        case Ports(matches):
            return any(
                each.protocol is protocol and (not isinstance(each.port, PortRange) or each.port.contains(number))
                for each in matches
                if not isinstance(each.port, NamedPort)
            )
        case _:
            assert_never(rule.traffic)


def _for_node_local_dns(world: World, rule: Rule, service: Service) -> bool:
    """Tell whether a block may be for the DNS cache of each node, which takes the DNS Service's address as it is."""
    asked = any(isinstance(p.match.port, PortRange) and p.match.port.contains(_DNS) for p in ports_of(rule))
    dns = any(port.port == _DNS for port in service.spec.ports or ())
    return asked and dns and (world.caches_dns or not world.whole)


def _texts(written: Written, direction: Direction, rule: Rule, path: str) -> Iterator[tuple[str, str]]:
    """Yield the CIDRs of a block as they were written, with their field paths."""
    rules = written.object["spec"][direction.value]
    index = int(rule.origin.path.rpartition("[")[2].rstrip("]"))
    item = int(path.removesuffix("].ipBlock").rpartition("[")[2])
    side = "from" if direction is Direction.INGRESS else "to"
    block = rules[index][side][item]["ipBlock"]
    yield f"{path}.cidr", block["cidr"]
    for number, text in enumerate(block.get("except") or ()):
        yield f"{path}.except[{number}]", text


def _read(text: str) -> str:
    return str(parse_cidr(text))
