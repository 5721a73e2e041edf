# SPDX-License-Identifier: Apache-2.0
"""A sorted list of distinct things: one that comes is put in its place, of many all are sorted again."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
K = TypeVar("K", int, tuple[int, int])

FEW = 50
"""Putting one in its place moves on average half of all; from about so many on, sorting all is quicker."""


class Ordered(Generic[T, K]):
    """Things in the order of their keys, of which no two are alike."""

    def __init__(self, key: Callable[[T], K]) -> None:
        self._key: Callable[[T], K] = key
        self._members: list[T] = []

    def add(self, members: Collection[T]) -> None:
        """Put in what is not in it."""
        if len(members) > FEW:
            self._members.extend(members)
            self._members.sort(key=self._key)
            return
        for member in members:
            insort(self._members, member, key=self._key)

    def remove(self, members: Collection[T]) -> None:
        """Take out what is in it."""
        key = self._key
        if len(members) > FEW:
            gone = set(map(key, members))
            self._members = [member for member in self._members if key(member) not in gone]
            return
        for member in members:
            del self._members[bisect_left(self._members, key(member), key=key)]

    def between(self, first: K, end: K) -> Sequence[T]:
        """Return what lies from one key on, up to another and without it."""
        start = bisect_left(self._members, first, key=self._key)
        return self._members[start : bisect_left(self._members, end, lo=start, key=self._key)]
