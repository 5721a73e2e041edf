# SPDX-License-Identifier: Apache-2.0
"""Events are kept for an hour, as kube-apiserver keeps them: a lab that runs for days does not fill up with them."""

from __future__ import annotations

import asyncio
import datetime

from ringfence.lab.apiserver.api import Api
from ringfence.lab.apiserver.objects import copy, moment_of
from ringfence.lab.apiserver.store import Record

EVENTS_LIVE = datetime.timedelta(hours=1)
_EVERY = 300.0
_STAMPS = ("lastTimestamp", "eventTime", "firstTimestamp")


def expire_events(api: Api) -> int:
    """Remove the events that last happened more than an hour ago; returns how many."""
    oldest = api.clock() - EVENTS_LIVE
    old = [record for record in api.all("events") if (last := _last(record)) is not None and last < oldest]
    for record in old:
        api.store.remove(record.key, copy(record.object))
    return len(old)


def _last(record: Record) -> datetime.datetime | None:
    event = record.object
    stamps = [(event.get("series") or {}).get("lastObservedTime"), *(event.get(name) for name in _STAMPS)]
    moments = [moment for stamp in stamps if (moment := moment_of(stamp)) is not None]
    return moments[0] if moments else moment_of(event["metadata"].get("creationTimestamp"))


async def keep_expiring(api: Api) -> None:
    """Remove old events every few minutes, for as long as the server runs."""
    while True:
        expire_events(api)
        await asyncio.sleep(_EVERY)
