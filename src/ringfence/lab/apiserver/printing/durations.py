# SPDX-License-Identifier: Apache-2.0
"""Ages as ``kubectl get`` shows them: coarser the older they are (k8s.io/apimachinery duration.HumanDuration)."""

from __future__ import annotations

import datetime
from typing import Any

from ringfence.lab.apiserver.objects import moment_of
from ringfence.lab.apiserver.printing.layout import UNKNOWN

_MINUTE = 60
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR
_YEAR = 365 * _DAY

# below this many seconds: show this unit, and the rest in the next smaller one where it is not zero
_STEPS: tuple[tuple[int, int, str, int, str], ...] = (
    (2 * _MINUTE, 1, "s", 0, ""),
    (10 * _MINUTE, _MINUTE, "m", 1, "s"),
    (3 * _HOUR, _MINUTE, "m", 0, ""),
    (8 * _HOUR, _HOUR, "h", _MINUTE, "m"),
    (2 * _DAY, _HOUR, "h", 0, ""),
    (8 * _DAY, _DAY, "d", _HOUR, "h"),
    (2 * _YEAR, _DAY, "d", 0, ""),
    (8 * _YEAR, _YEAR, "y", _DAY, "d"),
)


def human(seconds: float) -> str:
    """Return a duration: ``45s``, ``5m3s``, ``26m``, ``3h5m``, ``40h``, ``5d2h``, ``300d``, ``3y40d``, ``9y``."""
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    whole = max(whole, 0)
    for limit, unit, sign, smaller, smaller_sign in _STEPS:
        if whole < limit:
            rest = whole % unit // smaller if smaller else 0
            return f"{whole // unit}{sign}" + (f"{rest}{smaller_sign}" if rest else "")
    return f"{whole // _YEAR}y"


def since(stamp: Any, now: datetime.datetime) -> str:
    """Return how long ago a meta/v1 Time was, ``<unknown>`` if there is none."""
    moment = moment_of(stamp)
    return UNKNOWN if moment is None else human((now - moment).total_seconds())


def age(obj: dict[str, Any], now: datetime.datetime) -> str:
    """Return how long ago an object was created."""
    return since((obj.get("metadata") or {}).get("creationTimestamp"), now)
