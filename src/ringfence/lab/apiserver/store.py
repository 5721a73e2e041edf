# SPDX-License-Identifier: Apache-2.0
"""The state of the cluster: every object in memory, every write in SQLite before it is seen, one revision for all.

Decides what a revision is: a number that grows by one with each write of whatever kind, and outlives restarts.
Leaves to ``history`` what a watcher missed, and to the callers what may be written. Objects handed out are shared:
nobody changes them; who wants to write, copies (``objects.copy``).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ringfence.lab.apiserver.history import Event, EventType, Expired, History
from ringfence.lab.apiserver.objects import Object, decode, encode

__all__ = ["Event", "EventType", "Expired", "Key", "Record", "Store"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
  storage TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, revision INTEGER NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (storage, namespace, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS revision (only INTEGER PRIMARY KEY CHECK (only = 1), value INTEGER NOT NULL);
INSERT OR IGNORE INTO revision VALUES (1, 0);
"""


class Key(NamedTuple):
    """Where an object is kept; ``namespace`` is empty for cluster-wide kinds. Sorts as lists are sorted."""

    storage: str
    namespace: str
    name: str


class Record:
    """An object as it was written at ``revision``. ``raw`` is its JSON, made once for all readers."""

    __slots__ = ("key", "object", "raw", "revision")

    def __init__(self, key: Key, revision: int, obj: Object, raw: bytes) -> None:
        self.key = key
        self.revision = revision
        self.object = obj
        self.raw = raw


Listener = Callable[[Event[Record]], None]


class Store:
    """All objects. ``history`` bounds how many events of each kind are kept for watchers that come back."""

    def __init__(self, path: Path | str, *, history: int = 4000) -> None:
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode = WAL")
        # a lab's state need not survive a power cut, only the death of the process
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.executescript(_SCHEMA)
        self._kept: dict[str, dict[tuple[str, str], Record]] = {}
        self._listeners: dict[str, list[Listener]] = {}
        self.revision = 0
        self._load()
        self._history: History[Record] = History(limit=history, floor=self.revision)

    def _load(self) -> None:
        (self.revision,) = self._database.execute("SELECT value FROM revision").fetchone()
        for storage, namespace, name, revision, raw in self._database.execute("SELECT * FROM objects"):
            record = Record(Key(storage, namespace, name), revision, decode(raw), raw)
            self._kept.setdefault(storage, {})[namespace, name] = record

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def get(self, key: Key) -> Record | None:
        """Return the record of an object, None if there is no such object."""
        return self._kept.get(key.storage, {}).get((key.namespace, key.name))

    def records(self, storage: str, namespace: str = "") -> list[Record]:
        """Return the records of a kind, of one namespace or (empty) of all, sorted by namespace and name."""
        records = self._kept.get(storage, {})
        chosen = (r for (place, _), r in records.items() if not namespace or place == namespace)
        return sorted(chosen, key=lambda record: record.key)

    def count(self, storage: str) -> int:
        """Return how many objects of a kind there are."""
        return len(self._kept.get(storage, ()))

    def snapshot(self, storage: str, revision: int) -> dict[tuple[str, str], Record]:
        """Return the records of a kind as they were at a revision; raises ``Expired`` if that is forgotten.

        Undoes, newest first, what happened since: the history remembers what each write replaced.
        """
        records = dict(self._kept.get(storage, {}))
        for event in reversed(self._history.since(storage, revision)):
            place = (event.new.key.namespace, event.new.key.name)
            if event.old is None:
                records.pop(place, None)
            else:
                records[place] = event.old
        return records

    def since(self, storage: str, revision: int) -> list[Event[Record]]:
        """Return what happened to a kind after a revision, oldest first; raises ``Expired`` if that is forgotten."""
        return self._history.since(storage, revision)

    def forget(self, revision: int) -> None:
        """Forget what happened up to a revision: what etcd calls compaction."""
        self._history.forget(revision)

    def put(self, key: Key, obj: Object) -> Record:
        """Write an object under the next revision, which becomes its ``resourceVersion``; returns its record."""
        revision = self.revision + 1
        obj["metadata"]["resourceVersion"] = str(revision)
        raw = encode(obj)
        record = Record(key, revision, obj, raw)
        with self._transaction(revision):
            self._database.execute("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?)", (*key, revision, raw))
        old = self.get(key)
        self._kept.setdefault(key.storage, {})[key.namespace, key.name] = record
        self._publish(Event("ADDED" if old is None else "MODIFIED", revision, old, record))
        return record

    def remove(self, key: Key, obj: Object) -> Record:
        """Remove an object; ``obj`` is how it looked at the end. Returns the record that watchers get."""
        revision = self.revision + 1
        obj["metadata"]["resourceVersion"] = str(revision)
        record = Record(key, revision, obj, encode(obj))
        with self._transaction(revision):
            self._database.execute("DELETE FROM objects WHERE storage = ? AND namespace = ? AND name = ?", key)
        old = self._kept[key.storage].pop((key.namespace, key.name))
        self._publish(Event("DELETED", revision, old, record))
        return record

    def listen(self, storage: str, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` with each event of a kind from now on; returns what ends that."""
        listeners = self._listeners.setdefault(storage, [])
        listeners.append(listener)
        return lambda: listeners.remove(listener)

    @contextmanager
    def _transaction(self, revision: int) -> Iterator[None]:
        """Make one write and the new revision happen both, or neither."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("UPDATE revision SET value = ?", (revision,))
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")
        self.revision = revision

    def _publish(self, event: Event[Record]) -> None:
        storage = event.new.key.storage
        self._history.add(storage, event)
        for listener in tuple(self._listeners.get(storage, ())):
            listener(event)
