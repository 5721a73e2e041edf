# SPDX-License-Identifier: Apache-2.0
"""Every connection that a question means: families, replicas, Services, and ports of nodes."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import Any

import pytest

from ringfence.apis.workloads import Owner
from ringfence.errors import UsageError
from ringfence.model.cluster import Cluster, ContainerPort, Namespace, Node, PodKey
from ringfence.model.policy import InNamespace, Peers, PodPeer, PolicySet
from ringfence.model.ports import PortMatch, PortRange, Ports, Protocol
from ringfence.semantics.connections import Answer, answer
from ringfence.semantics.ends import Directory
from ringfence.semantics.findings import Outcome
from ringfence.semantics.knowledge import Gap, Knowledge
from tests.semantics.small_worlds import block, labelled, network_policies, pod, policy, rule

TCP, ICMP = Protocol.TCP, Protocol.ICMP
SHOP = InNamespace("shop")
HTTP = [ContainerPort("http", 8080, TCP)]


def address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return an address."""
    return ipaddress.ip_address(text)


NODES = [
    Node("node-a", addresses=frozenset({address("10.1.0.4")})),
    Node("node-b", addresses=frozenset({address("10.1.0.5")})),
]
WEB = PodPeer(SHOP, labelled(app="web"))
CLUSTER = Cluster(
    [Namespace("shop")],
    NODES,
    [
        pod("shop/client", "10.0.0.10", {"app": "client"}, node="node-a"),
        pod("shop/neighbour", "10.0.0.11", {"app": "client"}, node="node-b"),
        pod("shop/web", "10.0.0.12", {"app": "web"}, node="node-b", ports=HTTP),
    ],
)
ONLY_CLIENTS = network_policies(policy("p", subject=WEB, ingress=(rule(Peers((PodPeer(SHOP),))),)))


def service(**spec: Any) -> dict[str, Any]:
    """Return a Service of type NodePort for the pods with app=web."""
    port = {"port": 80, "targetPort": "http", "nodePort": 30080}
    whole = {"type": "NodePort", "selector": {"app": "web"}, "ports": [port], "clusterIP": "10.96.0.1", **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"}, "spec": whole}


def ask(
    source: str,
    destination: str,
    port: str | None,
    *objects: dict[str, Any],
    cluster: Cluster = CLUSTER,
    policies: PolicySet = ONLY_CLIENTS,
    known: Knowledge | None = None,
    protocol: Protocol = TCP,
) -> Answer:
    """Ask a directory of a cluster for what a connection comes to."""
    made = Directory(cluster, "shop", "in the files given", known or Knowledge(), whole=known is None)
    made.add(objects)
    return answer(made, made.source(source), made.destination(destination, protocol, port), protocol, policies)


@pytest.mark.parametrize(
    ("source", "node", "spec", "outcome", "arrives_from"),
    [
        pytest.param("client", "node-b", {}, Outcome.ALLOWED, "10.0.0.10", id="pod-of-the-node-asked"),
        pytest.param("client", "node-a", {}, Outcome.DENIED, "10.1.0.4", id="sent-on-by-its-own-node"),
        pytest.param("neighbour", "node-a", {}, Outcome.DENIED, "10.1.0.4", id="sent-on-by-another-node"),
        pytest.param("203.0.113.7", "node-b", {}, Outcome.DENIED, "203.0.113.7", id="outside"),
        pytest.param(
            "client", "node-b", {"externalTrafficPolicy": "Local"}, Outcome.ALLOWED, "10.0.0.10", id="local-keeps"
        ),
    ],
)
def test_a_node_port_shows_the_node_to_pods_of_other_nodes(
    source: str, node: str, spec: dict[str, Any], outcome: Outcome, arrives_from: str
) -> None:
    """SEMANTICS 31 and 32: translated where it arrives; passed on to another node, it has that node's address."""
    given = ask(source, f"node/{node}", "30080", service(**spec))

    (told,) = given.explanations
    assert (outcome, arrives_from, 8080) == (given.outcome, str(told.flow.source), told.flow.port)
    assert "Service shop/web's" in " ".join(given.notes)


def test_egress_is_judged_before_another_node_translates() -> None:
    """What leaves the client goes to the node's port; its own node would have translated it."""
    only = Ports((PortMatch(TCP, PortRange(30080, 30080)),))
    policies = network_policies(
        policy("p", subject=PodPeer(SHOP, labelled(app="client")), egress=(rule(traffic=only),))
    )

    through_other = ask("client", "node/node-b", "30080", service(), policies=policies)
    through_own = ask("client", "node/node-a", "30080", service(), policies=policies)

    assert (through_other.outcome, through_own.outcome) == (Outcome.ALLOWED, Outcome.DENIED)
    assert through_other.explanations[0].leaving.port == 30080


def test_a_node_port_by_the_nodes_address_is_the_same() -> None:
    """A person may type what curl was given."""
    assert ask("client", "10.1.0.5", "30080", service()).explanations[0].flow.port == 8080


def test_any_other_port_of_a_node_is_the_nodes_own() -> None:
    """Services on other ports have nothing to do with it."""
    (told,) = ask("client", "node/node-b", "22", service()).explanations

    assert (str(told.flow.destination), told.flow.port, told.leaving) == ("10.1.0.5", 22, told.flow)


def test_a_node_port_that_stays_local_leads_nowhere_without_a_pod_there() -> None:
    """With ``Local``, pods of other nodes do not count."""
    given = ask("client", "node/node-a", "30080", service(externalTrafficPolicy="Local"))

    assert (given.outcome, [unknown.gap for unknown in given.unknowns]) == (Outcome.UNDECIDABLE, [Gap.BACKENDS])


def test_where_a_pod_runs_may_decide_a_node_port() -> None:
    """Without a node, the pod may see either address: only if that differs is it undecidable."""
    cluster = Cluster([Namespace("shop")], NODES, [CLUSTER.endpoints[PodKey("shop", "client")], pod(
        "shop/web", "10.0.0.12", {"app": "web"}, node="", ports=HTTP)])  # fmt: skip
    known = Knowledge(unplaced=frozenset({PodKey("shop", "web")}))
    admits_node = network_policies(policy("p", subject=WEB, ingress=(rule(Peers((block("10.0.0.10/32"),))),)))

    open_ = ask("client", "node/node-b", "30080", service(), cluster=cluster, known=known, policies=PolicySet())
    given = ask("client", "node/node-b", "30080", service(), cluster=cluster, known=known, policies=admits_node)
    local = service(externalTrafficPolicy="Local")
    stays = ask("client", "node/node-b", "30080", local, cluster=cluster, known=known)

    assert open_.outcome is Outcome.ALLOWED
    assert (given.outcome, [u.gap for u in given.unknowns]) == (Outcome.UNDECIDABLE, [Gap.NODE])
    assert (stays.outcome, [u.gap for u in stays.unknowns]) == (Outcome.UNDECIDABLE, [Gap.NODE])


def test_a_node_with_two_addresses_may_put_in_either() -> None:
    """Where the verdict differs between them, nobody knows which."""
    two = Node("node-a", addresses=frozenset({address("10.1.0.4"), address("192.168.7.4")}))
    cluster = Cluster([Namespace("shop")], [two, NODES[1]], CLUSTER.endpoints.values())
    one = network_policies(policy("p", subject=WEB, ingress=(rule(Peers((block("10.1.0.0/16"),))),)))

    given = ask("203.0.113.7", "node/node-a", "30080", service(), cluster=cluster, policies=one)

    assert (given.outcome, [u.gap for u in given.unknowns]) == (Outcome.UNDECIDABLE, [Gap.ADDRESS])
    assert ask("203.0.113.7", "node/node-a", "30080", service(), cluster=cluster).outcome is Outcome.DENIED


def test_a_service_that_stays_on_the_node_leads_to_its_pods_only() -> None:
    """InternalTrafficPolicy Local: a pod of another node is no backend for this client."""
    local = service(internalTrafficPolicy="Local")

    assert ask("neighbour", "svc/web", "80", local).outcome is Outcome.ALLOWED
    assert [u.gap for u in ask("client", "svc/web", "80", local).unknowns] == [Gap.BACKENDS]


@pytest.mark.parametrize("spec", [{"externalIPs": ["203.0.113.50"]}, {}])
def test_the_address_of_a_load_balancer_leads_to_the_service(spec: dict[str, Any]) -> None:
    """Of a load balancer, or given by hand; the note tells what clients outside look like."""
    balanced = {
        **service(type="LoadBalancer", **spec),
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.50"}]}},
    }

    given = ask("client", "203.0.113.50", "80", balanced)

    assert [(str(e.destination.pod), e.flow.port) for e in given.explanations] == [("shop/web", 8080)]
    assert "pods on other nodes see that node's address" in " ".join(given.notes)


def test_a_pod_reaches_itself_through_its_own_service() -> None:
    """SEMANTICS 22: by the Service's name and by its address."""
    closed = network_policies(policy("p", subject=WEB, ingress=(), egress=()))

    assert ask("web", "svc/web", "80", service(), policies=closed).outcome is Outcome.ALLOWED
    assert ask("web", "10.96.0.1", "80", service(), policies=closed).outcome is Outcome.ALLOWED


OWNER = Owner("Deployment", "shop", "web")
FIRST, SECOND = PodKey("shop", "deploy/web"), PodKey("shop", "deploy/web~2")
STAND_INS = {address("198.18.0.1"): FIRST, address("198.18.0.2"): SECOND, address("2001:db8::1"): FIRST}
TEMPLATED = Cluster(
    [Namespace("shop")],
    [],
    [
        pod("shop/deploy/web", "198.18.0.1 2001:db8::1", {"app": "web"}, node=""),
        pod("shop/deploy/web~2", "198.18.0.2", {"app": "web"}, node=""),
        pod("shop/client", "10.0.0.10 fd00::10", {"app": "client"}),
    ],
)
FROM_FILES = Knowledge(stand_ins=STAND_INS, owners={FIRST: OWNER, SECOND: OWNER})


@pytest.mark.parametrize("text", ["deploy/web", "deployment/shop/web", "web", "shop/web"])
def test_a_workload_is_an_end(text: str) -> None:
    """By kind and name, or by name alone; one pod of it speaks for the others."""
    given = ask("client", text, "80", cluster=TEMPLATED, known=FROM_FILES, policies=PolicySet())

    assert {str(each.destination.pod) for each in given.explanations} == {"shop/deploy/web"}
    assert given.outcome is Outcome.ALLOWED


def test_a_workload_may_not_reach_its_other_replicas() -> None:
    """Only a pod itself is always reached: another replica takes a rule."""
    closed = network_policies(policy("p", subject=WEB, ingress=()))

    given = ask("web", "deploy/web", "80", cluster=TEMPLATED, known=FROM_FILES, policies=closed)

    assert [(str(each.destination.pod), each.outcome) for each in given.explanations] == [
        ("shop/deploy/web~2", Outcome.DENIED),
        ("shop/deploy/web", Outcome.ALLOWED),
        ("shop/deploy/web", Outcome.ALLOWED),
    ]
    assert given.outcome is Outcome.DENIED


def test_a_family_that_pods_may_not_have_does_not_decide() -> None:
    """Nobody told whether the cluster is dual stack, and only IPv6 is denied; where that is told, it decides."""
    four = network_policies(policy("p", subject=WEB, ingress=(rule(Peers((block("0.0.0.0/0"),))),)))
    told = Knowledge(stand_ins=STAND_INS, owners=FROM_FILES.owners, families=frozenset({4}))

    guessed = ask("client", "deploy/web", "80", cluster=TEMPLATED, known=FROM_FILES, policies=four)
    known = ask("client", "deploy/web", "80", cluster=TEMPLATED, known=told, policies=four)

    assert (guessed.outcome, [u.gap for u in guessed.unknowns]) == (Outcome.UNDECIDABLE, [Gap.FAMILIES])
    assert known.outcome is Outcome.ALLOWED


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        pytest.param("10.9.9.9", Outcome.UNDECIDABLE, id="may-be-a-pod"),
        pytest.param("203.0.113.7", Outcome.DENIED, id="no-cluster-has-these"),
        pytest.param("outside/10.9.9.9", Outcome.DENIED, id="said-to-be-outside"),
    ],
)
def test_an_address_that_nobody_told_of_may_be_a_pods(end: str, outcome: Outcome) -> None:
    """Unless it is said, or plain, that it is not."""
    assert ask(end, "deploy/web", "80", cluster=TEMPLATED, known=FROM_FILES).outcome is outcome


def test_addresses_beside_the_known_pod_networks_are_outside() -> None:
    """Nodes with their blocks tell where pods are; one whose addresses nobody told may have this one."""
    bare = Node("n", pod_networks=(ipaddress.ip_network("10.9.0.0/16"),))
    cluster, nobody = (
        Cluster([Namespace("shop")], [node], TEMPLATED.endpoints.values())
        for node in (replace(bare, addresses=frozenset({address("10.7.0.4")})), bare)
    )

    assert ask("10.8.9.9", "deploy/web", "80", cluster=nobody, known=FROM_FILES).outcome is Outcome.UNDECIDABLE
    inside = ask("10.9.9.9", "deploy/web", "80", cluster=cluster, known=FROM_FILES)
    beside = ask("10.8.9.9", "deploy/web", "80", cluster=cluster, known=FROM_FILES)

    assert (inside.outcome, beside.outcome) == (Outcome.UNDECIDABLE, Outcome.DENIED)


def test_an_address_that_was_made_up_names_nobody() -> None:
    """Not even by chance."""
    with pytest.raises(UsageError, match="stands for shop/deploy/web here: name the pod"):
        ask("198.18.0.1", "client", "80", cluster=TEMPLATED, known=FROM_FILES)


def test_a_host_network_pod_from_a_file_has_its_nodes_address() -> None:
    """SEMANTICS 25, and 23: it reaches the pods of its own node."""
    host = pod("shop/agent", "198.18.0.9", node="node-b", host_network=True)
    far = pod("shop/lost", "198.18.0.10", node="node-z", host_network=True)
    cluster = Cluster([Namespace("shop")], NODES, [*CLUSTER.endpoints.values(), host, far])
    known = Knowledge(
        stand_ins={address("198.18.0.9"): host.key, address("198.18.0.10"): far.key},
        on_host={address("198.18.0.9"): "node-b", address("198.18.0.10"): "node-z"},
    )
    own = ask("agent", "web", "80", cluster=cluster, known=known)
    other = ask("lost", "web", "80", cluster=cluster, known=known)

    assert (own.outcome, str(own.explanations[0].flow.source)) == (Outcome.ALLOWED, "10.1.0.5")
    assert other.outcome is Outcome.DENIED
    assert "shop/lost is hostNetwork" in " ".join(other.explanations[0].notes)


def test_icmp_needs_no_port() -> None:
    """And is the echo of each family."""
    given = ask("client", "deploy/web", None, cluster=TEMPLATED, known=FROM_FILES, policies=PolicySet(), protocol=ICMP)

    assert [each.flow.protocol for each in given.explanations] == [Protocol.ICMP, Protocol.ICMPV6]


def test_a_pod_that_is_being_deleted_keeps_its_policies() -> None:
    """SEMANTICS 27; and a Service leads to it only while there is no other."""
    meta = {"name": "web", "namespace": "shop", "deletionTimestamp": "2026-01-01T00:00:00Z"}
    going = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "status": {"phase": "Running"}}

    given = ask("client", "web", "80", going)

    assert "shop/web is being deleted: until it is gone, it keeps its policies" in given.notes
    other = pod("shop/web-2", "10.0.0.13", {"app": "web"}, node="node-b", ports=HTTP)
    both = Cluster([Namespace("shop")], NODES, [*CLUSTER.endpoints.values(), other])
    to_service = ask("client", "svc/web", "80", going, service(), cluster=both)
    assert {str(each.destination.pod) for each in to_service.explanations} == {"shop/web-2"}
    assert ask("client", "svc/web", "80", going, service()).outcome is Outcome.ALLOWED


def test_a_service_of_one_pod_is_not_reached_by_its_likes_because_it_reaches_itself() -> None:
    """The replica that is no backend counts, though the one that is would be let through."""
    replicas = [pod(f"shop/web-{n}", f"10.0.1.{n}", {"app": "web"}, node="node-b", ports=HTTP) for n in range(1, 5)]
    unready = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"web-{n}", "namespace": "shop"},
            "status": {"conditions": [{"type": "Ready", "status": "False"}]},
        }
        for n in range(2, 5)
    ]
    cluster = Cluster([Namespace("shop")], NODES, replicas)
    owned = Knowledge(owners={each.key: OWNER for each in replicas})
    closed = network_policies(policy("closed", subject=WEB, ingress=()))

    given = ask("deploy/web", "svc/web", "80", service(), *unready, cluster=cluster, known=owned, policies=closed)

    assert given.outcome is Outcome.DENIED


def test_replicas_that_no_policy_tells_apart_are_one_question() -> None:
    """One of them speaks for all; one that a block names, or of another rollout, speaks for itself."""
    replicas = [pod(f"shop/web-{n}", f"10.0.1.{n}", {"app": "web"}, node="node-b", ports=HTTP) for n in range(1, 41)]
    cluster = Cluster([Namespace("shop")], NODES, [*replicas, CLUSTER.endpoints[PodKey("shop", "client")]])
    owned = Knowledge(owners={each.key: OWNER for each in replicas})
    closed = policy("closed", subject=PodPeer(SHOP), ingress=(rule(Peers((block("10.0.1.7/32"),))),))

    plain = ask("deploy/web", "svc/web", "80", service(), cluster=cluster, known=owned, policies=PolicySet())
    given = ask("deploy/web", "client", "80", cluster=cluster, known=owned, policies=network_policies(closed))

    assert {str(each.destination.pod) for each in plain.explanations} == {"shop/web-1", "shop/web-10"}
    assert "76 more pods are like these: no policy tells them apart" in plain.notes
    assert {str(e.source.pod): e.outcome for e in given.explanations} == {
        "shop/web-1": Outcome.DENIED,
        "shop/web-10": Outcome.DENIED,
        "shop/web-7": Outcome.ALLOWED,
    }
