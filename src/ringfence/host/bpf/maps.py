# SPDX-License-Identifier: Apache-2.0
"""Maps: tables that programs in the kernel and processes share. Keys and values are bytes here; others know them.

One operation costs a few microseconds, most of it the way into the kernel; the operations on many at once cost less
than one each. None of these is atomic over several keys: who needs that flips one value that decides which of the
others count.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn, Self

from ringfence.errors import HostRefused
from ringfence.host.bpf.syscall import NOT_SUPPORTED, Buffer, Command, Handle, attempt, buffer, call, refusal, room

_NO_BATCH = frozenset({NOT_SUPPORTED, errno.EOPNOTSUPP, errno.EINVAL})
_AT_ONCE = 1 << 14  # entries asked for in one system call
_ATTEMPTS = 20  # at a call that another one's change interrupted


class MapType(enum.IntEnum):
    """linux/bpf.h, enum bpf_map_type: those that are known here by name."""

    HASH = 1
    ARRAY = 2
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    LPM_TRIE = 11
    RINGBUF = 27


_PER_CPU = frozenset({MapType.PERCPU_HASH, MapType.PERCPU_ARRAY})


class MapFlag(enum.IntFlag):
    """linux/bpf.h, flags of BPF_MAP_CREATE: those that are used here."""

    NO_PREALLOC = 1
    MMAPABLE = 1 << 10


class Existing(enum.IntEnum):
    """What an update does about a key that is there already: linux/bpf.h, flags of BPF_MAP_UPDATE_ELEM."""

    ANY = 0
    MUST_NOT_BE = 1
    MUST_BE = 2


class BpfMap(Handle):
    """One map. ``kind`` is a ``MapType``, or the bare number of one that has no name here.

    ``value_bytes`` is the length of one value as it is read and written: of a map per processor, the values of all
    possible processors one after the other, each padded to eight bytes.
    """

    KIND = "map"
    _INODE = "map"
    _BY_ID = Command.MAP_GET_FD_BY_ID

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        fields = struct.unpack_from("=IIIIII16s", self.info(80))
        self.kind = int(fields[0])
        self.id, self.key_size, self.value_size, self.max_entries, self.flags = map(int, fields[1:6])
        self.name = fields[6].rstrip(b"\0").decode()
        self.value_bytes = self.value_size
        if self.kind in _PER_CPU:
            self.value_bytes = (self.value_size + 7 & ~7) * possible_cpus()

    @classmethod
    def create(
        cls, kind: MapType, *, key_size: int, value_size: int, max_entries: int, flags: int = 0, name: str = ""
    ) -> Self:
        """Make a map that belongs to no object file."""
        attr = struct.pack("=IIIIIII16s", kind, key_size, value_size, max_entries, flags, 0, 0, name.encode()[:15])
        return cls(call(Command.MAP_CREATE, attr, f"the map {name} cannot be made"))

    def lookup(self, key: bytes) -> bytes | None:
        """Return the value of a key, or None if there is none."""
        value = room(self.value_bytes)
        result = self._single(Command.MAP_LOOKUP_ELEM, self._key(key), value)
        if result == -errno.ENOENT:
            return None
        self._check(Command.MAP_LOOKUP_ELEM, result, "be read")
        return value.raw

    def update(self, key: bytes, value: bytes, flags: Existing = Existing.ANY) -> None:
        """Set the value of a key."""
        result = self._single(Command.MAP_UPDATE_ELEM, self._key(key), self._value(value), flags)
        self._check(Command.MAP_UPDATE_ELEM, result, "be written")

    def delete(self, key: bytes) -> bool:
        """Take a key out; False if it was not there."""
        result = self._single(Command.MAP_DELETE_ELEM, self._key(key))
        if result == -errno.ENOENT:
            return False
        self._check(Command.MAP_DELETE_ELEM, result, "be written")
        return True

    def update_many(self, keys: bytes, values: bytes) -> None:
        """Set the values of many keys, given one after the other; in their order, and not all at once.

        Raises ``HostRefused`` with how many were set before the one that was not.
        """
        count = self._count(keys)
        if len(values) != count * self.value_bytes:
            raise ValueError(f"{self.name}: {count} keys, {len(values)} bytes of values of {self.value_bytes} each")
        key, value = buffer(keys), buffer(values)
        done, number = self._batch(Command.MAP_UPDATE_BATCH, key, value, start=0, count=count)
        if number in _NO_BATCH:
            number = 0
            while done < count and number == 0:
                number = -self._single(Command.MAP_UPDATE_ELEM, key, value, at=done)
                done += number == 0
        if number:
            self._stopped(Command.MAP_UPDATE_BATCH, number, f"{done} of {count} entries were written")

    def delete_many(self, keys: bytes) -> int:
        """Take many keys out, given one after the other; return how many of them were there.

        Raises ``HostRefused`` with how far it got.
        """
        count, key = self._count(keys), buffer(keys)
        place = found = 0
        while place < count:
            done, number = self._batch(Command.MAP_DELETE_BATCH, key, None, start=place, count=count - place)
            place, found = place + done, found + done
            if number in _NO_BATCH:
                number = -self._single(Command.MAP_DELETE_ELEM, key, at=place)
                found += number == 0
            if number not in {0, errno.ENOENT}:
                self._stopped(Command.MAP_DELETE_BATCH, number, f"{place} of {count} keys were taken out")
            place += place < count  # past the one that was not there, or that was taken out by itself
        return found

    def dump(self) -> tuple[bytes, bytes]:
        """Return all keys and all values, each one after the other in the same order.

        Complete if nobody writes meanwhile. Else what was there all the time is in it once or more, unless it was a
        trie (LPM): there a key that is deleted meanwhile may begin the walk anew.
        """
        keys, values = bytearray(), bytearray()
        for some_keys, some_values in self._chunks():
            keys += some_keys
            values += some_values
            if len(keys) > self._most() * self.key_size:
                raise self._restless()
        return bytes(keys), bytes(values)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield all keys with their values: what ``dump`` returns."""
        keys, values = self.dump()
        for number in range(len(keys) // self.key_size):
            key, value = number * self.key_size, number * self.value_bytes
            yield keys[key : key + self.key_size], values[value : value + self.value_bytes]

    def mapped(self, *, writable: bool = False) -> mmap.mmap:
        """Return the values of an array (made with ``MapFlag.MMAPABLE``) as memory that the programs share.

        Each value begins at a multiple of eight bytes. The caller closes it. A naturally aligned store of up to eight
        bytes, through a ``memoryview`` cast to that size, is seen whole or not at all.
        """
        size = self.max_entries * (self.value_size + 7 & ~7)
        access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        try:
            return mmap.mmap(self.fd, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE, flags=mmap.MAP_SHARED, prot=access)
        except OSError as error:
            raise HostRefused(
                f"the map {self.name} cannot be mapped", asked=f"mmap {size}", answered=error.strerror or ""
            ) from None

    def _chunks(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield keys and values, some at a time; one by one if the kernel cannot do it otherwise."""
        count, attempts, began = min(self.max_entries, _AT_ONCE), 0, False
        size = max(self.key_size, 8)  # where the kernel is to go on: a key, or a number of its own
        place, following = room(size), room(size)
        while attempts < _ATTEMPTS:
            keys, values = room(count * self.key_size), room(count * self.value_bytes)
            places = (ctypes.addressof(place) if began else 0, ctypes.addressof(following))
            pointers = (ctypes.addressof(keys), ctypes.addressof(values))
            got, number = self._many(Command.MAP_LOOKUP_BATCH, *places, *pointers, count)
            if number in _NO_BATCH and not began:
                yield from self._one_by_one()
                return
            if number in {errno.ENOSPC, errno.EINTR, errno.EAGAIN}:
                attempts += 1
                count *= 2 if number == errno.ENOSPC else 1  # one bucket of a hash holds more
                continue
            if number not in {0, errno.ENOENT}:
                raise refusal(Command.MAP_LOOKUP_BATCH, number, f"the map {self.name} cannot be read")
            yield keys.raw[: got * self.key_size], values.raw[: got * self.value_bytes]
            if number == errno.ENOENT:
                return
            place, following, began, attempts = following, place, True, 0
        raise self._restless()

    def _one_by_one(self) -> Iterator[tuple[bytes, bytes]]:
        key, following, first = room(self.key_size), room(self.key_size), True
        for _ in range(self._most()):
            attr = struct.pack(
                "=IxxxxQQQ", self.fd, 0 if first else ctypes.addressof(key), ctypes.addressof(following), 0
            )
            result = attempt(Command.MAP_GET_NEXT_KEY, buffer(attr))
            if result == -errno.ENOENT:
                return
            self._check(Command.MAP_GET_NEXT_KEY, result, "be read")
            value = self.lookup(following.raw)
            if value is not None:
                yield following.raw, value
            key, following, first = following, key, False
        raise self._restless()

    def _most(self) -> int:
        """Return how many entries are read before one gives up: more than there are without somebody who writes."""
        return 2 * (self.max_entries + _AT_ONCE)

    def _restless(self) -> HostRefused:
        return HostRefused(f"the map {self.name} changes faster than it is read", asked="dump", answered="")

    def _single(
        self, command: Command, key: Buffer, value: Buffer | None = None, flags: int = 0, *, at: int = 0
    ) -> int:
        """Make a call about one entry: the one whose number in the buffers is ``at``."""
        where = 0 if value is None else ctypes.addressof(value) + at * self.value_bytes
        key_at = ctypes.addressof(key) + at * self.key_size
        return attempt(command, buffer(struct.pack("=IxxxxQQQ", self.fd, key_at, where, flags)))

    def _batch(self, command: Command, key: Buffer, value: Buffer | None, *, start: int, count: int) -> tuple[int, int]:
        where = 0 if value is None else ctypes.addressof(value) + start * self.value_bytes
        return self._many(command, 0, 0, ctypes.addressof(key) + start * self.key_size, where, count)

    def _many(
        self, command: Command, place: int, following: int, keys: int, values: int, count: int
    ) -> tuple[int, int]:
        """Make a call about many entries: how many it did, and the error number that it stopped at, or 0."""
        if not count:
            return 0, 0
        attr = buffer(struct.pack("=QQQQIIQQ", place, following, keys, values, count, self.fd, 0, 0))
        result = attempt(command, attr)
        done = int(struct.unpack_from("=I", attr, 32)[0])
        if command is not Command.MAP_LOOKUP_BATCH and result < 0 and done >= count:
            done = 0  # refused before it began: the count is still what was asked
        elif command is Command.MAP_LOOKUP_BATCH and result < 0 and result != -errno.ENOENT:
            done = 0
        return done, -min(result, 0)

    def _key(self, key: bytes) -> Buffer:
        if len(key) != self.key_size:
            raise ValueError(f"{self.name}: a key of {len(key)} bytes, its keys have {self.key_size}")
        return buffer(key)

    def _value(self, value: bytes) -> Buffer:
        if len(value) != self.value_bytes:
            raise ValueError(f"{self.name}: a value of {len(value)} bytes, its values have {self.value_bytes}")
        return buffer(value)

    def _count(self, keys: bytes) -> int:
        if len(keys) % self.key_size:
            raise ValueError(f"{self.name}: {len(keys)} bytes are no whole number of keys of {self.key_size}")
        return len(keys) // self.key_size

    def _check(self, command: Command, result: int, what: str) -> None:
        if result < 0:
            raise refusal(command, -result, f"the map {self.name} cannot {what}")

    def _stopped(self, command: Command, number: int, how_far: str) -> NoReturn:
        raise refusal(command, number, f"the map {self.name}: {how_far}, then the kernel refused")


def possible_cpus() -> int:
    """Return for how many processors the kernel keeps values: all that there could ever be."""
    ranges = (part.split("-") for part in Path("/sys/devices/system/cpu/possible").read_text().strip().split(","))
    return sum(int(numbers[-1]) - int(numbers[0]) + 1 for numbers in ranges)
