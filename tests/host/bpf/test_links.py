# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.errors import HostRefused
from ringfence.host import netns, process
from ringfence.host.bpf import pins
from ringfence.host.bpf.links import BpfLink, Family, Hook, NetfilterPlace, attach_netfilter
from ringfence.host.bpf.maps import BpfMap
from ringfence.host.bpf.objects import BpfObject, Loaded
from ringfence.host.bpf.programs import AttachType, BpfProgram, ProgramType, Runner
from tests.host.bpf.conftest import Compile

pytestmark = pytest.mark.kernel

HOOKS = """
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 8); __type(key, __u32); __type(value, __u64); }
  rf_seen SEC(".maps");
SEC("netfilter") int rf_count(struct bpf_nf_ctx *ctx) {
  __u32 key = ctx->state->hook;
  __u64 *count = bpf_map_lookup_elem(&rf_seen, &key);
  if (count) __sync_fetch_and_add(count, 1);
  return 1;
}
SEC("netfilter") int rf_drop(struct bpf_nf_ctx *ctx) { return 0; }
"""
OUT = NetfilterPlace(Family.IPV4, Hook.LOCAL_OUT, -7)


@pytest.fixture
def loaded(compiled: Compile) -> Iterator[Loaded]:
    """Yield one program that counts packets by hook, and one that drops them."""
    with BpfObject(compiled(HOOKS)) as opened:
        for name in opened.programs:
            opened.set_type(name, ProgramType.NETFILTER, AttachType.NETFILTER)
        loaded = opened.load()
    yield loaded
    loaded.close()


def passes(namespace: str) -> bool:
    """Send a datagram to this namespace's own loopback, and tell whether it was let out."""
    with netns.enter(namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            try:
                sender.sendto(b"?", receiver.getsockname())
            except PermissionError:
                return False
    return True


def seen(loaded: Loaded, hook: Hook) -> int:
    """Return how many packets were counted at a hook."""
    value = loaded.maps["rf_seen"].lookup(struct.pack("=I", hook))
    assert value is not None
    return int(struct.unpack("=Q", value)[0])


def test_a_program_is_run_while_its_link_is_held(namespace: str, loaded: Loaded) -> None:
    """Packets of the namespace pass the program or are dropped by it, and no longer when the link is closed."""
    with netns.enter(namespace):
        count = attach_netfilter(loaded.programs["rf_count"], OUT)
    assert passes(namespace)
    assert seen(loaded, Hook.LOCAL_OUT) == 1

    with netns.enter(namespace):
        drop = attach_netfilter(loaded.programs["rf_drop"], NetfilterPlace(Family.IPV4, Hook.LOCAL_OUT, -6))
    assert not passes(namespace)
    assert seen(loaded, Hook.LOCAL_OUT) == 2

    drop.close()
    count.close()
    assert passes(namespace)
    assert seen(loaded, Hook.LOCAL_OUT) == 2


def test_a_link_tells_its_program_and_place(namespace: str, loaded: Loaded) -> None:
    """Whoever finds it knows which program is where."""
    program = loaded.programs["rf_count"]
    with netns.enter(namespace), attach_netfilter(program, OUT) as link:
        info = link.now()

        assert (info.program_id, info.place) == (program.id, OUT)
        with BpfLink.from_id(info.id) as same:
            assert same.now() == info


def test_a_place_is_taken_by_one_program(namespace: str, loaded: Loaded) -> None:
    """The refusal says where; another family, hook or namespace is another place."""
    program = loaded.programs["rf_count"]
    with netns.enter(namespace), attach_netfilter(program, OUT):
        with pytest.raises(HostRefused, match="rf_count cannot be attached at IPV4 LOCAL_OUT, priority -7"):
            attach_netfilter(program, OUT)
        attach_netfilter(program, NetfilterPlace(Family.IPV6, Hook.LOCAL_OUT, -7)).close()
        netns.in_fresh(lambda: attach_netfilter(program, OUT).close())


def test_a_pinned_link_outlives_its_maker(namespace: str, loaded: Loaded, pinned: Path) -> None:
    """The program drops on, until the pin is taken away; then its place is free."""
    with netns.enter(namespace), attach_netfilter(loaded.programs["rf_drop"], OUT) as link:
        link.pin(pinned / "rf_link")
    assert not passes(namespace)

    with BpfLink.from_pin(pinned / "rf_link") as found:
        assert found.now().place == OUT
    assert not passes(namespace)
    pins.unlink(pinned / "rf_link")

    assert passes(namespace)


def test_a_link_keeps_its_namespace_alive(namespace: str, loaded: Loaded) -> None:
    """Its name gone, the namespace and what is in it stay until the link goes: then it ends."""
    other = f"{namespace}-other"
    netns.create(other)
    with netns.enter(namespace):
        process.run(["ip", "link", "add", "rfa", "type", "veth", "peer", "name", "rfb", "netns", other])
    with netns.enter(other):
        link = attach_netfilter(loaded.programs["rf_count"], OUT)
    netns.delete(other)
    time.sleep(0.1)

    with netns.enter(namespace):
        assert socket.if_nametoindex("rfa")
        link.close()
        assert gone("rfa")


def gone(name: str) -> bool:
    """Wait until there is no interface of a name, as long as that may take."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if name not in {found for _, found in socket.if_nameindex()}:
            return True
        time.sleep(0.01)
    return False


def test_a_netfilter_program_can_be_run_on_a_packet_of_ours(loaded: Loaded) -> None:
    """It answers as at its hook: accept or drop. The packet has an Ethernet header, and no connection."""
    packet = bytes(12) + b"\x08\x00" + b"\x45" + bytes(59)

    assert loaded.programs["rf_drop"].test_run(packet).retval == 0
    assert loaded.programs["rf_count"].test_run(packet, repeat=7).retval == 1
    assert [Runner(loaded.programs["rf_count"], longest=100)(packet) for _ in range(3)] == [1, 1, 1]
    assert sum(seen(loaded, hook) for hook in Hook) == 10


def test_a_detached_link_stays_detached(namespace: str, loaded: Loaded, pinned: Path) -> None:
    """Taken away from the hook while others hold it, though it tells its place; another one can have that."""
    with netns.enter(namespace), attach_netfilter(loaded.programs["rf_drop"], OUT) as link:
        link.pin(pinned / "rf_link")
        accepting = loaded.programs["rf_count"]
        assert link.attached(accepting)
        link.detach()

        assert passes(namespace)
        assert link.now().place == OUT
        assert not link.attached(accepting)
        with attach_netfilter(accepting, OUT):
            assert passes(namespace)


def test_the_program_of_a_netfilter_link_is_not_replaced(namespace: str, loaded: Loaded) -> None:
    """The kernel has no such thing, and the old program stays."""
    with netns.enter(namespace), attach_netfilter(loaded.programs["rf_drop"], OUT) as link:
        with pytest.raises(HostRefused, match="cannot be replaced by rf_count"):
            link.replace(loaded.programs["rf_count"])

        assert not passes(namespace)


def test_a_pin_of_another_kind_is_refused(loaded: Loaded, pinned: Path) -> None:
    """A map is no link and no program."""
    loaded.maps["rf_seen"].pin(pinned / "rf_seen")

    with pytest.raises(HostRefused, match="is no link: anon_inode:bpf-map"):
        BpfLink.from_pin(pinned / "rf_seen")
    with pytest.raises(HostRefused, match="is no program"):
        BpfProgram.from_pin(pinned / "rf_seen")
    with pytest.raises(HostRefused, match="there is no map pinned at"):
        BpfMap.from_pin(pinned / "rf_other")
