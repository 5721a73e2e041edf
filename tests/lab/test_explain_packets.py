# SPDX-License-Identifier: Apache-2.0
"""What ``ringfence explain`` says of a live cluster is what packets meet, whatever the ends are."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from ringfence.cli.main import run
from tests.lab.labs import Lab

pytestmark = [pytest.mark.kernel, pytest.mark.lab]

NODE_A, NODE_B = "aks-nodepool1-000000", "aks-nodepool1-000001"
POLICIES = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: client}}}]
    ports: [{port: http}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: stranger}
spec:
  podSelector: {matchLabels: {app: stranger}}
  policyTypes: [Egress]
  egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: 8080}]}]
"""


def a_pod(name: str, node: str, app: str, **spec: Any) -> dict[str, Any]:
    """Return a pod that answers on TCP port 8080 (named http) on a node."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": app}},
        "spec": {
            "nodeName": node,
            "containers": [
                {
                    "name": "main",
                    "image": "agnhost:2.33",
                    "command": ["/agnhost", "netexec", "--http-port=8080"],
                    "ports": [{"name": "http", "containerPort": 8080}],
                }
            ],
            **spec,
        },
    }


WEB = a_pod("web", NODE_B, "web")
DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web"},
    "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": WEB["spec"]},
    },
}
SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web"},
    "spec": {"type": "NodePort", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]},
}


@dataclass(frozen=True)
class World:
    """The namespace of this file, and the addresses in it."""

    lab: Lab
    web: str
    service: str
    node_port: int
    nodes: dict[str, str]

    def explained(self, source: str, destination: str, port: int) -> dict[str, Any]:
        """Return what explain says, as JSON, the exit code with it."""
        ends = ("--from", source, "--to", destination, "--port", str(port))
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            code = run(["explain", *ends, "-n", "talk", "--kubeconfig", str(self.lab.kubeconfig), "-o", "json"])
        told: dict[str, Any] = json.loads(printed.getvalue())
        return {**told, "code": code}

    def becomes_of(self, source: str, address: str, port: int) -> str:
        """Tell whether a packet gets through: silence says no; a refusal, where nobody listens, is an answer."""
        target = f"{address}:{port}"
        done = self.lab.exec(source, "/agnhost", "connect", target, "--timeout=2s", namespace="talk")
        return "Denied" if "TIMEOUT" in done.out + done.err else "Allowed"


@pytest.fixture(scope="module")
def world(lab: Lab) -> Iterator[World]:
    """Make pods on both nodes, a Deployment behind a node port, and two policies."""
    pods = [
        a_pod("near", NODE_B, "client"),
        a_pod("far", NODE_A, "client"),
        a_pod("stranger", NODE_A, "stranger"),
    ]
    lab.must("create", "namespace", "talk")
    for each in (*pods, DEPLOYMENT, SERVICE):
        lab.must("apply", "-n", "talk", "-f", "-", stdin=json.dumps(each))
    lab.must("apply", "-n", "talk", "-f", "-", stdin=POLICIES)
    lab.must("wait", "-n", "talk", "--for=condition=Ready", "pod", "--all", "--timeout=40s")
    lab.must("rollout", "status", "-n", "talk", "deployment/web", "--timeout=40s")
    (web,) = lab.get("pods", "-n", "talk", "-l", "app=web")["items"]
    service = lab.get("service", "web", "-n", "talk")["spec"]
    nodes = {n["metadata"]["name"]: n["status"]["addresses"][0]["address"] for n in lab.get("nodes")["items"]}
    connect = ("/agnhost", "connect", f"{service['clusterIP']}:80", "--timeout=1s")
    made = World(lab, web["status"]["podIP"], service["clusterIP"], service["ports"][0]["nodePort"], nodes)
    lab.until(lambda: made.becomes_of("stranger", made.web, 8080) == "Denied", "the policy")
    lab.until(lambda: made.lab.exec("near", *connect, namespace="talk").code == 0, "the Service")
    yield made
    lab.must("delete", "namespace", "talk")


def test_packets_do_what_explain_says(world: World) -> None:
    """From three pods to pods, workloads, Services, node ports and nodes: verdict and connection agree."""
    far = world.lab.get("pod", "far", "-n", "talk")["status"]["podIP"]
    ends = {
        "deploy/web": (world.web, 8080),
        "svc/web": (world.service, 80),
        world.service: (world.service, 80),
        f"node/{NODE_B}": (world.nodes[NODE_B], world.node_port),
        world.nodes[NODE_A]: (world.nodes[NODE_A], world.node_port),
        "talk/far": (far, 8080),
        f"node/{NODE_A}": (world.nodes[NODE_A], 8080),
    }
    pairs = [(source, end) for source in ("near", "far", "stranger") for end in ends]

    with ThreadPoolExecutor(max_workers=7) as pool:
        seen = dict(zip(pairs, pool.map(lambda pair: world.becomes_of(pair[0], *ends[pair[1]]), pairs), strict=True))
    told = {pair: world.explained(*pair, ends[pair[1]][1])["items"] for pair in pairs}
    # The packets are IPv4: so is what is held against them.
    verdicts = {pair: {item["verdict"] for item in items if item["family"] == 4} for pair, items in told.items()}

    assert {pair: {verdict} for pair, verdict in seen.items()} == verdicts
    assert set(seen.values()) == {"Allowed", "Denied"}


def test_a_pod_that_has_no_address_yet_is_explained_all_the_same(world: World) -> None:
    """Where no block is asked for, it makes no difference; where one is, that is said."""
    unscheduled = a_pod("late", "", "client", nodeSelector={"nowhere": "at-all"})
    del unscheduled["spec"]["nodeName"]
    world.lab.must("apply", "-n", "talk", "-f", "-", stdin=json.dumps(unscheduled))

    by_label = world.explained("late", "deploy/web", 8080)
    by_block = world.explained("stranger", "late", 8080)

    assert (by_label["code"], by_label["verdict"]) == (0, "Allowed")
    assert by_block["code"] == 1  # dual stack: no block admits IPv6
    assert "Undecidable" in {item["verdict"] for item in by_block["items"]}
    gaps = {unknown["gap"] for item in by_block["items"] for unknown in item["egress"]["unknowns"]}
    assert gaps == {"address"}
