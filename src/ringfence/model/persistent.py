# SPDX-License-Identifier: Apache-2.0
"""Maps and sets that are never changed: putting something in makes another one, which shares nearly all of the first.

A state of an agent holds all pods of a cluster, and a program the addresses of many. Copying 100,000 entries for one
that came takes longer than all that follows from it. Here the entries lie in *shards*, about as many as each has
entries, and of these one is copied. Two sets that come from one another find how they differ in the shards that they
do not share.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence, ValuesView
from collections.abc import Set as AbstractSet
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
T = TypeVar("T", bound=Hashable)

UNDIVIDED = 1024
"""So many entries are copied in microseconds: dividing them would only cost."""
_ROOM = 4
"""A map or set that has grown to so many times what it was divided for is divided anew."""


def _shards_for(length: int) -> int:
    return 1 if length <= UNDIVIDED else math.isqrt(length)


def _outgrown(length: int, shards: int) -> bool:
    return length > _ROOM * max(UNDIVIDED, shards * shards)


class PersistentMap(Mapping[K, V], Generic[K, V]):
    """An immutable map. Its order is no order: it depends on the path that led to it."""

    __slots__ = ("_length", "_shards")

    def __init__(self, items: Mapping[K, V] | None = None) -> None:
        given = {} if items is None else items
        shards: list[dict[K, V]] = [{} for _ in range(_shards_for(len(given)))]
        for key, value in given.items():
            shards[hash(key) % len(shards)][key] = value
        self._shards = tuple(shards)
        self._length = len(given)

    def __getitem__(self, key: K) -> V:
        return self._shards[hash(key) % len(self._shards)][key]

    def __iter__(self) -> Iterator[K]:
        return itertools.chain.from_iterable(self._shards)

    def __len__(self) -> int:
        return self._length

    def values(self) -> ValuesView[V]:
        """Return the values."""
        return _Values(self)

    @property
    def shards(self) -> tuple[dict[K, V], ...]:
        """The entries, in parts that are not to be changed."""
        return self._shards

    def with_item(self, key: K, value: V) -> PersistentMap[K, V]:
        """Return the map in which a key has a value."""
        at = hash(key) % len(self._shards)
        return self._with_shard(at, {**self._shards[at], key: value})

    def without(self, key: K) -> PersistentMap[K, V]:
        """Return the map without a key that is in it."""
        at = hash(key) % len(self._shards)
        shard = dict(self._shards[at])
        del shard[key]
        return self._with_shard(at, shard)

    def _with_shard(self, at: int, shard: dict[K, V]) -> PersistentMap[K, V]:
        made: PersistentMap[K, V] = PersistentMap.__new__(PersistentMap)
        made._shards = (*self._shards[:at], shard, *self._shards[at + 1 :])
        made._length = self._length + len(shard) - len(self._shards[at])
        return PersistentMap(made) if _outgrown(made._length, len(made._shards)) else made


class _Values(ValuesView[V]):
    """Values without a look-up for each."""

    _mapping: PersistentMap[Any, V]

    def __iter__(self) -> Iterator[V]:
        return itertools.chain.from_iterable(shard.values() for shard in self._mapping.shards)


class PersistentSet(AbstractSet[T], Generic[T]):
    """An immutable set, equal to any set of the same members."""

    __slots__ = ("_length", "_shards")

    def __init__(self, members: AbstractSet[T] = frozenset()) -> None:
        count = _shards_for(len(members))
        if count == 1:
            self._shards: tuple[frozenset[T], ...] = (frozenset(members),)
        else:
            shards: list[list[T]] = [[] for _ in range(count)]
            for member in members:
                shards[hash(member) % count].append(member)
            self._shards = tuple(map(frozenset, shards))
        self._length = len(members)

    def __contains__(self, member: object) -> bool:
        shards = self._shards
        return member in (shards[0] if len(shards) == 1 else shards[hash(member) % len(shards)])

    def __iter__(self) -> Iterator[T]:
        return itertools.chain.from_iterable(self._shards)

    def __len__(self) -> int:
        return self._length

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PersistentSet) and len(other._shards) == len(self._shards):
            return self._shards == other._shards
        return AbstractSet.__eq__(self, other) if isinstance(other, AbstractSet) else NotImplemented

    def __hash__(self) -> int:
        return hash(frozenset(self))

    def __repr__(self) -> str:
        return f"PersistentSet({set(self)!r})"

    def __sub__(self, other: AbstractSet[Any]) -> frozenset[T]:
        if isinstance(other, PersistentSet) and len(other._shards) == len(self._shards):
            pairs = zip(self._shards, other._shards, strict=True)
            return frozenset().union(*(mine - its for mine, its in pairs if mine is not its))
        return frozenset(member for member in self if member not in other)

    def __and__(self, other: AbstractSet[Any]) -> frozenset[T]:
        return frozenset().union(*(shard & other for shard in self._shards))

    @property
    def shards(self) -> tuple[frozenset[T], ...]:
        """The members, as disjoint sets."""
        return self._shards

    @classmethod
    def union(cls, sets: Sequence[PersistentSet[T]]) -> PersistentSet[T]:
        """Return the set of all members of sets: the one itself, if it is one."""
        if len(sets) == 1:
            return sets[0]
        return cls(frozenset().union(*(shard for each in sets for shard in each.shards)))

    def exchanged(self, gone: Iterable[T], come: Iterable[T]) -> PersistentSet[T]:
        """Return the set without some members and with others; itself if that is the same."""
        taken: dict[int, set[T]] = {}
        given: dict[int, set[T]] = {}
        count = len(self._shards)
        for member in gone:
            taken.setdefault(hash(member) % count, set()).add(member)
        for member in come:
            given.setdefault(hash(member) % count, set()).add(member)
        shards, length = list(self._shards), self._length
        same = True
        for at in taken.keys() | given.keys():
            shard = (shards[at] - taken.get(at, set())) | given.get(at, set())
            if shard != shards[at]:
                length += len(shard) - len(shards[at])
                shards[at] = shard
                same = False
        if same:
            return self
        made: PersistentSet[T] = PersistentSet.__new__(PersistentSet)
        made._shards = tuple(shards)
        made._length = length
        return PersistentSet(made) if _outgrown(length, count) else made

    @classmethod
    def _from_iterable(cls, it: Iterable[Any]) -> frozenset[Any]:
        return frozenset(it)  # what is not asked of large sets
