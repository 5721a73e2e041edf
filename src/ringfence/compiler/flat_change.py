# SPDX-License-Identifier: Apache-2.0
"""What differs between two flattened programs: all that a dataplane has to write, and nothing else."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Generic, TypeVar

from ringfence.compiler.flat import AtomId, Covering, NamedRule, Pair, Profile, ProfileId, RuleId, View
from ringfence.model.addresses import Address, Network
from ringfence.model.settings import Settings

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class FlatChange:
    """What a flattened program says that the one before did not: new values by their keys, None for what is gone.

    Only of a view or a block may the value change. All else comes or goes: what a name stands for stays the same.
    """

    settings: Settings | None
    views: Mapping[Address, View | None]
    blocks: Mapping[Network, AtomId | None]
    atoms: Mapping[AtomId, Covering | None]
    pairs: Mapping[Pair, ProfileId | None]
    profiles: Mapping[ProfileId, Profile | None]
    rules: Mapping[RuleId, NamedRule | None]


class Changing(Generic[K, V]):
    """A dict that remembers what has become of it since it was last asked."""

    def __init__(self) -> None:
        self._now: dict[K, V] = {}
        self._before: dict[K, V | None] = {}
        self.now: Mapping[K, V] = MappingProxyType(self._now)
        """What it holds; stays the same object."""

    def put(self, key: K, value: V) -> None:
        """Set a value."""
        self._before.setdefault(key, self._now.get(key))
        self._now[key] = value

    def drop(self, key: K) -> None:
        """Take a key out, if it is there."""
        self._before.setdefault(key, self._now.pop(key, None))

    def take(self) -> dict[K, V | None]:
        """Return what is different from what it was when this was called the last time: None for what is gone."""
        before, self._before = self._before, {}
        found = ((key, self._now.get(key), old) for key, old in before.items())
        return {key: new for key, new, old in found if new is not old and new != old}
