# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest

from ringfence.errors import HostRefused
from ringfence.host.bpf.objects import BpfObject
from ringfence.host.bpf.programs import BpfProgram, Runner, counting
from tests.host.bpf.conftest import Compile

pytestmark = pytest.mark.kernel

MARKING = """
SEC("tc") int rf_mark(struct __sk_buff *skb) {
  __u8 first = 0;
  bpf_skb_load_bytes(skb, 20, &first, 1);
  skb->mark += 5;
  first++;
  bpf_skb_store_bytes(skb, 20, &first, 1, 0);
  return first;
}
"""

COUNTING = """
__u32 runs = 0;
SEC("tc") int rf_count(struct __sk_buff *skb) {
  runs += 1;
  return runs;
}
"""


@pytest.fixture
def program(compiled: Compile) -> BpfProgram:
    """Return a program that changes a packet's byte and mark."""
    with BpfObject(compiled(MARKING)) as opened:
        return opened.load().programs["rf_mark"]


def packet(byte: int) -> bytes:
    """Return a packet with a byte in it that the program counts up."""
    return bytes(20) + bytes([byte]) + bytes(43)


def test_a_run_returns_what_the_program_did(program: BpfProgram) -> None:
    """Return value, packet and context after it."""
    context = bytearray(192)
    struct.pack_into("=I", context, 8, 100)

    run = program.test_run(packet(41), context=bytes(context))

    assert run.retval == 42
    assert run.data == packet(42)
    assert struct.unpack_from("=I", run.context, 8) == (105,)


def test_a_runner_gives_each_packet_its_own_answer(program: BpfProgram) -> None:
    """Packets of different lengths, one after the other; a repeated run counts on the same packet."""
    run = Runner(program, longest=100)

    assert [run(packet(byte) + bytes(byte % 30)) for byte in range(255)] == list(range(1, 256))
    assert program.test_run(packet(0), repeat=10).retval == 10


def test_runs_are_counted_while_somebody_wants_it(program: BpfProgram) -> None:
    """With the time that they took."""
    before = program.cost()
    with counting():
        program.test_run(packet(0), repeat=5)
    after = program.cost()

    assert after.runs - before.runs == 5
    assert after.ns > before.ns


def test_a_runner_shows_what_became_of_the_context(program: BpfProgram) -> None:
    """Each packet starts from the context that was given; what the program wrote there can be read."""
    run = Runner(program, longest=100, context=bytes(8) + (37).to_bytes(4, sys.byteorder) + bytes(180))

    for _ in range(2):
        run(packet(1))
        assert run.context_after[8:12] == (42).to_bytes(4, sys.byteorder)


def test_a_runner_runs_a_program_once_for_each_packet(compiled: Compile) -> None:
    """Also for one that is longer than the last."""
    with BpfObject(compiled(COUNTING)) as opened:
        loaded = opened.load()
    run = Runner(loaded.programs["rf_count"], longest=200)

    assert [run(packet(0) + bytes(length)) for length in (0, 50, 10, 20, 50)] == [1, 2, 3, 4, 5]


def test_a_packet_too_short_is_refused(program: BpfProgram) -> None:
    """By the kernel, with its answer, and the next packet is run."""
    run = Runner(program, longest=100)
    with pytest.raises(HostRefused, match="rf_mark cannot be run on a packet: Invalid argument"):
        run(bytes(5))
    with pytest.raises(ValueError, match="structure"):
        run(bytes(101))

    assert run(packet(7)) == 8


def test_a_pinned_program_is_the_same_program(program: BpfProgram, pinned: Path) -> None:
    """By its id and its tag."""
    program.pin(pinned / "rf_mark")

    with BpfProgram.from_pin(pinned / "rf_mark") as found, BpfProgram.from_id(program.id) as same:
        assert (found.id, found.tag, found.name, found.kind) == (program.id, program.tag, program.name, program.kind)
        assert same.tag == program.tag
        assert found.map_ids() == ()
