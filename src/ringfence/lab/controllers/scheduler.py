# SPDX-License-Identifier: Apache-2.0
"""The scheduler: gives every pod without a node to one that fits, evenly; says why where none does.

A placement counts from the moment that it is decided: ``_assumed`` holds the pods that are on their way, so that pods
scheduled at once do not all go to the node that was emptiest.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from ringfence.lab.controllers.actions import Action, Bind, Patch
from ringfence.lab.controllers.events import record
from ringfence.lab.controllers.loop import Outcome
from ringfence.lab.controllers.placement import Placed, Unschedulable, place
from ringfence.lab.controllers.pods import condition, is_finished, is_terminating, timestamp
from ringfence.lab.controllers.resources import NODES, PODS, Object, Resource
from ringfence.lab.controllers.world import World

NAME = "default-scheduler"
_AGAIN = 5.0  # seconds until a placement is taken for failed


class Scheduler:
    """One key per pod that waits for a node."""

    name = "scheduler"
    manager = "kube-scheduler"

    def __init__(self) -> None:
        self._assumed: dict[str, tuple[str, str]] = {}  # uid -> (node, key)
        self._on_node: dict[str, set[str]] = {}  # node -> uids
        self._place_of: dict[str, str] = {}  # uid -> node
        self._waiting: dict[str, None] = {}

    def affected(
        self,
        world: World,  # noqa: ARG002 - as declared
        resource: Resource,
        key: str,
        old: Object | None,
        new: Object | None,
    ) -> Iterable[str]:
        """Return the pod itself; every pod that waits if a node changed or room was freed. Counts pods by the way."""
        if resource == PODS:
            return self._pod_changed(key, old, new)
        if resource == NODES and _node_view(old) != _node_view(new):
            return list(self._waiting)
        return ()

    def _pod_changed(self, key: str, old: Object | None, new: Object | None) -> Iterable[str]:
        freed = self._count(old, new)
        if new is not None and _wants_node(new):
            self._waiting[key] = None
            return [key]
        self._waiting.pop(key, None)
        return list(self._waiting) if freed else ()

    def _count(self, old: Object | None, new: Object | None) -> bool:
        """Keep the pods per node; tell whether a place was freed."""
        freed = False
        if old is not None:
            uid = old["metadata"]["uid"]
            gone = new is None or is_finished(new) or new["metadata"]["uid"] != uid
            if gone:
                self._assumed.pop(uid, None)
                node = self._place_of.pop(uid, None)
                if node is not None:
                    self._on_node[node].discard(uid)
                    freed = True
        if new is not None and not is_finished(new) and new["spec"].get("nodeName"):
            uid, node = new["metadata"]["uid"], new["spec"]["nodeName"]
            self._assumed.pop(uid, None)
            self._place_of[uid] = node
            self._on_node.setdefault(node, set()).add(uid)
        return freed

    def reconcile(self, world: World, key: str, now: datetime.datetime) -> Outcome:
        """Bind the pod, or note on it why it cannot be."""
        pod = world.get(PODS, key)
        if pod is None or not _wants_node(pod):
            return Outcome()
        uid = pod["metadata"]["uid"]
        self._assumed.pop(uid, None)  # an earlier attempt has failed, or this would not be looked at
        match place(pod, list(world.all(NODES).values()), self._held()):
            case Placed(node):
                self._assumed[uid] = (node, key)
                message = f"Successfully assigned {key} to {node}"
                event = record(PODS, pod, reason="Scheduled", message=message, component=NAME, now=now)
                return Outcome([Bind(key, uid, node, event)], again=_AGAIN)
            case Unschedulable(message):
                return Outcome(_refuse(key, pod, message, now))

    def _held(self) -> dict[str, int]:
        held = {node: len(uids) for node, uids in self._on_node.items()}
        for node, _ in self._assumed.values():
            held[node] = held.get(node, 0) + 1
        return held


def _wants_node(pod: Object) -> bool:
    spec = pod["spec"]
    return (
        not spec.get("nodeName")
        and spec.get("schedulerName", NAME) == NAME
        and not spec.get("schedulingGates")
        and not is_terminating(pod)
        and not is_finished(pod)
    )


def _node_view(node: Object | None) -> object:
    """Return what of a node decides placements: its heartbeats do not."""
    if node is None:
        return None
    ready = condition(node, "Ready")
    status = node.get("status") or {}
    return node.get("spec"), node["metadata"].get("labels"), ready and ready.get("status"), status.get("allocatable")


def _refuse(key: str, pod: Object, message: str, now: datetime.datetime) -> list[Action]:
    """Return what tells that no node fits; nothing if the pod says so already."""
    old = condition(pod, "PodScheduled")
    if old is not None and old.get("status") == "False" and old.get("message") == message:
        return []
    since = old["lastTransitionTime"] if old is not None and old.get("status") == "False" else timestamp(now)
    new = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
        "lastProbeTime": None,
        "lastTransitionTime": since,
    }
    others = [c for c in (pod.get("status") or {}).get("conditions") or () if c.get("type") != "PodScheduled"]
    event = record(PODS, pod, reason="FailedScheduling", message=message, component=NAME, now=now, warning=True)
    return [Patch(PODS, key, {"status": {"conditions": [*others, new]}}, "status"), event]
