# SPDX-License-Identifier: Apache-2.0
"""What a bridge passes on past netfilter: flows that the programs remember by themselves."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest

from ringfence.host import netns
from tests.dataplanes.conftest import standing
from tests.dataplanes.router import Allow, Router, address, arrives, egress, hears, ingress, make_program

pytestmark = pytest.mark.kernel

CLIENT = address("client", 4)
LATER = b"later fragment"
IPV4 = 0x0800  # linux/if_ether.h, ETH_P_IP


@pytest.fixture(scope="module")
def _router() -> Iterator[Router]:
    yield from standing("ebpf on a bridge")


@pytest.mark.parametrize("version", [4, 6])
def test_fragments_follow_their_first_one(router: Router, version: int) -> None:
    """Nobody puts them together on a bridge: those without ports pass with the one that has them, or not at all."""
    router.dataplane.apply(make_program(ingress("server", Allow(("client",), ("UDP/53",)))))
    large = bytes(4000)
    with router.opened("client", version, socket.SOCK_DGRAM) as here:
        for port in (53, 54):
            with router.bound("server", version, port) as there:
                here.sendto(large, (address("server", version), port))
                assert arrives(there) is (port == 53)


def test_a_later_fragment_alone_is_dropped(router: Router) -> None:
    """It could be of anything. To a pod that nobody isolates it goes on."""
    router.dataplane.apply(make_program(ingress("server", Allow())))
    with router.opened("client", 4, socket.SOCK_RAW, socket.IPPROTO_RAW) as near:
        for whom, heard in (("server", False), ("other", True)):
            with frames(router, whom) as there:
                near.sendto(fragment(address(whom, 4), offset=64), (address(whom, 4), 0))
                assert hears(there, lambda message: message.startswith(LATER)) is heard


def test_a_connection_the_other_way_round_is_judged_for_itself(router: Router) -> None:
    """Its SYN is no answer, though a connection between the same ports was allowed before."""
    router.dataplane.apply(make_program(ingress("server", Allow(("client",), ("TCP/80",))), ingress("client")))
    with router.connection("client", "server", 4, 80) as (near, _):
        port = near.getsockname()[1]
    syn = struct.pack("!HHIIBBHHH", 80, port, 1, 0, 5 << 4, 2, 100, 0, 0)
    with (
        router.opened("server", 4, socket.SOCK_RAW, 6) as far,
        router.opened("client", 4, socket.SOCK_RAW, 6) as heard,
    ):
        far.sendto(syn, (CLIENT, 0))
        assert not hears(heard, lambda message: message[:12] == syn[:12])


def test_an_echo_is_answered_and_asked_by_who_may(router: Router) -> None:
    """An answer passes, a question the other way does not."""
    router.dataplane.apply(make_program(egress("client", Allow(("server",))), ingress("client")))

    assert router.pings("client", "server", 4)
    assert not router.pings("server", "client", 4)
    assert router.pings("client", "server", 6)
    assert not router.pings("server", "client", 6)


def frames(router: Router, who: str) -> socket.socket:
    """Open a socket that receives IPv4 packets as they come in, before anybody puts fragments together."""
    with netns.enter(router.netns[who]):
        return socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(IPV4))


def fragment(destination: str, *, offset: int) -> bytes:
    """Return an IPv4 packet that is a later fragment of a datagram."""
    body = LATER + bytes(10)
    ends = socket.inet_aton(CLIENT) + socket.inet_aton(destination)
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 77, offset // 8, 64, 17, 0) + ends + body
