# SPDX-License-Identifier: Apache-2.0
"""Watches: what happens to a selection of objects, line by line, for as long as the client stays.

A watcher has a bounded queue that the store fills and the connection empties: a slow client never holds up a write, it
loses its connection instead and comes back with the last resourceVersion that it saw.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Iterable

from ringfence.apis import fields
from ringfence.lab.apiserver.api import Api
from ringfence.lab.apiserver.reading import parse_revision, select
from ringfence.lab.apiserver.rendering import View, error_event
from ringfence.lab.apiserver.requests import ListOptions, Target
from ringfence.lab.apiserver.selectors import Selection
from ringfence.lab.apiserver.status import Failure, bad_request, expired, invalid, too_large
from ringfence.lab.apiserver.store import Event, Expired, Record

QUEUE_LIMIT = 10_000
BOOKMARK_EVERY = 60.0
_SHORTEST, _LONGEST = 1800, 3600  # seconds that a watch lasts when the client does not say
_BATCH = 200  # events written at once

Meaning = tuple[str, Event[Record]]


class Watcher:
    """The events of one selection, queued. ``overflowed`` once the client was too slow."""

    def __init__(self, target: Target, selection: Selection, *, limit: int = QUEUE_LIMIT) -> None:
        self._target = target
        self._selection = selection
        self._limit = limit
        self._queue: deque[Meaning] = deque()
        self._wake = asyncio.Event()
        self.overflowed = False

    def offer(self, event: Event[Record]) -> None:
        """Queue an event if it means something here. Called by the store, within the write."""
        meaning = self.meaning(event)
        if meaning is None or self.overflowed:
            return
        if len(self._queue) >= self._limit:
            self.overflowed = True
            self._queue.clear()
        else:
            self._queue.append((meaning, event))
        self._wake.set()

    def meaning(self, event: Event[Record]) -> str | None:
        """Return what an event is to this selection, None if nothing.

        A change may bring an object into the selection, which is ADDED here, or take it out of it: DELETED.
        """
        key = event.new.key
        if self._target.namespace and key.namespace != self._target.namespace:
            return None
        if self._selection.everything:
            return event.type
        before = event.old is not None and self._selected(event.old)
        if event.type == "DELETED":
            return "DELETED" if before else None
        after = self._selected(event.new)
        match before, after:
            case False, False:
                return None
            case False, True:
                return "ADDED"
            case True, False:
                return "DELETED"
            case _:
                return "MODIFIED"

    def _selected(self, record: Record) -> bool:
        return self._selection.matches(self._target.resource.is_shown(record.object))

    def initial(self, records: Iterable[Record]) -> list[Meaning]:
        """Return the objects that are there already, as additions."""
        place = self._target.namespace
        return [
            ("ADDED", Event("ADDED", record.revision, None, record))
            for record in records
            if (not place or record.key.namespace == place) and self._selected(record)
        ]

    async def next(self, timeout: float) -> list[Meaning]:  # noqa: ASYNC109 - an empty answer, not an error
        """Return some of what is queued; waits for more at most ``timeout`` seconds."""
        if not self._queue and not self.overflowed:
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), timeout)
            except TimeoutError:
                return []
        return [self._queue.popleft() for _ in range(min(_BATCH, len(self._queue)))]


async def lines(api: Api, target: Target, options: ListOptions, view: View) -> AsyncIterator[bytes]:
    """Yield the lines of a watch, several at once where there are, until its time is over.

    Everything that can be refused is refused before the first line: raises ``Failure`` 400, 422 or 504. A forgotten
    revision is an ERROR line instead, as kube-apiserver has it.
    """
    watcher = Watcher(target, select(target, options))
    _check(api, options)
    return _stream(api, watcher, target, options, view)


async def _stream(api: Api, watcher: Watcher, target: Target, options: ListOptions, view: View) -> AsyncIterator[bytes]:
    storage = target.resource.storage
    stop_listening = api.store.listen(storage, watcher.offer)
    try:
        start = api.store.revision
        try:
            backlog = _backlog(api, watcher, target, options)
        except Expired as gone:
            yield error_event(expired(str(gone)).status)
            return
        first = True
        for batch in _batches(backlog):
            yield _render(api, view, batch, first=first)
            first = False
        if options.initial_events:
            yield view.bookmark(start, initial_events_end=True)
        async for chunk in _follow(api, watcher, options, view, first=first):
            yield chunk
    finally:
        stop_listening()


async def _follow(api: Api, watcher: Watcher, options: ListOptions, view: View, *, first: bool) -> AsyncIterator[bytes]:
    clock = asyncio.get_running_loop().time
    # all clients coming back in the same second would be a herd
    lasting = options.timeout or random.uniform(_SHORTEST, _LONGEST)  # noqa: S311 - no secret
    end = clock() + lasting
    bookmark = clock() + BOOKMARK_EVERY
    while not watcher.overflowed:
        batch = await watcher.next(min(end, bookmark) - clock())
        if batch:
            yield _render(api, view, batch, first=first)
            first = False
            continue
        if options.bookmarks and not watcher.overflowed:
            yield view.bookmark(api.store.revision)
        bookmark = clock() + BOOKMARK_EVERY
        if clock() >= end:
            return


def _render(api: Api, view: View, batch: list[Meaning], *, first: bool) -> bytes:
    now = api.clock()
    return b"".join(
        view.event(kind, event, now, first=first and place == 0) for place, (kind, event) in enumerate(batch)
    )


def _batches(events: list[Meaning]) -> Iterable[list[Meaning]]:
    return (events[place : place + _BATCH] for place in range(0, len(events), _BATCH))


def _backlog(api: Api, watcher: Watcher, target: Target, options: ListOptions) -> list[Meaning]:
    """Return what the watch starts with: the state, what was missed, or nothing; raises ``Expired``."""
    storage = target.resource.storage
    revision = parse_revision(options.revision)
    if options.initial_events or (options.initial_events is None and not revision):
        return watcher.initial(api.store.records(storage, target.namespace))
    if not revision:
        return []
    missed = ((watcher.meaning(event), event) for event in api.store.since(storage, revision))
    return [(meaning, event) for meaning, event in missed if meaning is not None]


def _check(api: Api, options: ListOptions) -> None:
    revision = parse_revision(options.revision)
    if revision > api.store.revision:
        raise too_large(revision, api.store.revision)
    if options.initial_events is None:
        if options.revision_match:
            raise _invalid(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            )
        return
    if options.revision_match != "NotOlderThan":
        raise _invalid(
            "resourceVersionMatch", "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        )
    if options.initial_events and not options.bookmarks:
        raise bad_request("sendInitialEvents requires allowWatchBookmarks")


def _invalid(field: str, why: str) -> Failure:
    return invalid("meta.k8s.io", "ListOptions", "", [fields.forbidden(field, why)])
