# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from ringfence.compiler.program import empty_program
from tests.dataplanes.conftest import ENGINES, standing
from tests.dataplanes.router import (
    Allow,
    Router,
    address,
    egress,
    hears,
    ingress,
    init,
    make_program,
    sctp,
)

pytestmark = [pytest.mark.kernel, pytest.mark.parametrize("version", [4, 6])]


@pytest.fixture(scope="module", params=ENGINES)
def _router(request: pytest.FixtureRequest) -> Iterator[Router]:
    """Yield a router of each engine: what rules say does not depend on where programs stand."""
    yield from standing(request.param)


def test_without_isolation_everything_passes(router: Router, version: int) -> None:
    """A program that isolates nobody touches no packet."""
    router.dataplane.apply(empty_program("router"))

    with router.listen("server", version, 80):
        assert router.connects("client", "server", version, 80)
    assert router.datagram("client", "server", version, 53)
    assert router.pings("client", "server", version)


def test_ingress_rules_admit_peer_and_port_together(router: Router, version: int) -> None:
    """An isolated server is reached by the allowed peer on the allowed ports, by nobody and nowhere else."""
    rule = Allow(("client",), ("TCP/80", "TCP/8000-8080", "UDP/53"))
    router.dataplane.apply(make_program(ingress("server", rule)))

    for port in (80, 8000, 8080):
        with router.listen("server", version, port):
            assert router.connects("client", "server", version, port)
            assert not router.connects("other", "server", version, port)
    for port in (81, 7999, 8081, 53):
        with router.listen("server", version, port):
            assert not router.connects("client", "server", version, port)
    assert router.datagram("client", "server", version, 53)
    assert not router.datagram("client", "server", version, 80)
    assert not router.datagram("other", "server", version, 53)
    assert not router.pings("client", "server", version)
    with router.listen("client", version, 80):
        assert router.connects("server", "client", version, 80)


def test_egress_rules_are_the_clients(router: Router, version: int) -> None:
    """An isolated client reaches the allowed blocks only; whoever reaches it is none of egress policy's business."""
    block = "10.9.2.0/24" if version == 4 else "fd09:2::/64"
    router.dataplane.apply(make_program(egress("client", Allow((block,), ("TCP",)))))

    with router.listen("server", version, 80), router.listen("other", version, 80):
        assert router.connects("client", "server", version, 80)
        assert not router.connects("client", "other", version, 80)
    assert not router.datagram("client", "server", version, 53)
    assert router.datagram("server", "client", version, 53)


def test_both_ends_must_allow(router: Router, version: int) -> None:
    """A flow passes when the source's egress and the destination's ingress both allow it."""
    router.dataplane.apply(
        make_program(
            egress("client", Allow(("server",), ("TCP/80", "TCP/81"))),
            ingress("server", Allow(("client",), ("TCP/81", "TCP/82"))),
        )
    )

    reached = []
    for port in (80, 81, 82):
        with router.listen("server", version, port):
            reached.append(router.connects("client", "server", version, port))

    assert reached == [False, True, False]


def test_a_rule_without_peers_or_ports_admits_everything(router: Router, version: int) -> None:
    """No peer and no port asked: every protocol from everywhere, ICMP included (SEMANTICS 5, 6, 33)."""
    router.dataplane.apply(make_program(ingress("server", Allow())))

    assert router.pings("client", "server", version)
    assert router.datagram("client", "server", version, 53)


def test_no_peer_at_all_admits_nobody(router: Router, version: int) -> None:
    """None is not any: an empty peer set, and an empty list of ports, match nothing."""
    router.dataplane.apply(make_program(ingress("server", Allow(()), Allow(None, ()))))

    assert not router.datagram("client", "server", version, 53)
    assert not router.pings("client", "server", version)


def test_one_family_does_not_open_the_other(router: Router, version: int) -> None:
    """0.0.0.0/0 is not ::/0 (SEMANTICS 18)."""
    whole = "0.0.0.0/0" if version == 4 else "::/0"
    router.dataplane.apply(make_program(ingress("server", Allow((whole,)))))

    assert router.datagram("client", "server", version, 53)
    assert not router.datagram("client", "server", 10 - version, 53)


def test_sctp_is_sctp_and_tcp_is_tcp(router: Router, version: int) -> None:
    """An SCTP rule admits no TCP, and so on (SEMANTICS 34); answers pass, other ports do not."""
    router.dataplane.apply(make_program(ingress("server", Allow(("client",), ("SCTP/80",)))))

    with (
        router.opened("client", version, socket.SOCK_RAW, 132) as near,
        router.opened("server", version, socket.SOCK_RAW, 132) as far,
    ):
        near.sendto(sctp(4000, 80, init(7)), (address("server", version), 0))
        assert hears(far, lambda p: p[12] == 1)
        far.sendto(sctp(80, 4000, init(8, 2), tag=7), (address("client", version), 0))
        assert hears(near, lambda p: p[12] == 2)
        near.sendto(sctp(4001, 81, init(7)), (address("server", version), 0))
        assert not hears(far, lambda p: p[12] == 1)
    with router.listen("server", version, 80):
        assert not router.connects("client", "server", version, 80)
    assert not router.datagram("client", "server", version, 80)


def test_a_pod_reaches_its_own_node_only_as_its_egress_allows(router: Router, version: int) -> None:
    """Pod to its own node is subject to egress policy; the node reaches its pods whatever policy says (23, 24)."""
    node = address("router", version)
    router.dataplane.apply(make_program(egress("client", Allow((node,), ("TCP/80",))), ingress("client")))

    with router.listen("client", version, 80):
        assert router.connects("router", "client", version, 80)
    assert router.pings("router", "client", version)
    with router.listen("router", version, 80), router.listen("router", version, 81):
        assert router.connects("client", "router", version, 80)
        assert not router.connects("client", "router", version, 81)
    assert not router.pings("client", "router", version)
    assert router.pings("other", "router", version)
