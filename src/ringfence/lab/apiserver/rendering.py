# SPDX-License-Identifier: Apache-2.0
"""Objects, lists and watch events as bytes, in the form that the client asked for: itself, table rows, or metadata.

JSON of an object is made once, when it is written (``Record.raw``); lists and events are put together from that.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ringfence.lab.apiserver.objects import Object, encode
from ringfence.lab.apiserver.requests import Form
from ringfence.lab.apiserver.resources import Resource
from ringfence.lab.apiserver.store import Event, Record

META_V1 = "meta.k8s.io/v1"
INITIAL_EVENTS_END = "k8s.io/initial-events-end"


@dataclass(frozen=True, slots=True)
class View:
    """How to show objects: as which kind and version, in which form; ``include`` is what table rows carry along."""

    resource: Resource
    form: Form = Form.OBJECT
    include: str = "Metadata"

    def object(self, obj: Object, now: datetime.datetime) -> bytes:
        """Return one object that is in the request's version already."""
        match self.form:
            case Form.OBJECT:
                return encode(obj)
            case Form.METADATA:
                return encode(_metadata(obj))
            case Form.TABLE:
                revision = obj.get("metadata", {}).get("resourceVersion", "")
                return self._table([self._row(obj, now)], {"resourceVersion": revision})

    def record(self, record: Record, now: datetime.datetime) -> bytes:
        """Return one stored object."""
        if self.form is Form.OBJECT and self.resource.from_storage is None:
            return record.raw
        return self.object(self.resource.is_shown(record.object), now)

    def list(self, records: Sequence[Record], metadata: Object, now: datetime.datetime) -> bytes:
        """Return a list of stored objects."""
        if self.form is Form.TABLE:
            return self._table([self._row(self.resource.is_shown(r.object), now) for r in records], metadata)
        kind, version = self.resource.list_kind, self.resource.api_version
        if self.form is Form.METADATA:
            kind, version = "PartialObjectMetadataList", META_V1
        head = encode({"kind": kind, "apiVersion": version, "metadata": metadata})
        return b'%s,"items":[%s]}' % (head[:-1], b",".join(self.record(r, now) for r in records))

    def event(self, kind: str, event: Event[Record], now: datetime.datetime, *, first: bool) -> bytes:
        """Return one line of a watch. ``kind`` is what it means to this watcher; only its first table has columns."""
        key = (kind, self.resource.api_version, self.form, self.include, first)
        line = event.rendered.get(key)
        if line is None:
            line = event.rendered[key] = _line(kind, self._event_object(kind, event, now, first=first))
        return line

    def _event_object(self, kind: str, event: Event[Record], now: datetime.datetime, *, first: bool) -> bytes:
        record = event.new
        if kind == "DELETED" and event.type != "DELETED" and event.old is not None:
            # it moved out of the selection: the watcher gets it as it knew it, at the revision of the move
            last = {**event.old.object, "metadata": {**event.old.object["metadata"]}}
            last["metadata"]["resourceVersion"] = str(event.revision)
            record = Record(record.key, event.revision, last, encode(last))
        if self.form is Form.TABLE:
            obj = self.resource.is_shown(record.object)
            metadata = {"resourceVersion": str(record.revision)}
            return self._table([self._row(obj, now)], metadata, columns=first)
        return self.record(record, now)

    def bookmark(self, revision: int, *, initial_events_end: bool = False) -> bytes:
        """Return the line that says: nothing older than this revision is to come."""
        metadata: Object = {"resourceVersion": str(revision), "creationTimestamp": None}
        if initial_events_end:
            metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
        obj: Object
        match self.form:
            case Form.OBJECT:
                obj = {"kind": self.resource.kind, "apiVersion": self.resource.api_version, "metadata": metadata}
            case Form.METADATA:
                obj = {"kind": "PartialObjectMetadata", "apiVersion": META_V1, "metadata": metadata}
            case Form.TABLE:
                rows = [{"cells": [], "object": _metadata({"metadata": metadata})}]
                obj = {"kind": "Table", "apiVersion": META_V1, "metadata": metadata, "columnDefinitions": None}
                obj["rows"] = rows
        return _line("BOOKMARK", encode(obj))

    def _row(self, obj: Object, now: datetime.datetime) -> Object:
        row: Object = {"cells": self.resource.layout.cells(self.resource.is_kept(obj), now)}
        match self.include:
            case "Object":
                row["object"] = obj
            case "None":
                row["object"] = None
            case _:
                row["object"] = _metadata(obj)
        return row

    def _table(self, rows: Iterable[Object], metadata: Object, *, columns: bool = True) -> bytes:
        definitions = [column.definition() for column in self.resource.layout.columns] if columns else None
        return encode(
            {
                "kind": "Table",
                "apiVersion": META_V1,
                "metadata": metadata,
                "columnDefinitions": definitions,
                "rows": list(rows),
            }
        )


def error_event(status: Object) -> bytes:
    """Return the line that ends a watch with a Status."""
    return _line("ERROR", encode(status))


def _metadata(obj: Object) -> Object:
    return {"kind": "PartialObjectMetadata", "apiVersion": META_V1, "metadata": obj.get("metadata") or {}}


def _line(kind: str, obj: bytes) -> bytes:
    return b'{"type":"%s","object":%s}\n' % (kind.encode(), obj)
