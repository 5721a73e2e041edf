# SPDX-License-Identifier: Apache-2.0
"""A model of the kernel's side, with all its past: what any packet may have met that was under way at any time.

Every entry, every word of a seat and ``rf_now`` that is written is a moment of its own. A packet reads ``rf_now`` when
it begins; each of its look-ups after that may be answered from any moment until it is done, but not from one before
that of the look-up before. ``judge.h`` is written down here a second time, in the words of the tables.

The engine that writes is the real one: ``Instance`` and ``EbpfDataplane`` on tables of this model.
"""

from __future__ import annotations

import bisect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

from ringfence.dataplanes.ebpf.devices import Site
from ringfence.dataplanes.ebpf.hooks import Hooks
from ringfence.dataplanes.ebpf.instance import COUNTERS, EVENTS, NOW, SEATS, Instance
from ringfence.dataplanes.ebpf.layout import (
    VIEW_SIZE,
    ViewNumbers,
    pack_address,
    settings_of,
    unpack_block,
    unpack_decision,
    unpack_pair,
    unpack_range_key,
    unpack_view,
)
from ringfence.dataplanes.ebpf.render import PAIRS, RANGES, TRAFFIC
from ringfence.dataplanes.ebpf.store import BLOCKS4, BLOCKS6, PEERS4, PEERS6, TABLES
from ringfence.errors import HostRefused
from ringfence.host.bpf.maps import BpfMap
from ringfence.model.addresses import Address, contains
from ringfence.model.flow import Flow
from ringfence.model.settings import NodeProbes, OwnNodeEgress
from tests.fuzz.answers import Answer

_ORDER = sys.byteorder
_KEY_SIZES = {"rf_rules": 8, "rf_pods": 8, RANGES: 16, TRAFFIC: 16, PAIRS: 16, PEERS4: 4, PEERS6: 16}
_KEY_SIZES |= {BLOCKS4: 8, BLOCKS6: 20}
_VALUE_SIZES = {"rf_rules": 512, "rf_pods": 512, RANGES: 16, TRAFFIC: 16, PAIRS: 24}
_HALF = 24  # bytes of a view: a seat is not written at once


class Killed(BaseException):
    """The agent is no more."""


class Time:
    """The moments. ``fatal``: so many more writes until the agent is killed in the midst, None if it is not."""

    def __init__(self) -> None:
        self.now = 0
        self.fatal: int | None = None

    def write(self) -> int:
        """Return the moment of the next write."""
        if self.fatal is not None:
            self.fatal -= 1
            if self.fatal < 0:
                raise Killed
        self.now += 1
        return self.now


class Past:
    """What one key of a table was at every moment: ``None`` where it was not there."""

    def __init__(self, first: bytes | None = None) -> None:
        self.moments, self.values = [0], [first]

    def set(self, moment: int, value: bytes | None) -> None:
        """Write."""
        self.moments.append(moment)
        self.values.append(value)

    def at(self, moment: int) -> bytes | None:
        """Return what it was."""
        return self.values[bisect.bisect_right(self.moments, moment) - 1]

    @property
    def last(self) -> bytes | None:
        """What it is now."""
        return self.values[-1]

    def between(self, first: int, last: int) -> Iterator[tuple[int, bytes | None]]:
        """Yield what it was, and when it first was that, from one moment to another."""
        start = bisect.bisect_right(self.moments, first) - 1
        for moment, value in zip(self.moments[start:], self.values[start:], strict=True):
            if moment <= last:
                yield max(moment, first), value


class Table:
    """One map, as ``BpfMap`` is used."""

    def __init__(self, name: str, time: Time, size: int) -> None:
        self.name, self.max_entries = name, size
        self.key_size, self.value_bytes = _KEY_SIZES.get(name, 4), _VALUE_SIZES.get(name, 4)
        self.past: dict[bytes, Past] = {}
        self._time = time

    def update(self, key: bytes, value: bytes) -> None:
        """Set a value."""
        past = self.past.setdefault(key, Past())
        if past.last is None and sum(each.last is not None for each in self.past.values()) >= self.max_entries:
            raise HostRefused(f"{self.name} is full", asked="", answered="")
        past.set(self._time.write(), value)

    def update_many(self, keys: bytes, values: bytes) -> None:
        """Set values one after the other."""
        for number in range(len(keys) // self.key_size):
            value = values[number * self.value_bytes : (number + 1) * self.value_bytes]
            self.update(keys[number * self.key_size : (number + 1) * self.key_size], value)

    def delete_many(self, keys: bytes) -> None:
        """Delete one after the other."""
        for number in range(len(keys) // self.key_size):
            key = keys[number * self.key_size : (number + 1) * self.key_size]
            assert self.past[key].last is not None
            self.past[key].set(self._time.write(), None)

    def lookup(self, key: bytes) -> bytes | None:
        """Return a value."""
        return self.past[key].last if key in self.past else None

    def dump(self) -> tuple[bytes, bytes]:
        """Return everything."""
        there = [(key, past.last) for key, past in self.past.items() if past.last is not None]
        return b"".join(key for key, _ in there), b"".join(value for _, value in there)

    def close(self) -> None:
        """Give it back."""


class Memory(bytearray):
    """``rf_seats`` as it is mapped: what is written there takes two moments for each seat."""

    def __init__(self, table: Table) -> None:
        super().__init__(b"".join(past.last or b"" for past in table.past.values()))
        self._table = table

    def __setitem__(self, place: Any, view: Any) -> None:
        assert place == slice(place.start, place.start + VIEW_SIZE)
        assert place.start % VIEW_SIZE == 0
        key = _index(place.start // VIEW_SIZE)
        self._table.update(key, view[:_HALF] + bytes(self[place])[_HALF:])
        self._table.update(key, view)
        super().__setitem__(place, view)

    def close(self) -> None:
        """Give it back."""


class Seats(Table):
    """``rf_seats``."""

    def __init__(self, name: str, time: Time, size: int) -> None:
        super().__init__(name, time, size)
        self.past = {_index(number): Past(bytes(VIEW_SIZE)) for number in range(size)}

    def mapped(self, *, writable: bool = False) -> Memory:
        """Return the memory."""
        assert writable
        return Memory(self)


def _index(number: int) -> bytes:
    return number.to_bytes(4, _ORDER)


class Tables:
    """All maps of an instance, and what packets find in them."""

    def __init__(self, time: Time, sizes: Mapping[str, int]) -> None:
        self._maps = {name: Table(name, time, sizes[name]) for name in TABLES}
        self._maps |= {name: Table(name, time, 1) for name in (NOW, EVENTS, COUNTERS)}
        self._maps[SEATS] = Seats(SEATS, time, 2 * sizes[SEATS])
        self._maps[NOW].past[bytes(4)] = Past(bytes(8))

    def opened(self) -> Instance:
        """Return the instance as somebody opens it."""
        return Instance(cast("Mapping[str, BpfMap]", self._maps), {}, {}, Hooks.NETFILTER, cast("Site", None))

    def words(self, first: int, last: int) -> list[tuple[int, int, int]]:
        """Return what ``rf_now`` was between two moments, after the first of them at which, and when it was written."""
        past = self._maps[NOW].past[bytes(4)]
        return [
            (max(moment, first), moment, int.from_bytes(value or b"", _ORDER))
            for moment, value, until in zip(past.moments, past.values, (*past.moments[1:], last + 1), strict=True)
            if moment <= last and until > first
        ]

    def answers(self, flow: Flow, word: int, first: int, last: int) -> set[Answer]:
        """Return every answer that a packet can get that read ``rf_now`` at one moment and is done at another."""
        return set(_Packet(self._maps, flow, word, last).judged(first))


class _Packet:
    """Each step yields what it may find, and from which moment on the next step goes."""

    def __init__(self, maps: Mapping[str, Table], flow: Flow, word: int, last: int) -> None:
        self._maps, self._flow, self._word, self._last = maps, flow, word, last
        self._settings = settings_of(word & 255)
        self._v4 = flow.source.version == 4

    def judged(self, moment: int) -> Iterator[Answer]:
        for m1, client_slot in self._slot(self._flow.source, moment):
            for m2, server_slot in self._slot(self._flow.destination, m1):
                for m3, client in self._seat(client_slot, m2):
                    for m4, server in self._seat(server_slot, m3):
                        yield from self._between((client_slot, client), (server_slot, server), m4)

    def _between(self, source: tuple[int, ViewNumbers], target: tuple[int, ViewNumbers], m: int) -> Iterator[Answer]:
        (client_slot, client), (server_slot, server) = source, target
        if (not client.egress and not server.ingress) or (client.pod and client.pod == server.pod):
            yield Answer(1)
            return
        egress, ingress = client.egress, server.ingress
        if server.own_node and self._settings.own_node_egress is OwnNodeEgress.ALLOW:
            egress = 0
        if client.own_node and self._settings.node_probes is NodeProbes.ALLOW:
            ingress = 0
        answers: Iterable[tuple[int, Answer]] = [(m, Answer(1))]
        if egress:
            answers = self._asked(egress, 2, (self._flow.destination, server_slot, server), m)
        for when, answer in answers:
            if answer.passes and ingress:
                peer = self._flow.source, client_slot, client
                yield from (last for _, last in self._asked(ingress, 1, peer, when))
            else:
                yield answer

    def _asked(
        self, ruleset: int, direction: int, peer: tuple[Address, int, ViewNumbers], moment: int
    ) -> Iterator[tuple[int, Answer]]:
        for m1, atom in self._atom(*peer, moment):
            for m2, allowed, rule in self._decided(ruleset, atom, m1):
                yield m2, Answer(allowed, (not rule) << 8 | direction << 4 | 1, rule, ruleset)

    def _decided(self, ruleset: int, atom: int, moment: int) -> Iterator[tuple[int, int, int]]:
        for m1, value in self._found(PAIRS, ruleset.to_bytes(8, _ORDER) + atom.to_bytes(8, _ORDER), moment):
            if value is None and atom:
                yield from self._decided(ruleset, 0, m1)
            elif value is None:
                yield m1, 0, 0
            else:
                profile, rest = unpack_pair(value)
                for m2, decision in self._traffic(int(profile, 16), m1, value):
                    found = unpack_decision(decision) if decision else rest
                    yield m2, int(found.allowed), int(found.rule or "0", 16)

    def _traffic(self, profile: int, moment: int, pair: bytes) -> Iterator[tuple[int, bytes | None]]:
        flags = int.from_bytes(pair[16:], _ORDER)
        protocol, port = self._flow.protocol.number, self._flow.port or 0
        found: Iterable[tuple[int, bytes | None]] = [(moment, None)]
        for flag, number in ((2, port), (8, 65536)):
            key = profile.to_bytes(8, _ORDER) + protocol.to_bytes(4, _ORDER) + number.to_bytes(4, _ORDER)
            if flags & flag:
                found = [
                    each
                    for m, value in found
                    for each in ([(m, value)] if value is not None else self._found(TRAFFIC, key, m))
                ]
        for m1, value in found:
            if value is not None or not flags & 4:
                yield m1, value
                continue

            def fits(name: bytes) -> int:
                of, number, ports = unpack_range_key(name)
                inside = int(of, 16) == profile and number == protocol and ports.contains(port)
                return 1 + int.from_bytes(name[:4], _ORDER) if inside else 0

            yield from self._longest(RANGES, m1, fits)

    def _atom(self, address: Address, slot: int, view: ViewNumbers, moment: int) -> Iterator[tuple[int, int]]:
        if slot:
            yield moment, view.atom
            return

        def fits(name: bytes) -> int:
            block = unpack_block(name)
            return 1 + block.prefixlen if contains(block, address) else 0

        for m1, value in self._longest(BLOCKS4 if self._v4 else BLOCKS6, moment, fits):
            if value is None:
                yield m1, 0
            else:
                for m2, block in self._seat(int.from_bytes(value, _ORDER), m1):
                    yield m2, block.atom

    def _slot(self, address: Address, moment: int) -> Iterator[tuple[int, int]]:
        for when, value in self._found(PEERS4 if self._v4 else PEERS6, pack_address(address), moment):
            yield when, int.from_bytes(value or b"", _ORDER)

    def _seat(self, slot: int, moment: int) -> Iterator[tuple[int, ViewNumbers]]:
        for when, value in self._found(SEATS, _index(slot * 2 + (self._word >> 8 & 1)), moment):
            yield when, unpack_view(value or b"")

    def _found(self, table: str, key: bytes, moment: int) -> Iterator[tuple[int, bytes | None]]:
        past = self._maps[table].past.get(key)
        return iter([(moment, None)]) if past is None else _once(past.between(moment, self._last))

    def _longest(self, table: str, moment: int, fits: Callable[[bytes], int]) -> Iterator[tuple[int, bytes | None]]:
        """Yield what the longest prefix that fits has, at each moment."""
        fitting = [(past, fits(key)) for key, past in self._maps[table].past.items() if fits(key)]
        moments = {moment, *(m for past, _ in fitting for m in past.moments if moment < m <= self._last)}

        def longest(when: int) -> bytes | None:
            there = [(length, value) for past, length in fitting if (value := past.at(when)) is not None]
            return max(there)[1] if there else None

        return _once((when, longest(when)) for when in sorted(moments))


def _once(found: Iterable[tuple[int, bytes | None]]) -> Iterator[tuple[int, bytes | None]]:
    """Leave out what was found before: who finds it earlier can find later whatever he could have otherwise."""
    seen = set()
    for moment, value in found:
        if value not in seen:
            seen.add(value)
            yield moment, value
