# SPDX-License-Identifier: Apache-2.0
"""Watches over HTTP: resuming, bookmarks, selectors that objects move in and out of, tables, and slow clients."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from ringfence.lab.apiserver import watches
from ringfence.lab.apiserver.api import Api
from ringfence.lab.apiserver.rendering import View
from ringfence.lab.apiserver.requests import Form, ListOptions, Target
from ringfence.lab.apiserver.selectors import parse
from ringfence.lab.apiserver.watches import Watcher
from tests.apiserver.apiservers import RunningServer
from tests.apiserver.writes import Requests, pod

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


@pytest.fixture
def path(namespace: str) -> str:
    """Return the config maps of the test's namespace."""
    return f"/api/v1/namespaces/{namespace}/configmaps"


def make(server: RunningServer, path: str, name: str, **labels: str) -> str:
    """Make a config map; returns its resourceVersion."""
    answer = server.post(path, {"metadata": {"name": name, "labels": labels}})
    assert answer.code == 201
    return str(answer.json["metadata"]["resourceVersion"])


def test_a_watch_goes_on_after_the_revision_that_the_client_knows(server: RunningServer, path: str) -> None:
    """Missed events first, then new ones, none twice."""
    known = make(server, path, "a")
    make(server, path, "b")
    server.patch(f"{path}/a", {"data": {"x": "1"}})
    with server.watch(f"{path}?watch=true&resourceVersion={known}") as watch:
        assert watch.seen(2) == [("ADDED", "b"), ("MODIFIED", "a")]
        server.request("DELETE", f"{path}/b")
        event = watch.take(1)[0]
    assert (event["type"], event["object"]["metadata"]["name"]) == ("DELETED", "b")
    assert int(event["object"]["metadata"]["resourceVersion"]) > int(known) + 2


def test_a_watch_without_revision_begins_with_what_is_there(server: RunningServer, path: str) -> None:
    """As additions."""
    make(server, path, "a")
    make(server, path, "b")
    with server.watch(f"{path}?watch=1") as watch:
        assert watch.seen(2) == [("ADDED", "a"), ("ADDED", "b")]


def test_a_watch_of_one_name_hears_of_no_other(server: RunningServer, path: str) -> None:
    """By field selector, as kubectl does, and by the object's own path."""
    known = make(server, path, "a")
    query = f"watch=true&resourceVersion={known}"
    with server.watch(f"{path}?{query}&fieldSelector=metadata.name%3Db") as watch:
        make(server, path, "c")
        make(server, path, "b")
        assert watch.seen(1) == [("ADDED", "b")]
    with server.watch(f"{path}/b?{query}") as watch:
        assert watch.seen(1) == [("ADDED", "b")]


def test_a_watchlist_marks_the_end_of_the_initial_events(server: RunningServer, path: str) -> None:
    """With the annotation that kubectl 1.37 waits for."""
    make(server, path, "a")
    query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    with server.watch(f"{path}?{query}") as watch:
        first, end = watch.take(2)
        assert (first["type"], first["object"]["metadata"]["name"]) == ("ADDED", "a")
        assert end["type"] == "BOOKMARK"
        assert end["object"]["kind"] == "ConfigMap"
        assert end["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        assert int(end["object"]["metadata"]["resourceVersion"]) >= int(first["object"]["metadata"]["resourceVersion"])
        make(server, path, "b")
        assert watch.seen(1) == [("ADDED", "b")]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("sendInitialEvents=true&allowWatchBookmarks=true", 422),
        ("resourceVersionMatch=Exact&resourceVersion=1", 422),
        ("resourceVersion=99999999", 504),
        ("labelSelector=%3D", 400),
    ],
)
def test_watches_that_cannot_be_are_refused_at_once(server: RunningServer, query: str, code: int) -> None:
    """Before the first line, with a Status."""
    answer = server.get(f"/api/v1/pods?watch=true&{query}")
    assert (answer.code, answer.json["kind"]) == (code, "Status")


def test_objects_that_move_in_and_out_of_the_selection_come_and_go(server: RunningServer, path: str) -> None:
    """A relabelled object is ADDED or DELETED for who selects by that label; leaving, it looks as it did before."""
    known = make(server, path, "a", app="x")
    with server.watch(f"{path}?watch=true&resourceVersion={known}&labelSelector=app%3Dx") as watch:
        server.patch(f"{path}/a", {"metadata": {"labels": {"app": "y"}}})
        gone = watch.take(1)[0]
        assert (gone["type"], gone["object"]["metadata"]["labels"]) == ("DELETED", {"app": "x"})
        stored = server.get(f"{path}/a").json["metadata"]["resourceVersion"]
        assert gone["object"]["metadata"]["resourceVersion"] == stored
        server.patch(f"{path}/a", {"metadata": {"labels": {"other": "1"}}})
        server.patch(f"{path}/a", {"metadata": {"labels": {"app": "x"}}})
        assert watch.seen(1) == [("ADDED", "a")]
        server.patch(f"{path}/a", {"data": {"k": "v"}})
        assert watch.seen(1) == [("MODIFIED", "a")]


def test_table_watches_say_their_columns_once(server: RunningServer, path: str) -> None:
    """The first event has them, later ones do not."""
    known = make(server, path, "a")
    with server.watch(f"{path}?watch=true&resourceVersion={known}", accept=TABLE) as watch:
        make(server, path, "b")
        make(server, path, "c")
        first, second = watch.take(2)
    assert [c["name"] for c in first["object"]["columnDefinitions"]] == ["Name", "Data", "Age"]
    assert second["object"]["columnDefinitions"] is None
    assert second["object"]["rows"][0]["cells"][:2] == ["c", 0]
    assert second["object"]["metadata"]["resourceVersion"]


def test_a_watch_ends_after_its_time_with_a_bookmark(server: RunningServer, path: str) -> None:
    """So that the client can resume where it ended."""
    known = make(server, path, "a")
    started = time.monotonic()
    with server.watch(f"{path}?watch=true&resourceVersion={known}&timeoutSeconds=1&allowWatchBookmarks=true") as watch:
        events = list(watch)
    assert 0.9 < time.monotonic() - started < 8
    assert [event["type"] for event in events] == ["BOOKMARK"]
    assert int(events[0]["object"]["metadata"]["resourceVersion"]) >= int(known)


async def chunks(api: Api, plural: str, **options: Any) -> list[Any]:
    """Return the events of a watch up to its end."""
    target = Target(Requests(api).resource(plural))
    lines = await watches.lines(api, target, ListOptions(watch=True, **options), View(target.resource))
    return [json.loads(line) async for chunk in lines for line in chunk.splitlines()]


async def test_a_forgotten_revision_is_an_error_event(api: Api) -> None:
    """A Status with 410 Expired: list again."""
    api.store.forget(api.store.revision)
    (event,) = await chunks(api, "namespaces", revision="1")
    assert event["type"] == "ERROR"
    assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")


async def test_bookmarks_come_while_nothing_happens(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """They carry the newest revision, also of other kinds' writes."""
    monkeypatch.setattr(watches, "BOOKMARK_EVERY", 0.05)
    api.clock = Api(api.store).clock
    target = Target(Requests(api).resource("pods"))
    options = ListOptions(watch=True, revision=str(api.store.revision), bookmarks=True, timeout=60)
    lines = await watches.lines(api, target, options, View(target.resource))
    first = json.loads(await anext(lines))
    Requests(api).create("configmaps", {"metadata": {"name": "c"}})
    second = json.loads(await anext(lines))
    assert (first["type"], second["type"]) == ("BOOKMARK", "BOOKMARK")
    assert int(second["object"]["metadata"]["resourceVersion"]) == api.store.revision
    await lines.aclose()  # type: ignore[attr-defined]


async def test_a_slow_client_loses_its_watch_and_holds_up_nobody(api: Api) -> None:
    """Its queue is bounded; what it had not read is dropped, and the stream ends."""
    req = Requests(api)
    target = Target(req.resource("configmaps"))
    watcher = Watcher(target, parse("", ""), limit=3)
    stop = api.store.listen("configmaps", watcher.offer)
    for count in range(5):
        req.create("configmaps", {"metadata": {"name": f"c{count}"}})
    stop()
    assert watcher.overflowed
    assert await watcher.next(0) == []


async def test_an_event_is_encoded_once_for_all_watchers(api: Api) -> None:
    """Ten watchers of one form share the bytes."""
    req = Requests(api)
    target = Target(req.resource("pods"))
    watchers = [Watcher(target, parse("", "")) for _ in range(10)]
    for watcher in watchers:
        api.store.listen("pods", watcher.offer)
    req.create("pods", pod())
    events = [(await watcher.next(1))[0][1] for watcher in watchers]
    now = api.clock()
    for form in (Form.OBJECT, Form.TABLE):
        view = View(target.resource, form)
        lines = {id(view.event("ADDED", event, now, first=False)) for event in events}
        assert len(lines) == 1


async def test_a_watcher_that_leaves_is_forgotten(api: Api) -> None:
    """The store keeps no listener for it."""
    target = Target(Requests(api).resource("namespaces"))
    lines = await watches.lines(api, target, ListOptions(watch=True), View(target.resource))
    await anext(lines)
    assert len(api.store._listeners["namespaces"]) == 1
    await lines.aclose()  # type: ignore[attr-defined]
    assert api.store._listeners["namespaces"] == []


async def test_many_watchers_hear_everything_in_order(api: Api) -> None:
    """Under a burst, each watcher gets every event, in the order of revisions."""
    req = Requests(api)
    target = Target(req.resource("configmaps"))
    start = str(api.store.revision)

    async def listen() -> list[str]:
        found: list[str] = []
        options = ListOptions(watch=True, revision=start, timeout=30)
        async for chunk in await watches.lines(api, target, options, View(target.resource)):
            found += [json.loads(line)["object"]["metadata"]["name"] for line in chunk.splitlines()]
            if len(found) >= 300:
                break
        return found

    tasks = [asyncio.create_task(listen()) for _ in range(10)]
    await asyncio.sleep(0)
    for count in range(300):
        req.create("configmaps", {"metadata": {"name": f"c{count}"}})
    expected = [f"c{count}" for count in range(300)]
    assert all(found == expected for found in await asyncio.gather(*tasks))
