# SPDX-License-Identifier: Apache-2.0
"""What the kernel's tables hold, in which slots, and what must be written for another program. Pure.

An address and a block have a *slot* as long as they are in the tables; the seats of a slot hold its view, one for even
and one for odd generations. A commit writes the seats that nobody reads, so it may take as long as it likes, and one
number then makes them the ones that are read.

Whatever is put into a table changes nothing by that. A new address gets the view that it has without being there (that
of the longest block around it) in the seat that is being read; a fact is not asked for before something names it. So
also before something is taken out: for one commit at least it has said what would be said without it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from ringfence.dataplanes.ebpf.layout import NOTHING
from ringfence.dataplanes.ebpf.render import FACTS, Entries, Image

PEERS4, PEERS6, BLOCKS4, BLOCKS6 = "rf_peers4", "rf_peers6", "rf_blocks4", "rf_blocks6"
PLACES = (PEERS4, PEERS6, BLOCKS4, BLOCKS6)
"""The tables from an address or block to its slot."""

TABLES = (*FACTS, *PLACES)
_PREFIX = 4  # bytes of a block's key before its address
_ORDER = sys.byteorder


@dataclass(frozen=True, slots=True)
class Delta:
    """What is to become different. ``views``: by table and key, None for what is to be known no more.

    ``added``: facts that are needed now; ``unused``: facts that are needed no more.
    """

    settings: int
    views: Mapping[str, Mapping[bytes, bytes | None]]
    added: Mapping[str, Entries]
    unused: Mapping[str, Iterable[bytes]]


@dataclass(frozen=True, slots=True)
class Commit:
    """What to write: entries that nothing asks for yet, then seats (by index) that nobody reads, then ``rf_now``.

    ``flips`` is False if the program that is in force says all that it should already.
    """

    entries: Mapping[str, Entries]
    seats: Mapping[int, bytes]
    word: int
    flips: bool

    @property
    def empty(self) -> bool:
        """Tell whether there is nothing to commit."""
        return not self.flips and not any(self.entries.values())


@dataclass(slots=True)
class Store:
    """A mirror of the kernel's tables. ``capacity``: entries that each may have; ``seats``: slots that there are.

    ``views``: what each slot says now. ``lagging``: slots whose other seat says something else. ``unused``: what no
    program needs any more and is still there. ``word``: ``rf_now``. ``sound`` is False if somebody else gave two places
    one slot, or a place one that there is not: then a place cannot be changed without another.
    """

    capacity: Mapping[str, int]
    slots: int
    word: int = 0
    entries: dict[str, Entries] = field(default_factory=lambda: {name: {} for name in TABLES})
    views: dict[int, bytes] = field(default_factory=dict)
    lagging: set[int] = field(default_factory=set)
    unused: dict[str, set[bytes]] = field(default_factory=lambda: {name: set() for name in TABLES})
    sound: bool = True
    _free: list[int] = field(default_factory=list)
    _next: int = 1
    _lengths: dict[str, dict[int, int]] = field(default_factory=lambda: {BLOCKS4: {}, BLOCKS6: {}})

    @property
    def garbage(self) -> int:
        """How many entries no program needs."""
        return sum(map(len, self.unused.values()))

    def load(self, entries: Mapping[str, Entries], seats: bytes, word: int, size: int) -> None:
        """Take over what was read from the kernel: ``seats`` is all of ``rf_seats``, ``size`` that of one view."""
        parity = word >> 8 & 1
        self.word = word
        self.entries = {name: dict(entries[name]) for name in TABLES}
        slots = [slot_number(value) for name in PLACES for value in self.entries[name].values()]
        taken = {slot for slot in slots if 0 < slot < self.slots}
        self.sound = len(taken) == len(slots)
        for slot in taken:
            both = [bytes(seats[(slot * 2 + half) * size : (slot * 2 + half + 1) * size]) for half in (0, 1)]
            self.views[slot] = both[parity]
            if both[0] != both[1]:
                self.lagging.add(slot)
        self._next = max(taken, default=0) + 1
        self._free = [slot for slot in range(1, self._next) if slot not in taken]
        for name in (BLOCKS4, BLOCKS6):
            for key in self.entries[name]:
                self._count_length(name, key, 1)

    def telling(self, name: str) -> Iterator[tuple[bytes, bytes]]:
        """Return the keys of a table of places that say something else than the block around them, and their views."""
        for key, value in self.entries[name].items():
            view = self.views.get(slot_number(value), NOTHING)
            if view != self._view_of(self._around(name, key), {}):
                yield key, view

    def difference(self, image: Image) -> Delta:
        """Return what must change for the tables to hold a program."""
        wanted: dict[str, Entries] = {name: {} for name in PLACES}
        for key, view in image.peers.items():
            wanted[table_of_address(key)][key] = view
        for key, view in image.blocks.items():
            wanted[table_of_block(key)][key] = view
        views: dict[str, dict[bytes, bytes | None]] = {}
        for name, keys in wanted.items():
            there = self.entries[name]
            changed: dict[bytes, bytes | None] = {
                key: view for key, view in keys.items() if key not in there or self._view(name, key) != view
            }
            changed.update((key, None) for key in there if key not in keys and key not in self.unused[name])
            # What is unused and wanted again may already say what it should.
            changed.update((key, keys[key]) for key in self.unused[name] if key in keys)
            views[name] = changed
        added, unused = {}, {}
        for name in FACTS:
            there, facts = self.entries[name], image.facts[name]
            added[name] = {
                key: value for key, value in facts.items() if there.get(key) != value or key in self.unused[name]
            }
            unused[name] = [key for key in there if key not in facts and key not in self.unused[name]]
        return Delta(image.settings, views, added, unused)

    def shortage(self, delta: Delta) -> dict[str, int]:
        """Return the tables that have no room for a change, and how many entries they would have."""
        needed = {}
        slots = self._next - 1 - len(self._free)
        for name in PLACES:
            new = sum(1 for key in delta.views.get(name, ()) if key not in self.entries[name])
            slots += new
            if len(self.entries[name]) + new > self.capacity[name]:
                needed[name] = len(self.entries[name]) + new
        for name in FACTS:
            new = sum(1 for key in delta.added.get(name, ()) if key not in self.entries[name])
            if len(self.entries[name]) + new > self.capacity[name]:
                needed[name] = len(self.entries[name]) + new
        if slots >= self.slots:
            needed["rf_seats"] = slots + 1
        return needed

    def plan(self, delta: Delta) -> Commit:
        """Return what to write for a change, and take the new entries into the mirror as they will be.

        The commit must then be written, or the mirror thrown away.
        """
        entries: dict[str, Entries] = {}
        for name in FACTS:
            facts = delta.added.get(name, {})
            there = self.entries[name]
            entries[name] = {key: value for key, value in facts.items() if there.get(key) != value}
            there.update(entries[name])
            self.unused[name].difference_update(facts)
            self.unused[name].update(delta.unused.get(name, ()))
        fresh: dict[int, bytes] = {}
        coming: dict[int, bytes] = {}
        blocks_change = any(delta.views.get(name) for name in (BLOCKS4, BLOCKS6))
        for name in (BLOCKS4, BLOCKS6, PEERS4, PEERS6):
            changed = dict(delta.views.get(name, {}))
            if blocks_change:
                changed.update((key, None) for key in self.unused[name] if key not in changed)
            # Shorter prefixes first: a block that goes says from then on what the block around it says.
            order = sorted(changed, key=block_length) if name in (BLOCKS4, BLOCKS6) else changed
            entries[name] = self._place(name, order, fresh)
            for key in order:
                view = changed[key]
                slot = slot_number(self.entries[name][key])
                if view is None:
                    self.unused[name].add(key)
                    around = self._around(name, key)
                    view = coming.get(around, self._view_of(around, fresh))
                else:
                    self.unused[name].discard(key)
                if view != self._view_of(slot, fresh):
                    coming[slot] = view
        return self._commit(delta.settings, entries, fresh, coming)

    def _commit(
        self, settings: int, entries: Mapping[str, Entries], fresh: Mapping[int, bytes], coming: Mapping[int, bytes]
    ) -> Commit:
        generation, parity = self.word >> 8, self.word >> 8 & 1
        # Also if nothing but facts is added: where one was missing that should have been there, verdicts are remembered
        # of the time without it.
        flips = bool(coming) or settings != self.word & 255 or any(entries.values())
        word = generation + 1 << 8 | settings if flips else self.word
        seats = {slot * 2 + parity: view for slot, view in fresh.items()}
        behind = {slot: self.views.get(slot, NOTHING) for slot in self.lagging}
        seats.update((slot * 2 + (1 - parity), view) for slot, view in {**behind, **fresh, **coming}.items())
        commit = Commit(entries, seats, word, flips)
        if not commit.empty:  # else nothing is written, and what lags behind still does
            self.views.update(fresh)
            self.lagging = set(coming)
            self.views.update(coming)
            self.word = word
        return commit

    def _place(self, name: str, keys: Iterable[bytes], fresh: dict[int, bytes]) -> Entries:
        """Give slots to keys that have none; their seats say first what is said without them."""
        placed: Entries = {}
        for key in keys:
            if key in self.entries[name]:
                continue
            slot = self._free.pop() if self._free else self._next
            self._next = max(self._next, slot + 1)
            fresh[slot] = self._view_of(self._around(name, key), fresh)
            self.entries[name][key] = placed[key] = slot_bytes(slot)
            if name in self._lengths:
                self._count_length(name, key, 1)
        return placed

    def keep_only(self, name: str, used: AbstractSet[bytes]) -> None:
        """Say which entries of a table of facts are all that is needed."""
        self.unused[name] = self.entries[name].keys() - used

    def reap(self) -> Mapping[str, list[bytes]]:
        """Return the keys of what no program needs, by table, and take them out of the mirror.

        They may be deleted once no packet is under way that began before the last commit. ``word`` then says the same
        as before, as another generation: nobody remembers what followed from an entry that never should have been.
        """
        gone = {name: sorted(keys) for name, keys in self.unused.items() if keys}
        for name, keys in gone.items():
            for key in keys:
                value = self.entries[name].pop(key)
                if name in PLACES:
                    slot = slot_number(value)
                    self.views.pop(slot, None)
                    self.lagging.discard(slot)
                    self._free.append(slot)
                if name in self._lengths:
                    self._count_length(name, key, -1)
            self.unused[name].clear()
        self.word += 2 << 8 if gone else 0
        return gone

    def _view(self, name: str, key: bytes) -> bytes:
        return self.views[slot_number(self.entries[name][key])]

    def _view_of(self, slot: int, fresh: Mapping[int, bytes]) -> bytes:
        return fresh.get(slot, self.views.get(slot, NOTHING))

    def _count_length(self, name: str, key: bytes, more: int) -> None:
        lengths, length = self._lengths[name], block_length(key)
        lengths[length] = lengths.get(length, 0) + more
        if not lengths[length]:
            del lengths[length]

    def _around(self, name: str, key: bytes) -> int:
        """Return the slot of the longest block around an address or block, 0 if there is none."""
        if name in self._lengths:
            table, address, limit = name, key[_PREFIX:], block_length(key) - 1
        else:
            table, address = (BLOCKS4 if name == PEERS4 else BLOCKS6), key
            limit = len(address) * 8
        blocks = self.entries[table]
        width, value = len(address) * 8, int.from_bytes(address, "big")
        for length in sorted(self._lengths[table], reverse=True):
            if length <= limit:
                masked = value >> (width - length) << (width - length)
                found = blocks.get(block_key(length, masked.to_bytes(len(address), "big")))
                if found is not None:
                    return slot_number(found)
        return 0


def slot_number(value: bytes) -> int:
    """Read a slot."""
    return int.from_bytes(value, _ORDER)


def slot_bytes(slot: int) -> bytes:
    """Return the bytes of a slot."""
    return slot.to_bytes(4, _ORDER)


def block_length(key: bytes) -> int:
    """Return the prefix length of a block's key."""
    return int.from_bytes(key[:_PREFIX], _ORDER)


def block_key(length: int, address: bytes) -> bytes:
    """Return a block's key."""
    return length.to_bytes(_PREFIX, _ORDER) + address


def table_of_address(key: bytes) -> str:
    """Return the table that an address stands in."""
    return PEERS4 if len(key) == 4 else PEERS6


def table_of_block(key: bytes) -> str:
    """Return the table that a block stands in."""
    return BLOCKS4 if len(key) == _PREFIX + 4 else BLOCKS6


LEAST_ENTRIES = 256
ROOM = 2
"""Tables are made for so many times what the first program needs."""


def sizes_for(image: Image) -> dict[str, int]:
    """Return how many entries each table should have room for; of ``rf_seats`` how many slots."""
    counts = {name: len(image.facts[name]) for name in FACTS}
    counts |= dict.fromkeys(PLACES, 0)
    for key in image.peers:
        counts[table_of_address(key)] += 1
    for key in image.blocks:
        counts[table_of_block(key)] += 1
    sizes = {name: max(LEAST_ENTRIES, ROOM * count) for name, count in counts.items()}
    sizes["rf_seats"] = 1 + max(LEAST_ENTRIES, ROOM * (len(image.peers) + len(image.blocks)))
    return sizes
