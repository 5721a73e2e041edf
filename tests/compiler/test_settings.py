# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools
from ipaddress import ip_address

import pytest

from ringfence.compiler.compile import compile_program
from ringfence.compiler.interpret import judge
from ringfence.dataplanes.memory import MemoryDataplane
from ringfence.model.cluster import Cluster, Endpoint, Namespace, Node, PodKey
from ringfence.model.flow import Flow
from ringfence.model.labels import Labels
from ringfence.model.policy import Action, InNamespace, ObjectRef, PodPeer, Policy, PolicySet, Tier
from ringfence.model.ports import Protocol
from ringfence.model.settings import NodeProbes, OwnNodeEgress, Settings
from ringfence.semantics.evaluate import evaluate

NODE, OTHER, POD = map(ip_address, ("10.9.0.1", "10.9.0.2", "10.9.1.1"))
CLUSTER = Cluster(
    [Namespace("demo")],
    [Node("n", addresses=frozenset({NODE})), Node("m", addresses=frozenset({OTHER}))],
    [Endpoint(PodKey("demo", "web"), "1", Labels(), frozenset({POD}), "n")],
)
DENY_ALL = PolicySet(
    (
        Tier(
            "kubernetes",
            1,
            Action.DENY,
            (Policy(ObjectRef("NetworkPolicy", "demo", "deny"), PodPeer(InNamespace("demo")), (), ()),),
        ),
    )
)


@pytest.mark.parametrize(("probes", "egress"), list(itertools.product(NodeProbes, OwnNodeEgress)))
def test_oracle_program_and_memory_obey_the_settings_about_the_own_node(
    probes: NodeProbes, egress: OwnNodeEgress
) -> None:
    """Only the own node is concerned, each direction by its own setting (SEMANTICS 23, 24)."""
    settings = Settings(node_probes=probes, own_node_egress=egress)
    program = compile_program(CLUSTER, DENY_ALL, "n", settings)
    memory = MemoryDataplane()
    memory.apply(program)
    expected = {
        (NODE, POD): probes is NodeProbes.ALLOW,
        (POD, NODE): egress is OwnNodeEgress.ALLOW,
        (OTHER, POD): False,
        (POD, OTHER): False,
    }
    for (source, destination), allowed in expected.items():
        flow = Flow(source, destination, Protocol.TCP, 80)

        assert evaluate(flow, CLUSTER, DENY_ALL, settings).allowed is allowed, flow
        assert judge(program, flow).allowed is allowed, flow
        assert memory.judge(flow).allowed is allowed, flow
