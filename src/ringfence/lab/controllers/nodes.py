# SPDX-License-Identifier: Apache-2.0
"""Nodes that fell silent are no longer Ready; pods of nodes that are no more are deleted.

A node's heartbeat is its lease. What counts is when we last saw it *change*, by our own clock: clocks of nodes may
differ, and after an API server's restart every lease looks old.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from ringfence.lab.controllers.actions import Action, Delete, Patch
from ringfence.lab.controllers.loop import Outcome
from ringfence.lab.controllers.pods import condition, timestamp
from ringfence.lab.controllers.resources import LEASES, NODES, PODS, Object, Resource
from ringfence.lab.controllers.world import World

LEASE_NAMESPACE = "kube-node-lease"
GRACE = datetime.timedelta(seconds=40)
_AT_ONCE = {"gracePeriodSeconds": 0}


class NodeLifecycle:
    """One key per node name, be the node there or only named by pods."""

    name = "nodes"
    manager = "kube-controller-manager"

    def __init__(self) -> None:
        self._beats: dict[str, tuple[object, datetime.datetime]] = {}
        self._missing: dict[str, datetime.datetime] = {}

    def affected(
        self, world: World, resource: Resource, key: str, old: Object | None, new: Object | None
    ) -> Iterable[str]:
        """Return the node itself, a first lease's node, and a node that is not there but has a pod."""
        if resource == NODES:
            return [key] if _ready_status(old) != _ready_status(new) else ()
        if resource == LEASES and key.startswith(f"{LEASE_NAMESPACE}/"):
            name = key.rpartition("/")[2]
            return [name] if name not in self._beats else ()  # otherwise the timer will look
        if resource == PODS and new is not None:
            node = new["spec"].get("nodeName")
            return [node] if node and world.get(NODES, node) is None else ()
        return ()

    def reconcile(self, world: World, key: str, now: datetime.datetime) -> Outcome:
        """Judge the node's heartbeat, or clear up after a node that is gone."""
        node = world.get(NODES, key)
        if node is None:
            self._beats.pop(key, None)
            return self._gone(world, key, now)
        self._missing.pop(key, None)
        lease = world.get(LEASES, f"{LEASE_NAMESPACE}/{key}")
        if lease is None:
            return Outcome()  # a node that never had a heartbeat cannot lose it
        beat = (lease["spec"].get("renewTime"), lease["metadata"].get("uid"))
        known = self._beats.get(key)
        if known is None or known[0] != beat:
            self._beats[key] = known = (beat, now)
        left = (known[1] + GRACE - now).total_seconds()
        if left > 0:
            return Outcome(again=left)
        ready = condition(node, "Ready")
        if ready is None or ready.get("status") == "Unknown":
            return Outcome(again=GRACE.total_seconds())
        return Outcome([_lost(key, node, now)], again=GRACE.total_seconds())

    def _gone(self, world: World, key: str, now: datetime.datetime) -> Outcome:
        pods = [(at, pod) for at, pod in world.all(PODS).items() if pod["spec"].get("nodeName") == key]
        if not pods:
            self._missing.pop(key, None)
            return Outcome()
        left = (self._missing.setdefault(key, now) + GRACE - now).total_seconds()
        if left > 0:
            return Outcome(again=left)
        deletions: list[Action] = [Delete(PODS, at, pod["metadata"]["uid"], _AT_ONCE) for at, pod in pods]
        return Outcome(deletions)


def _ready_status(node: Object | None) -> object:
    ready = condition(node, "Ready") if node is not None else None
    return ready.get("status") if ready else node is not None


def _lost(key: str, node: Object, now: datetime.datetime) -> Patch:
    """Return what says that nobody knows how the node is."""
    conditions = []
    for old in node["status"]["conditions"]:
        since = old.get("lastTransitionTime") if old.get("status") == "Unknown" else timestamp(now)
        unknown = {
            "status": "Unknown",
            "reason": "NodeStatusUnknown",
            "message": "Kubelet stopped posting node status.",
        }
        conditions.append({**old, **unknown, "lastTransitionTime": since})
    return Patch(NODES, key, {"status": {"conditions": conditions}}, "status")
