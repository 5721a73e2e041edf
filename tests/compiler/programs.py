# SPDX-License-Identifier: Apache-2.0
"""Random programs, drawn as such: what no policy of today compiles to is in them as well, as long as it is a program.

Few addresses, networks and ports, all close together, so that what is drawn meets.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
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
        *("::/0", "fd00::/64", "fd00::/126", "fd00::2/127", "fd00::5/128"),
    )
]
SET_IDS = [PeerSetId(digest(number)) for number in range(5)]
PORTS = (0, 79, 80, 81, 90, 65535)
TRAFFIC = [
    *itertools.product((Protocol.TCP, Protocol.UDP), (*PORTS, 1, 78, 82, 89, 91, 65534)),
    (Protocol.SCTP, 80),
    (Protocol.ICMP, None),
    (Protocol.ICMPV6, None),
]

subsets = st.sets(st.sampled_from(ADDRESSES), max_size=4).map(frozenset)
networks = st.sets(st.sampled_from(NETWORKS), max_size=3).map(lambda some: tuple(sorted(some, key=network_order)))
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
def rulesets(draw: st.DrawFn, number: int) -> Ruleset:
    """Draw a ruleset; a rule may stand in it twice, with other peers and ports, as named ports make it do."""
    direction = (Direction.INGRESS, Direction.EGRESS)[number % 2]
    peers: list[AnyPeer | PeerSetId] = [ANY_PEER, *SET_IDS, *SET_IDS]
    rules = tuple(
        CompiledRule(
            draw(st.sampled_from((Action.ALLOW, Action.ALLOW, Action.DENY))),
            draw(st.sampled_from(peers)),
            draw(traffic),
            Origin(ObjectRef("NetworkPolicy", "x", f"p{draw(st.integers(0, 4))}"), f"spec.{direction.value}[0]"),
        )
        for _ in range(draw(st.sampled_from((3, 5, 4, 2, 1, 0))))
    )
    return Ruleset(RulesetId(f"{digest((number, repr(rules)))}"), direction, rules)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Draw a program. A pod may have several addresses, and two pods one name, but no address two pods."""
    made = [draw(rulesets(number)) for number in range(4)]
    by_direction = {
        direction: [*(each.id for each in made if each.direction is direction), None] for direction in Direction
    }
    entries = {}
    for number in range(draw(st.sampled_from((3, 4, 2, 1, 0)))):
        ingress, egress = (draw(st.sampled_from(by_direction[direction])) for direction in Direction)
        for address in draw(st.sets(st.sampled_from(ADDRESSES), min_size=1, max_size=2)):
            entries[address] = EndpointEntry(address, PodKey("x", f"pod{number // 2}"), f"{number}", ingress, egress)
    used = {each for entry in entries.values() for each in (entry.ingress, entry.egress)}
    in_use = tuple(sorted((each for each in made if each.id in used), key=lambda each: each.id))
    asked = {rule.peers for ruleset in in_use for rule in ruleset.rules if not isinstance(rule.peers, AnyPeer)}
    return Program(
        node="n",
        node_addresses=draw(st.sets(st.sampled_from(ADDRESSES), max_size=2).map(frozenset)),
        endpoints=tuple(entries[address] for address in sorted(entries, key=address_order)),
        rulesets=in_use,
        peer_sets=tuple(PeerSet(set_id, "", draw(subsets), draw(networks)) for set_id in sorted(asked)),
        settings=draw(settings),
    )


def flows() -> Iterator[Flow]:
    """Yield a flow of every kind that a drawn program can tell from another."""
    for source, destination in itertools.product([*ADDRESSES, *OUTSIDE], repeat=2):
        if source.version == destination.version:
            for protocol, port in TRAFFIC:
                yield Flow(source, destination, protocol, port)


FLOWS = tuple(flows())
