# SPDX-License-Identifier: Apache-2.0
"""Random programs, drawn as such: what no policy of today compiles to is in them as well, as long as it is a program.

Few addresses, networks and ports, all close together, so that what is drawn meets.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network

from hypothesis import strategies as st

from ringfence.compiler.compile import spans
from ringfence.compiler.compile_peers import digest
from ringfence.compiler.program import (
    CompiledRule,
    EndpointEntry,
    PeerSet,
    PeerSetId,
    PortSpan,
    Program,
    Ruleset,
    RulesetId,
)
from ringfence.model.addresses import Address, Network, address_order, network_order
from ringfence.model.cluster import PodKey
from ringfence.model.flow import Flow
from ringfence.model.policy import ANY_PEER, Action, AnyPeer, Direction, ObjectRef, Origin
from ringfence.model.ports import ANY_TRAFFIC, AnyTraffic, PortRange, Protocol
from ringfence.model.settings import Established, NodeProbes, OwnNodeEgress, Settings

ADDRESSES: list[Address] = [
    *(ip_address(f"10.0.0.{n}") for n in (0, 1, 2, 3, 5, 8)),
    *(ip_address(f"fd00::{n}") for n in (0, 1, 2, 5)),
]
OUTSIDE = [ip_address(each) for each in ("0.0.0.0", "10.0.0.7", "255.255.255.255", "::", "fd00::7")]
NETWORKS: list[Network] = [
    ip_network(each)
    for each in (
        *("0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/29", "10.0.0.0/30", "10.0.0.2/31", "10.0.0.2/32", "10.0.0.4/30"),
        *("0.0.0.0/32", "10.0.0.3/32", "fd00::3/128"),
        *("::/0", "fd00::/64", "fd00::/126", "fd00::2/127", "fd00::5/128"),
    )
]
PORTS = (0, 79, 80, 81, 90, 65535)
TRAFFIC = [
    *itertools.product((Protocol.TCP, Protocol.UDP), (*PORTS, 1, 78, 82, 89, 91, 65534)),
    (Protocol.SCTP, 80),
    (Protocol.ICMP, None),
    (Protocol.ICMPV6, None),
]

subsets = st.sets(st.sampled_from(ADDRESSES), max_size=4).map(frozenset)
networks = st.sets(st.sampled_from(NETWORKS), max_size=5).map(lambda some: tuple(sorted(some, key=network_order)))
port_ranges = st.tuples(st.sampled_from(PORTS), st.sampled_from(PORTS)).map(
    lambda ends: PortRange(min(ends), max(ends))
)
protocols = st.sampled_from([Protocol.TCP, Protocol.TCP, Protocol.TCP, Protocol.UDP, Protocol.ICMP, Protocol.ICMPV6])
traffic: st.SearchStrategy[AnyTraffic | tuple[PortSpan, ...]] = st.one_of(
    st.just(ANY_TRAFFIC), *[st.lists(st.builds(PortSpan, protocols, port_ranges), max_size=3).map(spans)] * 3
)
settings = st.builds(
    Settings, st.sampled_from(NodeProbes), st.sampled_from(OwnNodeEgress), st.sampled_from(Established)
)


@st.composite
def peer_sets(draw: st.DrawFn, number: int) -> PeerSet:
    """Draw a peer set; its networks are part of what names it, its addresses are not."""
    blocks = draw(networks)
    return PeerSet(PeerSetId(digest((number, str(blocks)))), "", draw(subsets), blocks)


@st.composite
def rulesets(draw: st.DrawFn, number: int, sets: list[PeerSet]) -> Ruleset:
    """Draw a ruleset; a rule may stand in it twice, with other peers and ports, as named ports make it do."""
    direction = (Direction.INGRESS, Direction.EGRESS)[number % 2]
    peers: list[AnyPeer | PeerSetId] = [ANY_PEER, *(each.id for each in sets), *(each.id for each in sets)]
    rules = tuple(
        CompiledRule(
            draw(st.sampled_from((Action.ALLOW, Action.ALLOW, Action.DENY))),
            draw(st.sampled_from(peers)),
            draw(traffic),
            Origin(ObjectRef("NetworkPolicy", "x", f"p{draw(st.integers(0, 4))}"), f"spec.{direction.value}[0]"),
        )
        for _ in range(draw(st.sampled_from((3, 5, 4, 2, 1, 0))))
    )
    policies = (ObjectRef("NetworkPolicy", "x", f"p{number}"),)
    return Ruleset(RulesetId(f"{digest((number, repr(rules)))}"), direction, rules, policies)


@st.composite
def histories(draw: st.DrawFn, steps: int) -> list[Program]:
    """Draw programs of which each may have peer sets, rulesets and pods of the one before, as the same objects or not.

    A pod may have several addresses, and two pods one name, but no address two pods.
    """
    sets = [draw(peer_sets(number)) for number in range(5)]
    made = [draw(rulesets(number, sets)) for number in range(4)]
    path = []
    for _ in range(steps):
        moved = draw(st.sets(st.integers(0, 4), max_size=2))
        sets = [replace(each, addresses=draw(subsets)) if at in moved else each for at, each in enumerate(sets)]
        entries = draw(endpoints(made))
        used = {each for entry in entries for each in (entry.ingress, entry.egress)}
        in_use = tuple(sorted((each for each in made if each.id in used), key=lambda each: each.id))
        asked = {rule.peers for ruleset in in_use for rule in ruleset.rules}
        path.append(
            Program(
                node="n",
                node_addresses=draw(st.sets(st.sampled_from(ADDRESSES), max_size=2).map(frozenset)),
                endpoints=entries,
                rulesets=in_use,
                peer_sets=tuple(sorted((each for each in sets if each.id in asked), key=lambda each: each.id)),
                settings=draw(settings),
            )
        )
    return path


programs = histories(1).map(lambda path: path[0])


@st.composite
def endpoints(draw: st.DrawFn, made: list[Ruleset]) -> tuple[EndpointEntry, ...]:
    """Draw the entries of some pods under some rulesets."""
    ingress = [*(each.id for each in made if each.direction is Direction.INGRESS), None]
    egress = [*(each.id for each in made if each.direction is Direction.EGRESS), None]
    entries = {}
    for number in range(draw(st.sampled_from((3, 4, 2, 1, 0)))):
        rules = draw(st.sampled_from(ingress)), draw(st.sampled_from(egress))
        for address in draw(st.sets(st.sampled_from(ADDRESSES), min_size=1, max_size=2)):
            entries[address] = EndpointEntry(address, PodKey("x", f"pod{number // 2}"), f"{number}", *rules)
    return tuple(entries[address] for address in sorted(entries, key=address_order))


def flows() -> Iterator[Flow]:
    """Yield a flow of every kind that a drawn program can tell from another."""
    for source, destination in itertools.product([*ADDRESSES, *OUTSIDE], repeat=2):
        if source.version == destination.version:
            for protocol, port in TRAFFIC:
                yield Flow(source, destination, protocol, port)


FLOWS = tuple(flows())
