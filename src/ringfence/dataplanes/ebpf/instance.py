# SPDX-License-Identifier: Apache-2.0
"""The kernel's side: one instance is a set of tables, the programs that ask them, and the links that hold those.

Everything of an instance is pinned, so that it stays in force while no agent runs. A place is a network namespace and
the folder of its instances: normally one, and for moments two, of which the later one is the one that counts. An
instance that lacks a pin was not finished, and never counted.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Mapping
from pathlib import Path

from ringfence.dataplanes.ebpf.devices import DEVICE_LINK, AtDevices, Site
from ringfence.dataplanes.ebpf.hooks import ASK, AT_DEVICES, AT_NETFILTER, FILTER, Hooks, programs
from ringfence.dataplanes.ebpf.layout import VIEW_SIZE
from ringfence.dataplanes.ebpf.render import FACTS, Entries
from ringfence.dataplanes.ebpf.store import PLACES, TABLES, Commit, Store
from ringfence.dataplanes.ebpf.verifierlog import kept
from ringfence.errors import HostRefused, ProgramRefused
from ringfence.host import netns
from ringfence.host.bpf import pins
from ringfence.host.bpf.links import BpfLink, NetfilterPlace, attach_netfilter
from ringfence.host.bpf.maps import BpfMap
from ringfence.host.bpf.objects import BpfObject
from ringfence.host.bpf.programs import AttachType, BpfProgram, ProgramType

SEATS, NOW, BUDGETS, EVENTS, COUNTERS = "rf_seats", "rf_now", "rf_budgets", "rf_events", "rf_counters"
FLOWS, FRAGMENTS = "rf_flows", "rf_fragments"
MAPS = (*TABLES, SEATS, NOW, BUDGETS, EVENTS, COUNTERS, FLOWS, FRAGMENTS)
MOST_FLOWS, MOST_FRAGMENTS = 65536, 4096
"""Of what netfilter does not see, where programs are at devices. The kernel makes room for all of them at once."""

IN_PLACE = "reads_in_place"
LINK = "link_"
READINGS = 20
"""So often the tables are read until no commit has come in between."""
_ORDER = sys.byteorder
PRIORITIES = range(10, 42)
"""Behind the translation of destinations (-100) and the usual filters (0). The kernel allows one program for each."""


def load(path: Path, sizes: Mapping[str, int], hooks: Hooks, site: Site) -> Instance:
    """Load an object file with tables of these sizes; nothing is attached or pinned yet.

    Raises ``ProgramRefused``, which says where all is kept that the verifier said.
    """
    try:
        return load_reading(path, sizes, hooks, site, in_place=True)
    except ProgramRefused:
        pass
    try:
        return load_reading(path, sizes, hooks, site, in_place=False)
    except ProgramRefused as error:
        raise kept(error) from None


def load_reading(path: Path, sizes: Mapping[str, int], hooks: Hooks, site: Site, *, in_place: bool) -> Instance:
    """Load programs that read the tracker's memory in place, which kernels before 6.17 refuse, or by a slower call."""
    needed = programs(hooks)
    with BpfObject(path) as opened:
        opened.set_constant(IN_PLACE, bytes([in_place]))
        for name, size in sizes.items():
            opened.set_max_entries(name, 2 * size if name == SEATS else size)
        opened.set_max_entries(BUDGETS, sizes[SEATS])
        if AT_DEVICES[hooks]:
            opened.set_max_entries(FLOWS, MOST_FLOWS)
            opened.set_max_entries(FRAGMENTS, MOST_FRAGMENTS)
        opened.set_type(FILTER, ProgramType.NETFILTER, AttachType.NETFILTER)
        for name in opened.programs:
            if name not in needed:
                opened.leave_out(name)
        loaded = opened.load()
    return Instance({name: loaded.maps[name] for name in MAPS}, loaded.programs, {}, hooks, site)


def adopt(folder: Path, hooks: Hooks, site: Site) -> Instance | None:
    """Open the instance that is pinned in a folder, None if it was never finished."""
    pinned = pins.listing(folder)
    needed = programs(hooks)
    if not all(name in pinned for name in (*MAPS, *needed, *(LINK + hook for hook in AT_NETFILTER[hooks]))):
        return None
    found = Instance(
        {name: BpfMap.from_pin(folder / name) for name in MAPS},
        {name: BpfProgram.from_pin(folder / name) for name in needed},
        {name: BpfLink.from_pin(folder / (LINK + name)) for name in AT_NETFILTER[hooks]},
        hooks,
        site,
    )
    found.folder = folder
    found.devices.open(folder)
    return found


def destroy(folder: Path) -> None:
    """Take away what is pinned in a folder, finished or not: the links first."""
    for name in pins.listing(folder):
        if name.startswith((LINK, DEVICE_LINK)):
            with BpfLink.from_pin(folder / name) as link:
                link.detach()
    pins.remove_directory(folder)


class Instance:
    """Tables, programs and links, open in this process. ``folder`` is where they are pinned, None before."""

    def __init__(
        self,
        maps: Mapping[str, BpfMap],
        programs: Mapping[str, BpfProgram],
        bound: Mapping[str, BpfLink],
        hooks: Hooks,
        site: Site,
    ) -> None:
        self.maps = maps
        self.programs = programs
        self.links = dict(bound)
        self.hooks = hooks
        self.devices = AtDevices({side: programs[name] for side, name in AT_DEVICES[hooks].items()}, site)
        self._site = site
        self.folder: Path | None = None
        self._seats: mmap.mmap | None = None
        self._written = bytearray()  # what ``seats`` should hold
        self._seen: dict[str, tuple[bytes, bytes]] = {}  # a table that was found to hold what it should

    @property
    def seats(self) -> mmap.mmap:
        """The memory of ``rf_seats``."""
        if self._seats is None:
            self._seats = self.maps[SEATS].mapped(writable=True)
        return self._seats

    def read(self) -> Store:
        """Return what the tables hold. Raises ``HostRefused`` if somebody keeps changing them."""
        for _ in range(READINGS):
            word = self._word()
            store = Store({name: self.maps[name].max_entries for name in TABLES}, self.maps[SEATS].max_entries // 2)
            self._seen = {name: self.maps[name].dump() for name in TABLES}
            self._written = bytearray(self.seats)
            if self._word() == word:
                store.load({name: self._entries(name) for name in TABLES}, bytes(self._written), word, VIEW_SIZE)
                return store
        raise HostRefused("another agent keeps changing the eBPF tables", asked="read", answered="")

    def holds(self, store: Store) -> bool:
        """Tell whether the tables hold what they should."""
        return (
            self._word() == store.word
            and self.seats[:] == self._written
            and all(self._table_holds(name, store.entries[name]) for name in TABLES)
        )

    def write(self, commit: Commit) -> None:
        """Write a commit; its last store puts it in force."""
        for name in FACTS:
            self._put(name, commit.entries.get(name, {}))
        seats = self.seats
        for index, view in commit.seats.items():
            place = slice(index * VIEW_SIZE, (index + 1) * VIEW_SIZE)
            seats[place] = self._written[place] = view
        for name in PLACES:
            self._put(name, commit.entries.get(name, {}))
        if commit.flips:
            # Eight bytes are stored at once, by a system call: after all that was stored before it.
            self._put_word(commit.word)

    def delete(self, keys: Mapping[str, list[bytes]], word: int) -> None:
        """Delete entries that nothing asks for, then write ``rf_now``."""
        for name, gone in keys.items():
            self._seen.pop(name, None)
            self.maps[name].delete_many(b"".join(gone))
        self._put_word(word)

    def whole(self) -> bool:
        """Tell whether there is a link for every hook of netfilter, and all has its pin: else nobody adopts it."""
        pinned = set(pins.listing(self.folder)) if self.folder is not None else set()
        links = AT_NETFILTER[self.hooks].keys()
        return links <= self.links.keys() and {*self.maps, *self.programs, *(LINK + name for name in links)} <= pinned

    def attached(self) -> bool:
        """Tell whether the filter is still at every hook: somebody may have taken it away, and left the pins."""
        with netns.entered(self._site.namespace):
            return all(link.attached(self.programs[FILTER]) for link in self.links.values())

    def put_in_force(self, folder: Path) -> None:
        """Pin and attach all of it. The program that is at no hook is pinned last: it makes the others count."""
        pins.make_directory(folder)
        self.folder = folder
        for name, each in self.maps.items():
            each.pin(folder / name)
        for name, program in self.programs.items():
            if name != ASK:
                program.pin(folder / name)
        self.devices.open(folder)
        self.devices.cover()
        if AT_NETFILTER[self.hooks]:
            self._attach()
        for name, link in self.links.items():
            link.pin(folder / (LINK + name))
        self.programs[ASK].pin(folder / ASK)

    def _attach(self) -> None:
        """Attach the filter at netfilter's hooks, all at the first priority that is free at all of them."""
        refused: HostRefused | None = None
        for priority in PRIORITIES:
            try:
                with netns.entered(self._site.namespace):
                    for name, (family, hook) in AT_NETFILTER[self.hooks].items():
                        place = NetfilterPlace(family, hook, priority)
                        self.links[name] = attach_netfilter(self.programs[FILTER], place)
            except HostRefused as error:
                refused = error
                self._detach()
            else:
                return
        assert refused is not None
        raise refused

    def _detach(self) -> None:
        for link in self.links.values():
            link.detach()
            link.close()
        self.links.clear()

    def destroy(self) -> None:
        """Take it out of the kernel: its links first."""
        self.devices.detach()
        self._detach()
        if self.folder is not None:
            pins.remove_directory(self.folder)
        self.close()

    def close(self) -> None:
        """Give back what this process holds of it."""
        if self._seats is not None:
            self._seats.close()
        self.devices.close()
        for handle in (*self.maps.values(), *self.programs.values(), *self.links.values()):
            handle.close()

    def _put(self, name: str, entries: Entries) -> None:
        if entries:
            self._seen.pop(name, None)
            self.maps[name].update_many(b"".join(entries), b"".join(entries.values()))

    def _table_holds(self, name: str, entries: Entries) -> bool:
        # Nobody wrote: the kernel lists its entries in the same order, and that is quickly compared.
        seen, found = self._seen.get(name), self.maps[name].dump()
        if found == seen:
            return True
        self._seen[name] = found
        if self._entries(name) == entries:
            return True
        del self._seen[name]
        return False

    def _entries(self, name: str) -> Entries:
        keys, values = self._seen[name]
        key, value = self.maps[name].key_size, self.maps[name].value_bytes
        return {
            keys[number * key : (number + 1) * key]: values[number * value : (number + 1) * value]
            for number in range(len(keys) // key)
        }

    def _put_word(self, word: int) -> None:
        self.maps[NOW].update(bytes(4), word.to_bytes(8, _ORDER))

    def _word(self) -> int:
        return int.from_bytes(self.maps[NOW].lookup(bytes(4)) or b"", _ORDER)
