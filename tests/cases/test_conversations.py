# SPDX-License-Identifier: Apache-2.0
"""Services, open connections, path-MTU errors and settings in cases: what engines answer, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from ringfence.cases.build import Loaded, load
from ringfence.cases.engines import NAMES, engine
from ringfence.cases.run import run
from ringfence.compiler.program import Program
from ringfence.dataplanes.base import Applied
from ringfence.dataplanes.memory import MemoryDataplane
from ringfence.errors import InvalidObject
from ringfence.host.nft import Nft
from ringfence.lab.casebed import ENGINES, Packets
from ringfence.lab.config import NetworkPlugin

HEAD = """\
shows: something
cluster:
  namespaces: {shop: {}}
  pods:
    shop/web: {labels: {app: web}, node: node-b, ports: [{name: http, containerPort: 8080}]}
    shop/near: {labels: {app: client}, node: node-b}
    shop/client: {labels: {app: client}, node: node-a}
    shop/other: {node: node-a}
  services:
    shop/web:
      selector: {app: web}
      type: NodePort
      ports: [{port: 80, targetPort: http, nodePort: 30080}]
    shop/local:
      selector: {app: web}
      type: NodePort
      externalTrafficPolicy: Local
      ports: [{port: 80, targetPort: 8080, nodePort: 30081}]
"""
ISOLATED = """\
    apply:
      - apiVersion: networking.k8s.io/v1
        kind: NetworkPolicy
        metadata: {name: web, namespace: shop}
        spec:
          podSelector: {matchLabels: {app: web}}
          ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: http}]}]
      - apiVersion: networking.k8s.io/v1
        kind: NetworkPolicy
        metadata: {name: client, namespace: shop}
        spec:
          podSelector: {matchLabels: {app: client}}
          policyTypes: [Egress]
          egress: [{to: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 8080}]}]
"""
SERVICES = f"""\
{HEAD}
steps:
  - say: without policy, and hairpin
    expect:
      - {{traffic: TCP/80, from: shop/web, to: service/shop/web, verdict: allow}}
      - {{traffic: TCP/30080, from: shop/web, to: node/node-b, verdict: allow}}
      - {{traffic: TCP/80, from: shop/client, to: service/shop/web, verdict: allow}}
      - {{traffic: TCP/30080, from: shop/client, to: node/node-a, verdict: allow}}
      - {{traffic: TCP/30080, from: 8.8.8.8, to: node/node-a, verdict: allow}}
      - {{traffic: TCP/30081, from: "2001:db8::8", to: node/node-b, verdict: allow}}
      - {{traffic: TCP/30081, from: "2001:db8::8", to: node/node-a, verdict: deny}}
  - say: policy sees pods and target ports, and a node where one puts its address in
{ISOLATED}
    expect:
      - {{traffic: TCP/80, from: shop/web, to: service/shop/web, verdict: allow}}
      - {{traffic: TCP/80, from: shop/client, to: service/shop/web, verdict: allow}}
      - {{traffic: TCP/80, from: shop/other, to: service/shop/web, verdict: deny}}
      - {{traffic: TCP/30080, from: shop/client, to: node/node-a, verdict: deny}}
      - {{traffic: TCP/30080, from: shop/near, to: node/node-b, verdict: allow}}
      - {{traffic: TCP/30080, from: shop/client, to: node/node-b, verdict: deny}}
      - {{traffic: TCP/30080, from: node/node-b, to: node/node-b, verdict: allow}}
      - {{traffic: TCP/30080, from: node/node-b, to: node/node-a, verdict: deny}}
      - {{traffic: TCP/80, from: node/node-b, to: service/shop/web, verdict: allow}}
      - {{traffic: TCP/80, from: node/node-a, to: service/shop/web, verdict: deny}}
  - say: node-a may
    apply:
      - apiVersion: networking.k8s.io/v1
        kind: NetworkPolicy
        metadata: {{name: web, namespace: shop}}
        spec:
          podSelector: {{matchLabels: {{app: web}}}}
          ingress: [{{from: [{{ipBlock: {{cidr: 10.224.0.4/32}}}}, {{ipBlock: {{cidr: "fd00:10:224:0::4/128"}}}}]}}]
    expect:
      - {{traffic: TCP/30080, from: shop/client, to: node/node-a, verdict: allow}}
      - {{traffic: TCP/30080, from: 8.8.8.8, to: node/node-a, verdict: allow}}
      - {{traffic: TCP/30080, from: 8.8.8.8, to: node/node-b, verdict: deny}}
  - say: another pod behind it, on its own port
    delete: [NetworkPolicy shop/web, NetworkPolicy shop/client]
    pods: {{shop/twin: {{labels: {{app: web}}, node: node-a, ports: [{{name: http, containerPort: 9090}}]}}}}
    expect:
      - {{traffic: TCP/80, from: shop/other, to: service/shop/web, verdict: allow}}
      - {{traffic: TCP/30081, from: 8.8.8.8, to: node/node-a, verdict: allow}}
"""
CONNECTIONS = f"""\
{HEAD}
steps:
  - connections:
      tcp: {{from: shop/client, to: shop/web, traffic: TCP/8080}}
      udp: {{from: shop/client, to: shop/web, traffic: UDP/53}}
      service: {{from: shop/client, to: service/shop/web, traffic: TCP/80}}
    established: {{tcp: alive, udp: alive, service: alive}}
  - say: TCP to web is still allowed, UDP is not
{ISOLATED}
    established: {{tcp: alive, udp: cut, service: alive}}
  - say: nothing is
    label: {{shop/client: {{app: none}}}}
    established: {{tcp: cut, udp: cut, service: cut}}
  - say: what is allowed again goes on
    delete: [NetworkPolicy shop/web, NetworkPolicy shop/client]
    established: {{tcp: alive, udp: alive, service: alive}}
"""
ERRORS = f"""\
{HEAD}
steps:
  - say: nobody is isolated
    expect:
      - {{traffic: [TCP/80, UDP/53], from: shop/client, to: shop/web, error: too-big, verdict: allow}}
      - {{traffic: [TCP/80, UDP/53], from: shop/client, to: shop/near, error: forged-too-big, verdict: allow}}
  - say: both ends are
{ISOLATED}
    expect:
      - {{traffic: TCP/8080, from: shop/client, to: shop/web, error: too-big, verdict: allow}}
      - {{traffic: TCP/8080, from: shop/near, to: shop/web, error: too-big, verdict: allow}}
      - {{traffic: TCP/80, from: shop/client, to: service/shop/web, error: too-big, verdict: allow}}
      - {{traffic: TCP/8080, from: shop/client, to: shop/web, error: forged-too-big, verdict: deny}}
      - {{traffic: UDP/8080, from: shop/client, to: shop/web, error: too-big, verdict: deny}}
"""
SETTINGS = f"""\
{HEAD}
settings: {{nodeProbes: deny, ownNodeEgress: allow, establishedConnections: keep}}
steps:
  - say: deny everything
    connections: {{kept: {{from: shop/client, to: shop/web, traffic: TCP/8080}}}}
  - apply:
      - apiVersion: networking.k8s.io/v1
        kind: NetworkPolicy
        metadata: {{name: nothing, namespace: shop}}
        spec: {{podSelector: {{}}, policyTypes: [Ingress, Egress]}}
    established: {{kept: alive}}
    expect:
      - {{traffic: TCP/80, from: node/node-b, to: shop/web, verdict: deny}}
      - {{traffic: TCP/80, from: shop/web, to: node/node-b, verdict: allow}}
      - {{traffic: TCP/80, from: shop/web, to: node/node-a, verdict: deny}}
"""
ENDPOINTS = """\
shows: who is behind a Service
cluster:
  namespaces: {shop: {}}
  nodes: {node-a: {addresses: [10.224.0.4, 203.0.113.4, "fd00:10:224::4"]}, node-b: {}}
  pods:
    shop/web: {labels: {app: web}, node: node-b, ports: [{name: p, containerPort: 8080, protocol: UDP}]}
    shop/ending: {labels: {app: web}, node: node-b, terminating: true}
    shop/unready: {labels: {app: web}, node: node-b, ready: false}
    shop/done: {labels: {app: web}, node: node-b, phase: Succeeded}
    shop/host: {labels: {app: host}, node: node-a, hostNetwork: true}
    shop/four: {labels: {app: four}, addresses: [10.9.9.9]}
    shop/client: {labels: {app: client}, node: node-a}
  services:
    shop/web:
      selector: {app: web}
      type: NodePort
      ports:
        - {name: t, port: 80, nodePort: 30080}
        - {name: u, port: 80, protocol: UDP, targetPort: p, nodePort: 30080}
        - {name: s, port: 80, protocol: SCTP, targetPort: 9, nodePort: 30080}
    shop/host: {selector: {app: host}, ports: [{port: 80}]}
    shop/four: {selector: {app: four}, ports: [{port: 80}], clusterIPs: [10.0.7.7]}
    shop/gone: {selector: {app: web}, clusterIPs: ["fd00:10::77"], ports: [{port: 80}]}
steps:
  - say: only ready pods, on the port that each has; three protocols, from anywhere, to oneself too
    apply:
      - apiVersion: networking.k8s.io/v1
        kind: NetworkPolicy
        metadata: {name: web, namespace: shop}
        spec:
          podSelector: {matchLabels: {app: web}}
          ingress:
            - from: [{podSelector: {matchLabels: {app: client}}}]
              ports: [{port: 80}, {port: p, protocol: UDP}, {port: 9, protocol: SCTP}]
      - apiVersion: networking.k8s.io/v1
        kind: NetworkPolicy
        metadata: {name: others, namespace: shop}
        spec: {podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [web]}]}}
    expect:
      - traffic: [TCP/80, UDP/80, SCTP/80]
        table: |
          from\\to       service/shop/web
          shop/client          .
          shop/web             .
          node/node-b          .
          node/node-a          X
          shop/host            X
      - {traffic: [TCP/30080, UDP/30080, SCTP/30080], from: shop/web, to: node/node-b, verdict: allow}
      - {traffic: [TCP/30080, UDP/30080, SCTP/30080], from: 8.8.8.8, to: node/node-a, verdict: deny}
      - {traffic: TCP/30080, from: 8.8.8.8, to: 203.0.113.4, verdict: deny}
      - {traffic: TCP/80, from: shop/client, to: service/shop/host, verdict: allow}
      - {traffic: TCP/80, from: shop/client, to: service/shop/four, verdict: deny}
      - {traffic: TCP/80, from: shop/client, to: 10.0.7.7, verdict: deny}
      - {traffic: TCP/80, from: shop/client, to: service/shop/gone, verdict: allow}
  - say: while there is no other, a pod that ends is sent to
    pods: {shop/web: {labels: {app: none}}}
    delete: [NetworkPolicy shop/web, NetworkPolicy shop/others]
    expect:
      - {traffic: TCP/80, from: shop/client, to: service/shop/gone, verdict: allow}
"""
STRANGERS = """\
shows: an address of the world becomes a pod's, and goes back
cluster:
  namespaces: {shop: {}}
  pods:
    shop/client: {node: node-a}
steps:
  - expect:
      - {traffic: TCP/80, from: shop/client, to: 10.77.0.9, verdict: allow}
      - {traffic: TCP/80, from: "fd77::9", to: shop/client, verdict: allow}
  - pods: {shop/web: {node: node-b, addresses: [10.77.0.9, "fd77::9"]}}
    expect:
      - {traffic: TCP/80, from: shop/client, to: shop/web, verdict: allow}
      - {traffic: TCP/80, from: shop/web, to: shop/client, verdict: allow}
  - delete: [Pod shop/web]
    apply:
      - apiVersion: networking.k8s.io/v1
        kind: NetworkPolicy
        metadata: {name: web, namespace: shop}
        spec: {podSelector: {}, policyTypes: [Ingress]}
    expect:
      - {traffic: TCP/80, from: shop/client, to: 10.77.0.9, verdict: allow}
      - {traffic: TCP/80, from: "fd77::9", to: shop/client, verdict: deny}
"""
CASES = {
    "services": SERVICES,
    "strangers": STRANGERS,
    "connections": CONNECTIONS,
    "errors": ERRORS,
    "endpoints": ENDPOINTS,
}


def loaded(directory: Path, text: str) -> Loaded:
    """Load a case from text."""
    path = directory / "a-case.yaml"
    path.write_text(text)
    return load(path)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", [*CASES.values(), SETTINGS], ids=[*CASES, "settings"])
def test_engines_without_packets_answer_what_packets_would(text: str, name: str, tmp_path: Path) -> None:
    """Services, connections, errors and settings are derived from the verdicts of flows, alike on every engine."""
    case = loaded(tmp_path, text)

    assert list(map(str, run(case, engine(name, case.script.settings)))) == []


@pytest.mark.kernel
@pytest.mark.parametrize("plugin", get_args(NetworkPlugin))
@pytest.mark.parametrize("name", sorted(ENGINES))
@pytest.mark.parametrize("text", [*CASES.values(), SETTINGS], ids=[*CASES, "settings"])
def test_packets_decide_as_the_case_expects(text: str, name: str, plugin: NetworkPlugin, tmp_path: Path) -> None:
    """DNAT before policy, hairpin, masquerading node ports, open connections and ICMP errors, with real packets."""
    case = loaded(tmp_path, text)

    assert list(map(str, run(case, Packets(name, plugin, case.script.settings)))) == []


STEP = "steps: [{{{}}}]\n"
EXPECT = "steps: [{{expect: [{{{}}}]}}]\n"
DENY = "apply: [{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a, namespace: shop}, "


@pytest.mark.parametrize(
    ("steps", "complaint"),
    [
        pytest.param(
            EXPECT.format("traffic: TCP/81, from: shop/other, to: service/shop/web, verdict: deny"),
            "service/shop/web has no port TCP/81",
            id="port",
        ),
        pytest.param(
            EXPECT.format("traffic: ICMP, from: shop/other, to: service/shop/web, verdict: deny"),
            "service/shop/web has no port ICMP",
            id="ping",
        ),
        pytest.param(
            EXPECT.format("traffic: TCP/80, from: shop/other, to: service/shop/db, verdict: deny"),
            "no such service: shop/db",
            id="no-service",
        ),
        pytest.param(
            EXPECT.format("traffic: TCP/80, from: service/shop/web, to: shop/web, verdict: deny"),
            "connections come from pods, nodes and addresses",
            id="from-service",
        ),
        pytest.param(
            EXPECT.format("traffic: TCP/80, from: 8.8.8.8, to: service/shop/web, verdict: deny"),
            "only pods and nodes reach a ClusterIP",
            id="outside",
        ),
        pytest.param(
            STEP.format(
                "delete: [Pod shop/web], expect: "
                "[{traffic: TCP/80, from: shop/other, to: service/shop/web, verdict: deny}]"
            ),
            "leads nowhere: no ready pod",
            id="nowhere",
        ),
        pytest.param(
            STEP.format(
                "pods: {shop/twin: {labels: {app: web, twin: yes}, ports: [{name: http, containerPort: 80}]}}, "
                + DENY
                + "spec: {podSelector: {matchLabels: {twin: yes}}}}], expect: "
                "[{traffic: TCP/80, from: shop/other, to: service/shop/web, verdict: deny}]"
            ).replace("yes", '"yes"'),
            "has no one verdict: some of the pods that it may be sent to allow it, some do not (10.224.1.5 port 8080, ",
            id="ambiguous",
        ),
        pytest.param(
            EXPECT.format("traffic: SCTP/80, from: shop/other, to: shop/web, error: too-big, verdict: deny"),
            "an open connection is TCP or UDP, not SCTP",
            id="error-of-sctp",
        ),
        pytest.param(
            EXPECT.format("traffic: TCP/80, from: shop/web, to: shop/web, error: too-big, verdict: deny"),
            "errors are about connections to one pod, node or address, and not to itself",
            id="error-to-itself",
        ),
        pytest.param(
            EXPECT.format("traffic: TCP/30080, from: shop/other, to: node/node-a, error: too-big, verdict: deny"),
            "errors are about connections to one pod",
            id="error-masqueraded",
        ),
        pytest.param(STEP.format("established: {a: cut}"), "no connection a has been opened", id="never-opened"),
        pytest.param(
            STEP.format("connections: {a: {from: shop/web, to: shop/x, traffic: TCP/1}}"), "no such pod", id="opening"
        ),
        pytest.param(
            STEP.format("connections: {a: {from: shop/web, to: shop/near, traffic: GRE}}"), "no protocol", id="words"
        ),
        pytest.param(
            "steps:\n"
            "  - connections: {a: {from: shop/web, to: shop/near, traffic: TCP/1}}\n"
            "  - connections: {a: {from: shop/web, to: shop/near, traffic: TCP/1}}\n",
            "connection a is open already",
            id="twice",
        ),
        pytest.param(
            "steps:\n"
            "  - connections: {a: {from: shop/web, to: shop/near, traffic: TCP/1}}\n"
            "  - delete: [Pod shop/web]\n"
            "    established: {a: cut}\n",
            "a pod of connection a is gone",
            id="gone",
        ),
        pytest.param(
            STEP.format("services: {shop/x: {selector: {}, ports: [{port: 1}]}}"), "selects its pods", id="selector"
        ),
        pytest.param(
            STEP.format("services: {shop/x: {selector: {a: b}, ports: []}}"), "each number once", id="no-ports"
        ),
        pytest.param(
            STEP.format("services: {shop/x: {selector: {a: b}, ports: [{port: 1}, {port: 2}]}}"),
            "several ports of a Service have a name each",
            id="unnamed",
        ),
        pytest.param(
            STEP.format("services: {shop/x: {selector: {a: b}, ports: [{port: 70000}]}}"), "no port: 70000", id="range"
        ),
        pytest.param(
            STEP.format("services: {shop/x: {selector: {a: b}, ports: [{port: 1, nodePort: 30000}]}}"),
            "ports of type NodePort have a nodePort",
            id="node-port",
        ),
        pytest.param(
            STEP.format("services: {shop/x: {selector: {a: b}, ports: [{port: 1}], clusterIPs: []}}"),
            "a Service has one address",
            id="headless",
        ),
        pytest.param(
            STEP.format("services: {shop/x: {selector: {a: b}, ports: [{port: 1}], clusterIPs: [10.0.0.10]}}"),
            "clusterIP 10.0.0.10 is Service shop/web's already",
            id="taken",
        ),
        pytest.param(
            STEP.format("services: {x: {selector: {a: b}, ports: [{port: 1}]}}"),
            "a Service is named namespace/name",
            id="name",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused_with_its_place(steps: str, complaint: str, tmp_path: Path) -> None:
    """A question without one answer is a mistake in the case, told as such."""
    with pytest.raises(InvalidObject) as caught:
        loaded(tmp_path, HEAD + steps)

    assert str(caught.value).startswith(f"{tmp_path}/a-case.yaml:")
    assert complaint in str(caught.value)


def test_given_cluster_ips_are_honoured_and_kept(tmp_path: Path) -> None:
    """A Service keeps its addresses when it is changed; given ones may be of one family."""
    steps = """\
steps:
  - services: {shop/x: {selector: {a: b}, ports: [{port: 1}], clusterIPs: ["fd00:10::00:99"]}}
  - services:
      shop/x: {selector: {a: c}, ports: [{port: 1}]}
      shop/web: {selector: {a: c}, ports: [{port: 1}]}
"""
    last = loaded(tmp_path, HEAD + steps).script.steps[1].events

    assert [event.object["spec"]["clusterIPs"] for event in last] == [["fd00:10::99"], ["10.0.0.10", "fd00:10::a"]]
    assert [event.object["spec"]["ipFamilies"] for event in last] == [["IPv6"], ["IPv4", "IPv6"]]


@pytest.mark.kernel
def test_a_case_can_tell_that_neighbour_discovery_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No pod or node is told where its IPv6 neighbours are: who drops discovery gets denials (SEMANTICS 33)."""
    monkeypatch.setitem(ENGINES, "deaf", Deaf)
    asked = EXPECT.format("traffic: TCP/80, from: shop/other, to: shop/web, verdict: allow")

    differences = run(loaded(tmp_path, HEAD + asked), Packets("deaf"))

    assert [str(difference) for difference in differences] == [
        "step 1: shop/other -> shop/web TCP/80 IPv6: expected allow, got deny"
    ]


class Deaf(MemoryDataplane):
    """Filters nothing but neighbour solicitations, on their way out of the node and into it."""

    def apply(self, program: Program) -> Applied:
        """Have the node it is called in drop them."""
        with Nft() as nft:
            chains = "\n".join(
                f"chain {hook} {{ type filter hook {hook} priority 0; icmpv6 type nd-neighbor-solicit drop; }}"
                for hook in ("input", "output")
            )
            nft.run(f"table inet deaf {{\n{chains}\n}}")
        return super().apply(program)
