# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import random
import struct
from pathlib import Path

import pytest

from ringfence.errors import HostRefused
from ringfence.host.bpf import maps
from ringfence.host.bpf.maps import BpfMap, Existing, MapFlag, MapType, possible_cpus
from ringfence.host.bpf.syscall import NOT_SUPPORTED, attempt

pytestmark = pytest.mark.kernel

TABLES = [MapType.HASH, MapType.LPM_TRIE]


def table(kind: MapType, entries: int) -> BpfMap:
    """Return an empty map from prefixes of 32 bits, or any eight bytes, to eight bytes."""
    flags = MapFlag.NO_PREALLOC if kind == MapType.LPM_TRIE else 0
    return BpfMap.create(kind, key_size=8, value_size=8, max_entries=entries, flags=flags, name="rf_table")


def entries(count: int) -> dict[bytes, bytes]:
    """Return distinct entries, as fit for a hash as for a trie."""
    addresses = random.Random(7).sample(range(1 << 32), count)
    return {struct.pack("=I4s", 32, a.to_bytes(4, "big")): struct.pack("=Q", n) for n, a in enumerate(addresses)}


@pytest.fixture(params=[0, errno.EINVAL, NOT_SUPPORTED], ids=["batches", "unknown command", "unknown for the type"])
def batches(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the kernel do many at once, or answer as one that cannot (before 5.6, or 5.13 for tries)."""
    if request.param:
        monkeypatch.setattr(
            maps, "attempt", lambda command, attr: -request.param if "BATCH" in command.name else attempt(command, attr)
        )


def test_one_key_is_set_read_and_taken_out() -> None:
    """A missing key is None to a reader and False to who takes it out."""
    with table(MapType.HASH, 4) as made:
        made.update(b"somewhat", b"12345678")

        assert made.lookup(b"somewhat") == b"12345678"
        assert made.lookup(b"nothing.") is None
        assert (made.delete(b"somewhat"), made.delete(b"somewhat")) == (True, False)


def test_an_update_can_insist_that_a_key_is_new_or_old() -> None:
    """Each refusal says why."""
    with table(MapType.HASH, 4) as made:
        with pytest.raises(HostRefused, match="No such file"):
            made.update(b"somewhat", b"12345678", Existing.MUST_BE)
        made.update(b"somewhat", b"12345678", Existing.MUST_NOT_BE)
        with pytest.raises(HostRefused, match="rf_table cannot be written: File exists"):
            made.update(b"somewhat", b"87654321", Existing.MUST_NOT_BE)

        assert made.lookup(b"somewhat") == b"12345678"


@pytest.mark.usefixtures("batches")
@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("count", [0, 1, 3000])
def test_many_entries_are_written_read_and_taken_out(kind: MapType, count: int) -> None:
    """A dump holds every entry once; keys that are not there are passed over."""
    wanted = entries(count)
    with table(kind, 4096) as made:
        made.update_many(b"".join(wanted), b"".join(wanted.values()))

        assert sorted(made.items()) == sorted(wanted.items())

        every_other = list(wanted)[::2]
        strange = [struct.pack("=I4s", 31, bytes(4)), struct.pack("=I4s", 30, bytes(4))]
        assert made.delete_many(b"".join([strange[0], *every_other, *every_other, strange[1]])) == len(every_other)
        assert sorted(key for key, _ in made.items()) == sorted(set(wanted) - set(every_other))


def test_a_dump_is_complete_however_the_buckets_are_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hash answers by whole buckets: one that does not fit is asked for again with more room."""
    monkeypatch.setattr(maps, "_AT_ONCE", 1)
    wanted = entries(2000)
    with table(MapType.HASH, 2048) as made:
        made.update_many(b"".join(wanted), b"".join(wanted.values()))

        assert dict(made.items()) == wanted
        assert len(made.dump()[0]) == 8 * len(wanted)


@pytest.mark.usefixtures("batches")
def test_a_map_that_is_full_says_how_far_it_got() -> None:
    """What was written before stays, and the error counts it."""
    wanted = entries(20)
    with table(MapType.LPM_TRIE, 16) as made:
        with pytest.raises(HostRefused, match="16 of 20 entries were written, then the kernel refused: No space left"):
            made.update_many(b"".join(wanted), b"".join(wanted.values()))

        assert dict(made.items()) == dict(list(wanted.items())[:16])


def test_keys_and_values_of_the_wrong_length_are_a_mistake_of_the_caller() -> None:
    """Nothing is read past the end of what was given."""
    with table(MapType.HASH, 4) as made:
        for mistake in (
            lambda: made.lookup(b"short"),
            lambda: made.update(bytes(8), bytes(7)),
            lambda: made.update_many(bytes(12), bytes(8)),
            lambda: made.update_many(bytes(16), bytes(8)),
            lambda: made.delete_many(bytes(9)),
        ):
            with pytest.raises(ValueError, match="rf_table"):
                mistake()


def test_an_array_can_be_written_as_memory() -> None:
    """What is stored in the mapping is in the map at once, and vice versa; a read-only mapping takes nothing."""
    with BpfMap.create(
        MapType.ARRAY, key_size=4, value_size=12, max_entries=1000, flags=MapFlag.MMAPABLE, name="rf_cells"
    ) as made:
        with made.mapped(writable=True) as memory:
            memory[16 * 999 : 16 * 999 + 12] = b"twelve bytes"
            assert made.lookup(struct.pack("=I", 999)) == b"twelve bytes"
        made.update(bytes(4), b"other twelve")
        with made.mapped() as memory:
            assert memory[:12] == b"other twelve"
            with pytest.raises(TypeError):
                memory[0] = 1


def test_a_map_that_is_no_memory_is_not_mapped() -> None:
    """The refusal names the map."""
    with table(MapType.HASH, 4) as made, pytest.raises(HostRefused, match="rf_table cannot be mapped"):
        made.mapped()


def test_values_per_processor_are_all_read() -> None:
    """One value for each possible processor, each padded to eight bytes."""
    with BpfMap.create(MapType.PERCPU_ARRAY, key_size=4, value_size=4, max_entries=2, name="rf_counters") as made:
        assert made.value_bytes == 8 * possible_cpus()
        value = struct.pack(f"={2 * possible_cpus()}I", *range(2 * possible_cpus()))
        made.update(bytes(4), value)

        read = made.lookup(bytes(4))
        assert read is not None
        assert struct.unpack(f"={2 * possible_cpus()}I", read)[::2] == tuple(range(0, 2 * possible_cpus(), 2))
        assert len(made.dump()[1]) == 2 * made.value_bytes


def test_a_pinned_map_outlives_its_maker(pinned: Path) -> None:
    """It is found by its pin, and by its id, with all that is in it."""
    with table(MapType.HASH, 4) as made:
        made.update(b"somewhat", b"12345678")
        made.pin(pinned / "rf_table")
        number = made.id

    with BpfMap.from_pin(pinned / "rf_table") as found, BpfMap.from_id(number) as same:
        assert found.id == same.id == number
        assert found.name == "rf_table"
        assert found.lookup(b"somewhat") == b"12345678"


def test_a_map_ends_with_its_last_holder() -> None:
    """Its id names nothing then."""
    made = table(MapType.HASH, 4)
    number = made.id
    made.close()

    with pytest.raises(HostRefused, match=f"there is no map with id {number}"):
        BpfMap.from_id(number)
