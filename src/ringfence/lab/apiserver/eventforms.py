# SPDX-License-Identifier: Apache-2.0
"""One event, two APIs: events.k8s.io/v1 names the fields of the core Event anew. Kept in the core form."""

from __future__ import annotations

from ringfence.lab.apiserver.objects import Object

# the field of events.k8s.io/v1, and the one of v1
_NAMES = (
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
)
_TO_CORE = dict(_NAMES)
_FROM_CORE = {core: new for new, core in _NAMES}


def to_core(event: Object) -> Object:
    """Return an event of events.k8s.io/v1 as a core one."""
    return {**{_TO_CORE.get(field, field): value for field, value in event.items()}, "apiVersion": "v1"}


def from_core(event: Object) -> Object:
    """Return a core event as one of events.k8s.io/v1."""
    renamed = {_FROM_CORE.get(field, field): value for field, value in event.items()}
    return {**renamed, "apiVersion": "events.k8s.io/v1"}
