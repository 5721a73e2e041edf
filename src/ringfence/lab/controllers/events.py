# SPDX-License-Identifier: Apache-2.0
"""Events: what ``kubectl describe`` shows of what the controllers did."""

from __future__ import annotations

import datetime
import hashlib

from ringfence.lab.controllers.actions import Record
from ringfence.lab.controllers.pods import timestamp
from ringfence.lab.controllers.resources import Object, Resource


def record(
    resource: Resource,
    obj: Object,
    *,
    reason: str,
    message: str,
    component: str,
    now: datetime.datetime,
    warning: bool = False,
) -> Record:
    """Return the action that tells of an object. The name says what is told, so that telling it twice is one event."""
    meta = obj["metadata"]
    said = f"{meta.get('uid')} {reason} {message} {now.isoformat()}"
    name = f"{meta['name']}.{hashlib.sha256(said.encode()).hexdigest()[:16]}"
    stamp = timestamp(now)
    involved = {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "name": meta["name"],
        "namespace": meta.get("namespace"),
        "uid": meta.get("uid"),
        "resourceVersion": meta.get("resourceVersion"),
    }
    return Record(
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": meta.get("namespace") or "default"},
            "involvedObject": {key: value for key, value in involved.items() if value},
            "reason": reason,
            "message": message,
            "type": "Warning" if warning else "Normal",
            "source": {"component": component},
            "reportingComponent": component,
            "reportingInstance": "",
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
        }
    )
