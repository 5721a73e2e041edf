# SPDX-License-Identifier: Apache-2.0
"""The rtnetlink encoder against a second opinion: iproute2 reads back what it wrote, and the kernel's refusals."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator

import msgspec
import pytest

from ringfence.errors import HostRefused
from ringfence.host import netns, process
from ringfence.lab import rtnetlink
from ringfence.lab.rtnetlink import RouteSocket
from tests.lab_network.networks import addresses, lab_name

pytestmark = pytest.mark.kernel

V4, V6 = addresses("10.1.2.3", "fd00::3")


@pytest.fixture
def inside() -> Iterator[str]:
    """Make an empty namespace, and enter it."""
    name = f"rf-{lab_name()}-fabric"
    netns.create(name)
    try:
        with netns.enter(name):
            yield name
    finally:
        netns.delete(name)


def _ip(*words: str) -> list[dict[str, object]]:
    return msgspec.json.decode(process.run(["ip", "-j", "-d", *words]).stdout or "[]", type=list[dict[str, object]])


def test_links_are_as_asked_for(inside: str) -> None:
    """A pair across namespaces, a bridge, a port with hairpin: iproute2 reads all of it back."""
    other = f"{inside}s".replace("-fabrics", "-ext.x")
    netns.create(other)
    try:
        with netns.path(other).open() as there, RouteSocket() as route:
            route.send(
                [
                    rtnetlink.new_veth(
                        "eth0", index=7, mac="02:00:00:00:00:07", peer="far0", peer_mac="aa:aa:aa:aa:aa:aa",
                        peer_netns=there.fileno(),
                    ),
                    rtnetlink.new_bridge("cbr0", mac="02:00:00:00:00:08"),
                ]
            )  # fmt: skip
            bridge = socket.if_nametoindex("cbr0")
            route.send([rtnetlink.link_up(bridge), rtnetlink.link_up(7, master=bridge), rtnetlink.hairpin(7)])
            (port,) = _ip("link", "show", "eth0")
            assert (port["ifindex"], port["address"], port["master"]) == (7, "02:00:00:00:00:07", "cbr0")
            assert "UP" in str(port["flags"])
            assert msgspec.convert(port["linkinfo"], dict[str, object])["info_kind"] == "veth"
            assert "'hairpin': True" in str(port["linkinfo"])
            assert _ip("link", "show", "cbr0")[0]["address"] == "02:00:00:00:00:08"
            with netns.enter(other):
                (far,) = _ip("link", "show", "far0")
                assert far["address"] == "aa:aa:aa:aa:aa:aa"
                assert "UP" not in str(far["flags"])
            assert not route.carries(7)
            route.send([rtnetlink.link_down(7)])
            assert "UP" not in str(_ip("link", "show", "eth0")[0]["flags"])
            route.send([rtnetlink.link_delete(7), rtnetlink.link_delete(7)])  # twice: gone is gone
            assert [name for _, name in socket.if_nameindex()] == ["lo", "cbr0"]
    finally:
        netns.delete(other)


@pytest.mark.usefixtures("inside")
def test_addresses_neighbours_and_routes_are_as_asked_for() -> None:
    """Both families; on the link, by a gateway that is no neighbour, and the kinds that lead nowhere."""
    with RouteSocket() as route:
        route.send([rtnetlink.new_bridge("cbr0", mac="02:00:00:00:00:08")])
        index = socket.if_nametoindex("cbr0")
        route.send([rtnetlink.link_up(index), rtnetlink.link_up(rtnetlink.LOOPBACK)])
        for own, length, network, gateway in (
            (V4, 24, "10.9.0.0/16", "169.254.1.1"),
            (V6, 64, "fd09::/32", "fe80::1"),
        ):
            hop, target = ipaddress.ip_address(gateway), ipaddress.ip_network(network)
            nowhere = ipaddress.ip_network("10.8.0.0/16" if own.version == 4 else "fd08::/32")
            route.send(
                [
                    rtnetlink.new_address(index, own, length),
                    rtnetlink.new_neighbour(index, hop, "02:00:00:00:00:01"),
                    rtnetlink.new_neighbour(index, hop, "02:00:00:00:00:02"),  # in place of the first
                    rtnetlink.new_route(target, index=index, gateway=hop),
                    rtnetlink.new_route(nowhere, kind=rtnetlink.UNREACHABLE),
                ]
            )
            family = f"-{own.version}"
            (entry,) = _ip(family, "neigh")
            assert (entry["dst"], entry["lladdr"], entry["state"]) == (gateway, "02:00:00:00:00:02", ["PERMANENT"])
            routes = {str(found["dst"]): found for found in _ip(family, "route")}
            assert (routes[network]["gateway"], routes[network]["dev"]) == (gateway, "cbr0")
            assert "onlink" in str(routes[network]["flags"])
            assert routes[str(nowhere)]["type"] == "unreachable"
            assert f"'local': '{own}', 'prefixlen': {length}" in str(_ip("address", "show", "cbr0"))
            gone = [
                rtnetlink.neighbour_delete(index, hop, "02:00:00:00:00:02"),
                rtnetlink.route_delete(target, index=index, gateway=hop),
            ]
            route.send([*gone, *gone])  # twice: gone is gone
            assert _ip(family, "neigh") == []
            assert network not in {str(found["dst"]) for found in _ip(family, "route")}


@pytest.mark.usefixtures("inside")
def test_an_address_delivers_once_it_is_in_force() -> None:
    """A foreign address does not."""
    with RouteSocket() as route:
        route.send([rtnetlink.link_up(rtnetlink.LOOPBACK), rtnetlink.new_address(rtnetlink.LOOPBACK, V4, 32)])
        assert route.delivers(V4)
        assert not route.delivers(addresses("10.1.2.4")[0])
        assert not route.delivers(V6)


@pytest.mark.usefixtures("inside")
def test_a_refusal_says_what_was_asked_and_what_the_kernel_answered() -> None:
    """The kernel's own words are in the error, and the requests before it in the same call are done."""
    with RouteSocket() as route:
        up = rtnetlink.link_up(rtnetlink.LOOPBACK)
        with pytest.raises(HostRefused, match=r"refused to link set 99 up: No such device") as caught:
            route.send([up, rtnetlink.link_up(99), rtnetlink.new_address(rtnetlink.LOOPBACK, V4, 32)])
        assert caught.value.asked == "link set 99 up"
        with pytest.raises(HostRefused, match="No such device: Nexthop device required"):
            route.send([rtnetlink.new_route(ipaddress.ip_network("10.9.0.0/16"), index=77, gateway=V4)])
        assert "UP" in str(_ip("link", "show", "lo")[0]["flags"])


@pytest.mark.usefixtures("inside")
def test_more_requests_than_one_call_holds_are_all_done() -> None:
    """A thousand routes at once."""
    with RouteSocket() as route:
        networks = [ipaddress.ip_network((0x0A000000 + (number << 8), 24)) for number in range(1000)]
        route.send([rtnetlink.new_route(network, kind=rtnetlink.BLACKHOLE) for network in networks])
    assert len(_ip("-4", "route")) == 1000
