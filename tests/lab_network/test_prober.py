# SPDX-License-Identifier: Apache-2.0
"""The prober, with real packets: what each protocol's answer, refusal and silence are taken for, and how fast."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ringfence.errors import HostRefused
from ringfence.host import netns
from ringfence.host.nft import Nft
from ringfence.lab.prober import TIMEOUT, Outcome, Probe, Prober
from ringfence.model.ports import Protocol
from tests.lab_network.networks import ALL, PORT, Network, addresses, two_nodes

each_protocol = pytest.mark.parametrize("protocol", ALL, ids=lambda protocol: protocol.value)
each_family = pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])


@pytest.fixture
def network() -> Iterator[Network]:
    """Build a routed network of two nodes."""
    with two_nodes("azure") as built:
        yield built


def _filter(name: str, rules: str) -> None:
    with netns.enter(name), Nft() as nft:
        nft.run(f"table inet t {{ chain c {{ type filter hook forward priority 0; {rules} }}\n }}")


@contextmanager
def _busy_machine() -> Iterator[None]:
    burn = (sys.executable, "-S", "-c", "print(flush=True)\nwhile True: pass")
    hogs = [subprocess.Popen(burn, stdout=subprocess.PIPE) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        for hog in hogs:
            assert hog.stdout is not None
            hog.stdout.readline()  # it burns
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.communicate()


@pytest.mark.kernel
@each_family
@each_protocol
def test_answer_refusal_and_silence_are_told_apart(network: Network, protocol: Protocol, family: int) -> None:
    """A listener answers, a closed port refuses, a drop is silent: for each protocol and family."""
    client, server = (network.pod(name, network.topology.nodes[0]) for name in ("client", "server"))
    network.prober.listen(server.netns, [(protocol, 80), (protocol, 81)])
    number = protocol.number
    _filter(network.topology.nodes[0].netns, f"meta l4proto {number} th dport 81 drop;")
    probes = [Probe(client.netns, server.addresses[family], protocol, port) for port in (80, 81, 82)]
    assert network.prober.probe(probes) == [Outcome.ANSWERED, Outcome.SILENT, Outcome.REFUSED]
    assert [outcome.passed for outcome in network.prober.probe(probes)] == [True, False, True]


@pytest.mark.kernel
def test_a_dropped_answer_is_silence_too(network: Network) -> None:
    """Both halves must pass: what goes out and is not answered is denied."""
    client, server = (network.pod(name, network.topology.nodes[0]) for name in ("client", "server"))
    network.prober.listen(server.netns, [(protocol, PORT) for protocol in ALL])
    _filter(network.topology.nodes[0].netns, f"ip saddr {server.addresses[0]} drop;")
    probes = [Probe(client.netns, server.addresses[0], protocol, PORT) for protocol in ALL]
    assert network.prober.probe(probes) == [Outcome.SILENT] * 3


@pytest.mark.kernel
def test_packets_come_from_the_address_asked_for_and_answers_from_the_one_asked(network: Network) -> None:
    """A host with several addresses: the source is chosen per probe, and each of them answers for itself."""
    pod = network.pod("pod", network.topology.nodes[0])
    ours = addresses("8.8.8.8", "9.9.9.9", "2001:db8::8", "2001:db8::9")
    world = network.external("world", ours)
    for name in (pod.netns, world.netns):
        network.prober.listen(name, [(protocol, PORT) for protocol in ALL])
    _filter(
        network.topology.fabric_netns, "ip saddr 9.9.9.9 ct state new drop; ip6 saddr 2001:db8::9 ct state new drop;"
    )
    outward = [Probe(pod.netns, address, protocol, PORT) for address in ours for protocol in ALL]
    assert set(network.prober.probe(outward)) == {Outcome.ANSWERED}
    for own, passes in zip(ours, (True, False, True, False), strict=True):
        target = pod.addresses[0 if own.version == 4 else 1]
        inward = [Probe(world.netns, target, protocol, PORT, source=own) for protocol in ALL]
        assert {outcome.passed for outcome in network.prober.probe(inward)} == {passes}


@pytest.mark.kernel
def test_echoes_are_asked_beside_the_rest(network: Network) -> None:
    """ICMP and ICMPv6 among TCP: from pods and from nodes, answered where nothing drops them, in one go."""
    node = network.topology.nodes[0]
    client, server = (network.pod(name, node) for name in ("client", "server"))
    network.prober.listen(server.netns, [(Protocol.TCP, PORT)])
    echo = dict(zip(server.addresses, (Protocol.ICMP, Protocol.ICMPV6), strict=True))
    probes = [
        Probe(source, address, protocol, PORT if protocol is Protocol.TCP else None)
        for source in (client.netns, node.netns)
        for address in server.addresses
        for protocol in (Protocol.TCP, echo[address])
    ]
    assert set(network.prober.probe(probes)) == {Outcome.ANSWERED}
    _filter(node.netns, "icmp type echo-reply drop; icmpv6 type echo-request drop;")
    silent = [outcome is Outcome.SILENT for outcome in network.prober.probe(probes)]
    assert silent == [p.netns == client.netns and p.port is None for p in probes]


@pytest.mark.kernel
def test_silence_of_everything_must_last_for_the_whole_timeout(network: Network) -> None:
    """Without an answer, its own or a control's, there is nothing to judge silence by."""
    client, server = (network.pod(name, network.topology.nodes[0]) for name in ("client", "server"))
    network.prober.listen(server.netns, [(Protocol.TCP, 80), (Protocol.TCP, 81)])
    _filter(network.topology.nodes[0].netns, "tcp dport 81 drop;")
    denied, open_ = (Probe(client.netns, server.addresses[0], Protocol.TCP, port) for port in (81, 80))
    began = time.monotonic()
    assert network.prober.probe([denied]) == [Outcome.SILENT]
    assert time.monotonic() - began >= TIMEOUT
    assert network.prober.probe([denied], controls=[open_]) == [Outcome.SILENT]
    assert network.prober.probe([], controls=[open_]) == []


@pytest.mark.kernel
def test_what_cannot_be_probed_is_an_error_and_no_verdict(network: Network) -> None:
    """No such namespace, or a source address that is not there: an error that names the probe."""
    pod = network.pod("pod", network.topology.nodes[0])
    somewhere, foreign = addresses("8.8.8.8", "10.9.8.7")
    with pytest.raises(HostRefused, match="no network namespace rf-none"):
        network.prober.probe([Probe("rf-none", somewhere, Protocol.TCP, 80)])
    for protocol in ALL:
        with pytest.raises(HostRefused, match=r"could not probe 8\.8\.8\.8"):
            network.prober.probe([Probe(pod.netns, somewhere, protocol, 80, source=foreign)])


@pytest.mark.kernel
def test_a_port_that_is_taken_is_left_to_its_holder(network: Network) -> None:
    """A pod's own server answers for itself."""
    client, server = (network.pod(name, network.topology.nodes[0]) for name in ("client", "server"))
    with netns.enter(server.netns):
        own = socket.create_server(("", PORT))
    with own:
        network.prober.listen(server.netns, [(Protocol.TCP, PORT)])
        assert network.ask(client.netns, str(server.addresses[0])) is Outcome.ANSWERED
        own.accept()[0].close()  # it was this one that answered


@pytest.mark.kernel
def test_more_probes_than_backlogs_and_batches_hold_are_all_answered(network: Network) -> None:
    """Ten thousand connections to one port, from two pods: nothing is lost by their number."""
    clients = [network.pod(name, network.topology.nodes[0]) for name in ("a", "b")]
    server = network.pod("server", network.topology.nodes[1])
    network.prober.listen(server.netns, [(Protocol.TCP, PORT), (Protocol.UDP, PORT)])
    probes = [
        Probe(client.netns, server.addresses[0], protocol, PORT)
        for client in clients
        for protocol in (Protocol.TCP, Protocol.UDP)
        for _ in range(2500)
    ]
    assert set(network.prober.probe(probes)) == {Outcome.ANSWERED}


@pytest.mark.kernel
def test_a_busy_machine_makes_no_denials(network: Network) -> None:
    """With twice as many busy processes as cores, no open way is taken for a closed one, and no closed one for open."""
    pods = [network.pod(f"p{number}", network.topology.nodes[number % 2]) for number in range(8)]
    for pod in pods:
        network.prober.listen(pod.netns, [(protocol, port) for protocol in ALL for port in (80, 81)])
    for node in network.topology.nodes:
        _filter(node.netns, "meta l4proto { tcp, udp, sctp } th dport 81 drop;")
    probes = [
        Probe(source.netns, address, protocol, port)
        for source in pods
        for target in pods
        for address in target.addresses
        for protocol in ALL
        for port in (80, 81)
        if source is not target
    ]
    with _busy_machine():
        outcomes = network.prober.probe(probes)
    wrong = [p for p, got in zip(probes, outcomes, strict=True) if got.passed is not (p.port == 80)]
    assert wrong == []


@pytest.mark.kernel
def test_a_thousand_probes_half_of_them_denied_take_about_the_timeout(network: Network) -> None:
    """Silence is waited for once, not for each probe. (The bound is generous: other tests may run beside this one.)"""
    pods = [network.pod(f"p{number}", network.topology.nodes[number % 2]) for number in range(23)]
    for pod in pods:
        network.prober.listen(pod.netns, [(Protocol.TCP, 80), (Protocol.TCP, 81)])
    for node in network.topology.nodes:
        _filter(node.netns, "tcp dport 81 drop;")
    probes = [
        Probe(source.netns, target.addresses[0], Protocol.TCP, port)
        for source in pods
        for target in pods
        for port in (80, 81)
        if source is not target
    ]
    started = time.monotonic()
    outcomes = network.prober.probe(probes)
    assert time.monotonic() - started < 5
    assert outcomes == [Outcome.ANSWERED, Outcome.SILENT] * (23 * 22)


@pytest.mark.kernel
def test_a_forgotten_namespace_ends_with_its_name(network: Network) -> None:
    """Sockets keep a namespace and its links alive; ``forget`` closes them."""
    node = network.topology.nodes[0]
    pod = network.pod("pod", node)
    network.prober.listen(pod.netns, [(protocol, PORT) for protocol in ALL])
    network.prober.probe([Probe(pod.netns, node.addresses[0], protocol, PORT) for protocol in ALL])
    network.prober.forget(pod.netns)
    netns.delete(pod.netns)
    deadline = time.monotonic() + 10
    with netns.enter(node.netns):
        while pod.host_interface in [name for _, name in socket.if_nameindex()]:
            assert time.monotonic() < deadline
            time.sleep(0.005)


def test_a_probe_has_a_port_of_a_protocol_that_has_ports() -> None:
    """Port 0 is none, ICMP has none."""
    (address,) = addresses("10.0.0.1")
    with pytest.raises(ValueError, match="ICMP has no ports"):
        Probe("rf-x", address, Protocol.ICMP, 80)
    with pytest.raises(ValueError, match="no port to probe: 0"):
        Probe("rf-x", address, Protocol.TCP, 0)
    with Prober() as prober:
        assert prober.probe([]) == []
