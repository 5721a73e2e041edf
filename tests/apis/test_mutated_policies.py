# SPDX-License-Identifier: Apache-2.0
"""Policies that something broke: nothing crashes on them, and none allows more than it did before it broke."""

from __future__ import annotations

import copy
import itertools
import json
import random
from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Any

import pytest

from ringfence.apis.cidrs import CidrForm
from ringfence.apis.core import NamespaceObject, ObjectMeta, Pod, PodStatus, build_cluster
from ringfence.apis.fields import within
from ringfence.apis.networkpolicy import SHAPE, lower, policy_set, validate
from ringfence.apis.shapes import unknown_fields
from ringfence.compiler.compile import compile_program
from ringfence.dataplanes.memory import Table, render
from ringfence.model.cluster import Cluster
from ringfence.model.flow import Flow
from ringfence.model.ports import Protocol

Path = tuple[str | int, ...]

WEB = {"matchLabels": {"app": "web"}}
BASE: dict[str, Any] = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "p", "namespace": "demo", "labels": {"a": "b"}},
    "spec": {
        "podSelector": {**WEB, "matchExpressions": [{"key": "tier", "operator": "In", "values": ["1", "2"]}]},
        "policyTypes": ["Ingress"],
        "ingress": [
            {
                "from": [
                    {"podSelector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}},
                    {"namespaceSelector": {"matchLabels": {"team": "x"}}, "podSelector": {}},
                ],
                "ports": [{"port": 80, "endPort": 82}, {"port": 53, "protocol": "UDP"}],
            },
            {"from": [{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]}}]},
        ],
        "egress": [{"to": [{"podSelector": WEB}], "ports": [{"port": "http"}]}],
    },
}
DENY_ALL = {"metadata": {"name": "deny", "namespace": "demo"}, "spec": {"policyTypes": ["Ingress", "Egress"]}}

NOTHING_VALID: list[Any] = [True, 7.5, "?", "-bad-", "10.0.0.0/33", "", {"?": 1}, [True], [[]], -1, 70000]
ANYTHING: list[Any] = [*NOTHING_VALID, None, {}, [], 0, 80, "x", "10.1.2.3/8", [None], [{}], 10**30, "\ud800", {"": {}}]


def places(value: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the path of every value within a value, itself included."""
    yield path
    match value:
        case dict():
            for key, part in value.items():
                yield from places(part, (*path, key))
        case list():
            for index, part in enumerate(value):
                yield from places(part, (*path, index))
        case _:
            pass


def replaced(value: Any, path: Path, by: Any) -> Any:
    """Return a value with the part at a path replaced."""
    if not path:
        return copy.deepcopy(by)
    changed = copy.copy(value)
    changed[path[0]] = replaced(value[path[0]], path[1:], by)
    return changed


def written(path: Path) -> str:
    """Return a path as complaints write it."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


@pytest.mark.parametrize("seed", range(4))
def test_mutated_objects_crash_nothing(seed: int) -> None:
    """Validation and lowering take any JSON."""
    dice = random.Random(seed)
    for _ in range(500):
        mutated: Any = BASE
        for _ in range(dice.randint(1, 4)):
            mutated = replaced(mutated, dice.choice(list(places(mutated))), dice.choice(ANYTHING))
        assert all(str(complaint).isprintable() for complaint in validate(mutated))
        lower(mutated)
        unknown_fields(mutated, SHAPE, "")
        validate(BASE, old=mutated)


def cluster() -> Cluster:
    """Return a cluster in which every part of the policy makes a difference."""
    labels = [{}, {"app": "web"}, {"app": "web", "tier": "1"}, {"app": "db", "tier": "2"}]
    pods = [
        Pod(
            ObjectMeta(name=f"{namespace}-{number}", namespace=namespace, uid=f"{namespace}-{number}", labels=each),
            status=PodStatus(podIP=f"10.0.{len(namespace)}.{number + 1}"),
        )
        for namespace in ("demo", "other", "x")
        for number, each in enumerate(labels)
    ]
    namespaces = [NamespaceObject(ObjectMeta(name=name)) for name in ("demo", "other")]
    namespaces.append(NamespaceObject(ObjectMeta(name="x", labels={"team": "x"})))
    return build_cluster(namespaces, [], pods)


CLUSTER = cluster()
ADDRESSES = [
    *sorted(a for e in CLUSTER.endpoints.values() for a in e.addresses if isinstance(a, IPv4Address)),
    *map(IPv4Address, ("192.0.2.1", "192.0.2.200", "198.51.100.1")),
]
FLOWS = [
    Flow(source, destination, protocol, port)
    for source, destination in itertools.permutations(ADDRESSES, 2)
    for protocol, port in ((Protocol.TCP, 80), (Protocol.TCP, 83), (Protocol.UDP, 53), (Protocol.ICMP, None))
]


def allowed(*objects: Any) -> frozenset[Flow]:
    """Return the flows that policies allow, in the cluster."""
    program = compile_program(CLUSTER, policy_set(lower(each).policy for each in objects), "")
    table: Table = render(program)
    return frozenset(flow for flow in FLOWS if table.judge(flow).allowed)


ALONE = allowed(BASE)
BESIDE_DENIALS = allowed(BASE, DENY_ALL)
SPEC_PATHS = [path for path in places(BASE) if path[:1] == ("spec",)]


@pytest.mark.parametrize("path", SPEC_PATHS, ids=written)
def test_what_breaks_in_a_policy_never_allows_more(path: Path) -> None:
    """SEMANTICS 37, for every part of a spec: never widen, whether the policy stands alone or beside a denial."""
    broken = 0
    for bad in NOTHING_VALID:
        mutated = replaced(BASE, path, bad)
        complaints = validate(mutated, cidrs=CidrForm.LEGACY)
        place = written(path)
        if not any(within(c.path, place) or within(place, c.path) for c in complaints):
            continue  # this value happens to be fine there, and means what it says
        broken += 1
        assert allowed(mutated) <= ALONE, (place, bad)
        assert allowed(mutated, DENY_ALL) <= BESIDE_DENIALS, (place, bad)
    assert broken


def test_the_cluster_tells_policies_apart() -> None:
    """The test above can fail: the policy denies much, allows something, and more alone than beside a denial."""
    assert BESIDE_DENIALS < ALONE < frozenset(FLOWS)
    assert len(BESIDE_DENIALS) > len(allowed(DENY_ALL))
    assert json.loads(json.dumps(BASE)) == BASE
