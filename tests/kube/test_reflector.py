# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from ringfence.errors import RingfenceError
from ringfence.kube.client import Client, Patience
from ringfence.kube.config import ClusterAccess
from ringfence.kube.reflector import Change, Listed, Removed, Upserted, reflect
from ringfence.kube.testing import ApiServer

PODS = "/api/v1/pods"
QUICK = Patience(connect=2, answer=5, idle=2, watch=60, first_retry=0.002, last_retry=0.02)
STARTS = [
    pytest.param("yes", id="watch-list"),
    pytest.param("refused", id="paged-list"),
]


def pod(name: str, value: str = "") -> dict[str, Any]:
    """Return an object with a value to tell its states apart."""
    return {"metadata": {"namespace": "demo", "name": name}, "value": value}


def value_of(raw: bytes) -> str:
    """Decode an object to its value."""
    return str(msgspec.json.decode(raw)["value"])


class Follower:
    """A consumer as a real one is: keeps the state, replaces it on Listed, and counts."""

    def __init__(self) -> None:
        self.state: dict[str, str] | None = None
        self.lists = 0
        self.history: list[Change[str]] = []
        self.troubles: list[RingfenceError] = []

    def take(self, change: Change[str]) -> None:
        """Apply a change."""
        self.history.append(change)
        match change:
            case Listed(items):
                self.state = dict(items)
                self.lists += 1
            case Upserted(key, value):
                assert self.state is not None
                self.state[key] = value
            case Removed(key, _):
                assert self.state is not None
                self.state.pop(key, None)


@contextlib.asynccontextmanager
async def following(server: ApiServer, patience: Patience = QUICK) -> AsyncIterator[Follower]:
    """Run a reflector against the server."""
    follower = Follower()

    async def follow() -> None:
        async with Client(ClusterAccess(server=server.url), patience=patience) as client:
            on_trouble = lambda error, _: follower.troubles.append(error)  # noqa: E731 - one use
            async with contextlib.aclosing(reflect(client, PODS, value_of, on_trouble=on_trouble)) as changes:
                async for change in changes:
                    follower.take(change)

    task = asyncio.create_task(follow())
    try:
        yield follower
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Poll until something is so."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the condition is another program's behaviour
            await asyncio.sleep(0.002)


@pytest.mark.parametrize("watch_list", STARTS)
async def test_state_is_listed_whole_and_then_followed(watch_list: Any) -> None:
    """The first event is the whole state; additions, changes and deletions follow one by one."""
    server = ApiServer(watch_list=watch_list)
    server.put(PODS, pod("a", "1"))
    server.put(PODS, pod("b", "1"))
    async with server.serving(), following(server) as follower:
        await until(lambda: follower.state == {"demo/a": "1", "demo/b": "1"} and server.watching(PODS) == 1)
        server.put(PODS, pod("c", "1"))
        server.put(PODS, pod("a", "2"))
        server.remove(PODS, "demo/b")
        await until(lambda: follower.state == {"demo/a": "2", "demo/c": "1"})

    assert isinstance(follower.history[0], Listed)
    assert follower.history[1:] == [Upserted("demo/c", "1"), Upserted("demo/a", "2"), Removed("demo/b", "1")]
    assert follower.troubles == []


async def test_long_lists_come_in_pages_and_are_told_as_one() -> None:
    """More objects than a page holds are one Listed."""
    server = ApiServer(watch_list="refused")
    for number in range(1201):
        server.put(PODS, pod(f"p{number:04}"))
    async with server.serving(), following(server) as follower:
        await until(lambda: follower.state is not None and len(follower.state) == 1201)

    assert follower.lists == 1
    assert sum("limit=500" in request for request in server.requests) == 3


@pytest.mark.parametrize("watch_list", STARTS)
async def test_dropped_watch_goes_on_from_the_last_version(watch_list: Any) -> None:
    """A connection that breaks in the middle of a line loses nothing, repeats nothing and lists nothing anew."""
    server = ApiServer(watch_list=watch_list)
    server.put(PODS, pod("a", "1"))
    async with server.serving(), following(server) as follower:
        await until(lambda: server.watching(PODS) == 1)
        server.put(PODS, pod("b", "1"))
        await until(lambda: follower.state == {"demo/a": "1", "demo/b": "1"})
        await server.drop(half_a_line=b'{"type":"ADDED","object":{"metadata":{"name":"ghost"')
        server.remove(PODS, "demo/a")
        server.put(PODS, pod("c", "1"))
        await until(lambda: follower.state == {"demo/b": "1", "demo/c": "1"})

    assert follower.lists == 1
    assert len(follower.troubles) >= 1


@pytest.mark.parametrize("gone", ["status", "event"])
@pytest.mark.parametrize("watch_list", STARTS)
async def test_expired_version_ends_in_a_list_that_shows_the_deletions(watch_list: Any, gone: Any) -> None:
    """What was deleted while we were away, and compacted since, is missing from a new Listed."""
    server = ApiServer(watch_list=watch_list, gone=gone)
    server.put(PODS, pod("a", "1"))
    server.put(PODS, pod("b", "1"))
    async with server.serving(), following(server) as follower:
        await until(lambda: server.watching(PODS) == 1)
        await server.drop()
        server.remove(PODS, "demo/a")
        server.compact()
        await until(lambda: follower.state == {"demo/b": "1"})
        await until(lambda: server.watching(PODS) == 1)
        server.put(PODS, pod("c", "1"))
        await until(lambda: follower.state == {"demo/b": "1", "demo/c": "1"})


async def test_bookmark_moves_the_version_on() -> None:
    """After a bookmark a reconnect asks from there, so compaction of what came before costs no list."""
    server = ApiServer()
    server.put(PODS, pod("a", "1"))
    async with server.serving(), following(server) as follower:
        await until(lambda: server.watching(PODS) == 1)
        server.version += 50  # other collections moved on
        await server.bookmark(PODS)
        server.forgotten = server.version
        server.put(PODS, pod("b", "1"))
        await until(lambda: follower.state == {"demo/a": "1", "demo/b": "1"})
        await server.drop()
        server.put(PODS, pod("c", "1"))
        await until(lambda: follower.state == {"demo/a": "1", "demo/b": "1", "demo/c": "1"})

    assert follower.lists == 1


async def test_list_that_fails_half_way_changes_nothing() -> None:
    """An error on the second page tells nothing; the next attempt tells everything."""
    server = ApiServer(watch_list="refused", fail_after_pages=1)
    for number in range(700):
        server.put(PODS, pod(f"p{number:04}"))
    async with server.serving(), following(server) as follower:
        await until(lambda: follower.state is not None)

    assert follower.state is not None
    assert len(follower.state) == 700
    assert len(follower.troubles) == 1


async def test_list_whose_continuation_expired_is_asked_for_in_one_piece() -> None:
    """A continue token that the server no longer knows (410) leads to one unpaged list."""
    server = ApiServer(watch_list="refused")
    for number in range(700):
        server.put(PODS, pod(f"p{number:04}"))
    original = server._get

    def expire_after_first_page(request: Any) -> Any:
        answer = original(request)
        if "continue" not in request.query and "limit" in request.query:
            server.version += 1
            server.forgotten = server.version
        return answer

    server._get = expire_after_first_page  # type: ignore[method-assign] # the server's own misfortune, to order
    async with server.serving(), following(server) as follower:
        await until(lambda: follower.state is not None)

    assert follower.state is not None
    assert len(follower.state) == 700
    assert any("limit" not in request and "watch" not in request for request in server.requests)


async def test_server_that_ignores_watch_list_is_asked_in_pages() -> None:
    """A server too old for sendInitialEvents never ends the stream's list; we notice and list in pages."""
    server = ApiServer(watch_list="ignored")
    server.put(PODS, pod("a", "1"))
    impatient = Patience(connect=0.1, answer=5, idle=5, first_retry=0.002, last_retry=0.02)
    async with server.serving(), following(server, impatient) as follower:
        await until(lambda: follower.state == {"demo/a": "1"})
        await until(lambda: server.watching(PODS) >= 1)
        server.put(PODS, pod("b", "1"))
        await until(lambda: follower.state == {"demo/a": "1", "demo/b": "1"})

    assert follower.lists == 1


async def test_stalled_connection_is_noticed() -> None:
    """A watch on which nothing comes, though things happen, is given up after the idle time and asked for again."""
    server = ApiServer()
    server.put(PODS, pod("a", "1"))
    impatient = Patience(connect=2, answer=5, idle=0.1, first_retry=0.002, last_retry=0.02)
    async with server.serving(), following(server, impatient) as follower:
        await until(lambda: server.watching(PODS) == 1)
        server.stalled = True
        server.put(PODS, pod("b", "1"))
        await until(lambda: len(follower.troubles) >= 1)
        server.stalled = False
        await until(lambda: follower.state == {"demo/a": "1", "demo/b": "1"})

    assert follower.lists == 1
    assert "for 0.1 s" in str(follower.troubles[0])


async def test_server_that_is_away_is_waited_for() -> None:
    """While nobody listens attempts go on, further and further apart; the watch then goes on without a list."""
    server = ApiServer()
    server.put(PODS, pod("a", "1"))
    async with following_restarts(server) as (follower, port):
        await until(lambda: len(follower.troubles) >= 3)
        server.put(PODS, pod("b", "1"))
        async with server.serving(port=port):
            await until(lambda: follower.state == {"demo/a": "1", "demo/b": "1"})

    assert follower.lists == 1
    assert "cannot reach the API server" in str(follower.troubles[-1])


@contextlib.asynccontextmanager
async def following_restarts(server: ApiServer) -> AsyncIterator[tuple[Follower, int]]:
    """Yield a follower that has listed once, whose server then went away, and the port that it had."""
    async with contextlib.AsyncExitStack() as stack:
        async with server.serving():
            port = int(server.url.rpartition(":")[2])
            follower = await stack.enter_async_context(following(server))
            await until(lambda: server.watching(PODS) == 1 and follower.state is not None)
        yield follower, port


async def test_refused_watch_is_listed_anew_at_the_third_strike() -> None:
    """A server that keeps refusing to go on from our version is asked for everything."""
    server = ApiServer()
    server.put(PODS, pod("a", "1"))
    async with server.serving(), following(server) as follower:
        await until(lambda: server.watching(PODS) == 1)
        server.refuse(500, times=3)
        await server.drop()
        await until(lambda: follower.lists == 2)

    assert [getattr(trouble, "code", 0) for trouble in follower.troubles[1:]] == [500, 500, 500]


async def test_unreadable_event_leads_to_a_list() -> None:
    """A line that is no event proves nothing about what we know, so everything is asked for again."""
    server = ApiServer()
    server.put(PODS, pod("a", "1"))
    async with server.serving(), following(server) as follower:
        await until(lambda: server.watching(PODS) == 1)
        await server.drop(half_a_line=b"<html>a proxy was here</html>\n")
        await until(lambda: follower.lists == 2)

    assert follower.state == {"demo/a": "1"}


async def test_watch_that_ends_in_order_is_resumed_without_trouble() -> None:
    """The server ends watches after timeoutSeconds; that is no error, and nothing is listed."""
    server = ApiServer()
    server.put(PODS, pod("a", "1"))
    short = Patience(connect=2, answer=5, idle=5, watch=0.5, first_retry=0.002, last_retry=0.02)
    async with server.serving(), following(server, short) as follower:
        await until(lambda: sum("resourceVersion=" in request for request in server.requests) >= 2)
        server.put(PODS, pod("b", "1"))
        await until(lambda: follower.state == {"demo/a": "1", "demo/b": "1"})

    assert follower.troubles == []
    assert follower.lists == 1


async def test_big_objects_cross_chunk_boundaries() -> None:
    """An object of a megabyte, far above any read buffer, arrives whole."""
    server = ApiServer()
    server.put(PODS, pod("a", "1"))
    async with server.serving(), following(server) as follower:
        await until(lambda: server.watching(PODS) == 1)
        server.put(PODS, pod("big", "x" * 1_000_000))
        await until(lambda: follower.state is not None and len(follower.state.get("demo/big", "")) == 1_000_000)
