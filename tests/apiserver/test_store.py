# SPDX-License-Identifier: Apache-2.0
"""The store: one revision for all, memory that outlives the process, history that is bounded."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ringfence.lab.apiserver.store import Event, Expired, Key, Record, Store


def pod(name: str, **more: Any) -> dict[str, Any]:
    """Make a pod of the namespace demo."""
    return {"metadata": {"name": name, "namespace": "demo"}, **more}


def key(name: str, storage: str = "pods", namespace: str = "demo") -> Key:
    """Return where an object is kept."""
    return Key(storage, namespace, name)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Open a store that remembers four events of each kind."""
    opened = Store(tmp_path / "state.db", history=4)
    yield opened
    opened.close()


def test_every_write_of_any_kind_takes_the_next_revision(store: Store) -> None:
    """Revisions are global, and are the objects' resourceVersions."""
    assert store.put(key("a"), pod("a")).object["metadata"]["resourceVersion"] == "1"
    assert store.put(key("x", "nodes", ""), {"metadata": {"name": "x"}}).revision == 2
    assert store.remove(key("a"), pod("a")).revision == 3
    assert store.revision == 3


def test_state_and_revision_survive_a_restart(tmp_path: Path) -> None:
    """What was written is there after reopening; the next revision goes on."""
    first = Store(tmp_path / "state.db")
    first.put(key("a"), pod("a", spec={"x": 1}))
    first.put(key("b"), pod("b"))
    first.remove(key("b"), pod("b"))
    first.close()
    second = Store(tmp_path / "state.db")
    assert [r.key.name for r in second.records("pods")] == ["a"]
    assert second.records("pods")[0].object["spec"] == {"x": 1}
    assert second.put(key("c"), pod("c")).revision == 4
    second.close()


def test_a_restart_forgets_what_happened_before(tmp_path: Path) -> None:
    """Watchers from before may go on only if they had seen everything."""
    first = Store(tmp_path / "state.db")
    first.put(key("a"), pod("a"))
    first.put(key("b"), pod("b"))
    first.close()
    second = Store(tmp_path / "state.db")
    assert second.since("pods", 2) == []
    with pytest.raises(Expired, match=r"too old resource version: 1 \(2\)"):
        second.since("pods", 1)
    second.close()


def test_a_failed_write_leaves_nothing(store: Store) -> None:
    """A write that the database refuses is in neither memory nor file, and takes no revision."""
    store.put(key("a"), pod("a"))
    with pytest.raises(sqlite3.Error):
        store.put(Key("pods", "demo", {}), pod("b"))  # type: ignore[arg-type]
    assert store.revision == 1
    assert [r.key.name for r in store.records("pods")] == ["a"]
    assert store.put(key("c"), pod("c")).revision == 2


def test_history_is_bounded_for_each_kind_alone(store: Store) -> None:
    """A busy kind does not push out the history of a quiet one."""
    store.put(key("quiet"), pod("quiet"))
    for count in range(10):
        store.put(key("busy", "leases"), pod("busy", spec=count))
    assert [e.new.key.name for e in store.since("pods", 0)] == ["quiet"]
    with pytest.raises(Expired):
        store.since("leases", 1)
    assert len(store.since("leases", store.revision - 4)) == 4


def test_a_snapshot_is_the_state_at_its_revision(store: Store) -> None:
    """Additions, changes and deletions since then are undone."""
    store.put(key("a"), pod("a", spec=1))
    store.put(key("b"), pod("b", spec=1))
    then = store.revision
    store.put(key("a"), pod("a", spec=2))
    store.remove(key("b"), pod("b"))
    store.put(key("c"), pod("c"))
    found = {name: record.object.get("spec") for (_, name), record in store.snapshot("pods", then).items()}
    assert found == {"a": 1, "b": 1}


def test_forgotten_history_gives_no_snapshot(store: Store) -> None:
    """After a compaction, old revisions are gone."""
    store.put(key("a"), pod("a"))
    store.put(key("a"), pod("a", spec=2))
    store.forget(store.revision)
    with pytest.raises(Expired):
        store.snapshot("pods", 1)
    assert len(store.snapshot("pods", 2)) == 1


def test_listeners_hear_each_write_of_their_kind_until_they_stop(store: Store) -> None:
    """Events carry what was there before."""
    heard: list[Event[Record]] = []
    stop: Callable[[], None] = store.listen("pods", heard.append)
    store.put(key("a"), pod("a", spec=1))
    store.put(key("x", "nodes"), pod("x"))
    store.put(key("a"), pod("a", spec=2))
    store.remove(key("a"), pod("a", spec=2))
    stop()
    store.put(key("b"), pod("b"))
    assert [(e.type, e.revision) for e in heard] == [("ADDED", 1), ("MODIFIED", 3), ("DELETED", 4)]
    assert heard[1].old is not None
    assert heard[1].old.object["spec"] == 1


def test_records_are_sorted_by_namespace_and_name(store: Store) -> None:
    """Lists come in the order of keys, whatever the order of writes."""
    for namespace, name in (("b", "1"), ("a", "2"), ("a", "1")):
        store.put(Key("pods", namespace, name), pod(name))
    assert [(r.key.namespace, r.key.name) for r in store.records("pods")] == [("a", "1"), ("a", "2"), ("b", "1")]
    assert [r.key.name for r in store.records("pods", "a")] == ["1", "2"]
    assert store.count("pods") == 3
