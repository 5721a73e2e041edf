# SPDX-License-Identifier: Apache-2.0
"""Ends of connections as people write them."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from ringfence.errors import UsageError
from ringfence.model.cluster import Cluster, ContainerPort, Namespace, Node
from ringfence.model.ports import Protocol
from ringfence.semantics.ends import Directory
from ringfence.semantics.knowledge import Gap
from tests.semantics.small_worlds import pod

TCP, UDP, ICMP = Protocol.TCP, Protocol.UDP, Protocol.ICMP
HTTP = [ContainerPort("http", 8080, TCP)]
CLUSTER = Cluster(
    [Namespace("demo"), Namespace("default")],
    [Node("node-a", addresses=frozenset(map(ipaddress.ip_address, ("10.0.0.1", "fd00::1"))))],
    [
        pod("demo/client", "10.0.0.10 fd00::10", {"app": "client"}),
        pod("demo/web-1", "10.0.0.11 fd00::11", {"app": "web"}, ports=HTTP),
        pod("demo/web-2", "10.0.0.12 fd00::12", {"app": "web"}, ports=HTTP),
        pod("demo/web-3", "10.0.0.13 fd00::13", {"app": "web"}, ports=HTTP),
    ],
)


def service(name: str = "web", **spec: Any) -> dict[str, Any]:
    """Return a v1 Service of namespace ``demo``, for pods with app=web unless told otherwise."""
    whole = {"selector": {"app": "web"}, "ports": [{"name": "main", "port": 80, "targetPort": "http"}], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "demo"}, "spec": whole}


def condition(name: str, ready: str) -> dict[str, Any]:
    """Return a v1 Pod of namespace ``demo`` that reports its readiness."""
    status = {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": ready}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "demo"}, "status": status}


def directory(*objects: dict[str, Any], namespace: str = "default") -> Directory:
    """Return a directory of the cluster and these objects."""
    made = Directory(CLUSTER, namespace, "in the files given")
    made.add(objects)
    return made


@pytest.mark.parametrize(
    ("text", "label"),
    [
        pytest.param("demo/client", "demo/client", id="namespace-and-name"),
        pytest.param("pod/demo/client", "demo/client", id="kind-namespace-name"),
        pytest.param("pod/client", "demo/client", id="kind-and-name"),
        pytest.param("client", "demo/client", id="name"),
        pytest.param("node/node-a", "node/node-a", id="node"),
        pytest.param("203.0.113.7", "203.0.113.7", id="address"),
        pytest.param("2001:db8::7", "2001:db8::7", id="address-6"),
    ],
)
def test_a_source_has_many_spellings(text: str, label: str) -> None:
    """Pods with and without kind and namespace, nodes and addresses all name a source."""
    (target,) = directory(namespace="demo").source(text).targets

    assert label == target.label


def test_a_pod_has_an_address_of_each_family() -> None:
    """Both families of a dual-stack pod are there to be judged."""
    (target,) = directory().source("demo/client").targets

    assert {version: str(a) for version, a in target.addresses.items()} == {4: "10.0.0.10", 6: "fd00::10"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        pytest.param("demo/nobody", "no pod or Service demo/nobody in the files given", id="no-pod"),
        pytest.param("pod/demo/web", "no pod demo/web in the files given", id="a-service-is-no-pod"),
        pytest.param("nowhere/x", "no namespace nowhere in the files given (there are: default, demo)", id="namespace"),
        pytest.param("node/x", "no node x in the files given", id="no-node"),
        pytest.param("a/b/c", "'a/b/c' names no end", id="too-many-parts"),
        pytest.param("demo/", "'demo/' names no end", id="no-name"),
        pytest.param("/x", "'/x' names no end", id="no-namespace"),
        pytest.param("demo/done", "pod demo/done is completed (Succeeded)", id="completed"),
        pytest.param("outside/10.0.0.10", "10.0.0.10 is not outside: it is demo/client's", id="outside-is-a-pod"),
        pytest.param("outside/fd00::1", "fd00::1 is not outside: it is node node-a's", id="outside-is-a-node"),
        pytest.param("outside/nowhere", "'nowhere' is no address", id="outside-of-what"),
        pytest.param("deploy/demo/web", "no pod of Deployment demo/web in the files given", id="no-workload"),
        pytest.param("demo/web", "connections come from pods, nodes and addresses", id="service-by-name"),
        pytest.param("svc/demo/web", "connections come from pods, nodes and addresses", id="service"),
    ],
)
def test_an_end_that_cannot_be_a_source_is_refused_with_the_reason(text: str, complaint: str) -> None:
    """Each refusal says what is missing and where it was looked for."""
    others = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "demo"}, "status": {"phase": phase}}
        for name, phase in (("done", "Succeeded"),)
    ]
    with pytest.raises(UsageError) as caught:
        directory(service(), *others).source(text)

    assert complaint in str(caught.value)


@pytest.mark.parametrize("text", ["demo/web", "svc/demo/web", "10.96.0.10"])
def test_a_service_leads_to_its_ready_pods_on_their_target_port(text: str) -> None:
    """By name or by cluster address; unready pods get nothing; the note tells of the translation."""
    found = directory(
        service(clusterIP="10.96.0.10", clusterIPs=["10.96.0.10"]),
        condition("web-1", "True"),
        condition("web-2", "False"),
    ).destination(text, TCP, "80")

    assert [(t.label, t.port) for t in found.targets] == [("demo/web-1", 8080), ("demo/web-3", 8080)]
    assert "Service demo/web port 80 leads to demo/web-1 port 8080, demo/web-3 port 8080" in found.notes[0]


@pytest.mark.parametrize(
    ("port", "target", "expected"),
    [
        pytest.param("main", "http", 8080, id="by-name"),
        pytest.param(None, "http", 8080, id="the-only-one"),
        pytest.param("80", 9090, 9090, id="number"),
        pytest.param("80", None, 80, id="same-port"),
        pytest.param("80", 0, 80, id="zero-is-unset"),
    ],
)
def test_a_service_port_is_translated(port: str | None, target: int | str | None, expected: int) -> None:
    """Target ports are names on the pod, numbers, or the port itself."""
    entry = {"name": "main", "port": 80, **({} if target is None else {"targetPort": target})}

    found = directory(service(ports=[entry])).destination("demo/web", TCP, port)

    assert {expected} == {t.port for t in found.targets}


@pytest.mark.parametrize(
    ("spec", "protocol", "port", "complaint"),
    [
        pytest.param({}, TCP, "81", "it has no TCP port 81; its TCP ports: 80 (main)", id="no-such-port"),
        pytest.param({}, UDP, "80", "it has no UDP port 80; its UDP ports: none", id="no-such-protocol"),
        pytest.param({"ports": [{"port": 1}, {"port": 2}]}, TCP, None, "add --port; its TCP ports: 1, 2", id="which"),
    ],
)
def test_a_port_that_a_service_does_not_have_is_refused(
    spec: dict[str, Any], protocol: Protocol, port: str | None, complaint: str
) -> None:
    """What a Service cannot do is said in a sentence."""
    with pytest.raises(UsageError) as caught:
        directory(service(**spec)).destination("svc/demo/web", protocol, port)

    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "fact"),
    [
        pytest.param({"selector": None}, "it has no selector, and no endpoints in the files given", id="no-selector"),
        pytest.param({"selector": {"app": "x"}}, "no ready pod in the files given has app=x", id="nobody"),
        pytest.param(
            {"ports": [{"port": 80, "targetPort": "gone"}]}, "(3 not ready, or without port gone)", id="unnamed"
        ),
        pytest.param(
            {"type": "ExternalName", "selector": None, "externalName": "x.example"}, "alias of x.example", id="x"
        ),
    ],
)
def test_a_service_without_known_backends_is_undecidable(spec: dict[str, Any], fact: str) -> None:
    """Nobody knows which pods' policies would decide: that is said, not guessed."""
    found = directory(service(**spec)).destination("svc/demo/web", TCP, "80")

    assert found.targets == ()
    assert [unknown.gap for unknown in found.unknowns] == [Gap.BACKENDS]
    assert fact in str(found.unknowns[0])


def test_endpointslices_stand_behind_a_service_without_selector() -> None:
    """Ready endpoints of the port's name; an address that a pod holds is that pod."""
    piece = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "web-1", "namespace": "demo", "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": [
            {"addresses": ["10.0.0.11"]},
            {"addresses": ["203.0.113.9"], "conditions": {"ready": True}},
            {"addresses": ["203.0.113.10"], "conditions": {"ready": False}},
        ],
        "ports": [{"name": "main", "port": 8443}, {"name": "other", "port": 1}],
    }
    found = directory(service(selector=None), piece).destination("svc/demo/web", TCP, "80")

    assert [(t.label, t.port, t.pod and t.pod.name) for t in found.targets] == [
        ("10.0.0.11", 8443, "web-1"),
        ("203.0.113.9", 8443, None),
    ]


def test_a_service_for_each_node_says_so() -> None:
    """With internalTrafficPolicy Local, only the pods on the client's node count."""
    found = directory(service(internalTrafficPolicy="Local")).destination("svc/demo/web", TCP, "80")

    assert "only its pods on the client's own node count" in " ".join(found.notes)


def test_a_headless_service_translates_no_port() -> None:
    """Its name resolves to the pods themselves."""
    found = directory(service(clusterIP="None")).destination("svc/demo/web", TCP, "80")

    assert {80} == {target.port for target in found.targets}
    assert "headless" in found.notes[0]


def test_more_pods_than_fit_in_a_line_are_counted() -> None:
    """The note on a big Service stays a line."""
    many = Cluster([Namespace("demo")], [], [pod(f"demo/w{n}", f"10.0.1.{n}", {"app": "web"}) for n in range(1, 8)])
    made = Directory(many, "demo", "in the cluster")
    made.add([service(ports=[{"port": 80}])])

    assert "and 3 more" in made.destination("web", TCP, "80").notes[0]


def test_the_port_of_a_pod_is_a_number_or_one_of_its_names() -> None:
    """Names are looked up on the destination pod, by protocol."""
    found = directory()

    assert found.destination("demo/client", TCP, "443").targets[0].port == 443
    assert found.destination("demo/web-1", TCP, "http").targets[0].port == 8080
    assert None is found.destination("demo/web-1", ICMP, None).targets[0].port


@pytest.mark.parametrize(
    ("text", "protocol", "port", "complaint"),
    [
        pytest.param("demo/web-1", TCP, None, "which port?", id="missing"),
        pytest.param("demo/web-1", TCP, "0", "no port 0", id="zero"),
        pytest.param("demo/web-1", TCP, "65536", "no port 65536", id="too-big"),
        pytest.param("demo/web-1", UDP, "http", "demo/web-1 has no UDP port named 'http'", id="name-of-tcp"),
        pytest.param("203.0.113.7", TCP, "http", "203.0.113.7 has no TCP port named 'http'", id="not-a-pod"),
        pytest.param("demo/web-1", ICMP, "80", "ICMP has no ports", id="icmp"),
    ],
)
def test_an_impossible_port_is_refused(text: str, protocol: Protocol, port: str | None, complaint: str) -> None:
    """Ports are checked against what the destination is."""
    with pytest.raises(UsageError) as caught:
        directory().destination(text, protocol, port)

    assert complaint in str(caught.value)


def test_unreadable_and_other_objects_are_passed_over() -> None:
    """What is no Service or Pod is nobody's business here, and a broken one is the loader's."""
    made = directory(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": 7}},
    )

    with pytest.raises(UsageError):
        made.destination("svc/demo/x", TCP, "80")
