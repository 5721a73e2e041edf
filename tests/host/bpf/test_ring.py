# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import select
import struct
from collections.abc import Iterator

import pytest

from ringfence.host.bpf.maps import BpfMap, MapType
from ringfence.host.bpf.objects import BpfObject, Loaded
from ringfence.host.bpf.programs import Runner
from ringfence.host.bpf.ring import RingReader
from tests.host.bpf.conftest import Compile

pytestmark = pytest.mark.kernel

# A packet's first word tells how long the event is to be; 0: reserve one and discard it. Returns 1 if it was lost.
TELLING = """
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } rf_events SEC(".maps");
SEC("tc") int rf_tell(struct __sk_buff *skb) {
  __u32 words[8] = {};
  bpf_skb_load_bytes(skb, 14, words, sizeof(words));
  __u32 length = words[0];
  if (length == 0) {
    void *room = bpf_ringbuf_reserve(&rf_events, 16, 0);
    if (!room) return 1;
    bpf_ringbuf_discard(room, 0);
    return 0;
  }
  if (length > sizeof(words)) return 2;
  return bpf_ringbuf_output(&rf_events, words, length, 0) != 0;
}
"""


@pytest.fixture
def loaded(compiled: Compile) -> Iterator[Loaded]:
    """Yield a program that says what it is told to."""
    with BpfObject(compiled(TELLING)) as opened:
        loaded = opened.load()
    yield loaded
    loaded.close()


def packet(length: int, mark: int) -> bytes:
    """Return a packet that has an event of some length made, and what marks it."""
    return bytes(14) + struct.pack("=8I", length, *(mark,) * 7)


def teller(loaded: Loaded) -> Runner:
    """Return what sends packets through the program."""
    return Runner(loaded.programs["rf_tell"], longest=64)


def test_events_come_whole_and_in_order_round_and_round_the_ring(loaded: Loaded) -> None:
    """Events of any length, over the ring's end too; none twice, none lost, the discarded ones left out."""
    tell = teller(loaded)
    with RingReader(loaded.maps["rf_events"]) as reader:
        assert reader.read() == []
        for number in range(2000):
            length = number * 7 % 33
            assert tell(packet(length, number)) == 0
            if number % 50 == 49:
                batch = [n for n in range(number - 49, number + 1) if n * 7 % 33]
                assert reader.read() == [packet(n * 7 % 33, n)[14:][: n * 7 % 33] for n in batch]
        assert reader.read() == []


def test_what_does_not_fit_is_told_to_the_program_and_the_rest_stays(loaded: Loaded) -> None:
    """A full ring refuses; once it was read there is room again."""
    tell = teller(loaded)
    with RingReader(loaded.maps["rf_events"]) as reader:
        lost = [tell(packet(32, number)) for number in range(200)]

        kept = lost.index(1)
        assert lost == [0] * kept + [1] * (200 - kept)
        assert [event[4:8] for event in reader.read()] == [struct.pack("=I", n) for n in range(kept)]
        assert tell(packet(32, 0)) == 0
        assert len(reader.read()) == 1


def test_what_was_read_is_not_read_again_by_the_next_reader(loaded: Loaded) -> None:
    """The position is in the ring: another reader goes on where the one before ended."""
    tell = teller(loaded)
    ring = loaded.maps["rf_events"]
    tell(packet(8, 1))
    with RingReader(ring) as reader:
        assert len(reader.read()) == 1
    tell(packet(8, 2))
    with RingReader(ring) as reader:
        assert [event[4:] for event in reader.read()] == [struct.pack("=I", 2)]


def test_a_reader_is_ready_while_there_is_something_to_read(loaded: Loaded) -> None:
    """Level-triggered: ready until all was read."""
    tell = teller(loaded)
    with RingReader(loaded.maps["rf_events"]) as reader, select.epoll() as poll:
        poll.register(reader, select.EPOLLIN)
        assert poll.poll(0) == []
        tell(packet(8, 1))
        assert len(poll.poll(1)) == 1
        assert len(poll.poll(0)) == 1
        assert len(reader.read()) == 1
        assert poll.poll(0) == []


async def test_an_event_wakes_an_event_loop(loaded: Loaded) -> None:
    """However the event came to be: every one is read at last."""
    tell = teller(loaded)
    loop = asyncio.get_running_loop()
    with RingReader(loaded.maps["rf_events"]) as reader:
        heard: list[bytes] = []
        done = asyncio.Event()

        def hear() -> None:
            heard.extend(reader.read())
            if len(heard) >= 500:
                done.set()

        loop.add_reader(reader, hear)
        try:
            for number in range(500):
                assert await asyncio.to_thread(tell, packet(8, number)) == 0
            await asyncio.wait_for(done.wait(), 5)
        finally:
            loop.remove_reader(reader)
    assert [struct.unpack("=II", event)[1] for event in heard] == list(range(500))


def test_only_a_ring_buffer_is_read_as_one() -> None:
    """Any other map is a mistake of the caller."""
    other = BpfMap.create(MapType.HASH, key_size=4, value_size=4, max_entries=1, name="rf_table")
    with other, pytest.raises(ValueError, match="rf_table is no ring buffer"):
        RingReader(other)
