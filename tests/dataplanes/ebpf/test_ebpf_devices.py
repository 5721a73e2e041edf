# SPDX-License-Identifier: Apache-2.0
"""Programs at devices: every device has its own, whichever came, went or lost it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import click
import pytest

from ringfence.cli import agent, test
from ringfence.dataplanes.ebpf.apply import EbpfDataplane
from ringfence.dataplanes.ebpf.hooks import AUTO, Hooks
from ringfence.dataplanes.ebpf.place import Place
from ringfence.errors import HostRefused
from ringfence.host import netns, process
from ringfence.host.bpf import pins, traffic_control
from ringfence.host.bpf.links import BpfLink, TcxPlace, attach_tcx
from ringfence.host.bpf.programs import AttachType, BpfProgram, ProgramType
from ringfence.host.bpf.traffic_control import Direction
from ringfence.host.devices import Devices
from tests.dataplanes.router import Allow, ingress, make_program

pytestmark = pytest.mark.kernel

CLOSED = make_program(ingress("server"))
OPEN = make_program(ingress("server", Allow(("client",), ("TCP/80",))))
MOST_AT_ONE_PLACE = 63  # linux/bpf_mprog.h, BPF_MPROG_MAX - 1
NEXT = -1  # linux/bpf.h, TCX_NEXT


class Node:
    """A namespace with a device, and engines in it."""

    def __init__(self, name: str, stack: ExitStack) -> None:
        self.name = name
        self._stack = stack
        for each in (name, f"{name}-far"):
            netns.delete(each)
            netns.create(each)
            stack.callback(netns.delete, each)
        self.add("one")
        self.place = self.placed("auto")
        stack.callback(self.place.clear)

    def ip(self, *arguments: str) -> None:
        """Run ``ip`` in it."""
        with netns.enter(self.name):
            process.run(["ip", *arguments])

    def add(self, device: str, *arguments: str) -> None:
        """Make a device whose other end is elsewhere."""
        self.ip("link", "add", device, *arguments, "type", "veth", "peer", "name", device, "netns", f"{self.name}-far")

    def placed(self, hooks: str) -> Place:
        """Return the place, as somebody finds it."""
        with netns.enter(self.name):
            return Place(hooks=hooks)

    def engine(self, hooks: str) -> EbpfDataplane:
        """Return the engine of an agent."""
        made = EbpfDataplane(self.placed(hooks))
        self._stack.callback(made.close)
        return made

    def index(self, device: str) -> int:
        """Return the number of a device."""
        with netns.enter(self.name):
            return socket.if_nametoindex(device)

    def guarded(self) -> dict[int, str]:
        """Return which program each pinned link runs at the exit of which device."""
        found = {}
        for name in pins.listing(self.folder()):
            if name.startswith("device_exit_"):
                with BpfLink.from_pin(self.folder() / name) as link:
                    place = link.now().place
                    assert isinstance(place, TcxPlace)
                    found[place.index] = name
        return found

    def folder(self) -> Path:
        """Return where the one instance is pinned."""
        (found,) = [each for each in self.place.folder.iterdir() if each.is_dir()]
        return found


@pytest.fixture
def node() -> Iterator[Node]:
    """Yield a node with one device."""
    with ExitStack() as stack:
        yield Node(f"rf-devices-{os.getpid()}", stack)


def test_a_device_that_comes_later_is_guarded_once_anything_is_applied_or_looked_at(node: Node) -> None:
    """The same program again is enough; so is what an agent does when the kernel tells of a device."""
    engine = node.engine("tc")
    engine.apply(CLOSED)
    assert set(node.guarded()) == {node.index("one")}

    node.add("two")
    assert engine.apply(CLOSED).transactions == 0
    assert set(node.guarded()) == {node.index("one"), node.index("two")}

    node.add("three")
    assert engine.drifted() is False
    assert set(node.guarded()) == {node.index(each) for each in ("one", "two", "three")}


def test_the_kernel_tells_of_a_device_at_once(node: Node) -> None:
    """What an agent waits for is readable before anybody can use the device."""
    with netns.enter(node.name):
        devices = Devices()
    try:
        assert not devices.touched()
        node.add("two")
        assert devices.touched()
        assert not devices.touched()
        assert [each.name for each in devices.listing() if not each.loopback] == ["one", "two"]
    finally:
        devices.close()


def test_loopback_and_bridges_need_no_program_and_ports_do(node: Node) -> None:
    """What leaves through a bridge leaves through one of its ports."""
    node.ip("link", "add", "bridge", "type", "bridge")
    node.ip("link", "set", "one", "master", "bridge")

    node.engine("tc").apply(CLOSED)

    assert set(node.guarded()) == {node.index("one")}


def test_a_device_that_goes_takes_its_pin_with_it(node: Node) -> None:
    """Nothing is left that a device which gets the same number could be taken for."""
    engine = node.engine("tc")
    engine.apply(CLOSED)
    index = node.index("one")

    node.ip("link", "delete", "one")
    engine.apply(CLOSED)
    assert node.guarded() == {}

    node.add("again", "index", str(index))
    engine.apply(CLOSED)
    assert set(node.guarded()) == {index}


def test_a_program_that_somebody_takes_off_a_device_is_put_back(node: Node) -> None:
    """It is drift, as at every other hook."""
    engine = node.engine("tc")
    engine.apply(CLOSED)
    index = node.index("one")
    with BpfLink.from_pin(node.folder() / f"device_exit_{index}") as link:
        link.detach()

    assert engine.drifted()
    assert engine.apply(CLOSED).repaired
    assert set(node.guarded()) == {index}
    assert engine.drifted() is False


def test_a_later_agent_takes_over_what_is_at_devices(node: Node) -> None:
    """Nothing is attached twice, and what came meanwhile is guarded before it says that the program is in force."""
    node.engine("tc").apply(CLOSED)
    before = node.guarded()
    node.add("two")

    assert node.engine("tc").apply(CLOSED).transactions == 0

    assert node.guarded() == before | {node.index("two"): f"device_exit_{node.index('two')}"}


def test_a_device_that_cannot_be_guarded_is_a_refusal_and_no_hole(node: Node) -> None:
    """The program is not in force then, and the device is named; once there is room it is."""
    engine = node.engine("tc")
    engine.apply(CLOSED)
    node.add("full")
    with ExitStack() as taken:
        with netns.enter(node.name):
            for _ in range(MOST_AT_ONE_PLACE):
                program = taken.enter_context(BpfProgram.constant(NEXT, ProgramType.SCHED_CLS))
                place = TcxPlace(node.index("full"), AttachType.TCX_EGRESS)
                taken.enter_context(attach_tcx(program, place))

        for _ in range(2):
            with pytest.raises(HostRefused, match="the device full cannot be guarded"):
                engine.apply(OPEN)
    engine.apply(OPEN)

    assert node.index("full") in node.guarded()


@pytest.mark.parametrize("other", ["netfilter", "tc-alone"])
def test_another_hook_takes_over_and_leaves_nothing_of_the_first(node: Node, other: str) -> None:
    """To and fro: one instance each time, and its programs at every device that needs them."""
    for hooks in ("tc", other, "tc"):
        node.engine(hooks).apply(CLOSED)

        assert hooks in node.folder().name
        with netns.enter(node.name):
            filters = [each for way in Direction for each in traffic_control.listing(node.index("one"), way)]
        assert len(filters) == (2 if hooks == "tc-alone" else 0)
        assert set(node.guarded()) == ({node.index("one")} if hooks == "tc" else set())


def test_programs_at_devices_alone_are_found_again_and_taken_away_by_who_never_put_them_there(node: Node) -> None:
    """Filters have no pins: the programs' pins tell which are ours."""
    node.engine("tc-alone").apply(CLOSED)
    node.engine("tc-alone").apply(CLOSED)
    with netns.enter(node.name):
        filters = [each for way in Direction for each in traffic_control.listing(node.index("one"), way)]
    assert len(filters) == 2

    node.engine("auto").remove()

    with netns.enter(node.name):
        assert [each for way in Direction for each in traffic_control.listing(node.index("one"), way)] == []


@pytest.mark.parametrize("seen", [False, True])
def test_auto_goes_to_devices_when_a_bridge_passes_netfilter_by(node: Node, seen: bool) -> None:  # noqa: FBT001
    """And stays at netfilter's hooks, which cost less, while those see what the bridge passes on."""
    engine = node.engine("auto")
    engine.apply(CLOSED)
    assert "-netfilter-" in node.folder().name

    node.ip("link", "add", "bridge", "type", "bridge")
    with netns.enter(node.name):
        for each in ("iptables", "ip6tables"):
            Path(f"/proc/sys/net/bridge/bridge-nf-call-{each}").write_text(str(int(seen)))
    node.ip("link", "set", "one", "master", "bridge")

    assert engine.drifted() is not seen
    engine.apply(CLOSED)
    assert engine.hook.name == (Hooks.NETFILTER if seen else Hooks.TC).value
    assert set(node.guarded()) == (set() if seen else {node.index("one")})


@pytest.mark.parametrize("command", [agent.command, test.command], ids=["agent", "test"])
def test_every_way_to_stand_can_be_asked_for(command: click.Command) -> None:
    """The commands' words are those of the engine, and it takes each of them."""
    (option,) = [each for each in command.params if each.name == "ebpf_hook"]

    assert isinstance(option.type, click.Choice)
    assert list(option.type.choices) == [AUTO, *(hooks.value for hooks in Hooks)]
