# SPDX-License-Identifier: Apache-2.0
"""What an operator may choose, with real packets: the node and its own pods, and connections that are open."""

from __future__ import annotations

import itertools
import socket
from dataclasses import replace

import pytest

from ringfence.compiler.program import Program
from ringfence.model.settings import Established, NodeProbes, OwnNodeEgress, Settings
from tests.dataplanes.router import (
    SOON,
    Allow,
    Router,
    address,
    arrives,
    egress,
    ingress,
    make_program,
    passes,
)

pytestmark = [pytest.mark.kernel, pytest.mark.parametrize("version", [4, 6])]

NODE = ("10.9.1.1/32", "fd09:1::1/128")  # the router's addresses on the client's link
CLOSED = (ingress("client"), egress("client"))


def reaches(router: Router, who: str, whom: str, version: int, port: int = 80) -> bool:
    """Tell whether a TCP connection between the client and its node is made."""
    with router.listen(whom, version, port):
        return router.connects(who, whom, version, port)


@pytest.mark.parametrize(("probes", "to_node"), list(itertools.product(NodeProbes, OwnNodeEgress)))
def test_the_settings_about_the_own_node_are_each_for_one_direction(
    router: Router, version: int, probes: NodeProbes, to_node: OwnNodeEgress
) -> None:
    """Node to pod by one setting, pod to node by the other (SEMANTICS 23, 24); datagrams as well."""
    program = replace(make_program(*CLOSED), settings=Settings(probes, to_node))
    router.dataplane.apply(program)

    assert reaches(router, "router", "client", version) is (probes is NodeProbes.ALLOW)
    assert reaches(router, "client", "router", version) is (to_node is OwnNodeEgress.ALLOW)
    assert router.datagram("router", "client", version, 53) is (probes is NodeProbes.ALLOW)
    assert router.datagram("client", "router", version, 53) is (to_node is OwnNodeEgress.ALLOW)


def test_without_the_exception_a_nodes_probe_is_judged_by_ingress_rules(router: Router, version: int) -> None:
    """With ``--node-probes deny`` a rule may still let the node in, on the port that it names."""
    program = make_program(ingress("client", Allow(NODE, ("TCP/80",))))
    router.dataplane.apply(replace(program, settings=Settings(NodeProbes.DENY)))

    assert reaches(router, "router", "client", version, 80)
    assert not reaches(router, "router", "client", version, 81)


@pytest.mark.parametrize(
    ("client", "server", "program"),
    [
        ("client", "router", make_program(egress("client"))),
        ("router", "client", replace(make_program(ingress("client")), settings=Settings(NodeProbes.DENY))),
    ],
    ids=["pod to node", "node to pod"],
)
def test_a_revoked_connection_with_the_own_node_is_cut_in_both_directions(
    router: Router, version: int, client: str, server: str, program: Program
) -> None:
    """Also the half that begins at the node."""
    router.dataplane.apply(make_program())
    with router.connection(client, server, version, 80) as (near, far):
        router.dataplane.apply(program)
        cut = not passes(near, far), not passes(far, near)
        router.dataplane.apply(make_program())
        again = arrives(far, SOON), arrives(near, SOON)

    assert cut == (True, True)
    assert again == (True, True)


def test_a_forgotten_connection_to_the_own_node_is_not_picked_up_by_the_nodes_answer(
    router: Router, version: int
) -> None:
    """The node that speaks first is not taken for the client, whose probes would pass."""
    router.dataplane.apply(make_program(ingress("other")))
    with router.connection("client", "router", version, 80) as (near, far):
        router.dataplane.apply(make_program(egress("client")))
        router.forget()

        assert not passes(far, near)
        assert not passes(near, far)


@pytest.mark.parametrize("denied", [make_program(ingress("server")), make_program(egress("client"))])
def test_established_connections_may_be_kept(router: Router, version: int, denied: Program) -> None:
    """With ``--established-connections keep`` what is open stays open, and nothing new is opened (SEMANTICS 21)."""
    keep = Settings(established=Established.KEEP)
    router.dataplane.apply(replace(make_program(), settings=keep))
    with (
        router.connection("client", "server", version, 80) as (near, far),
        router.bound("server", version, 53) as there,
        router.opened("client", version, socket.SOCK_DGRAM) as here,
    ):
        here.connect((address("server", version), 53))
        here.send(b"open")
        _, back = there.recvfrom(64)
        there.sendto(b"answered", back)
        assert arrives(here)

        router.dataplane.apply(replace(denied, settings=keep))

        assert passes(near, far)
        assert passes(far, near)
        here.send(b"still")
        assert arrives(there)
        there.sendto(b"and back", back)
        assert arrives(here)
        assert not router.connects("client", "server", version, 80)


@pytest.mark.parametrize("denied", [make_program(ingress("server")), make_program(egress("client"))])
def test_an_open_udp_exchange_is_cut_in_both_directions(router: Router, version: int, denied: Program) -> None:
    """UDP like TCP: the next datagram of either end is judged anew (SEMANTICS 21)."""
    router.dataplane.apply(make_program())
    with (
        router.bound("server", version, 53) as there,
        router.opened("client", version, socket.SOCK_DGRAM) as here,
    ):
        here.connect((address("server", version), 53))
        here.send(b"open")
        _, back = there.recvfrom(64)

        router.dataplane.apply(denied)

        there.sendto(b"answer", back)
        assert not arrives(here)
        here.send(b"again")
        assert not arrives(there)
