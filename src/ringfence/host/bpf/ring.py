# SPDX-License-Identifier: Apache-2.0
"""Reads a ring buffer: what programs in the kernel say, in the order in which they began to say it.

The ring is memory that is shared with the kernel (Documentation/bpf/ringbuf.rst): it writes records behind the
producer's position, we take them from the consumer's position on and move that. The data is mapped twice in a row, so
that a record that goes over the end can be read in one piece. A program whose record does not fit is told so, and
counts the loss itself.
"""

from __future__ import annotations

import mmap
import platform
import struct
import threading
from typing import Self

from ringfence.errors import HostRefused
from ringfence.host.bpf.maps import BpfMap, MapType

# linux/bpf.h: the first word of a record is its length with two flags; the second is the kernel's own.
_BUSY, _DISCARDED, _LENGTH = 1 << 31, 1 << 30, (1 << 30) - 1
_HEADER = 8
_IN_ORDER = frozenset({"x86_64"})  # where the processor keeps loads in order, and stores behind them


class RingReader:
    """The one reader of a ring buffer; to be used by one thread at a time. The map has to stay open."""

    def __init__(self, ring: BpfMap) -> None:
        if ring.kind != MapType.RINGBUF:
            raise ValueError(f"the map {ring.name} is no ring buffer")
        self._ring = ring
        self._size = ring.max_entries
        page = mmap.PAGESIZE
        try:
            self._ours = mmap.mmap(ring.fd, page, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE)
            self._theirs = mmap.mmap(
                ring.fd, page + 2 * self._size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ, offset=page
            )
        except OSError as error:
            raise HostRefused(
                f"the ring buffer {ring.name} cannot be mapped", asked="mmap", answered=error.strerror or ""
            ) from None
        self._consumed = memoryview(self._ours).cast("Q")
        self._produced = memoryview(self._theirs).cast("Q")
        self._in_order = platform.machine() in _IN_ORDER

    def fileno(self) -> int:
        """Return the descriptor that is readable while there is something to read (level-triggered)."""
        return self._ring.fd

    def read(self) -> list[bytes]:
        """Return all records that are there now, at most as many as fit the ring; never waits.

        A record that a program is still writing, and what was begun after it, is left for later.
        """
        begin, end = self._consumed[0], self._produced[0]
        self._fence()  # what was written before the position was moved is read after it
        places: list[tuple[int, int]] = []
        at, mask = begin, self._size - 1
        while at < end:
            head = struct.unpack_from("=I", self._theirs, mmap.PAGESIZE + (at & mask))[0]
            if head & _BUSY:
                break
            length = head & _LENGTH
            if not head & _DISCARDED:
                places.append((mmap.PAGESIZE + (at & mask) + _HEADER, length))
            at += _HEADER + length + 7 & ~7
        self._fence()  # what was written before a record's flag was taken away is read after it
        records = [self._theirs[place : place + length] for place, length in places]
        self._fence()  # the room is given back after it was read
        if at != begin:
            self._consumed[0] = at
        return records

    def close(self) -> None:
        """Give the memory back; what was not read stays in the ring."""
        self._consumed.release()
        self._produced.release()
        self._ours.close()
        self._theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _fence(self) -> None:
        """Let no load or store pass, on processors that reorder them: to give a lock back and take it again does."""
        if not self._in_order:
            lock = threading.Lock()
            with lock:
                pass
            with lock:
                pass
