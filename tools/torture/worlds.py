# SPDX-License-Identifier: Apache-2.0
"""What the cluster under fire consists of, and random changes to it. Pure: randomness is handed in.

Pods stand in slots. A slot has a node and addresses for ever; the pods in it come and go, with other names,
namespaces, labels and named ports, and always with the slot's addresses.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

Object = dict[str, Any]

NAMESPACES = ("amber", "birch", "cedar")
TCP_PORTS, UDP_PORTS = (80, 8080), (53, 5353)
BLOCK_COUNTS = (1, 3, 10, 30, 100, 300, 1000)
MOST_POLICIES = 5  # of a namespace
_APPS, _TIERS, _STAGES = ("web", "api", "db"), ("front", "back"), ("dev", "prod")
_NAMED = ("web", "dns")


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for a pod."""

    name: str
    node: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outsider:
    """A host outside of the cluster."""

    name: str
    addresses: tuple[str, ...]


OUTSIDERS = (
    Outsider("near", ("198.51.100.10", "2001:db8:51::10")),
    Outsider("far", ("203.0.113.20", "2001:db8:113::20")),
)


def make_slots(nodes: Mapping[str, Sequence[str]], per_node: int) -> list[Slot]:
    """Return slots on nodes, whose pod blocks are given (one of each family)."""
    made = []
    for node, blocks in nodes.items():
        for number in range(per_node):
            addresses = tuple(str(ipaddress.ip_network(block)[20 + number]) for block in blocks)
            made.append(Slot(f"{node[-1]}{number}", node, addresses))
    return made


def pod(random: Random, slot: Slot, serial: int) -> Object:
    """Return a new pod for a slot, without its status."""
    # The same name has another number, or none, on another pod (SEMANTICS 9).
    web, dns = random.choice((*TCP_PORTS, None)), random.choice((*UDP_PORTS, None))
    ports: list[Object] = []
    if web is not None:
        ports.append({"name": "web", "containerPort": web, "protocol": "TCP"})
    if dns is not None:
        ports.append({"name": "dns", "containerPort": dns, "protocol": "UDP"})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{slot.name}-{serial}",
            "namespace": random.choice(NAMESPACES),
            "labels": pod_labels(random),
        },
        "spec": {
            "nodeName": slot.node,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": "agnhost:2.33", "ports": ports}],
        },
    }


def pod_labels(random: Random) -> dict[str, str]:
    """Return labels of a pod."""
    return {"app": random.choice(_APPS), "tier": random.choice(_TIERS)}


def namespace(random: Random, name: str) -> Object:
    """Return a namespace with random labels."""
    labels = {"stage": random.choice(_STAGES), "kubernetes.io/metadata.name": name}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def policy(random: Random, *, name: str, space: str, addresses: Sequence[str]) -> Object:
    """Return a random policy. ``addresses`` are those that packets really have; some get into its blocks."""
    kinds = random.choice((["Ingress"], ["Ingress"], ["Egress"], ["Ingress", "Egress"]))
    spec: Object = {"podSelector": _selector(random, broad=0.25), "policyTypes": kinds}
    for kind in kinds:
        entries = [_rule(random, kind, addresses) for _ in range(random.choice((0, 1, 1, 2, 3)))]
        spec[kind.lower()] = entries
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": space},
        "spec": spec,
    }


def edit(random: Random, before: Object, addresses: Sequence[str]) -> Object:
    """Return a policy after an edit: another spec, or only other blocks, ports or one more or less of them."""
    name, space = before["metadata"]["name"], before["metadata"]["namespace"]
    after = policy(random, name=name, space=space, addresses=addresses)
    rules = [(kind, place) for kind in ("ingress", "egress") for place in range(len(before["spec"].get(kind, ())))]
    if not rules or random.random() < 0.4:
        return after
    spec = {**before["spec"]}
    kind, place = random.choice(rules)
    entries = [dict(entry) for entry in spec[kind]]
    peers = "from" if kind == "ingress" else "to"
    blocks = [each for each in entries[place].get(peers, ()) if "ipBlock" in each]
    rest = [each for each in entries[place].get(peers, ()) if "ipBlock" not in each]
    match random.randrange(4):
        case 0 if blocks:  # one block less
            blocks.pop(random.randrange(len(blocks)))
            entries[place] = _with_peers(entries[place], peers, [*rest, *blocks])
        case 1 if blocks or rest:  # a few blocks more
            more = _blocks(random, random.choice((1, 2, 10)), addresses)
            entries[place] = _with_peers(entries[place], peers, [*rest, *blocks, *more])
        case 2:
            entries[place]["ports"] = _ports(random)
        case _:
            entries[place] = _rule(random, kind.capitalize(), addresses)
    spec[kind] = entries
    return {**before, "spec": spec}


def _with_peers(entry: Object, key: str, peers: list[Object]) -> Object:
    # An empty list would mean any peer: a rule whose last peer went goes to a peer that is nobody.
    return {**entry, key: peers or [{"ipBlock": {"cidr": "192.0.2.0/32"}}]}


def _selector(random: Random, *, broad: float) -> Object:
    if random.random() < broad:
        return {}
    match random.randrange(4):
        case 0:
            return {"matchLabels": {"app": random.choice(_APPS)}}
        case 1:
            return {"matchLabels": {"tier": random.choice(_TIERS)}}
        case 2:
            return {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": [random.choice(_APPS)]}]}
        case _:
            return {"matchExpressions": [{"key": "app", "operator": "In", "values": random.sample(_APPS, 2)}]}


def _rule(random: Random, kind: str, addresses: Sequence[str]) -> Object:
    entry: Object = {}
    if random.random() < 0.9:
        peers: list[Object] = []
        for _ in range(random.choice((1, 1, 2))):
            match random.randrange(4):
                case 0:
                    peers.append({"podSelector": _selector(random, broad=0.3)})
                case 1:
                    stage = {"matchLabels": {"stage": random.choice(_STAGES)}}
                    peers.append({"namespaceSelector": random.choice(({}, stage, stage))})
                case 2:
                    stage = {"matchLabels": {"stage": random.choice(_STAGES)}}
                    peers.append({"namespaceSelector": stage, "podSelector": _selector(random, broad=0.1)})
                case _:
                    peers += _blocks(random, random.choice(BLOCK_COUNTS), addresses)
        entry["from" if kind == "Ingress" else "to"] = peers
    if random.random() < 0.6:
        entry["ports"] = _ports(random)
    return entry


def _ports(random: Random) -> list[Object]:
    choices: list[Object] = [
        *({"protocol": "TCP", "port": port} for port in TCP_PORTS),
        *({"protocol": "UDP", "port": port} for port in UDP_PORTS),
        {"protocol": "TCP", "port": 79, "endPort": 8079},
        {"protocol": "UDP", "port": 1, "endPort": 1000},
        {"protocol": "TCP"},
        {"protocol": "UDP"},
        {"protocol": "TCP", "port": "web"},
        {"protocol": "UDP", "port": "dns"},
    ]
    return random.sample(choices, random.choice((1, 2, 3)))


def _blocks(random: Random, count: int, addresses: Sequence[str]) -> list[Object]:
    """Return distinct blocks: mostly of nobody, some with addresses that packets have, some with exceptions."""
    made: dict[str, Object] = {}
    while len(made) < count:
        if len(made) < 4 and random.random() < 0.7:
            address = ipaddress.ip_address(random.choice(addresses))
            whole = 32 if address.version == 4 else 128
            length = whole - random.choice((0, 0, 2, 4, 8))
            cidr = str(ipaddress.ip_network(f"{address}/{length}", strict=False))
            hole = str(ipaddress.ip_network(f"{address}/{min(whole, length + 2)}", strict=False))
            block: Object = {"cidr": cidr}
            if hole != cidr and random.random() < 0.4:
                block["except"] = [hole]
        elif random.random() < 0.5:
            cidr = f"172.{random.randrange(16, 32)}.{random.randrange(256)}.{random.randrange(64) * 4}/30"
            block = {"cidr": cidr}
        else:
            cidr = f"fd77:{random.randrange(1 << 16):x}:{random.randrange(1 << 16):x}::/64"
            block = {"cidr": cidr}
        made.setdefault(cidr, {"ipBlock": block})
    return list(made.values())
