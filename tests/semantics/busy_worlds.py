# SPDX-License-Identifier: Apache-2.0
"""Clusters in which policies select, admit and deny most of the time: drawn evenly from a seed.

Hypothesis draws small things first, so that most of its worlds have no pod that some policy isolates. These are the
others: several pods of each namespace, several policies of each tier, rules that name labels, blocks and ports which
are there.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from random import Random

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
from tests.semantics.small_worlds import ADDRESSES, KEYS, NAMES, NAMESPACES, PORTS, VALUES, WITH_PORTS

_PLACES = ("shop", "shop", "shop", "bank", "late")


@dataclass(frozen=True)
class World:
    """A cluster, two policy sets for it, and flows, most of them of its pods."""

    cluster: Cluster
    one: PolicySet
    other: PolicySet
    flows: tuple[Flow, ...]


class _Drawing:
    def __init__(self, seed: int) -> None:
        self.random = Random(seed)

    def world(self) -> World:
        cluster = self.cluster()
        return World(cluster, self.policies(), self.policies(), tuple(self.flow() for _ in range(40)))

    def some(self, chance: float) -> bool:
        return self.random.random() < chance

    def labels(self) -> Labels:
        return Labels({key: self.random.choice(VALUES) for key in KEYS if self.some(0.8)})

    def selector(self) -> Selector:
        if self.some(0.4):
            return EVERYTHING
        operator = self.random.choice(tuple(Operator))
        values = (self.random.choice(VALUES),) if operator in (Operator.IN, Operator.NOT_IN) else ()
        return Selector((Requirement(self.random.choice(KEYS), operator, values),))

    def pods(self) -> PodPeer:
        if self.some(0.6):
            return PodPeer(InNamespace(self.random.choice(_PLACES)), self.selector())
        return PodPeer(NamespacesMatching(self.selector()), self.selector())

    def block(self) -> BlockPeer:
        address = self.random.choice(ADDRESSES)
        length = self.random.choice((0, address.max_prefixlen - 4, address.max_prefixlen - 2, address.max_prefixlen))
        whole = ipaddress.ip_network((int(address), length), strict=False)
        holes = [ipaddress.ip_network(each) for each in self.random.sample(ADDRESSES, 2)]
        return BlockPeer(
            Block(whole, tuple(hole for hole in holes if hole.version == whole.version and self.some(0.7)))
        )

    def peers(self) -> AnyPeer | Peers:
        if self.some(0.15):
            return ANY_PEER
        members: list[Peer] = [
            self.pods() if self.some(0.6) else self.block() for _ in range(self.random.randint(0, 3))
        ]
        return Peers(tuple(members))

    def traffic(self) -> AnyTraffic | Ports:
        if self.some(0.2):
            return ANY_TRAFFIC
        return Ports(tuple(self.port() for _ in range(self.random.randint(0, 3))))

    def port(self) -> PortMatch:
        low, high = sorted(self.random.choices(PORTS, k=2))
        choices: tuple[AnyPort | PortRange | NamedPort, ...] = (
            ANY_PORT,
            PortRange(low, high),
            NamedPort(self.random.choice(NAMES)),
        )
        return PortMatch(self.random.choice((*WITH_PORTS, Protocol.ICMP)), self.random.choice(choices))

    def rules(self, ref: ObjectRef, side: str, actions: tuple[Action, ...]) -> tuple[Rule, ...] | None:
        if self.some(0.3):
            return None
        return tuple(
            Rule(self.random.choice(actions), self.peers(), self.traffic(), Origin(ref, f"spec.{side}[{index}]"))
            for index in range(self.random.choice((0, 1, 2, 2, 3)))
        )

    def policies(self) -> PolicySet:
        tiers = []
        for order in range(self.random.randint(1, 3)):
            actions = (Action.ALLOW,) if self.some(0.5) else tuple(Action)
            members = []
            for index in range(self.random.randint(2, 5)):
                ref = ObjectRef("NetworkPolicy", "shop", f"p{order}{index}")
                sides = self.rules(ref, "ingress", actions), self.rules(ref, "egress", actions)
                members.append(Policy(ref, self.pods(), *sides, self.random.randint(0, 2)))
            default = Action.DENY if self.some(0.7) else Action.PASS
            tiers.append(Tier(f"t{order}", order, default, tuple(members)))
        return PolicySet(tuple(tiers))

    def cluster(self) -> Cluster:
        namespaces = [Namespace(name, self.labels()) for name in NAMESPACES if self.some(0.8)]
        nodes = [Node(f"node-{i}", addresses=frozenset({ADDRESSES[i], ADDRESSES[8 + i]})) for i in range(2)]
        if self.some(0.2):  # nobody forbids it: an address of two nodes, and of a pod
            nodes.append(Node("node-2", addresses=frozenset({ADDRESSES[0], ADDRESSES[3]})))
        return Cluster(namespaces, nodes, [self.pod(number, nodes) for number in range(self.random.randint(4, 7))])

    def pod(self, number: int, nodes: list[Node]) -> Endpoint:
        node, host = self.random.choice(nodes), self.some(0.1)
        own = frozenset(self.random.sample((*ADDRESSES[2:8], *ADDRESSES[10:]), self.random.randint(1, 3)))
        ports = tuple(
            ContainerPort(name, self.random.choice(PORTS), self.random.choice(WITH_PORTS))
            for name in NAMES
            if self.some(0.6)
        )
        return Endpoint(
            PodKey(self.random.choice(_PLACES), f"pod-{number}"),
            f"uid-{number}",
            self.labels(),
            node.addresses if host else own,
            node.name,
            ports,
            host,
        )

    def flow(self) -> Flow:
        """Draw a flow: of known addresses and ports most of the time, else of any."""
        version = self.random.choice((4, 6))
        known = [address for address in ADDRESSES if address.version == version]
        kind, bits = type(known[0]), known[0].max_prefixlen
        ends = [self.random.choice(known) if self.some(0.85) else kind(self.random.getrandbits(bits)) for _ in range(2)]
        protocol = self.random.choice(tuple(Protocol))
        port = self.random.choice((*PORTS, self.random.randint(0, 65535))) if protocol.has_ports else None
        return Flow(ends[0], ends[1], protocol, port)


def world(seed: int) -> World:
    """Return the world of a seed."""
    return _Drawing(seed).world()


worlds = st.integers(0, 2**32 - 1).map(world)
