# SPDX-License-Identifier: Apache-2.0
"""The Service proxy, with real packets: ClusterIP and node ports on both plugins, and policy after translation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ringfence.host import netns
from ringfence.host.nft import Nft
from ringfence.lab.config import NetworkPlugin
from ringfence.lab.prober import Outcome, Probe
from ringfence.lab.proxy import ServiceProxy
from ringfence.lab.topology import PodPlan
from ringfence.model.ports import Protocol
from tests.lab_network.networks import ALL, PLUGINS, Network, addresses, service, slice_of, two_nodes

pytestmark = pytest.mark.kernel

CLUSTER_IPS = ("10.0.0.5", "fd00:10::5")
SERVICE_PORTS = [
    {"name": f"p-{protocol.value.lower()}", "protocol": protocol.value, "port": 80, "nodePort": 30080}
    for protocol in ALL
]
ENDPOINT_PORTS = [{"name": port["name"], "protocol": port["protocol"], "port": 8080} for port in SERVICE_PORTS]
each_plugin = pytest.mark.parametrize("plugin", PLUGINS)


@contextmanager
def _proxies(network: Network) -> Iterator[dict[str, ServiceProxy]]:
    found = {node.name: ServiceProxy(node.netns, node.name) for node in network.topology.nodes}
    yield found
    for proxy in found.values():
        proxy.close()


def _both_families(name: str, pods: list[PodPlan]) -> list[dict[str, Any]]:
    return [slice_of(name, pods, ENDPOINT_PORTS, version=version) for version in (4, 6)]


def _serve(network: Network, *pods: PodPlan) -> None:
    for pod in pods:
        network.prober.listen(pod.netns, [(protocol, 8080) for protocol in ALL])


def _outcomes(network: Network, sources: list[str], destinations: tuple[str, ...], port: int) -> dict[str, Outcome]:
    probes = {
        f"{source} {destination} {protocol.value}": Probe(source, address, protocol, port)
        for source in sources
        for destination, address in zip(destinations, addresses(*destinations), strict=True)
        for protocol in ALL
    }
    return dict(zip(probes, network.prober.probe(list(probes.values())), strict=True))


@each_plugin
@pytest.mark.parametrize("where", ["one", "two"])
def test_a_cluster_ip_is_reached_from_pods_nodes_and_its_own_pod(plugin: NetworkPlugin, where: str) -> None:
    """Same node, across nodes, from the nodes themselves, and hairpin; three protocols, both families."""
    with two_nodes(plugin) as network, _proxies(network) as proxies:
        one, two = network.topology.nodes
        server = network.pod("server", network.topology.node(where))
        clients = [network.pod("near", one), network.pod("far", two)]
        _serve(network, server)
        for proxy in proxies.values():
            assert proxy.apply([service("web", CLUSTER_IPS, SERVICE_PORTS)], _both_families("web", [server]))
        sources = [server.netns, *(client.netns for client in clients), one.netns, two.netns]
        outcomes = _outcomes(network, sources, CLUSTER_IPS, 80)
        assert len(outcomes) == 5 * 2 * 3
        assert {words: got for words, got in outcomes.items() if got is not Outcome.ANSWERED} == {}


@each_plugin
def test_connections_are_spread_over_all_ready_endpoints(plugin: NetworkPlugin) -> None:
    """Every endpoint gets its part, near and far, and those that are not ready get none."""
    with two_nodes(plugin) as network, _proxies(network) as proxies:
        one, two = network.topology.nodes
        client, near, far, unready = (
            network.pod("client", one),
            network.pod("near", one),
            network.pod("far", two),
            network.pod("unready", two),
        )
        objects = [*_both_families("web", [near, far]), slice_of("web", [unready], ENDPOINT_PORTS, ready=False)]
        proxies["one"].apply([service("web", CLUSTER_IPS, SERVICE_PORTS)], objects)
        _serve(network, near)  # the far one refuses: so the answer tells who was chosen
        many = [Probe(client.netns, address, Protocol.TCP, 80) for address in addresses(*CLUSTER_IPS)] * 50
        outcomes = network.prober.probe(many)
        assert 20 <= outcomes.count(Outcome.ANSWERED) <= 80
        assert 20 <= outcomes.count(Outcome.REFUSED) <= 80
        _serve(network, far)
        assert set(network.prober.probe(many)) == {Outcome.ANSWERED}


def test_affinity_keeps_a_client_at_one_endpoint() -> None:
    """``sessionAffinity: ClientIP``: one client, one endpoint."""
    with two_nodes("azure") as network, _proxies(network) as proxies:
        one, two = network.topology.nodes
        clients = [network.pod(f"client{number}", one) for number in range(8)]
        near, far = network.pod("near", one), network.pod("far", two)
        _serve(network, near)
        objects = [service("web", CLUSTER_IPS, SERVICE_PORTS, sessionAffinity="ClientIP")]
        proxies["one"].apply(objects, _both_families("web", [near, far]))
        destination = addresses(CLUSTER_IPS[0])[0]
        met = [
            set(network.prober.probe([Probe(client.netns, destination, Protocol.TCP, 80)] * 20)) for client in clients
        ]
        assert {len(outcomes) for outcomes in met} == {1}


@each_plugin
def test_a_service_without_endpoints_refuses(plugin: NetworkPlugin) -> None:
    """From pods and from the node: an answer at once, not a time-out; and no wait once endpoints are there."""
    with two_nodes(plugin) as network, _proxies(network) as proxies:
        one, two = network.topology.nodes
        client, server = network.pod("client", one), network.pod("server", two)
        _serve(network, server)
        objects = [service("web", CLUSTER_IPS, SERVICE_PORTS)]
        for proxy in proxies.values():
            proxy.apply(objects, [])
        tcp = [
            network.ask(source, destination) for source in (client.netns, one.netns) for destination in (*CLUSTER_IPS,)
        ]
        assert set(tcp) == {Outcome.REFUSED}
        assert network.ask(two.netns, str(one.addresses[0]), 30080) is Outcome.REFUSED
        assert proxies["one"].apply(objects, _both_families("web", [server]))
        assert not proxies["one"].apply(list(reversed(objects)), list(reversed(_both_families("web", [server]))))
        assert network.ask(client.netns, CLUSTER_IPS[0]) is Outcome.ANSWERED


@each_plugin
def test_a_node_port_is_reached_on_every_node_and_comes_from_a_node(plugin: NetworkPlugin) -> None:
    """``externalTrafficPolicy: Cluster``: any node leads to the pod, whose node sees a node's address."""
    with two_nodes(plugin) as network, _proxies(network) as proxies:
        one, two = network.topology.nodes
        world = network.external("world", addresses("8.8.8.8", "2001:db8::8"))
        server = network.pod("server", two)
        _serve(network, server)
        for proxy in proxies.values():
            proxy.apply([service("web", CLUSTER_IPS, SERVICE_PORTS)], _both_families("web", [server]))
        nodes = tuple(str(address) for node in (one, two) for address in node.addresses)
        outcomes = _outcomes(network, [world.netns], nodes, 30080)
        assert set(outcomes.values()) == {Outcome.ANSWERED}
        with netns.enter(two.netns), Nft() as nft:
            rules = "ip saddr 8.8.8.8 drop; ip6 saddr 2001:db8::8 drop;"
            nft.run(f"table inet t {{ chain c {{ type filter hook forward priority 0; {rules} }}\n }}")
        through_one = tuple(map(str, one.addresses))
        assert set(_outcomes(network, [world.netns], through_one, 30080).values()) == {Outcome.ANSWERED}


def test_a_local_node_port_keeps_the_clients_address_and_is_silent_elsewhere() -> None:
    """``externalTrafficPolicy: Local``: only nodes with an endpoint answer, and policy sees the client."""
    with two_nodes("azure") as network, _proxies(network) as proxies:
        one, two = network.topology.nodes
        world = network.external("world", addresses("8.8.8.8", "2001:db8::8"))
        server = network.pod("server", two)
        _serve(network, server)
        objects = [service("web", CLUSTER_IPS, SERVICE_PORTS, externalTrafficPolicy="Local")]
        for proxy in proxies.values():
            proxy.apply(objects, _both_families("web", [server]))
        with netns.enter(server.netns), Nft() as nft:
            rules = "ip saddr != 8.8.8.8 drop; ip6 nexthdr tcp ip6 saddr != 2001:db8::8 drop;"
            nft.run(f"table inet t {{ chain c {{ type filter hook input priority 0; {rules} }}\n }}")
        here = _outcomes(network, [world.netns], tuple(map(str, two.addresses)), 30080)
        assert set(here.values()) == {Outcome.ANSWERED}
        elsewhere = _outcomes(network, [world.netns], tuple(map(str, one.addresses)), 30080)
        assert set(elsewhere.values()) == {Outcome.SILENT}


@each_plugin
def test_policy_judges_what_the_service_stands_for(plugin: NetworkPlugin) -> None:
    """A filter chain at policy's place sees the pod's address and target port, on both nodes."""
    with two_nodes(plugin) as network, _proxies(network) as proxies:
        one, two = network.topology.nodes
        client, near, far = network.pod("client", one), network.pod("near", one), network.pod("far", two)
        _serve(network, near, far)
        services = [service("near", CLUSTER_IPS, SERVICE_PORTS), service("far", ["10.0.0.6"], SERVICE_PORTS)]
        for piece in services[1]["spec"]["ports"]:
            assert piece["nodePort"] == 30080  # taken by the first Service: the second must work nevertheless
        proxies["one"].apply(services, [*_both_families("near", [near]), *_both_families("far", [far])])
        assert network.ask(client.netns, "10.0.0.5") is Outcome.ANSWERED
        assert network.ask(client.netns, "10.0.0.6") is Outcome.ANSWERED
        for node, server in ((one, near), (two, far)):
            with netns.enter(node.netns), Nft() as nft:
                rule = f"ip saddr {client.addresses[0]} ip daddr {server.addresses[0]} tcp dport 8080 drop;"
                nft.run(f"table inet t {{ chain c {{ type filter hook forward priority 0; {rule} }}\n }}")
        assert network.ask(client.netns, "10.0.0.5") is Outcome.SILENT
        assert network.ask(client.netns, "10.0.0.6") is Outcome.SILENT
        assert network.ask(client.netns, "10.0.0.5", protocol=Protocol.UDP) is Outcome.ANSWERED
