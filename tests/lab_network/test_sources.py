# SPDX-License-Identifier: Apache-2.0
"""A pod that writes its packets by hand gets none through that bears another's address."""

from __future__ import annotations

import ipaddress
import socket
import struct

import pytest

from ringfence.host import netns
from ringfence.lab import fabric
from ringfence.lab.config import NetworkPlugin
from tests.lab_network.networks import PLUGINS, addresses, two_nodes

pytestmark = pytest.mark.kernel

PORT = 5353


def send(namespace: str, source: str, destination: str, word: bytes) -> None:
    """Send a UDP packet that says it comes from a source, whoever has it."""
    udp = struct.pack("!HHHH", PORT, PORT, 8 + len(word), 0)
    if ":" in source:
        # "if the checksum is zero the packet is discarded" is for IPv6 only (RFC 8200): it has to be right
        pseudo = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
        summed = pseudo + struct.pack("!II", 8 + len(word), 17) + udp + word
        udp = udp[:6] + struct.pack("!H", checksum(summed))
        head = struct.pack("!IHBB", 6 << 28, 8 + len(word), 17, 64) + pseudo
    else:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 28 + len(word), 0, 0, 64, 17, 0)
        head += ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    protocol = socket.IPPROTO_RAW
    with netns.enter(namespace), socket.socket(family, socket.SOCK_RAW, protocol) as raw:
        raw.sendto(head + udp + word, (destination, 0))


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    words = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while words >> 16:
        words = (words & 0xFFFF) + (words >> 16)
    return 0xFFFF - words or 0xFFFF


@pytest.mark.parametrize("plugin", PLUGINS)
def test_packets_with_another_source_are_dropped(plugin: NetworkPlugin) -> None:
    """A neighbour's address, one of another node's pod, the node's own, one of the world's: only its own passes."""
    with two_nodes(plugin) as network:
        one, two = network.topology.nodes
        spoofer, neighbour, far = network.pod("spoofer", one), network.pod("near", one), network.pod("far", two)
        network.external("world", addresses("8.8.8.8", "2001:db8::8"))
        network.try_all([spoofer, neighbour], [far])
        for version, strangers in ((4, ["8.8.8.8"]), (6, ["2001:db8::8"])):
            own, near, target, node = (
                next(str(a) for a in each.addresses if a.version == version) for each in (spoofer, neighbour, far, one)
            )
            with (
                netns.enter(far.netns),
                socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as server,
            ):
                server.bind((target, PORT))
                server.settimeout(5)
                for stranger in [near, node, *strangers]:
                    send(spoofer.netns, stranger, target, stranger.encode())
                send(neighbour.netns, near, target, b"its own")
                assert server.recv(100) == b"its own"
                send(spoofer.netns, own, target, b"mine")
                assert server.recv(100) == b"mine"


@pytest.mark.parametrize("plugin", PLUGINS)
def test_address_goes_with_the_pod(plugin: NetworkPlugin) -> None:
    """The next holder of an address may send from it; what the last one may is forgotten with it."""
    with two_nodes(plugin) as network:
        one, two = network.topology.nodes
        first, peer = network.pod("first", one), network.pod("peer", two)
        assert network.try_all([first], [peer])
        network.prober.forget(first.netns)
        fabric.remove_pod(network.topology, first)
        second = network.pod("second", one, first.addresses)

        assert all(outcome.passed for outcome in network.try_all([second], [peer]).values())
