# SPDX-License-Identifier: Apache-2.0
"""What controllers ask of a pod, and the labels that select it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from ringfence.lab.controllers.resources import Object


def is_terminating(obj: Object) -> bool:
    """Tell whether somebody asked for the object's deletion."""
    return bool(obj["metadata"].get("deletionTimestamp"))


def phase(pod: Object) -> str:
    """Return the pod's phase; Pending until its kubelet says something."""
    return (pod.get("status") or {}).get("phase") or "Pending"


def is_finished(pod: Object) -> bool:
    """Tell whether the pod's containers have ended for good."""
    return phase(pod) in ("Succeeded", "Failed")


def is_active(pod: Object) -> bool:
    """Tell whether the pod counts for a workload."""
    return not is_finished(pod) and not is_terminating(pod)


def condition(obj: Object, kind: str) -> Object | None:
    """Return the condition of a type, None if the object has none."""
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return next((c for c in conditions if c.get("type") == kind), None)


def is_ready(pod: Object) -> bool:
    """Tell whether the pod says that it is ready."""
    found = condition(pod, "Ready")
    return found is not None and found.get("status") == "True"


def seconds_until_available(pod: Object, min_ready: int, now: datetime.datetime) -> float | None:
    """Return after how many seconds a pod has been ready for long enough (0: now), None while it is not ready."""
    found = condition(pod, "Ready")
    if found is None or found.get("status") != "True":
        return None
    since = moment_of(found.get("lastTransitionTime"))
    if min_ready == 0 or since is None:
        return 0.0
    return max(0.0, min_ready - (now - since).total_seconds())


def moment_of(stamp: Any) -> datetime.datetime | None:
    """Return the moment that a Time or MicroTime says, None if it says none."""
    try:
        return datetime.datetime.fromisoformat(stamp) if stamp else None
    except ValueError:
        return None


def timestamp(moment: datetime.datetime) -> str:
    """Return a meta/v1 Time."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def selects(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Tell whether a ``LabelSelector`` selects labels; none at all selects nothing, an empty one everything."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_holds(expression, labels) for expression in selector.get("matchExpressions") or ())


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values") or ()
    match expression["operator"]:
        case "In":
            return labels.get(key) in values if key in labels else False
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case "Gt" | "Lt" as operator:  # nodes only
            return _compares(operator, labels.get(key), values)
        case _:
            return False


def _compares(operator: str, value: str | None, values: Any) -> bool:
    try:
        left, right = int(value or ""), int(values[0])
    except (ValueError, IndexError):
        return False
    return left > right if operator == "Gt" else left < right
