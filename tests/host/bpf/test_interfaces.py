# SPDX-License-Identifier: Apache-2.0
"""Programs at interfaces: as TCX links, and as filters of traffic control."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.errors import HostRefused
from ringfence.host import netns, process
from ringfence.host.bpf import traffic_control
from ringfence.host.bpf.links import Among, BpfLink, TcxPlace, attach_tcx
from ringfence.host.bpf.objects import BpfObject
from ringfence.host.bpf.programs import AttachType, BpfProgram
from ringfence.host.bpf.traffic_control import Direction, Filter, FilterPlace
from tests.host.bpf.conftest import Compile

pytestmark = pytest.mark.kernel

VERDICTS = """
SEC("tc") int rf_next(struct __sk_buff *skb) { return -1; }
SEC("tc") int rf_pass(struct __sk_buff *skb) { return 0; }
SEC("tc") int rf_drop(struct __sk_buff *skb) { return 2; }
"""
LOOPBACK = 1
INGRESS = TcxPlace(LOOPBACK, AttachType.TCX_INGRESS)
FILTER = FilterPlace(LOOPBACK, Direction.INGRESS, 7)

Programs = dict[str, BpfProgram]


@pytest.fixture
def programs(compiled: Compile) -> Iterator[Programs]:
    """Yield programs with all the verdicts."""
    with BpfObject(compiled(VERDICTS)) as opened:
        loaded = opened.load()
    yield loaded.programs
    loaded.close()


def arrives(namespace: str) -> bool:
    """Send a datagram over a namespace's loopback, and tell whether it comes in."""
    with netns.enter(namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(0.1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"?", receiver.getsockname())
        try:
            return receiver.recv(1) == b"?"
        except TimeoutError:
            return False


def test_a_tcx_link_decides_about_packets_of_its_interface(namespace: str, programs: Programs) -> None:
    """A program that drops does; replaced by one that lets pass, packets pass; gone with the link."""
    drop, let = programs["rf_drop"], programs["rf_pass"]
    with netns.enter(namespace):
        link = attach_tcx(drop, INGRESS)
    assert not arrives(namespace)
    assert (link.now().place, link.now().program_id) == (INGRESS, drop.id)

    link.replace(let, instead_of=drop)
    assert arrives(namespace)
    assert link.now().program_id == let.id
    with pytest.raises(HostRefused, match="cannot be replaced by rf_drop: Operation not permitted"):
        link.replace(drop, instead_of=drop)
    link.replace(drop)
    assert not arrives(namespace)

    link.close()
    assert arrives(namespace)


def test_a_tcx_program_goes_before_or_behind_the_others(namespace: str, programs: Programs) -> None:
    """The first one that decides has decided."""
    with netns.enter(namespace), attach_tcx(programs["rf_drop"], INGRESS):
        with attach_tcx(programs["rf_pass"], INGRESS, Among.LAST):
            assert not arrives(namespace)
        with attach_tcx(programs["rf_pass"], INGRESS, Among.FIRST):
            assert arrives(namespace)
        with attach_tcx(programs["rf_next"], INGRESS, Among.FIRST):
            assert not arrives(namespace)
        with pytest.raises(HostRefused, match="rf_drop cannot be attached at interface 1, TCX_INGRESS: File exists"):
            attach_tcx(programs["rf_drop"], INGRESS)


def test_a_pinned_tcx_link_tells_that_its_interface_is_gone(namespace: str, programs: Programs, pinned: Path) -> None:
    """It lives on without a place, and can neither be moved nor used."""
    with netns.enter(namespace):
        process.run(["ip", "link", "add", "rfa", "type", "veth", "peer", "name", "rfb"])
        place = TcxPlace(socket.if_nametoindex("rfa"), AttachType.TCX_EGRESS)
        with attach_tcx(programs["rf_drop"], place) as link:
            link.pin(pinned / "rf_link")
        process.run(["ip", "link", "delete", "rfa"])

    with BpfLink.from_pin(pinned / "rf_link") as found:
        assert found.now().place == TcxPlace(0, AttachType.TCX_EGRESS)
        assert not found.attached(programs["rf_pass"])
        with pytest.raises(HostRefused, match="cannot be replaced"):
            found.replace(programs["rf_pass"])


def test_a_filter_decides_about_packets_of_its_interface(namespace: str, programs: Programs) -> None:
    """The same with traffic control: attached, replaced in its place, taken away; twice does no harm."""
    with netns.enter(namespace):
        traffic_control.detach(FILTER)
        traffic_control.attach(programs["rf_drop"], FILTER)
        assert not arrives(namespace)

        traffic_control.attach(programs["rf_pass"], FILTER)
        assert arrives(namespace)
        assert traffic_control.listing(LOOPBACK, Direction.INGRESS) == [
            Filter(FILTER, "rf_pass", programs["rf_pass"].id)
        ]

        traffic_control.attach(programs["rf_drop"], FILTER)
        traffic_control.detach(FILTER)
        traffic_control.detach(FILTER)
        assert arrives(namespace)


def test_filters_are_listed_in_the_order_that_packets_meet_them(namespace: str, programs: Programs) -> None:
    """By priority; another classifier's are passed over; each direction by itself."""
    first, last = FilterPlace(LOOPBACK, Direction.INGRESS, 3, 9), FilterPlace(LOOPBACK, Direction.INGRESS, 8, 2)
    other = FilterPlace(LOOPBACK, Direction.EGRESS, 5)
    with netns.enter(namespace):
        assert traffic_control.listing(LOOPBACK, Direction.INGRESS) == []
        for place in (last, other, first):
            traffic_control.attach(programs["rf_next"], place)
        classic = ["bpf", "bytecode", "1,6 0 0 0,", "flowid", "1:1"]
        process.run(["tc", "filter", "add", "dev", "lo", "ingress", "prio", "5", *classic])

        assert [f.place for f in traffic_control.listing(LOOPBACK, Direction.INGRESS)] == [first, last]
        assert [f.place for f in traffic_control.listing(LOOPBACK, Direction.EGRESS)] == [other]


def test_there_is_no_filter_at_an_interface_that_is_not_there(namespace: str, programs: Programs) -> None:
    """Nothing to list, nothing to detach; attaching is refused with the place."""
    nowhere = FilterPlace(4711, Direction.EGRESS, 1)
    with netns.enter(namespace):
        assert traffic_control.listing(4711, Direction.EGRESS) == []
        traffic_control.detach(nowhere)
        with pytest.raises(HostRefused, match="interface 4711 egress"):
            traffic_control.attach(programs["rf_pass"], nowhere)
