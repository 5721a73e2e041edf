# SPDX-License-Identifier: Apache-2.0
"""Random clusters, policies and flows: the compiled program, in every form, decides as the model says.

The judge here is written from the model's own words, one flow at a time, and knows nothing of programs.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.compiler.compile import compile_program
from ringfence.compiler.diff import diff
from ringfence.compiler.interpret import judge
from ringfence.dataplanes.memory import render
from ringfence.model.addresses import Address, Block, Network
from ringfence.model.cluster import Cluster, ContainerPort, Endpoint, Namespace, Node, PodKey
from ringfence.model.flow import Flow
from ringfence.model.labels import EVERYTHING, Labels, Operator, Requirement, Selector
from ringfence.model.policy import (
    ANY_PEER,
    Action,
    AnyPeer,
    BlockPeer,
    Direction,
    InNamespace,
    NamespacesMatching,
    ObjectRef,
    Origin,
    Peers,
    PodPeer,
    Policy,
    PolicySet,
    Rule,
    Tier,
)
from ringfence.model.ports import ANY_PORT, ANY_TRAFFIC, AnyTraffic, NamedPort, PortMatch, PortRange, Ports, Protocol

NAMESPACES = ("one", "two", "three")
NODES = ("n1", "n2")
POD_ADDRESSES = [ip_address(a) for a in ("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "fd00::1", "fd00::2")]
NODE_ADDRESSES = [ip_address(a) for a in ("10.0.1.1", "fd00:1::1", "10.0.1.2", "fd00:1::2")]
OUTSIDE = [ip_address(a) for a in ("192.0.2.1", "2001:db8::1")]
EVERYWHERE = [*POD_ADDRESSES, *NODE_ADDRESSES, *OUTSIDE]
TRAFFIC = [(Protocol.TCP, 80), (Protocol.TCP, 81), (Protocol.UDP, 80), (Protocol.ICMP, None)]
FLOWS = [
    Flow(source, destination, protocol, port)
    for source, destination in itertools.product(EVERYWHERE, repeat=2)
    if source.version == destination.version
    for protocol, port in TRAFFIC
]
PROTOCOLS = [Protocol.TCP, Protocol.TCP, Protocol.UDP, Protocol.SCTP]

labels = st.dictionaries(st.sampled_from("ab"), st.sampled_from("xyz"), max_size=2).map(Labels)


@st.composite
def requirements(draw: st.DrawFn) -> Requirement:
    """Draw a requirement on one of the keys that labels have."""
    operator = draw(st.sampled_from(Operator))
    takes_values = operator in (Operator.IN, Operator.NOT_IN)
    values = draw(st.lists(st.sampled_from("xyz"), min_size=1, max_size=2)) if takes_values else []
    return Requirement(draw(st.sampled_from("ab")), operator, tuple(values))


selectors = st.lists(requirements(), max_size=2).map(lambda each: Selector(tuple(each)))
scopes = st.one_of(st.sampled_from(NAMESPACES).map(InNamespace), selectors.map(NamespacesMatching))
pod_peers = st.builds(PodPeer, scopes, selectors)


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Draw a network around one of the addresses."""
    address = draw(st.sampled_from(EVERYWHERE))
    return ip_network((address, draw(st.integers(0, address.max_prefixlen))), strict=False)


blocks = st.builds(lambda cidr, holes: Block(cidr, tuple(holes)), networks(), st.lists(networks(), max_size=2))
ANY_OR_NONE: list[AnyPeer | Peers] = [ANY_PEER, Peers(())]
peers = st.one_of(
    st.sampled_from(ANY_OR_NONE),
    st.lists(st.one_of(pod_peers, blocks.map(BlockPeer)), min_size=1, max_size=3).map(lambda each: Peers(tuple(each))),
)
port_ranges = st.tuples(st.integers(79, 81), st.integers(0, 2)).map(lambda each: PortRange(each[0], sum(each)))
ports = st.one_of(st.sampled_from(["http", "http", "dns"]).map(NamedPort), port_ranges, st.just(ANY_PORT))
EVERY_OR_NO_PORT: list[AnyTraffic | Ports] = [ANY_TRAFFIC, Ports(())]
traffic = st.one_of(
    st.sampled_from(EVERY_OR_NO_PORT),
    st.lists(st.builds(PortMatch, st.sampled_from(PROTOCOLS), ports), min_size=1, max_size=3).map(
        lambda each: Ports(tuple(each))
    ),
)


subjects = st.one_of(st.just(PodPeer(NamespacesMatching(EVERYTHING))), pod_peers)
actions = st.sampled_from([Action.ALLOW] * 4 + [Action.DENY])


@st.composite
def policies(draw: st.DrawFn) -> PolicySet:
    """Draw policies of one tier that denies by default; rules allow, now and then they deny."""
    drawn = []
    for number in range(draw(st.integers(1, 3))):
        ref = ObjectRef("NetworkPolicy", draw(st.sampled_from(NAMESPACES)), f"p{number}")
        rules: dict[str, tuple[Rule, ...] | None] = {}
        for direction in ("ingress", "egress"):
            parts = draw(st.none() | st.lists(st.tuples(actions, peers, traffic), max_size=3))
            if parts is None:
                rules[direction] = None
            else:
                rules[direction] = tuple(
                    Rule(*part, Origin(ref, f"spec.{direction}[{index}]")) for index, part in enumerate(parts)
                )
        drawn.append(Policy(ref, draw(subjects), rules["ingress"], rules["egress"], draw(st.sampled_from([0, 1]))))
    return PolicySet((Tier("kubernetes", 1000, Action.DENY, tuple(drawn)), Tier("unused", 1, Action.PASS)))


container_ports = st.builds(
    ContainerPort, st.sampled_from([None, "http", "http", "dns"]), st.integers(80, 81), st.sampled_from(PROTOCOLS)
)


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    """Draw a cluster; some pods share an address, some are hostNetwork, some namespaces are not known yet."""
    namespaces = [Namespace(name, draw(labels)) for name in draw(st.sets(st.sampled_from(NAMESPACES), min_size=2))]
    nodes = [
        Node("n1", addresses=frozenset(NODE_ADDRESSES[:2])),
        *([Node("n2", addresses=frozenset(NODE_ADDRESSES[2:]))] if draw(st.booleans()) else []),
    ]
    endpoints = [
        Endpoint(
            PodKey(draw(st.sampled_from(NAMESPACES)), f"pod{number}"),
            f"uid{number}",
            draw(labels),
            frozenset(draw(st.sets(st.sampled_from(POD_ADDRESSES), min_size=1, max_size=2))),
            draw(st.sampled_from(NODES)),
            tuple(draw(st.lists(container_ports, max_size=2))),
            draw(st.sampled_from([False, False, False, True])),
        )
        for number in range(draw(st.integers(2, 6)))
    ]
    return Cluster(namespaces, nodes, endpoints)


def naive_half(cluster: Cluster, policies: PolicySet, flow: Flow, direction: Direction) -> bool:
    """Judge one side of a flow: read the model's words in order, remember nothing."""
    ingress = direction is Direction.INGRESS
    subject = cluster.endpoint_at(flow.destination if ingress else flow.source)
    other_address = flow.source if ingress else flow.destination
    destination = cluster.endpoint_at(flow.destination)
    assert subject is not None
    if ingress and flow.source in getattr(cluster.nodes.get(subject.node), "addresses", ()):
        return True
    isolated = False
    for policy in policies.policies():
        rules = policy.rules(direction)
        if rules is None or not policy.subject.covers(subject, cluster):
            continue
        isolated = True
        for rule in rules:
            if naive_peers(cluster, rule.peers, other_address) and naive_traffic(rule.traffic, flow, destination):
                return rule.action is Action.ALLOW
    return not isolated


def naive_peers(cluster: Cluster, peers: AnyPeer | Peers, address: Address) -> bool:
    """Tell whether peers cover an address."""
    if isinstance(peers, AnyPeer):
        return True
    holder = cluster.endpoint_at(address)
    for peer in peers.members:
        if isinstance(peer, BlockPeer) and peer.covers(address):
            return True
        if isinstance(peer, PodPeer) and holder is not None and peer.covers(holder, cluster):
            return True
    return False


def naive_traffic(traffic: AnyTraffic | Ports, flow: Flow, destination: Endpoint | None) -> bool:
    """Tell whether ports match a flow; names are the destination pod's."""
    if isinstance(traffic, AnyTraffic):
        return True
    for match in traffic.matches:
        if match.protocol is not flow.protocol:
            continue
        if match.port is ANY_PORT:
            return True
        if isinstance(match.port, PortRange) and flow.port is not None and match.port.contains(flow.port):
            return True
        if isinstance(match.port, NamedPort):
            numbers = destination.port_numbers(match.port.name, match.protocol) if destination else ()
            if flow.port in numbers:
                return True
    return False


@settings(max_examples=200, deadline=None)
@given(clusters(), policies())
def test_every_form_of_a_program_decides_as_the_model_says(cluster: Cluster, policies: PolicySet) -> None:
    """The interpreter and the memory dataplane's tables agree with a reading of the model, half by half."""
    for node in NODES:
        program = compile_program(cluster, policies, node)
        table = render(program)
        for flow in FLOWS:
            judgement = judge(program, flow)
            source, destination = cluster.endpoint_at(flow.source), cluster.endpoint_at(flow.destination)

            assert table.judge(flow) == judgement
            assert (judgement.egress is not None) == (source is not None and source.node == node)
            assert (judgement.ingress is not None) == (destination is not None and destination.node == node)
            for half, direction in ((judgement.egress, Direction.EGRESS), (judgement.ingress, Direction.INGRESS)):
                if half is not None:
                    itself = source is not None and source is destination
                    assert half.allowed == (itself or naive_half(cluster, policies, flow, direction)), (flow, half)


@settings(max_examples=50, deadline=None)
@given(st.data(), clusters(), policies())
def test_the_program_depends_on_the_state_alone(data: st.DataObject, cluster: Cluster, policies: PolicySet) -> None:
    """The same namespaces, nodes, pods and policies in another order make the same program."""
    settled = [replace(e, addresses=cluster.addresses_of(e)) for e in cluster.endpoints.values() if not e.host_network]
    namespaces, nodes = list(cluster.namespaces.values()), list(cluster.nodes.values())
    program = compile_program(Cluster(namespaces, nodes, settled), policies, "n1")
    shuffled = Cluster(
        data.draw(st.permutations(namespaces)), data.draw(st.permutations(nodes)), data.draw(st.permutations(settled))
    )
    tiers = tuple(replace(tier, policies=tuple(data.draw(st.permutations(tier.policies)))) for tier in policies.tiers)
    again = compile_program(shuffled, PolicySet(tiers), "n1")

    assert again == program
    assert diff(program, again).empty


@settings(max_examples=200, deadline=None)
@given(blocks, st.sampled_from(EVERYWHERE))
def test_a_blocks_networks_cover_exactly_what_it_contains(block: Block, address: IPv4Address | IPv6Address) -> None:
    """``Block.networks`` are disjoint and equal to ``Block.contains``."""
    covering = [network for network in block.networks() if address.version == network.version and address in network]

    assert len(covering) == (1 if block.contains(address) else 0)
