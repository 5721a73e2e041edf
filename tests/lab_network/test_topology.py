# SPDX-License-Identifier: Apache-2.0
"""The plan of a lab's network: golden files of everything that the namespaces' kernels are to hold, and the names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ringfence.errors import UsageError
from ringfence.lab import topology_state
from ringfence.lab.topology import Topology, lab_of, plan_explicit, plan_external, plan_pod, plan_topology
from tests.lab_network.networks import PLUGINS, addresses

GOLDEN = Path(__file__).parent / "golden"


def _described(topology: Topology) -> str:
    """Return a topology with a pod on each node and an external host, namespace by namespace."""
    parts = [(topology.fabric_netns, "", topology_state.fabric_state(topology))]
    parts += [
        (topology.fabric_netns, f"for {node.fabric_interface}", topology_state.fabric_link_state(node))
        for node in topology.nodes
    ]
    for node in topology.nodes:
        parts.append((node.netns, f"mac {node.mac}", topology_state.node_state(topology, node)))
        for own in (node.pod_networks, ()):
            texts = tuple(network[7] for network in own) or addresses("192.168.7.7", "fd00:7::7")
            pod = plan_pod(topology, node.name, "demo", f"server-{len(own)}", "uid-1", texts)
            parts.append((pod.netns, f"mac {pod.mac}", topology_state.pod_state(topology, pod)))
            parts.append((node.netns, f"while {pod.host_interface} is open", topology_state.opening(topology, pod)))
            parts.append((topology.fabric_netns, f"for {pod.name}", topology_state.fabric_pod_state(pod)))
    world = plan_external(topology, "world", addresses("8.8.8.8", "2001:db8::8"))
    parts.append((world.netns, f"mac {world.mac}", topology_state.external_state(world)))
    parts.append((topology.fabric_netns, f"for {world.name}", topology_state.fabric_external_state(world)))
    return "\n".join(f"== {netns} {what}".rstrip() + f"\n{state}" for netns, what, state in parts) + "\n"


@pytest.mark.parametrize(
    "topology",
    [
        plan_topology("lab", "azure", ["aks-nodepool1-000000", "aks-nodepool1-000001"]),
        plan_topology("lab", "kubenet", ["aks-nodepool1-000000", "aks-nodepool1-000001"]),
        plan_explicit("lab", "kubenet", {"one": addresses("172.18.0.2"), "two": ()}),
    ],
    ids=["azure", "kubenet", "explicit"],
)
def test_what_namespaces_hold_is_as_in_the_golden_file(topology: Topology, request: pytest.FixtureRequest) -> None:
    """Rewrite with RINGFENCE_GOLDEN=1 and read the difference."""
    golden = GOLDEN / f"topology-{request.node.callspec.id}.txt"
    text = _described(topology)
    if os.environ.get("RINGFENCE_GOLDEN") == "1":
        golden.write_text(text)
    assert text == golden.read_text()


def test_names_fit_what_they_name() -> None:
    """Links have at most 15 characters, namespace names are file names, whatever a pod is called."""
    for plugin in PLUGINS:
        topology = plan_topology("a-lab-of-20-letters0", plugin, ["n"])
        pod = plan_pod(topology, "n", "n" * 63, "p" * 253, "uid", addresses("10.224.0.5"))
        assert len(pod.host_interface) <= 15
        assert len(pod.netns) <= 255
        assert len(plan_external(topology, "e" * 100, ()).fabric_interface) <= 15
    assert len(plan_topology("lab", "azure", [f"n{i}" for i in range(200)]).nodes[-1].fabric_interface) <= 15


def test_a_pod_and_the_one_before_it_do_not_meet() -> None:
    """Same namespace and name, another UID: another network namespace and another link."""
    topology = plan_topology("lab", "azure", ["n"])
    first, second = (plan_pod(topology, "n", "demo", "server", uid, addresses("10.224.0.5")) for uid in ("a", "b"))
    assert first.netns != second.netns
    assert first.host_interface != second.host_interface


def test_a_namespaces_name_tells_its_lab_and_never_two() -> None:
    """Labs whose names start the same way, or look like kinds, are told apart."""
    for name in ("a", "a-b", "a-node", "node", "a-fabric", "fabric", "pod-ext"):
        topology = plan_topology(name, "azure", ["x", "fabric"])
        pod = plan_pod(topology, "x", "demo", "ext.x", "uid", ())
        names = [topology.fabric_netns, *(node.netns for node in topology.nodes), pod.netns]
        names.append(plan_external(topology, "world", ()).netns)
        assert [lab_of(each) for each in names] == [name] * 5
    assert lab_of("rf-lab") is None
    assert lab_of("other-lab-fabric") is None
    assert lab_of("rf-lab-fabric-x") is None


def test_what_cannot_be_is_refused() -> None:
    """An unknown node, too many nodes, two of one name, a name that cannot be a lab's."""
    with pytest.raises(UsageError, match='has no node "y"'):
        plan_topology("lab", "azure", ["x"]).node("y")
    with pytest.raises(UsageError, match="at most 200 nodes"):
        plan_topology("lab", "azure", [f"n{number}" for number in range(201)])
    with pytest.raises(UsageError, match="same name"):
        plan_topology("lab", "azure", ["x", "x"])
    with pytest.raises(UsageError, match="cannot name a lab"):
        plan_topology("../lab", "azure", ["x"])
