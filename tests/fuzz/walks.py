# SPDX-License-Identifier: Apache-2.0
"""Random walks: worlds of which each differs from the one before in a thing or two, as a cluster does in its life."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import msgspec
from hypothesis import strategies as st

from ringfence.cases.format import PodSpec
from tests.fuzz.manifests import NAMESPACES, Manifest, manifests
from tests.fuzz.worlds import NODE_ADDRESSES, POD_NAMES, PodAt, World, labels, pods, ports, worlds

Draw = st.DrawFn


@dataclass(frozen=True, slots=True)
class Made:
    """How something new is made: a pod's serial, and whether policies may have broken parts."""

    serial: int
    broken: bool


@st.composite
def walks(draw: Draw, *, steps: int, broken: bool = True) -> list[World]:
    """Draw a world and what becomes of it in up to so many steps, at least one."""
    path = [draw(worlds(broken=broken))]
    for step in range(draw(st.integers(1, steps))):
        now = path[-1]
        for _ in range(draw(st.integers(1, 3))):
            change = draw(st.sampled_from(_CHANGES))
            # Serials go on from any that there ever was: what is made now is younger than all.
            now = change(draw, now, Made(1000 * (step + 1) + len(now.pods), broken))
        path.append(now)
    return path


_FEW_PEERS: list[Manifest] = [
    {"podSelector": {"matchLabels": {"app": "a"}}},
    {"podSelector": {"matchLabels": {"app": "b"}}},
    {"podSelector": {"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}},
    {"namespaceSelector": {"matchLabels": {"app": "a"}}},
    {"ipBlock": {"cidr": "10.0.0.0/29", "except": ["10.0.0.4/31"]}},
]
_FEW_LABELS = st.sampled_from([{"app": "a"}, {"app": "b"}, {"app": "a", "tier": "a"}, {"tier": "a"}, {}])


@st.composite
def contrasts(draw: Draw) -> list[World]:
    """Draw two worlds of the same pods, on one node, with other labels and other policies of the same few peers.

    Members of a set change that a rule asks which changes too; one flow's egress is lost while its ingress is gained.
    That is what a change has to get right, and what a walk seldom comes to.
    """
    homes = [draw(st.sampled_from(("shop", "shop", "bank"))) for _ in range(4)]
    count = draw(st.integers(1, 4))
    return [
        World(
            nodes={name: own[:2] for name, own in NODE_ADDRESSES.items()},
            namespaces={name: draw(_FEW_LABELS) for name in ("shop", "bank")},
            pods=tuple(
                PodAt(home, name, "n1", (f"10.0.0.{n}", f"fd00::{n}"), PodSpec(labels=draw(_FEW_LABELS)), n)
                for n, (home, name) in enumerate(zip(homes, POD_NAMES, strict=False), start=2)
            ),
            policies=tuple(draw(_policies_of_few_peers(f"p{number}")) for number in range(count)),
        )
        for _ in range(2)
    ]


@st.composite
def _policies_of_few_peers(draw: Draw, name: str) -> Manifest:
    ports = st.sampled_from([[], [], [{"port": 80}], [{"protocol": "UDP"}]])
    spec: Manifest = {"podSelector": {"matchLabels": draw(_FEW_LABELS)}, "policyTypes": []}
    for direction, side in draw(st.sampled_from(([_INGRESS], [_EGRESS], [_INGRESS, _EGRESS]))):
        peers = st.lists(st.sampled_from(_FEW_PEERS), min_size=1, max_size=2)
        spec["policyTypes"].append(direction.capitalize())
        spec[direction] = [{side: draw(peers), "ports": draw(ports)} for _ in range(draw(st.integers(0, 2)))]
    meta = {"name": name, "namespace": draw(st.sampled_from(("shop", "shop", "bank")))}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec}


_INGRESS, _EGRESS = ("ingress", "from"), ("egress", "to")


def _pod_comes(draw: Draw, world: World, made: Made) -> World:
    name = draw(st.sampled_from(POD_NAMES))
    others = tuple(pod for pod in world.pods if pod.name != name)
    return replace(world, pods=(*others, draw(pods(name, made.serial, world.nodes))))


def _pod_takes_over(draw: Draw, world: World, made: Made) -> World:
    """Let a pod go, and another, with a name of its own, get its address."""
    holders = [pod for pod in world.pods if not pod.spec.hostNetwork]
    if not holders:
        return world
    gone = draw(st.sampled_from(holders))
    heir = draw(pods(f"{gone.name}x", made.serial, world.nodes))
    heir = replace(heir, addresses=gone.addresses, spec=_with(heir, hostNetwork=False))
    keeps = draw(st.booleans())  # the old one may still be on its way out
    return replace(world, pods=(*(pod for pod in world.pods if keeps or pod is not gone), heir))


def _pod_goes(draw: Draw, world: World, _: Made) -> World:
    if not world.pods:
        return world
    gone = draw(st.sampled_from(world.pods))
    return replace(world, pods=tuple(pod for pod in world.pods if pod is not gone))


def _pod_changes(draw: Draw, world: World, _: Made) -> World:
    if not world.pods:
        return world
    chosen = draw(st.sampled_from(world.pods))
    spec = chosen.spec
    match draw(st.integers(0, 5)):
        case 0:
            changed = replace(chosen, addresses=() if chosen.addresses and not spec.hostNetwork else chosen.addresses)
        case 1:
            changed = replace(chosen, spec=_with(chosen, phase=draw(st.sampled_from(["Running", "Succeeded"]))))
        case 2:
            changed = replace(chosen, spec=_with(chosen, ports=draw(ports)))
        case _:
            changed = replace(chosen, spec=_with(chosen, labels=draw(labels)))
    return replace(world, pods=tuple(changed if pod is chosen else pod for pod in world.pods))


def _with(pod: PodAt, **fields: object) -> PodSpec:
    return msgspec.structs.replace(pod.spec, **fields)


def _policy_changes(draw: Draw, world: World, made: Made) -> World:
    name = f"p{draw(st.integers(0, 4))}"
    others = tuple(each for each in world.policies if each["metadata"]["name"] != name)
    if len(others) < len(world.policies) and draw(st.booleans()):
        return replace(world, policies=others)
    return replace(world, policies=(*others, draw(manifests(name, broken=made.broken))))


def _namespace_changes(draw: Draw, world: World, _: Made) -> World:
    name = draw(st.sampled_from(NAMESPACES))
    others: Mapping[str, Mapping[str, str]] = {n: each for n, each in world.namespaces.items() if n != name}
    if draw(st.integers(0, 3)) == 3:
        return replace(world, namespaces=others)
    return replace(world, namespaces={**others, name: draw(labels)})


def _node_changes(draw: Draw, world: World, _: Made) -> World:
    name, own = draw(st.sampled_from(sorted(NODE_ADDRESSES.items())))
    count = draw(st.sampled_from([2, 3, 1, 0]))
    addresses = own[:count]
    on_host = (
        replace(pod, addresses=addresses) if pod.spec.hostNetwork and pod.node == name else pod for pod in world.pods
    )
    return replace(world, nodes={**world.nodes, name: addresses}, pods=tuple(on_host))


_CHANGES: list[Callable[[Draw, World, Made], World]] = [
    _pod_changes,
    _policy_changes,
    _policy_changes,
    _pod_comes,
    _pod_takes_over,
    _pod_goes,
    _namespace_changes,
    _node_changes,
]
