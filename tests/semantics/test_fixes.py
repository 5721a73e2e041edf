# SPDX-License-Identifier: Apache-2.0
"""The commands that explanations suggest close the gap that they promise to close."""

from __future__ import annotations

import json
import shlex
from typing import Any

import jsonpatch
import pytest

from ringfence.apis.networkpolicy import lower, policy_set, validate
from ringfence.apis.workloads import Owner
from ringfence.model.cluster import Cluster, ContainerPort, Namespace
from ringfence.model.labels import Labels, Operator, Requirement, Selector
from ringfence.model.ports import Protocol
from ringfence.semantics import fixes
from ringfence.semantics.explain import explain
from ringfence.semantics.findings import Outcome
from ringfence.semantics.knowledge import Knowledge
from tests.semantics.small_worlds import flow, labelled, pod

CLUSTER = Cluster(
    [Namespace(name, Labels({"kubernetes.io/metadata.name": name})) for name in ("shop", "bank")],
    [],
    [
        pod("shop/client", "10.0.0.11", {"app": "client"}),
        pod("shop/server", "10.0.0.10", {"app": "server"}, ports=[ContainerPort("http", 80, Protocol.TCP)]),
        pod("bank/client", "10.0.0.12", {"app": "client"}),
    ],
)


def np(direction: str, rule: dict[str, Any]) -> dict[str, Any]:
    """Return a NetworkPolicy of namespace ``shop`` with one rule."""
    spec = {"podSelector": {}, "policyTypes": [direction.capitalize()], direction: [rule]}
    meta = {"name": "p", "namespace": "shop"}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec}


MIXED = {"podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["client", "x"]}]}}


@pytest.mark.parametrize(
    ("direction", "rule", "source", "destination", "port"),
    [
        pytest.param("ingress", {"ports": [{"port": 443}]}, "10.0.0.11", "10.0.0.10", 80, id="port"),
        pytest.param(
            "ingress", {"ports": [{"port": 80, "protocol": "UDP"}]}, "10.0.0.11", "10.0.0.10", 80, id="protocol"
        ),
        pytest.param(
            "ingress",
            {"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]},
            "10.0.0.12",
            "10.0.0.10",
            80,
            id="namespace",
        ),
        pytest.param("ingress", {"from": [MIXED]}, "10.0.0.12", "10.0.0.10", 80, id="namespace-and-expressions"),
        pytest.param("ingress", {"from": [{"podSelector": {}}]}, "10.0.0.12", "10.0.0.10", 80, id="namespace-all"),
        pytest.param("egress", {"to": [{"podSelector": {}}]}, "10.0.0.11", "8.8.8.8", 53, id="outside"),
        pytest.param(
            "egress", {"to": [{"ipBlock": {"cidr": "8.0.0.0/8", "except": ["8.8.8.0/24"]}}]}, "10.0.0.11", "8.8.8.8",
            53, id="exception",
        ),
        pytest.param("egress", {"ports": [{"port": "dns"}]}, "10.0.0.11", "8.8.8.8", 53, id="named-port-outside"),
    ],
)  # fmt: skip
def test_a_suggested_patch_makes_the_rule_match(
    direction: str, rule: dict[str, Any], source: str, destination: str, port: int
) -> None:
    """Carried out as kubectl would, the policy is valid and the connection allowed."""
    obj = np(direction, rule)
    before = explain(flow(source, destination, port=port), CLUSTER, policy_set([lower(obj).policy]))
    side = before.ingress if direction == "ingress" else before.egress
    assert (before.outcome, side.nearest is not None) == (Outcome.DENIED, True)
    assert side.nearest is not None
    (command,) = [miss.remedy for miss in side.nearest.misses]
    assert command is not None
    words = shlex.split(command)
    assert words[:7] == ["kubectl", "patch", "networkpolicy", "p", "-n", "shop", "--type=json"]

    patched = jsonpatch.apply_patch(obj, json.loads(words[-1]))

    assert validate(patched) == []
    after = explain(flow(source, destination, port=port), CLUSTER, policy_set([lower(patched).policy]))
    assert after.outcome is Outcome.ALLOWED


def test_a_pod_of_a_workload_is_labelled_in_its_template() -> None:
    """A label on the pod alone would be gone with the pod; null takes one away."""
    endpoint = CLUSTER.endpoints[next(key for key in CLUSTER.endpoints if key.namespace == "bank")]
    known = Knowledge(owners={endpoint.key: Owner("Deployment", "bank", "client")})
    wanted = (*labelled(role="x").requirements, Requirement("app", Operator.DOES_NOT_EXIST))

    words = shlex.split(fixes.label_pod(endpoint, wanted, known))

    assert words[:-1] == ["kubectl", "patch", "deployment", "client", "-n", "bank", "--type=merge", "-p"]
    labels = json.loads(words[-1])["spec"]["template"]["metadata"]["labels"]
    assert labels == {"role": "x", "app": None}


def test_a_template_that_cannot_be_patched_is_told_in_words() -> None:
    """A Job's template is immutable."""
    endpoint = CLUSTER.endpoints[next(key for key in CLUSTER.endpoints if key.namespace == "bank")]
    known = Knowledge(owners={endpoint.key: Owner("Job", "bank", "import")})
    wanted = (*labelled(role="x").requirements, Requirement("app", Operator.DOES_NOT_EXIST))

    assert fixes.label_pod(endpoint, wanted, known) == "set role=x,app- in the pod template of Job bank/import"


def test_several_requirements_on_one_label_are_met_by_one_change() -> None:
    """A value that must be one of some also is one that exists."""
    wanted = Selector((Requirement("a", Operator.IN, ("x",)), Requirement("a", Operator.EXISTS)))

    assert fixes.changes(wanted.requirements) == {"a": "x"}
