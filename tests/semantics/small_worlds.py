# SPDX-License-Identifier: Apache-2.0
"""Small clusters, rules and flows: by hand for examples, by hypothesis for properties."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from hypothesis import strategies as st

from ringfence.model.addresses import Block
from ringfence.model.cluster import Cluster, ContainerPort, Endpoint, Namespace, Node, PodKey
from ringfence.model.flow import Flow
from ringfence.model.labels import EVERYTHING, Labels, Operator, Requirement, Selector
from ringfence.model.policy import (
    ANY_PEER,
    Action,
    AnyPeer,
    BlockPeer,
    InNamespace,
    NamespacesMatching,
    ObjectRef,
    Origin,
    Peer,
    Peers,
    PodPeer,
    Policy,
    PolicySet,
    Rule,
    Tier,
)
from ringfence.model.ports import (
    ANY_PORT,
    ANY_TRAFFIC,
    AnyPort,
    AnyTraffic,
    NamedPort,
    PortMatch,
    PortRange,
    Ports,
    Protocol,
)


def pod(
    name: str,
    address: str,
    labels: dict[str, str] | None = None,
    *,
    node: str = "node-a",
    ports: Iterable[ContainerPort] = (),
    host_network: bool = False,
) -> Endpoint:
    """Return a pod, named ``namespace/name``."""
    namespace, _, rest = name.partition("/")
    addresses = frozenset(map(ipaddress.ip_address, address.split()))
    return Endpoint(PodKey(namespace, rest), f"uid-{name}", Labels(labels), addresses, node, tuple(ports), host_network)


def flow(source: str, destination: str, protocol: Protocol = Protocol.TCP, port: int | None = 80) -> Flow:
    """Return a flow between two addresses."""
    number = port if protocol.has_ports else None
    return Flow(ipaddress.ip_address(source), ipaddress.ip_address(destination), protocol, number)


def block(cidr: str, *exceptions: str) -> BlockPeer:
    """Return a block with its exceptions."""
    return BlockPeer(Block(ipaddress.ip_network(cidr), tuple(map(ipaddress.ip_network, exceptions))))


def labelled(**labels: str) -> Selector:
    """Return a selector for labels."""
    return Selector(tuple(Requirement(key, Operator.IN, (value,)) for key, value in labels.items()))


def rule(
    peers: AnyPeer | Peers = ANY_PEER,
    traffic: AnyTraffic | Ports = ANY_TRAFFIC,
    action: Action = Action.ALLOW,
    *,
    policy: str = "p",
    path: str = "spec.ingress[0]",
) -> Rule:
    """Return a rule of the policy ``shop/p``."""
    return Rule(action, peers, traffic, Origin(ObjectRef("NetworkPolicy", "shop", policy), path))


def tier(default: Action, *policies: Policy, order: float = 0, name: str = "t") -> Tier:
    """Return a tier."""
    return Tier(name, order, default, policies)


def network_policies(*policies: Policy) -> PolicySet:
    """Return policies as the one tier that NetworkPolicies are in."""
    return PolicySet((tier(Action.DENY, *policies),))


def policy(
    name: str = "p",
    *,
    subject: PodPeer | None = None,
    ingress: tuple[Rule, ...] | None = None,
    egress: tuple[Rule, ...] | None = None,
    order: float = 0,
) -> Policy:
    """Return a policy of namespace ``shop``."""
    chosen = subject or PodPeer(InNamespace("shop"))
    return Policy(ObjectRef("NetworkPolicy", "shop", name), chosen, ingress, egress, order)


NAMESPACES = ("shop", "bank", "late")
KEYS, VALUES, NAMES = ("app", "tier"), ("a", "b"), ("http", "dns")
ADDRESSES = tuple(ipaddress.ip_address(f"10.0.0.{n}") for n in range(1, 9)) + tuple(
    ipaddress.ip_address(f"fd00::{n}") for n in range(1, 9)
)
WITH_PORTS = (Protocol.TCP, Protocol.UDP, Protocol.SCTP)
PORTS = (1, 53, 80, 81, 65535)

labels = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES), max_size=2).map(Labels)
container_ports = st.lists(
    st.builds(ContainerPort, st.sampled_from(NAMES), st.sampled_from(PORTS), st.sampled_from(WITH_PORTS)), max_size=2
).map(tuple)


@st.composite
def requirements(draw: st.DrawFn) -> Requirement:
    """Draw a requirement."""
    operator = draw(st.sampled_from(Operator))
    takes_values = operator in (Operator.IN, Operator.NOT_IN)
    values = draw(st.lists(st.sampled_from(VALUES), min_size=1, max_size=2)) if takes_values else []
    return Requirement(draw(st.sampled_from(KEYS)), operator, tuple(values))


selectors = st.lists(requirements(), max_size=2).map(lambda drawn: Selector(tuple(drawn)))
scopes = st.one_of(st.sampled_from(NAMESPACES).map(InNamespace), selectors.map(NamespacesMatching))
pod_peers = st.builds(PodPeer, scopes, st.one_of(st.just(EVERYTHING), selectors))


@st.composite
def blocks(draw: st.DrawFn) -> BlockPeer:
    """Draw a block with exceptions inside of it."""
    address = draw(st.sampled_from(ADDRESSES))
    length = address.max_prefixlen - draw(st.integers(0, 4))
    whole = ipaddress.ip_network((int(address), length), strict=False)
    holes = draw(st.lists(st.sampled_from(ADDRESSES), max_size=2))
    inside = [ipaddress.ip_network(hole) for hole in holes if hole.version == whole.version and hole in whole]
    return BlockPeer(Block(whole, tuple(inside)))


peers: st.SearchStrategy[AnyPeer | Peers] = st.one_of(
    st.just(ANY_PEER),
    st.lists(st.one_of(pod_peers, blocks()), max_size=3).map(lambda drawn: Peers(tuple[Peer, ...](drawn))),
)


@st.composite
def port_matches(draw: st.DrawFn) -> PortMatch:
    """Draw a port entry."""
    low, high = sorted((draw(st.sampled_from(PORTS)), draw(st.sampled_from(PORTS))))
    choices: tuple[AnyPort | PortRange | NamedPort, ...] = (ANY_PORT, PortRange(low, high), NamedPort("http"))
    port = draw(st.sampled_from((*choices, NamedPort("dns"))))
    return PortMatch(draw(st.sampled_from(WITH_PORTS)), port)


traffics: st.SearchStrategy[AnyTraffic | Ports] = st.one_of(
    st.just(ANY_TRAFFIC), st.lists(port_matches(), max_size=3).map(lambda drawn: Ports(tuple(drawn)))
)
rules = st.tuples(peers, traffics).map(lambda drawn: rule(*drawn))


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    """Draw a cluster: two nodes, up to three known namespaces, a few pods, some of them hostNetwork or dual stack."""
    known = draw(st.lists(st.sampled_from(NAMESPACES), unique=True, max_size=3))
    namespaces = [Namespace(name, draw(labels)) for name in known]
    nodes = [
        Node("node-a", addresses=frozenset({ADDRESSES[0], ADDRESSES[8]})),
        Node("node-b", addresses=frozenset({ADDRESSES[1], ADDRESSES[9]})),
    ]
    endpoints = []
    for number in range(draw(st.integers(0, 5))):
        host = draw(st.integers(0, 5)) == 0
        node = draw(st.sampled_from(nodes))
        own = frozenset(draw(st.lists(st.sampled_from((*ADDRESSES[2:8], *ADDRESSES[10:])), min_size=1, max_size=2)))
        endpoints.append(
            Endpoint(
                PodKey(draw(st.sampled_from(NAMESPACES)), f"pod-{number}"),
                f"uid-{number}",
                draw(labels),
                node.addresses if host else own,
                node.name,
                draw(container_ports),
                host,
            )
        )
    return Cluster(namespaces, nodes, endpoints)


@st.composite
def flows(draw: st.DrawFn) -> Flow:
    """Draw a flow between two of the addresses."""
    source = draw(st.sampled_from(ADDRESSES))
    destination = draw(st.sampled_from([a for a in ADDRESSES if a.version == source.version]))
    protocol = draw(st.sampled_from((*WITH_PORTS, Protocol.ICMP)))
    return Flow(source, destination, protocol, draw(st.sampled_from(PORTS)) if protocol.has_ports else None)


@st.composite
def policy_sets(draw: st.DrawFn) -> PolicySet:
    """Draw tiers of policies with rules of every action."""
    tiers = []
    for number in range(draw(st.integers(0, 3))):
        members = []
        for index in range(draw(st.integers(0, 3))):
            sides = []
            for _ in range(2):
                some = draw(st.one_of(st.none(), st.lists(rules, max_size=2)))
                action = draw(st.sampled_from(Action))
                sides.append(None if some is None else tuple(Rule(action, r.peers, r.traffic, r.origin) for r in some))
            members.append(policy(f"p{number}{index}", subject=draw(pod_peers), ingress=sides[0], egress=sides[1]))
        default = draw(st.sampled_from((Action.DENY, Action.PASS)))
        tiers.append(tier(default, *members, order=number, name=f"t{number}"))
    return PolicySet(tuple(tiers))


@st.composite
def deciding_tiers(draw: st.DrawFn) -> PolicySet:
    """Draw one tier that denies by default, of ordered policies whose rules allow or deny: what programs can hold."""
    sides = st.one_of(st.none(), st.lists(rules, max_size=3))
    actions = st.sampled_from([Action.ALLOW, Action.ALLOW, Action.DENY])
    members = []
    for index in range(draw(st.integers(0, 4))):
        drawn = [
            None if side is None else tuple(Rule(draw(actions), r.peers, r.traffic, r.origin) for r in side)
            for side in (draw(sides), draw(sides))
        ]
        subject = draw(st.one_of(st.just(PodPeer(InNamespace("shop"))), pod_peers))
        order = draw(st.integers(0, 2))
        members.append(policy(f"p{index}", subject=subject, ingress=drawn[0], egress=drawn[1], order=order))
    return network_policies(*members)
