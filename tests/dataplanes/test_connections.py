# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest

from ringfence.compiler.program import Program
from tests.dataplanes.router import (
    SOON,
    Allow,
    Router,
    address,
    arrives,
    checksummed,
    egress,
    hears,
    ingress,
    init,
    make_program,
    passes,
    sctp,
    too_big,
    udp_packet,
)

pytestmark = [pytest.mark.kernel, pytest.mark.parametrize("version", [4, 6])]

CLOSED_SERVER = make_program(ingress("server"))
CLOSED_CLIENT = make_program(egress("client"))
OPEN_SERVER = make_program(ingress("server", Allow(("client",), ("TCP/80", "UDP/53"))))
OPEN_CLIENT = make_program(egress("client", Allow(("server",), ("TCP/80", "UDP/53"))))


@pytest.mark.parametrize(
    ("allowed", "denied"), [(OPEN_SERVER, CLOSED_SERVER), (OPEN_CLIENT, CLOSED_CLIENT)], ids=["ingress", "egress"]
)
def test_a_revoked_connection_is_cut_in_both_directions_and_goes_on_when_allowed_again(
    router: Router, version: int, allowed: Program, denied: Program
) -> None:
    """Existing connections are re-judged at their next packet (SEMANTICS 21), whoever sends it."""
    router.dataplane.apply(allowed)
    with router.connection("client", "server", version, 80) as (near, far):
        router.dataplane.apply(denied)
        cut = not passes(near, far), not passes(far, near)
        router.dataplane.apply(allowed)
        again = arrives(far, SOON), arrives(near, SOON)

    assert cut == (True, True)
    assert again == (True, True)


def test_connections_that_stay_allowed_survive_every_change(router: Router, version: int) -> None:
    """Other rules, other sets, another rule that allows it, isolation coming and going: none of it is felt."""
    block = "10.9.1.0/24" if version == 4 else "fd09:1::/64"
    programs = [
        OPEN_SERVER,
        make_program(ingress("server", Allow((block,), ("TCP",)))),
        make_program(ingress("server", Allow())),
        make_program(),
        make_program(
            ingress("server", Allow(("client", "other"), ("TCP/1-100",))), egress("server"), ingress("client")
        ),
    ]
    router.dataplane.apply(programs[0])

    with router.connection("client", "server", version, 80) as (near, far):
        felt = []
        for program in (*programs, *reversed(programs)):
            router.dataplane.apply(program)
            felt += [passes(near, far), passes(far, near)]

    assert all(felt)


def test_replies_pass_though_both_ends_are_isolated_the_other_way(router: Router, version: int) -> None:
    """Replies follow the verdict of the first packet: no rule of their own is asked (SEMANTICS 20)."""
    router.dataplane.apply(
        make_program(
            egress("client", Allow(("server",), ("TCP/80",))),
            ingress("server", Allow(("client",), ("TCP/80",))),
            ingress("client"),
            egress("server"),
        )
    )

    with router.connection("client", "server", version, 80) as (near, far):
        assert passes(near, far)
        assert passes(far, near)


def test_an_icmp_error_about_an_allowed_flow_reaches_an_isolated_pod(router: Router, version: int) -> None:
    """A closed port behind an allowed one is told as refused, though ICMP itself is denied."""
    router.dataplane.apply(make_program(egress("client", Allow(("server",), ("UDP/53",))), ingress("client")))

    with router.opened("client", version, socket.SOCK_DGRAM) as near:
        near.connect((address("server", version), 53))
        near.send(b"anybody?")
        with pytest.raises(ConnectionRefusedError):
            near.recv(1)
    assert not router.pings("client", "server", version)


def path_mtu(near: socket.socket) -> int:
    """Return the path MTU that a connected socket knows."""
    level, option = (socket.IPPROTO_IP, 14) if near.family == socket.AF_INET else (socket.IPPROTO_IPV6, 24)
    return near.getsockopt(level, option)


@pytest.fixture
def told(router: Router, version: int) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Yield the client's UDP socket, its flow to the server established, and a raw socket of a router on the way."""
    router.dataplane.apply(OPEN_CLIENT)
    protocol = 1 if version == 4 else 58
    with (
        router.bound("server", version, 53) as far,
        router.opened("client", version, socket.SOCK_DGRAM) as near,
        router.opened("other", version, socket.SOCK_RAW, protocol) as on_the_way,
    ):
        near.connect((address("server", version), 53))
        near.send(b"x")
        assert arrives(far)
        far.sendto(b"y", near.getsockname()[:2])
        assert arrives(near)
        yield near, on_the_way
    router.ip("client", "route", "flush", "cache")
    router.ip("client", "-6", "route", "flush", "cache")


def tell(told: tuple[socket.socket, socket.socket], version: int) -> None:
    """Send the client "fragmentation needed" or "packet too big" about its flow."""
    near, on_the_way = told
    quoted = udp_packet(version, address("client", version), address("server", version), (near.getsockname()[1], 53))
    on_the_way.sendto(too_big(version, quoted, 1300), (address("client", version), 0))


def test_path_mtu_discovery_works_through_isolation(
    router: Router, version: int, told: tuple[socket.socket, socket.socket]
) -> None:
    """ICMP errors related to an allowed flow pass, from whoever is on the way (SEMANTICS 20)."""
    router.dataplane.apply(make_program(egress("client", Allow(("server",), ("UDP/53",))), ingress("client")))

    tell(told, version)

    assert path_mtu(told[0]) == 1300


def test_an_icmp_error_about_a_revoked_flow_does_not_pass(
    router: Router, version: int, told: tuple[socket.socket, socket.socket]
) -> None:
    """What relates to a flow that is denied now is denied now, though the connection tracker still knows it."""
    router.dataplane.apply(CLOSED_CLIENT)

    tell(told, version)

    assert path_mtu(told[0]) == 1500


@pytest.mark.parametrize("denied", [CLOSED_SERVER, CLOSED_CLIENT], ids=["ingress", "egress"])
@pytest.mark.parametrize("first", ["client", "server"])
def test_a_forgotten_connection_is_not_picked_up_against_policy(
    router: Router, version: int, denied: Program, first: str
) -> None:
    """Whoever speaks first after the tracker forgot it, a denied TCP connection stays cut in both directions.

    The server's segment would otherwise be taken for the start of a connection of its own, which nothing denies.
    """
    router.dataplane.apply(OPEN_SERVER)
    with router.connection("client", "server", version, 80) as (near, far):
        router.dataplane.apply(denied)
        router.forget()
        ends = [(near, far), (far, near)] if first == "client" else [(far, near), (near, far)]

        assert [passes(*way) for way in ends] == [False, False]


@pytest.mark.parametrize("allowed", [OPEN_SERVER, OPEN_CLIENT], ids=["ingress", "egress"])
def test_a_forgotten_connection_that_is_allowed_goes_on_when_its_client_speaks(
    router: Router, version: int, allowed: Program
) -> None:
    """The tracker picks an allowed connection up again, and then both directions pass."""
    router.dataplane.apply(allowed)
    with router.connection("client", "server", version, 80) as (near, far):
        router.forget()

        assert passes(near, far)
        assert passes(far, near)


def test_sctp_is_not_picked_up_against_policy(router: Router, version: int) -> None:
    """A heartbeat, from which the tracker would pick an association up, opens nothing against policy either."""
    router.dataplane.apply(CLOSED_SERVER)
    heartbeat = struct.pack("!BBHHH", 4, 0, 8, 1, 4)
    with (
        router.opened("client", version, socket.SOCK_RAW, 132) as near,
        router.opened("server", version, socket.SOCK_RAW, 132) as far,
    ):
        far.sendto(sctp(80, 4000, heartbeat, tag=9), (address("client", version), 0))
        assert not hears(near, lambda p: p[12] == 4)
        far.sendto(sctp(80, 4000, init(9)), (address("client", version), 0))
        assert hears(near, lambda p: p[12] == 1)


def test_packets_of_no_connection_pass_only_where_nobody_is_isolated(router: Router, version: int) -> None:
    """What the tracker finds invalid is no flow that a rule could allow: isolated pods neither get nor send it."""
    nonsense = struct.pack("!HHIIBBHHH", 4000, 80, 1, 1, 5 << 4, 0x12, 100, 0, 0)  # SYN+ACK to nothing, no checksum
    isolated = make_program(ingress("server", Allow()), egress("server", Allow()))
    heard = []
    for program in (make_program(), isolated):
        router.dataplane.apply(program)
        for who, whom in (("client", "server"), ("server", "client")):
            with (
                router.opened(who, version, socket.SOCK_RAW, 6) as near,
                router.opened(whom, version, socket.SOCK_RAW, 6) as far,
            ):
                near.sendto(nonsense, (address(whom, version), 0))
                heard.append(hears(far, lambda p: p[:4] == nonsense[:4]))

    assert heard == [True, True, False, False]


def test_services_are_judged_by_the_pod_behind_them(router: Router, version: int) -> None:
    """Rules are judged after DNAT, on pod address and target port (SEMANTICS 31); a pod reaches itself (22)."""
    if router.bridged:
        pytest.skip("an answer that a bridge passes on past netfilter is not translated back")
    service = "10.96.0.1" if version == 4 else "fd96::1"
    word = "ip" if version == 4 else "ip6"
    router.nft.run(
        f"""
        table inet rfservice {{
            chain in {{
                type nat hook prerouting priority dstnat;
                {word} daddr {service} tcp dport 80 dnat {word} to {_at("server", version, 8080)}
                {word} daddr {service} tcp dport 81 dnat {word} to {_at("client", version, 8081)}
            }}
            chain out {{
                type nat hook postrouting priority srcnat;
                {word} saddr {address("client", version)} {word} daddr {address("client", version)} masquerade
            }}
        }}
        """
    )
    reached = []
    try:
        for port in ("TCP/80", "TCP/8080"):
            router.dataplane.apply(
                make_program(
                    egress("client", Allow(("server",), (port,))),
                    ingress("server", Allow(("client",), (port,))),
                    ingress("client"),
                )
            )
            with router.listen("server", version, 8080), router.listen("client", version, 8081):
                for number in (80, 81):
                    with router.opened("client", version, socket.SOCK_STREAM) as near:
                        near.settimeout(0.2)
                        reached.append(near.connect_ex((service, number)) == 0)
    finally:
        router.nft.run("delete table inet rfservice")

    assert reached == [False, True, True, True]


def _at(who: str, version: int, port: int) -> str:
    return f"{address(who, version)}:{port}" if version == 4 else f"[{address(who, version)}]:{port}"


def test_neighbour_discovery_is_never_asked_for_its_policy(router: Router, version: int) -> None:
    """A fully isolated pod still finds its gateway, and its gateway finds it (SEMANTICS 33)."""
    router.dataplane.apply(make_program(egress("client", Allow(("server",))), ingress("client")))
    for who, device in (("client", "eth0"), ("router", "client")):
        router.ip(who, "neigh", "flush", "dev", device)
        router.ip(who, "-6", "neigh", "flush", "dev", device)

    assert router.datagram("client", "server", version, 53)


def test_a_hand_made_checksum_is_right(version: int) -> None:
    """The messages that these tests make are not dropped for being broken: their checksums sum up to nothing."""
    message = checksummed(struct.pack("!BBHHH", 8, 0, 0, version, 1))

    assert checksummed(message[:2] + b"\0\0" + message[4:]) == message
