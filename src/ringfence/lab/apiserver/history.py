# SPDX-License-Identifier: Apache-2.0
"""What happened, kept for a while: lets a watcher resume where it left off, and a paged list stay at one revision.

Each kind has its own bounded memory, so that busy kinds (leases, events) do not push out the quiet ones. Who asks
for more than is remembered gets ``Expired`` (HTTP 410) and must list again.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

EventType = Literal["ADDED", "MODIFIED", "DELETED"]
R = TypeVar("R")


class Expired(Exception):
    """The history no longer reaches back to the asked revision; ``oldest`` is the first one that it can start from."""

    def __init__(self, asked: int, oldest: int) -> None:
        self.asked = asked
        self.oldest = oldest
        super().__init__(f"too old resource version: {asked} ({oldest})")


@dataclass(slots=True, eq=False)
class Event(Generic[R]):
    """One write. ``old`` is the record that it replaced, ``new`` the one that it left (of a deletion: the last look).

    ``rendered`` keeps what was made of the event for one watcher, for the others that want the same.
    """

    type: EventType
    revision: int
    old: R | None
    new: R
    rendered: dict[Any, Any] = field(default_factory=dict)


class History(Generic[R]):
    """The last ``limit`` events of each kind. Nothing before revision ``floor`` is known."""

    def __init__(self, *, limit: int, floor: int) -> None:
        self._limit = limit
        self._floor = floor
        self._events: dict[str, deque[Event[R]]] = {}
        self._dropped: dict[str, int] = {}  # the newest revision of each kind that was forgotten for room

    def add(self, storage: str, event: Event[R]) -> None:
        """Remember an event."""
        events = self._events.setdefault(storage, deque())
        events.append(event)
        if len(events) > self._limit:
            self._dropped[storage] = events.popleft().revision

    def since(self, storage: str, revision: int) -> list[Event[R]]:
        """Return the events of a kind after a revision, oldest first; raises ``Expired``."""
        oldest = max(self._floor, self._dropped.get(storage, 0))
        if revision < oldest:
            raise Expired(revision, oldest)
        found: list[Event[R]] = []
        for event in reversed(self._events.get(storage, ())):
            if event.revision <= revision:
                break
            found.append(event)
        found.reverse()
        return found

    def forget(self, revision: int) -> None:
        """Forget everything up to and with a revision."""
        self._floor = max(self._floor, revision)
        for events in self._events.values():
            while events and events[0].revision <= revision:
                events.popleft()
