# SPDX-License-Identifier: Apache-2.0
"""Old events go, new ones stay."""

from __future__ import annotations

import datetime
from typing import Any

from ringfence.lab.apiserver.api import Api
from ringfence.lab.apiserver.expiry import expire_events
from ringfence.lab.apiserver.objects import timestamp
from tests.apiserver.writes import Requests


def test_events_are_kept_for_an_hour_after_they_last_happened(api: Api) -> None:
    """By the series, the last time, the event's own, or its making, whatever is there."""
    req = Requests(api)
    old, new = (timestamp(api.clock() - datetime.timedelta(minutes=age)) for age in (70, 50))
    about = {"kind": "Pod", "name": "web", "namespace": "default"}
    times_of: dict[str, dict[str, Any]] = {
        "old-last": {"lastTimestamp": old, "firstTimestamp": old},
        "new-last": {"lastTimestamp": new, "firstTimestamp": old},
        "old-time": {"eventTime": f"{old[:-1]}.000000Z"},
        "new-series": {"eventTime": f"{old[:-1]}.000000Z", "series": {"lastObservedTime": f"{new[:-1]}.000000Z"}},
        "just-made": {},
    }
    for name, times in times_of.items():
        req.create("events", {"metadata": {"name": name}, "involvedObject": about, **times})
    assert expire_events(api) == 2
    assert [r.key.name for r in api.all("events")] == ["just-made", "new-last", "new-series"]
    assert expire_events(api) == 0
