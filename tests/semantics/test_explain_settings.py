# SPDX-License-Identifier: Apache-2.0
"""An operator's choices change explanations as they change verdicts."""

from __future__ import annotations

import itertools

from ringfence.apis.manifests import cluster_from_objects
from ringfence.cases import objects
from ringfence.cases.format import NodeSpec, PodSpec
from ringfence.model.addresses import Address
from ringfence.model.cluster import Cluster
from ringfence.model.flow import Flow
from ringfence.model.policy import PolicySet
from ringfence.model.ports import Protocol
from ringfence.model.settings import DEFAULTS, NodeProbes, OwnNodeEgress, Settings
from ringfence.semantics.evaluate import evaluate
from ringfence.semantics.explain import explain

NOTHING = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "nothing", "namespace": "shop"},
    "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
}


def one_pod() -> tuple[Cluster, PolicySet, Address]:
    """Return a cluster of two nodes with one isolated pod, and the pod's address."""
    identity = objects.identity("shop", "web", 1)
    cluster, policies, _ = cluster_from_objects(
        [
            objects.namespace("shop", {}),
            objects.node("here", NodeSpec(), ["10.0.0.1"]),
            objects.node("there", NodeSpec(), ["10.0.0.2"]),
            objects.pod("shop", "web", PodSpec(), node="here", addresses=("10.0.0.5",), identity=identity),
            NOTHING,
        ]
    )
    (address,) = (address for endpoint in cluster.endpoints.values() for address in endpoint.addresses)
    return cluster, policies, address


def test_an_explanation_agrees_with_the_verdict_under_every_setting() -> None:
    """To and from a pod's own node, and another one: the same outcome and the same reason as the oracle's."""
    cluster, policies, pod = one_pod()
    nodes = [address for node in cluster.nodes.values() for address in node.addresses]
    for probes, egress in itertools.product(NodeProbes, OwnNodeEgress):
        settings = Settings(probes, egress)
        for node, outward in itertools.product(nodes, (True, False)):
            flow = Flow(pod, node, Protocol.TCP, 80) if outward else Flow(node, pod, Protocol.TCP, 80)
            verdict = evaluate(flow, cluster, policies, settings)
            told = explain(flow, cluster, policies, settings=settings)

            assert told.allowed is verdict.allowed
            assert (told.egress.reason, told.ingress.reason) == (verdict.egress.reason, verdict.ingress.reason)


def test_no_note_claims_what_a_setting_has_changed() -> None:
    """That egress policies apply to a pod's own node is only said where they do."""
    cluster, policies, pod = one_pod()
    (node,) = cluster.nodes["here"].addresses
    notes = [
        explain(Flow(pod, node, Protocol.TCP, 80), cluster, policies, settings=settings).notes
        for settings in (DEFAULTS, Settings(own_node_egress=OwnNodeEgress.ALLOW))
    ]

    assert ["own node" in " ".join(each) for each in notes] == [True, False]
