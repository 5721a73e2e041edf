# SPDX-License-Identifier: Apache-2.0
"""List and watch, forever: the state of one collection, kept true through whatever happens to the connection.

The rules (kubernetes.io/docs/reference/using-api/api-concepts, and client-go's Reflector):

1. A list counts only when it is whole: one that fails half-way changes nothing.
2. A watch goes on from the last resourceVersion seen, bookmarks included. A connection that merely drops goes on so.
3. A watch that cannot go on (410 as a status or as an ERROR event, an event that cannot be read, the third refusal
   in a row) ends in a new list, told as ``Listed``: the consumer's difference finds the deletions.
4. No failed attempt is followed by another without a jittered pause, which doubles while nothing is learned.

Leaves reading objects to ``decode``, and keeping them to the consumer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import aiohttp
import msgspec

from ringfence.errors import ClusterError, RingfenceError
from ringfence.kube.changes import Change, Listed, Removed, Upserted
from ringfence.kube.client import NO_PARAMS, Client
from ringfence.kube.status import Status, unreachable

__all__ = ["Change", "Listed", "Removed", "Upserted", "list_whole", "reflect"]

T = TypeVar("T")

PAGE = 500
INITIAL_EVENTS_END = "k8s.io/initial-events-end"
Trouble = Callable[[RingfenceError, float], None]
"""Told what went wrong, and after how many seconds the next attempt follows."""

SETTLED_SECONDS = 5.0
"""A watch that lasted this long worked, even if nothing happened in it."""

_STRIKES = 3
_EXPIRED = 410

_log = logging.getLogger("ringfence.kube")


class _Meta(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    namespace: str = ""
    resource_version: str = ""
    annotations: dict[str, str] | None = None


class _Object(msgspec.Struct, frozen=True):
    metadata: _Meta


class _Event(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


class _ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""
    next_page: str | None = msgspec.field(default=None, name="continue")


class _Page(msgspec.Struct, frozen=True):
    metadata: _ListMeta
    items: list[msgspec.Raw] | None = None


_decode_event = msgspec.json.Decoder(_Event).decode
_decode_object = msgspec.json.Decoder(_Object).decode
_decode_page = msgspec.json.Decoder(_Page).decode


class _NoWatchList(Exception):
    """The server does not stream initial state: list in pages."""


class _Idle(ClusterError):
    """Nothing came for too long: the connection is stalled, or the server does not know what we asked for."""


async def reflect(
    client: Client,
    path: str,
    decode: Callable[[bytes], T],
    *,
    params: Mapping[str, str] = NO_PARAMS,
    on_trouble: Trouble | None = None,
) -> AsyncGenerator[Change[T], None]:
    """Follow a collection (``/api/v1/pods``; ``params`` for selectors): first ``Listed``, then changes, endlessly.

    ``decode`` gets the JSON of one object; it must take every object, what it raises ends the reflection. Items of
    lists carry no ``kind``. ``on_trouble`` hears of every failed attempt (default: a warning in the log).
    """
    reflection = _Reflection(client, path, decode, params, on_trouble or _warn(path))
    async with contextlib.aclosing(reflection.run()) as changes:
        async for change in changes:
            yield change


async def list_whole(client: Client, path: str, decode: Callable[[bytes], T]) -> tuple[str, dict[str, T]]:
    """Return a collection as it is now, with its resourceVersion: what was stored when this was called is in it.

    "Most recent: return data at the most recent resource version. The returned data must be consistent" is what a
    list without a resourceVersion means. Raises ``ClusterError``.
    """
    page = _page(await client.get_bytes(path))
    return page.metadata.resource_version, {_key(_meta(raw)): decode(bytes(raw)) for raw in page.items or ()}


def _warn(path: str) -> Trouble:
    def warn(error: RingfenceError, seconds: float) -> None:
        _log.warning("watching %s: %s; next attempt in %.1f s", path, error, seconds)

    return warn


@dataclass(slots=True)
class _Reflection(Generic[T]):
    client: Client
    path: str
    decode: Callable[[bytes], T]
    params: Mapping[str, str]
    on_trouble: Trouble
    version: str | None = None  # None: list first
    watch_list: bool = True
    failures: int = 0  # attempts in a row in which nothing was learned
    alive: bool = False  # this attempt's watch told something

    async def run(self) -> AsyncGenerator[Change[T], None]:
        clock = asyncio.get_running_loop().time
        while True:
            began, watching = clock(), self.version is not None or self.watch_list
            self.alive = False
            trouble: RingfenceError | None = None
            try:
                async with contextlib.aclosing(self._attempt()) as changes:
                    async for change in changes:
                        yield change
            except _NoWatchList:
                self.watch_list = False
                continue
            except RingfenceError as error:
                trouble = error
            worked = self.alive or clock() - began > SETTLED_SECONDS
            if worked:
                self.failures = 0
            if trouble is not None:
                self._judge(trouble)
            elif worked or not watching:
                continue
            await self._pause(trouble)

    def _attempt(self) -> AsyncGenerator[Change[T], None]:
        if self.version is not None:
            return self._watch(self.version)
        return self._stream_list() if self.watch_list else self._page_list()

    def _judge(self, trouble: RingfenceError) -> None:
        """Decide whether the version that we have is still good to go on from."""
        code = trouble.code if isinstance(trouble, ClusterError) else 0
        if code == _EXPIRED or (code != 0 and self.failures + 1 >= _STRIKES):
            self.version = None

    async def _pause(self, trouble: RingfenceError | None) -> None:
        patience = self.client.patience
        bound = min(patience.last_retry, patience.first_retry * 2 ** min(self.failures, 20))
        self.failures += 1
        seconds = bound * random.uniform(0.5, 1.0)  # noqa: S311 - spreads clients over time, keeps no secret
        if trouble is not None:
            self.on_trouble(trouble, seconds)
        await asyncio.sleep(seconds)

    async def _page_list(self) -> AsyncGenerator[Change[T], None]:
        items: dict[str, T] = {}
        query = {**self.params, "limit": str(PAGE)}
        while True:
            try:
                page = _page(await self.client.get_bytes(self.path, query))
            except ClusterError as error:
                if error.code != _EXPIRED or "continue" not in query:
                    raise
                # the list took longer than the server keeps its snapshot: once more, in one piece
                items, query = {}, dict(self.params)
                continue
            for raw in page.items or ():
                self._put(items, raw)
            if not page.metadata.next_page:
                break
            query["continue"] = page.metadata.next_page
        self.version = page.metadata.resource_version
        yield Listed(items)

    async def _stream_list(self) -> AsyncGenerator[Change[T], None]:
        """WatchList: the initial state as ADDED events up to an annotated bookmark, then the changes, in one answer."""
        query = self._watch_query() | {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
        lines = _Lines(self.client, self.path, query, idle=self.client.patience.connect)
        async with contextlib.aclosing(lines.read()) as stream:
            yield Listed(await self._initial(stream))
            lines.idle = self.client.patience.idle
            async for line in stream:
                change = self._change(line)
                if change is not None:
                    yield change

    async def _initial(self, stream: AsyncGenerator[bytes, None]) -> dict[str, T]:
        items: dict[str, T] = {}
        try:
            async for line in stream:
                event = _event(line)
                match event.type:
                    case "BOOKMARK":
                        meta = _meta(event.object)
                        if (meta.annotations or {}).get(INITIAL_EVENTS_END) == "true":
                            self.version = meta.resource_version
                            return items
                    case "DELETED":
                        items.pop(_key(_meta(event.object)), None)
                    case _:
                        self._put(items, event.object)
        except _Idle:
            # a server that is too old ignores the parameter, and never says that the list is whole
            raise _NoWatchList from None
        except ClusterError as error:
            if error.code in (400, 422):
                raise _NoWatchList from None
            raise
        raise ClusterError(f"the list of {self.path} ended before it was whole", reason="Dropped")

    async def _watch(self, version: str) -> AsyncGenerator[Change[T], None]:
        query = self._watch_query() | {"resourceVersion": version}
        lines = _Lines(self.client, self.path, query, idle=self.client.patience.idle)
        async with contextlib.aclosing(lines.read()) as stream:
            async for line in stream:
                change = self._change(line)
                if change is not None:
                    yield change

    def _change(self, line: bytes) -> Change[T] | None:
        event = _event(line)
        meta = _meta(event.object)
        self.version = meta.resource_version
        self.alive = True
        match event.type:
            case "BOOKMARK":
                return None
            case "DELETED":
                return Removed(_key(meta), self.decode(bytes(event.object)), meta.resource_version)
            case _:
                return Upserted(_key(meta), self.decode(bytes(event.object)), meta.resource_version)

    def _put(self, items: dict[str, T], raw: msgspec.Raw) -> None:
        items[_key(_meta(raw))] = self.decode(bytes(raw))

    def _watch_query(self) -> dict[str, str]:
        # servers end watches after a while; each at its own time, or thousands would come back together
        seconds = int(self.client.patience.watch * random.uniform(1.0, 2.0))  # noqa: S311 - as above
        return {**self.params, "watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(max(1, seconds))}


@dataclass(slots=True)
class _Lines:
    """The whole lines of a stream. A last line that was cut off is not given out: it will come again."""

    client: Client
    path: str
    query: Mapping[str, str]
    idle: float

    async def read(self) -> AsyncGenerator[bytes, None]:
        """Yield lines until the stream ends; raises ``ClusterError`` (code 0) when it breaks."""
        rest = b""
        async with self.client.stream(self.path, self.query) as content:
            while chunk := await self._chunk(content):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line:
                        yield line

    async def _chunk(self, content: aiohttp.StreamReader) -> bytes:
        try:
            async with asyncio.timeout(self.idle):
                return await content.readany()
        except TimeoutError:
            raise _Idle(f"nothing came from {self.path} for {self.idle:g} s", reason="Idle") from None
        except aiohttp.ClientPayloadError:
            raise unreachable(self.client.access.server, ConnectionError("the connection broke off")) from None
        except aiohttp.ClientError as error:
            raise unreachable(self.client.access.server, error) from None


def _event(line: bytes) -> _Event:
    """Read a line of a watch; raises ``ClusterError`` for an ERROR event and for what is no event."""
    try:
        event = _decode_event(line)
        if event.type != "ERROR":
            return event
        status = msgspec.json.decode(event.object, type=Status)
    except msgspec.MsgspecError as error:
        raise ClusterError(f"a watch event cannot be read: {error}", code=_EXPIRED, reason="Unreadable") from None
    raise ClusterError(status.message or "the watch ended with an error", code=status.code or 500, reason=status.reason)


def _page(body: bytes) -> _Page:
    try:
        return _decode_page(body)
    except msgspec.MsgspecError as error:
        raise ClusterError(f"a list cannot be read: {error}", reason="Unreadable") from None


def _meta(raw: msgspec.Raw) -> _Meta:
    try:
        return _decode_object(raw).metadata
    except msgspec.MsgspecError as error:
        raise ClusterError(f"an object cannot be read: {error}", code=_EXPIRED, reason="Unreadable") from None


def _key(meta: _Meta) -> str:
    return f"{meta.namespace}/{meta.name}" if meta.namespace else meta.name
