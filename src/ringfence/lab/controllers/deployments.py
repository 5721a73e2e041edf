# SPDX-License-Identifier: Apache-2.0
"""Deployments: one ReplicaSet per template, and the way from the old ones to the new one.

Which sizes the ReplicaSets should have is ``rollout``'s arithmetic, what the status says is ``deployment_status``.
Each look takes one step: make the new ReplicaSet, or grow it, or shrink the old ones; the changes bring the next look.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from typing import Any

from ringfence.lab.controllers.actions import Action, Create, Delete, Patch
from ringfence.lab.controllers.deployment_status import status_of
from ringfence.lab.controllers.events import record
from ringfence.lab.controllers.loop import Outcome
from ringfence.lab.controllers.pods import is_finished, is_terminating
from ringfence.lab.controllers.replicasets import owner_reference
from ringfence.lab.controllers.resources import DEPLOYMENTS, PODS, REPLICA_SETS, Object, Resource
from ringfence.lab.controllers.rollout import (
    HASH_LABEL,
    Bounds,
    Counts,
    bounds,
    new_size,
    old_sizes,
    template_hash,
    without_hash,
)
from ringfence.lab.controllers.world import World, controller_of, key_of

COMPONENT = "deployment-controller"
REVISION = "deployment.kubernetes.io/revision"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"
_NOT_INHERITED = ("kubectl.kubernetes.io/last-applied-configuration", REVISION, DESIRED, MAXIMUM)


class Deployments:
    """One key per Deployment."""

    name = "deployments"
    manager = "kube-controller-manager"

    def affected(
        self, world: World, resource: Resource, key: str, old: Object | None, new: Object | None
    ) -> Iterable[str]:
        """Return the Deployment itself, a ReplicaSet's owner, and who waits for a pod's end to recreate it."""
        if resource == DEPLOYMENTS:
            return [key]
        if resource == REPLICA_SETS:
            return {owner for obj in (old, new) if obj is not None for owner in _owner(world, obj)}
        if resource == PODS and old is not None and (new is None or is_finished(new)):
            controller = controller_of(old)
            found = world.of_uid(controller["uid"]) if controller else None
            replica_set = world.get(*found) if found and found[0] == REPLICA_SETS else None
            return list(_owner(world, replica_set)) if replica_set else ()
        return ()

    def reconcile(self, world: World, key: str, now: datetime.datetime) -> Outcome:
        """Take the next step, and let the status say where things are."""
        deployment = world.get(DEPLOYMENTS, key)
        if deployment is None or is_terminating(deployment) or world.is_ending(deployment["metadata"]["namespace"]):
            return Outcome()
        replica_sets = sorted((rs for _, rs in world.controlled(deployment, REPLICA_SETS)), key=_age)
        look = _Look(world, deployment, replica_sets, now)
        actions = look.step()
        status, again = status_of(deployment, look.new, replica_sets, now)
        if status != (deployment.get("status") or {}):
            cleared = {name: None for name in (deployment.get("status") or {}) if name not in status}
            actions.append(Patch(DEPLOYMENTS, key, {"status": cleared | status}, "status"))
        return Outcome(actions, again)


def _owner(world: World, replica_set: Object) -> Iterable[str]:
    controller = controller_of(replica_set)
    found = world.of_uid(controller["uid"]) if controller else None
    if found is not None and found[0] == DEPLOYMENTS:
        yield found[1]


def _age(obj: Object) -> tuple[str, str]:
    return obj["metadata"].get("creationTimestamp") or "", obj["metadata"]["name"]


def counts_of(replica_set: Object | None) -> Counts:
    """Return a ReplicaSet's counts; none at all if there is no ReplicaSet.

    Its status may be older than its size: pods that it was told to end are no longer available, whatever it says.
    """
    if replica_set is None:
        return Counts(0)
    status = replica_set.get("status") or {}
    wanted = replica_set["spec"].get("replicas", 1)
    return Counts(
        wanted=wanted, actual=status.get("replicas", 0), available=min(wanted, status.get("availableReplicas", 0))
    )


class _Look:
    """One look at one Deployment."""

    def __init__(
        self, world: World, deployment: Object, replica_sets: Sequence[Object], now: datetime.datetime
    ) -> None:
        self._world = world
        self._deployment = deployment
        self._spec: dict[str, Any] = deployment["spec"]
        self._now = now
        template = without_hash(self._spec["template"])
        self.new = next((rs for rs in replica_sets if without_hash(rs["spec"]["template"]) == template), None)
        self._old = [rs for rs in replica_sets if rs is not self.new]
        self._limits: Bounds = bounds(self._spec)
        self._replicas: int = self._spec.get("replicas", 1)
        revisions = [_revision(rs) for rs in self._old]
        self._revision = max([*revisions, 0]) + 1
        if self.new is not None:
            self._revision = max(self._revision, _revision(self.new))

    def step(self) -> list[Action]:
        """Return the next step; empty when everything is as it should be."""
        if self._spec.get("paused"):
            return self._follow_scale()
        recreates = (self._spec.get("strategy") or {}).get("type") == "Recreate"
        if recreates and any(counts_of(rs).wanted for rs in self._old):
            return [action for rs in self._old for action in self._resize(rs, 0)]
        if recreates and counts_of(self.new).wanted == 0 and self._has_old_pods():
            return []
        size = self._new_size(recreates=recreates)
        if self.new is None:
            return self._make_new(size)
        grown = self._resize(self.new, size) + self._annotate()
        if grown or recreates:
            return grown
        sizes = old_sizes(self._replicas, self._limits, counts_of(self.new), [counts_of(rs) for rs in self._old])
        shrunk = [action for rs, size in zip(self._old, sizes, strict=True) for action in self._resize(rs, size)]
        return shrunk or self._forget_history()

    def _follow_scale(self) -> list[Action]:
        """Return what a paused Deployment does: it only keeps the one ReplicaSet that has pods at its size."""
        active = [rs for rs in (*self._old, self.new) if rs is not None and counts_of(rs).wanted]
        if not active and self.new is not None:
            active = [self.new]
        return self._resize(active[0], self._replicas) if len(active) == 1 else []

    def _new_size(self, *, recreates: bool) -> int:
        if recreates:
            return self._replicas
        return new_size(self._replicas, self._limits, counts_of(self.new), [counts_of(rs) for rs in self._old])

    def _has_old_pods(self) -> bool:
        return any(not is_finished(pod) for rs in self._old for _, pod in self._world.controlled(rs, PODS))

    def _make_new(self, size: int) -> list[Action]:
        template = self._spec["template"]
        label = template_hash(without_hash(template))
        metadata = template.get("metadata") or {}
        labels = {**(metadata.get("labels") or {}), HASH_LABEL: label}
        selector = self._spec["selector"]
        match_labels = {**(selector.get("matchLabels") or {}), HASH_LABEL: label}
        meta = self._deployment["metadata"]
        made = {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": f"{meta['name']}-{label}",
                "namespace": meta["namespace"],
                "labels": labels,
                "annotations": self._annotations(),
                "ownerReferences": [owner_reference(DEPLOYMENTS, self._deployment)],
            },
            "spec": {
                "replicas": size,
                "minReadySeconds": self._spec.get("minReadySeconds", 0),
                "selector": {**selector, "matchLabels": match_labels},
                "template": {**template, "metadata": {**metadata, "labels": labels}},
            },
        }
        return [Create(REPLICA_SETS, made), self._scaled(made, 0, size), *self._mark_revision()]

    def _annotations(self) -> dict[str, str]:
        inherited = self._deployment["metadata"].get("annotations") or {}
        return {
            **{key: value for key, value in inherited.items() if key not in _NOT_INHERITED},
            DESIRED: str(self._replicas),
            MAXIMUM: str(self._replicas + self._limits.surge),
            REVISION: str(self._revision),
        }

    def _annotate(self) -> list[Action]:
        """Return what brings the annotations of the new ReplicaSet and the Deployment's revision up to date."""
        assert self.new is not None
        actions = self._mark_revision()
        have = self.new["metadata"].get("annotations") or {}
        missing = {key: value for key, value in self._annotations().items() if have.get(key) != value}
        if missing:
            actions.append(Patch(REPLICA_SETS, key_of(self.new), {"metadata": {"annotations": missing}}))
        return actions

    def _mark_revision(self) -> list[Action]:
        revision = str(self._revision)
        if (self._deployment["metadata"].get("annotations") or {}).get(REVISION) == revision:
            return []
        return [Patch(DEPLOYMENTS, key_of(self._deployment), {"metadata": {"annotations": {REVISION: revision}}})]

    def _resize(self, replica_set: Object, size: int) -> list[Action]:
        now = counts_of(replica_set).wanted
        if now == size:
            return []
        patch = {"metadata": {"annotations": {DESIRED: str(self._replicas)}}, "spec": {"replicas": size}}
        return [Patch(REPLICA_SETS, key_of(replica_set), patch), self._scaled(replica_set, now, size)]

    def _scaled(self, replica_set: Object, before: int, after: int) -> Action:
        way = "up" if after > before else "down"
        message = f"Scaled {way} replica set {replica_set['metadata']['name']} from {before} to {after}"
        return record(
            DEPLOYMENTS,
            self._deployment,
            reason="ScalingReplicaSet",
            message=message,
            component=COMPONENT,
            now=self._now,
        )

    def _forget_history(self) -> list[Action]:
        """Return the deletions of old, empty ReplicaSets beyond ``revisionHistoryLimit``, oldest first."""
        limit = self._spec.get("revisionHistoryLimit", 10)
        empty = [rs for rs in self._old if counts_of(rs) == Counts(0) and not is_terminating(rs)]
        spare = sorted(empty, key=_revision)[: max(0, len(empty) - limit)]
        return [Delete(REPLICA_SETS, key_of(rs), rs["metadata"]["uid"]) for rs in spare]


def _revision(replica_set: Object) -> int:
    value = (replica_set["metadata"].get("annotations") or {}).get(REVISION, "0")
    return int(value) if value.isdigit() else 0
