# SPDX-License-Identifier: Apache-2.0
"""Events in a table, whichever of the two APIs they were written through (kept in the core form)."""

from __future__ import annotations

from ringfence.lab.apiserver.objects import Object, name_of
from ringfence.lab.apiserver.printing.durations import since
from ringfence.lab.apiserver.printing.layout import Cells, Column, Layout, Now, wide


def _event(obj: Object, now: Now) -> Cells:
    series = obj.get("series") or {}
    first = obj.get("firstTimestamp") or obj.get("eventTime")
    last = series.get("lastObservedTime") or obj.get("lastTimestamp") or first
    about = obj.get("involvedObject") or {}
    return [
        since(last, now),
        obj.get("type") or "",
        obj.get("reason") or "",
        f"{str(about.get('kind') or '').lower()}/{about['name']}" if about.get("name") else about.get("kind") or "",
        about.get("fieldPath") or "",
        _source(obj),
        str(obj.get("message") or "").strip(),
        since(first, now),
        series.get("count") or obj.get("count") or 1,
        name_of(obj),
    ]


def _source(obj: Object) -> str:
    source = obj.get("source") or {}
    component = source.get("component") or obj.get("reportingComponent") or ""
    host = source.get("host") or obj.get("reportingInstance") or ""
    return f"{component}, {host}" if host else component


EVENTS = Layout(
    (
        Column("Last Seen"),
        Column("Type"),
        Column("Reason"),
        Column("Object"),
        wide("Subobject"),
        wide("Source"),
        Column("Message"),
        wide("First Seen"),
        wide("Count", "integer"),
        Column("Name", format="name", wide=True),
    ),
    _event,
)
