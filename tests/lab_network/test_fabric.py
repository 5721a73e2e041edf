# SPDX-License-Identifier: Apache-2.0
"""The fabric, with real packets: who reaches whom, what a gate stops, and what is left afterwards."""

from __future__ import annotations

import re
import socket
import threading
import time
from pathlib import Path

import pytest

from ringfence.errors import HostLacks, HostRefused, UsageError
from ringfence.host import netns, process
from ringfence.host.nft import Nft
from ringfence.lab import fabric
from ringfence.lab.config import NetworkPlugin
from ringfence.lab.prober import Outcome, Probe
from ringfence.lab.topology import plan_explicit, plan_pod, plan_topology
from ringfence.model.ports import Protocol
from tests.lab_network.networks import PLUGINS, PORT, Host, Network, addresses, lab_name, two_nodes

pytestmark = pytest.mark.kernel

each_plugin = pytest.mark.parametrize("plugin", PLUGINS)


def _own_network() -> dict[str, str]:
    """Return everything that the machine's own namespace holds: links, addresses, routes, rules, nftables, settings."""
    asked = ("link", "-br addr", "-4 route show table all", "-6 route show table all", "-4 rule", "-6 rule")
    found = {words: process.run(["ip", "-o", *words.split()]).stdout for words in asked}
    found = {words: re.sub(r"expires \d+sec", "", text) for words, text in found.items()}
    with Nft() as nft:
        found["nft"] = nft.run("list ruleset")
    for folder in ("ipv4/conf/all", "ipv4/conf/default", "ipv6/conf/all", "ipv6/conf/default", "bridge"):
        for setting in sorted((Path("/proc/sys/net") / folder).glob("*")):
            if setting.name != "stable_secret":  # unreadable until it is set
                found[str(setting)] = setting.read_text()
    for name in ("ip_forward", "icmp_ratelimit", "ip_unprivileged_port_start", "ping_group_range"):
        found[name] = (Path("/proc/sys/net/ipv4") / name).read_text()
    return found


@each_plugin
def test_everybody_reaches_everybody_in_both_families_and_all_protocols(plugin: NetworkPlugin) -> None:
    """Pods of one node and of two, nodes and external hosts: all connections, from the first moment."""
    with two_nodes(plugin) as network:
        one, two = network.topology.nodes
        pods = [network.pod("a", one), network.pod("b", one), network.pod("c", two)]
        first = network.external("world", addresses("8.8.8.8"))
        fabric.remove_external(network.topology, first)
        fabric.remove_external(network.topology, first)  # gone already
        world = network.external("world", addresses("8.8.8.8", "1.1.1.1", "2001:db8::8"))
        outcomes = network.try_all([*pods, one, two, world], [*pods, one, two, world])
        assert len(outcomes) == 3 * (5 * 2 * 5 + 5 * 3)
        assert {words: outcome for words, outcome in outcomes.items() if outcome is not Outcome.ANSWERED} == {}


@each_plugin
def test_pods_and_nodes_reach_the_api_servers_address(plugin: NetworkPlugin) -> None:
    """Agents and pods talk to the API server on the fabric, in both families."""
    with two_nodes(plugin) as network:
        pod = network.pod("a", network.topology.nodes[1])
        network.prober.listen(network.topology.fabric_netns, [(Protocol.TCP, 6443)])
        for address in map(str, network.topology.apiserver_addresses):
            assert network.ask(pod.netns, address, 6443) is Outcome.ANSWERED
            assert network.ask(network.topology.nodes[0].netns, address, 6443) is Outcome.ANSWERED


@each_plugin
def test_a_closed_gate_passes_nothing_either_way(plugin: NetworkPlugin) -> None:
    """Before it is opened and after it is closed, no packet leaves a pod or reaches it."""
    with two_nodes(plugin) as network:
        one, two = network.topology.nodes
        peers: list[Host] = [network.pod("near", one), network.pod("far", two), one, two]
        pod = network.add("gated", one)

        def outcomes() -> set[bool]:
            both = {**network.try_all([pod], peers), **network.try_all(peers, [pod])}
            assert len(both) == 2 * 4 * 2 * 3
            return {outcome.passed for outcome in both.values()}

        def all_pass_soon() -> bool:
            # On a bridge, who asked in vain for the pod's hardware address asks again after a second.
            deadline = time.monotonic() + 5
            while outcomes() != {True} and time.monotonic() < deadline:
                pass
            return outcomes() == {True}

        assert outcomes() == {False}
        fabric.open_pod(network.topology, pod)
        assert all_pass_soon()
        fabric.open_pod(network.topology, pod)  # open already
        assert outcomes() == {True}
        fabric.close_pod(network.topology, pod)
        fabric.close_pod(network.topology, pod)  # closed already
        assert outcomes() == {False}
        fabric.open_pod(network.topology, pod)
        assert all_pass_soon()


@each_plugin
def test_the_first_packet_of_an_opened_pod_arrives(plugin: NetworkPlugin) -> None:
    """Opening waits until the kernel carries the pod's packets: not even the first one is lost."""
    with two_nodes(plugin) as network:
        node = network.topology.nodes[0]
        with netns.enter(network.topology.fabric_netns), socket.socket(type=socket.SOCK_DGRAM) as server:
            server.bind((str(network.topology.apiserver_addresses[0]), 9))
            server.settimeout(5)
            for number in range(20):
                pod = network.add(f"p{number}", node)
                with netns.enter(pod.netns):
                    client = socket.socket(type=socket.SOCK_DGRAM)
                fabric.open_pod(network.topology, pod)
                with client:
                    client.sendto(b"%d" % number, server.getsockname())
                assert server.recv(8) == b"%d" % number


@each_plugin
def test_a_removed_pod_is_gone_and_its_address_can_be_had_again(plugin: NetworkPlugin) -> None:
    """Removing frees the names at once and the links soon; the next holder of the address is reached."""
    with two_nodes(plugin) as network:
        one, two = network.topology.nodes
        with netns.enter(one.netns):
            links = len(socket.if_nameindex())
        peer, first = network.pod("peer", two), network.pod("first", one)
        assert network.try_all([peer], [first])
        network.prober.forget(first.netns)
        fabric.remove_pod(network.topology, first)
        assert first.netns not in fabric.leftovers(network.topology.lab)
        fabric.remove_pod(network.topology, first)  # gone already
        again = network.pod("first", one, first.addresses)  # the same pod: its kubelet restarted
        assert again == first
        assert set(network.try_all([peer], [again]).values()) == {Outcome.ANSWERED}
        network.prober.forget(first.netns)
        fabric.remove_pod(network.topology, again)
        with netns.enter(one.netns):
            deadline = time.monotonic() + 10
            while len(socket.if_nameindex()) > links:
                assert time.monotonic() < deadline
                time.sleep(0.005)
        second = network.pod("second", one, first.addresses)
        assert set(network.try_all([peer], [second]).values()) == {Outcome.ANSWERED}


def test_any_pod_may_have_any_address_on_any_node() -> None:
    """What test cases need: addresses of no plan, nodes in other networks, nodes without any, on both plugins."""
    for plugin in PLUGINS:
        nodes = {
            "one": addresses("192.168.49.2"),
            "two": addresses("172.18.0.3", "fd00:18::3"),
            "three": (),
        }
        with Network(plan_explicit(lab_name(), plugin, nodes)) as network:
            one, two, three = network.topology.nodes
            pods = [
                network.pod("a", one, addresses("10.244.1.11", "fd00:10:244:1::b")),
                network.pod("b", two, addresses("10.244.1.12", "fd00:10:244:1::c")),
                network.pod("c", two, addresses("192.168.1.1")),
                network.pod("d", two, addresses("fd00::1")),
                network.pod("e", three, addresses("10.0.0.1", "2001:db8::5", "10.0.0.7")),
            ]
            world = network.external("world", addresses("8.8.8.8", "10.244.1.13", "2001:db8::8"))
            sources: list[Host] = [*pods, world]
            targets: list[Host] = [*sources, one, two]
            probes = [
                Probe(source.netns, address, Protocol.TCP, PORT)
                for source in sources
                for target in targets
                for address in target.addresses
                if source is not target and any(address.version == own.version for own in source.addresses)
            ]
            for target in targets:
                network.prober.listen(target.netns, [(Protocol.TCP, PORT)])
            outcomes = network.prober.probe(probes)
            assert len(probes) == 63
            assert [probe for probe, got in zip(probes, outcomes, strict=True) if got is not Outcome.ANSWERED] == []


def test_unknown_destinations_end_in_the_lab() -> None:
    """No route leads out: an address of nobody is refused, a Service or pod address of nobody is met with silence."""
    with two_nodes("azure") as network:
        pod = network.pod("a", network.topology.nodes[0])
        unknown = addresses("9.9.9.9", "2001:db8::9")
        silent = addresses("10.0.77.1", "fd00:10::77", "10.224.1.77", "fd00:10:224:1::77")
        probes = [
            Probe(pod.netns, address, protocol, PORT)
            for protocol in (Protocol.UDP, Protocol.SCTP)
            for address in (*unknown, *silent)
        ]
        assert network.prober.probe(probes) == 2 * [*[Outcome.UNREACHABLE] * 2, *[Outcome.SILENT] * 4]
        tcp = network.prober.probe([Probe(pod.netns, address, Protocol.TCP, PORT) for address in unknown])
        assert not any(outcome.passed for outcome in tcp)
        own = Probe(network.topology.nodes[0].netns, addresses("10.224.0.77")[0], Protocol.TCP, PORT)
        assert network.prober.probe([own]) == [Outcome.SILENT]  # the node's own black hole


@each_plugin
def test_nothing_of_a_lab_is_in_the_machines_own_network(plugin: NetworkPlugin) -> None:
    """Links, addresses, routes, rules, nftables and settings are the same before, during and after a lab."""
    before = _own_network()
    with two_nodes(plugin) as network:
        pod = network.pod("a", network.topology.nodes[0])
        network.external("world", addresses("8.8.8.8"))
        assert _own_network() == before
        fabric.remove_pod(network.topology, pod)
    assert _own_network() == before


def test_policy_between_pods_of_a_bridge_is_the_nodes_own_setting() -> None:
    """br_netfilter is on in a node's namespace: a drop in its forward hook stops what it bridges."""
    with two_nodes("kubenet") as network:
        one, two = network.topology.nodes
        here = [network.pod("a", one), network.pod("b", one)]
        there = [network.pod("c", two), network.pod("d", two)]
        with netns.enter(one.netns), Nft() as nft:
            nft.run("table inet t { chain c { type filter hook forward priority 0; meta l4proto tcp drop; }\n }")
        outcomes = network.try_all(here[:1], here[1:])
        assert {words.rsplit(" ")[-1]: got.passed for words, got in outcomes.items()} == {
            "TCP": False,
            "UDP": True,
            "SCTP": True,
        }
        assert set(network.try_all(there[:1], there[1:]).values()) == {Outcome.ANSWERED}


def test_two_labs_side_by_side_use_the_same_addresses() -> None:
    """Labs share nothing: the same pod addresses are different pods, and one lab's end is not the other's."""
    with two_nodes("azure") as first, two_nodes("azure") as second:
        pods = {network: network.pod("a", network.topology.nodes[0]) for network in (first, second)}
        assert pods[first].addresses == pods[second].addresses
        for network, pod in pods.items():
            node = network.topology.nodes[1]
            assert set(network.try_all([node], [pod]).values()) == {Outcome.ANSWERED}
        first.prober.close()
        fabric.destroy(first.topology.lab)
        assert fabric.leftovers(first.topology.lab) == []
        assert set(second.try_all([second.topology.nodes[1]], [pods[second]]).values()) == {Outcome.ANSWERED}


def test_a_lab_is_not_taken_for_one_whose_name_starts_the_same() -> None:
    """``destroy("x")`` leaves lab ``x-node`` alone."""
    name = lab_name()
    long_name = f"{name}-node"
    fabric.build(plan_topology(name, "azure", ["one"]))
    fabric.build(plan_topology(long_name, "azure", ["one"]))
    try:
        before = fabric.leftovers(long_name)
        assert len(before) == 2
        fabric.destroy(name)
        assert fabric.leftovers(name) == []
        assert fabric.leftovers(long_name) == before
    finally:
        fabric.destroy(name)
        fabric.destroy(long_name)
    assert fabric.leftovers(long_name) == []


def test_building_a_lab_that_is_there_is_refused_and_harms_nothing() -> None:
    """The error says what to do, and the lab that is there goes on."""
    with two_nodes("azure") as network:
        pod = network.pod("a", network.topology.nodes[0])
        with pytest.raises(UsageError, match="ringfence lab down"):
            fabric.build(network.topology)
        with pytest.raises(HostRefused, match="already"):
            network.add("a", network.topology.nodes[0], pod.addresses)
        assert set(network.try_all([network.topology.nodes[1]], [pod]).values()) == {Outcome.ANSWERED}


def test_pods_may_be_made_from_several_threads() -> None:
    """A kubelet per node works at its own pace: nothing is mixed up between threads."""
    with two_nodes("azure") as network:
        pods = []
        failures = []

        def make(index: int) -> None:
            try:
                node = network.topology.nodes[index % 2]
                pods.extend([network.pod(f"t{index}-{number}", node) for number in range(10)])
            except Exception as error:  # noqa: BLE001 - shown by the assertion below
                failures.append(error)

        threads = [threading.Thread(target=make, args=(index,)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(pods) == 40
        assert set(network.try_all(network.topology.nodes, pods).values()) == {Outcome.ANSWERED}


def test_what_fails_half_way_leaves_nothing() -> None:
    """A lab, a pod or a host that the kernel refuses is taken back as a whole, and the error says why."""
    twice = addresses("10.1.1.1", "10.1.1.1")
    name = lab_name()
    with pytest.raises(HostRefused, match=r"refused to address add 10\.1\.1\.1/32"):
        fabric.build(plan_explicit(name, "azure", {"one": (), "two": twice}))
    assert fabric.leftovers(name) == []
    with Network(plan_explicit(name, "azure", {"one": addresses("10.9.9.9")})) as network:
        before = fabric.leftovers(name)
        (node,) = network.topology.nodes
        with pytest.raises(HostRefused, match="refused to address add"):
            network.add("pod", node, twice)
        with pytest.raises(HostRefused, match="refused to address add"):
            network.external("world", twice)
        assert fabric.leftovers(name) == before
        missing = plan_pod(network.topology, "one", "demo", "missing", "uid", twice[:1])
        with pytest.raises(HostRefused, match="there is no link azv"):
            fabric.open_pod(network.topology, missing)
        pod = network.pod("pod", node, twice[:1])  # and nothing stands in the way of another try
        network.prober.listen(pod.netns, [(Protocol.TCP, PORT)])
        assert network.ask(node.netns, "10.1.1.1") is Outcome.ANSWERED


def test_a_kernel_without_a_setting_is_named_with_a_remedy() -> None:
    """What a lab needs of the kernel and does not find is said in words."""
    for setting, words in {
        "net/bridge/bridge-nf-call-none": "modprobe br_netfilter",
        "net/ipv6/conf/none": "ipv6.disable",
        "net/ipv4/none": "no setting net.ipv4.none",
    }.items():
        with pytest.raises(HostLacks, match=words):
            fabric._apply_settings(((setting, "1"),))
