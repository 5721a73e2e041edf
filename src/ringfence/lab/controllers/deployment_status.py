# SPDX-License-Identifier: Apache-2.0
"""What a Deployment's status says: what ``kubectl rollout status`` and ``kubectl wait`` read."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from ringfence.lab.controllers.pods import condition, moment_of, timestamp
from ringfence.lab.controllers.resources import Object
from ringfence.lab.controllers.rollout import bounds


def status_of(
    deployment: Object, new: Object | None, replica_sets: Sequence[Object], now: datetime.datetime
) -> tuple[Object, float | None]:
    """Return the status, and after how many seconds it will change by itself (the progress deadline)."""
    spec = deployment["spec"]
    replicas = spec.get("replicas", 1)
    statuses = [rs.get("status") or {} for rs in replica_sets]
    total, ready, available = (
        sum(status.get(name, 0) for status in statuses) for name in ("replicas", "readyReplicas", "availableReplicas")
    )
    wanted = sum(rs["spec"].get("replicas", 1) for rs in replica_sets)
    counts = {
        "replicas": total,
        "updatedReplicas": ((new or {}).get("status") or {}).get("replicas", 0),
        "readyReplicas": ready,
        "availableReplicas": available,
        "unavailableReplicas": max(0, wanted - available),
    }
    status: Object = {name: count for name, count in counts.items() if count}
    status["observedGeneration"] = deployment["metadata"].get("generation", 1)
    complete = (
        counts["updatedReplicas"] == replicas
        and counts["replicas"] == replicas
        and available == replicas
        and new is not None
    )
    old = deployment.get("status") or {}
    moved = any(counts[name] != old.get(name, 0) for name in ("updatedReplicas", "readyReplicas", "availableReplicas"))
    progressing, again = _progressing(deployment, new, complete=complete, moved=moved, now=now)
    status["conditions"] = [c for c in (_available(deployment, available, now), progressing) if c is not None]
    return status, again


def _available(deployment: Object, available: int, now: datetime.datetime) -> Object:
    needed = deployment["spec"].get("replicas", 1) - bounds(deployment["spec"]).unavailable
    if available >= needed:
        return _condition(
            deployment, "Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.", now
        )
    message = "Deployment does not have minimum availability."
    return _condition(deployment, "Available", "False", "MinimumReplicasUnavailable", message, now)


def _progressing(
    deployment: Object, new: Object | None, *, complete: bool, moved: bool, now: datetime.datetime
) -> tuple[Object | None, float | None]:
    old = condition(deployment, "Progressing")
    name = new["metadata"]["name"] if new else ""
    if deployment["spec"].get("paused"):
        return _condition(deployment, "Progressing", "Unknown", "DeploymentPaused", "Deployment is paused", now), None
    if new is None:
        return old, None
    if complete:
        message = f'ReplicaSet "{name}" has successfully progressed.'
        return _condition(deployment, "Progressing", "True", "NewReplicaSetAvailable", message, now), None
    deadline = deployment["spec"].get("progressDeadlineSeconds", 600)
    message = f'ReplicaSet "{name}" is progressing.'
    if old is None or moved or old.get("message") not in (message, _timed_out(name)):
        return _condition(deployment, "Progressing", "True", "ReplicaSetUpdated", message, now, touch=True), deadline
    since = moment_of(old.get("lastUpdateTime")) or now
    left = deadline - (now - since).total_seconds()
    if left > 0:
        return old, left
    text = _timed_out(name)
    return _condition(deployment, "Progressing", "False", "ProgressDeadlineExceeded", text, now), None


def _timed_out(name: str) -> str:
    return f'ReplicaSet "{name}" has timed out progressing.'


def _condition(
    deployment: Object,
    kind: str,
    status: str,
    reason: str,
    message: str,
    now: datetime.datetime,
    *,
    touch: bool = False,
) -> Object:
    """Return a condition; it keeps its times as long as it says the same, unless it is to be touched."""
    old = condition(deployment, kind)
    same = old is not None and (old.get("status"), old.get("reason"), old.get("message")) == (status, reason, message)
    if old is not None and same and not touch:
        return old
    since = old.get("lastTransitionTime") if old is not None and old.get("status") == status else None
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastUpdateTime": timestamp(now),
        "lastTransitionTime": since or timestamp(now),
    }
