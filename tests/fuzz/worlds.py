# SPDX-License-Identifier: Apache-2.0
"""Random clusters with their policies, in the words of a case file: whatever is found can be written down as a case.

A world holds everything that can go wrong in a cluster's life: namespaces that are not there yet, pods without an
address, with one that somebody else had before, completed, terminating, on the host's network, on either node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from hypothesis import strategies as st

from ringfence.apis.manifests import cluster_from_objects
from ringfence.cases import objects
from ringfence.cases.format import NodeSpec, PodSpec, PortSpec
from ringfence.model.cluster import Cluster
from ringfence.model.policy import PolicySet
from ringfence.model.settings import DEFAULTS, Established, NodeProbes, OwnNodeEgress, Settings
from tests.fuzz.manifests import ADDRESSES, KEYS, NAMES, NAMESPACES, PORTS, PROTOCOLS, VALUES, Manifest, manifests

NODES = ("n1", "n2")
NODE_ADDRESSES = {"n1": ("10.0.1.1", "fd00:1::1", "10.0.1.3"), "n2": ("10.0.1.2", "fd00:1::2", "fd00:1::3")}
POD_NAMES = ("a", "b", "c", "d", "e", "f")


@dataclass(frozen=True, slots=True)
class PodAt:
    """A pod: the ``serial``-th that was made, so that one of the same name later is another."""

    namespace: str
    name: str
    node: str
    addresses: tuple[str, ...]
    spec: PodSpec
    serial: int

    def object(self) -> dict[str, Any]:
        """Return the v1 Pod."""
        return objects.pod(
            self.namespace,
            self.name,
            self.spec,
            node=self.node,
            addresses=self.addresses,
            identity=objects.identity(self.namespace, self.name, self.serial),
        )


@dataclass(frozen=True)
class World:
    """A cluster and its policies at one moment; the pods in the order of their creation."""

    nodes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    namespaces: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    pods: tuple[PodAt, ...] = ()
    policies: tuple[Manifest, ...] = ()
    settings: Settings = DEFAULTS

    @cached_property
    def objects(self) -> tuple[dict[str, Any], ...]:
        """Every API object."""
        return (
            *(objects.node(name, NodeSpec(), addresses) for name, addresses in self.nodes.items()),
            *(objects.namespace(name, labels) for name, labels in self.namespaces.items()),
            *(pod.object() for pod in self.pods),
            *self.policies,
        )

    @cached_property
    def meaning(self) -> tuple[Cluster, PolicySet]:
        """What the objects mean, as tools without a cluster read them."""
        cluster, policies, _ = cluster_from_objects(self.objects)
        return cluster, policies


labels = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES), max_size=2)
settings = st.builds(
    Settings,
    st.sampled_from([NodeProbes.ALLOW, NodeProbes.ALLOW, NodeProbes.DENY]),
    st.sampled_from([OwnNodeEgress.POLICY, OwnNodeEgress.POLICY, OwnNodeEgress.ALLOW]),
    st.sampled_from(Established),
)
ports = st.lists(
    st.builds(PortSpec, st.sampled_from(PORTS), st.sampled_from([*NAMES, None]), st.sampled_from(PROTOCOLS)),
    min_size=1,
    max_size=3,
).map(tuple)
_ADDRESSES = st.lists(st.sampled_from(ADDRESSES), min_size=1, max_size=3, unique=True).map(tuple)
_PHASES = (*["Running"] * 12, "Pending", "Succeeded", "Failed", "Unknown")
# Where nothing meets, nothing is tried: most of what there is shares a namespace.
_HOMES = ("shop", "shop", "shop", *NAMESPACES)


@st.composite
def pods(draw: st.DrawFn, name: str, serial: int, nodes: Mapping[str, tuple[str, ...]]) -> PodAt:
    """Draw a pod of a name."""
    node = draw(st.sampled_from(NODES))
    host = draw(st.integers(0, 11)) == 11
    spec = PodSpec(
        labels=draw(labels),
        ports=draw(ports) if draw(st.integers(0, 4)) else (),
        sidecarPorts=draw(ports) if draw(st.integers(0, 3)) == 3 else (),
        hostNetwork=host,
        phase=draw(st.sampled_from(_PHASES)),
        terminating=draw(st.integers(0, 7)) == 7,
    )
    addresses = nodes.get(node, ()) if host else draw(_ADDRESSES) if draw(st.integers(0, 11)) < 11 else ()
    return PodAt(draw(st.sampled_from(_HOMES)), name, node, addresses, spec, serial)


@st.composite
def nodes(draw: st.DrawFn) -> dict[str, tuple[str, ...]]:
    """Draw the nodes that the API server knows, each with none, some or all of its addresses."""
    drawn = {}
    for name, own in NODE_ADDRESSES.items():
        count = draw(st.sampled_from([2, 3, 2, 1, 0]))
        if draw(st.integers(0, 9)) < 9:
            drawn[name] = own[:count]
    return drawn


@st.composite
def worlds(draw: st.DrawFn, *, broken: bool = True) -> World:
    """Draw a world; ``broken``: now and then a policy has a part that no API server would take."""
    broken = broken and draw(st.booleans())
    where = draw(nodes())
    known = [name for name in NAMESPACES if draw(st.integers(0, 5)) < 5]
    names = POD_NAMES[: draw(st.sampled_from((2, 3, 4, 5, 6, 1, 0)))]
    policies = [
        draw(manifests(f"p{number}", broken=broken)) for number in range(draw(st.sampled_from((1, 2, 3, 4, 0))))
    ]
    return World(
        nodes=where,
        namespaces={name: draw(labels) for name in known},
        pods=tuple(draw(pods(name, serial, where)) for serial, name in enumerate(names, start=1)),
        policies=tuple(policies),
        settings=draw(settings),
    )
