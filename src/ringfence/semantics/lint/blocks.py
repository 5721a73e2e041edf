# SPDX-License-Identifier: Apache-2.0
"""Blocks for what is inside of the cluster: pods, Services, nodes; and blocks in old forms.

A block that merely contains such addresses beside many others (0.0.0.0/0, 10.0.0.0/8) is no finding. It is one if it
was plainly written for them: it lies within what pods get their addresses from, it is the address of one of them, or
it holds all of them and nobody of the other kinds.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Iterator
from functools import reduce

from ringfence.apis.cidrs import CidrForm, cidr_errors, parse_cidr
from ringfence.model.addresses import Address, Block, Network, contains
from ringfence.model.policy import Direction, Rule
from ringfence.model.ports import PortRange
from ringfence.semantics.lint.findings import Finding
from ringfence.semantics.lint.parts import Written, block_peers, found, ports_of, rules_of
from ringfence.semantics.lint.world import World, sorted_texts

_DNS = 53
_AFTER = "policy judges after translation, and sees what is behind it"
# Whole ranges of private addresses: whoever names one means more than the pods in it.
_WIDE = frozenset(
    map(
        ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7", "fd00::/8")
    )
)
_WIDEST = {4: 12, 6: 32}


def inside(world: World, written: Written) -> Iterator[Finding]:
    """Judge each block of a policy by what it holds of the cluster."""
    for direction, rule in rules_of(written):
        for peer, path in block_peers(direction, rule):
            yield from _inside(world, written, rule, peer.block, path)


def old_forms(written: Written) -> Iterator[Finding]:
    """Find CIDRs that were accepted once and are no longer."""
    for direction, rule in rules_of(written):
        for _, path in block_peers(direction, rule):
            for at, text in _texts(written, direction, rule, path):
                for error in cidr_errors(at, text, CidrForm.STRICT):
                    yield found("old-cidr", written, at, f"{error.message}; it is read as {_read(text)}")


def _inside(world: World, written: Written, rule: Rule, block: Block, path: str) -> Iterator[Finding]:
    pods, nodes = world.addresses(pods=True), world.addresses(pods=False)
    services = _service_addresses(world)
    one = block.cidr.network_address if block.cidr.prefixlen == block.cidr.max_prefixlen else None
    if one in services:
        if not _for_node_local_dns(world, rule, services[one]):
            yield found("service-address", written, path, f"{one} is the address of {services[one]}; {_AFTER}")
    elif one in nodes:
        node = world.cluster.node_at(one)
        yield found("node-address", written, path, f"{one} is the address of node {node.name if node else ''}")
    elif one in pods:
        pod = world.cluster.endpoint_at(one)
        name = f"{world.called([pod])} now" if pod else "a pod now"
        yield found("pod-address", written, path, f"{one} is the address of {name}, and may be another's later")
    elif one is None and _written_for(block, _pod_networks(world), pods, others=(*nodes, *services)):
        yield found("pod-address", written, path, f"{block} is where pods have their addresses")
    elif one is None and _written_for(block, (), services, others=(*nodes, *pods)):
        some = ", ".join(sorted_texts(services)[:2])
        yield found("service-address", written, path, f"{block} is where Services have theirs ({some}); {_AFTER}")


def _written_for(
    block: Block, networks: Collection[Network], known: Collection[Address], *, others: Iterable[Address]
) -> bool:
    """Tell whether a block was plainly written for addresses of a kind, or the networks that they come from."""
    widest = _WIDEST[block.cidr.version]
    own = [network for network in networks if network.version == block.cidr.version]
    around = _around(own) if own else None
    if around is not None and around.prefixlen >= widest and _subnet(block.cidr, around):
        return any(_subnet(block.cidr, network) or _subnet(network, block.cidr) for network in own)
    addresses = [address for address in known if address.version == block.cidr.version]
    if block.cidr in _WIDE or block.cidr.prefixlen < widest or len(addresses) < 2:
        return False
    return all(map(block.contains, addresses)) and not any(map(block.contains, others))


def _subnet(inner: Network, outer: Network) -> bool:
    return contains(outer, inner.network_address) and inner.prefixlen >= outer.prefixlen


def _around(networks: Iterable[Network]) -> Network:
    """Return the smallest network that holds all of these, of one family."""

    def widen(one: Network, other: Network) -> Network:
        while not _subnet(other, one):
            one = one.supernet()
        return one

    return reduce(widen, networks)


def _pod_networks(world: World) -> list[Network]:
    return [network for node in world.cluster.nodes.values() for network in node.pod_networks]


def _service_addresses(world: World) -> dict[Address, str]:
    found: dict[Address, str] = {}
    for service in world.service_list():
        for text in {*(service.spec.addresses or ()), service.spec.address or ""}:
            try:
                found[ipaddress.ip_address(text)] = str(service)
            except ValueError:  # headless, or not chosen yet
                continue
    return found


def _for_node_local_dns(world: World, rule: Rule, service: str) -> bool:
    """Tell whether a block may be for the DNS cache of each node, which takes the DNS Service's address as it is."""
    asked = any(isinstance(p.match.port, PortRange) and p.match.port.contains(_DNS) for p in ports_of(rule))
    dns = any(
        str(each) == service and any(p.port == _DNS for p in each.spec.ports or ()) for each in world.service_list()
    )
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
