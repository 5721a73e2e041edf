# SPDX-License-Identifier: Apache-2.0
"""ReplicaSets: as many active pods of a template as asked for, and a status that counts them."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence

from ringfence.lab.controllers.actions import Action, Create, Delete, Patch, Record
from ringfence.lab.controllers.events import record
from ringfence.lab.controllers.loop import Outcome
from ringfence.lab.controllers.pods import (
    is_active,
    is_ready,
    is_terminating,
    phase,
    seconds_until_available,
    selects,
)
from ringfence.lab.controllers.resources import PODS, REPLICA_SETS, Object, Resource
from ringfence.lab.controllers.world import World, controller_of, controller_uid, key_of

COMPONENT = "replicaset-controller"


class ReplicaSets:
    """One key per ReplicaSet."""

    name = "replicasets"
    manager = "kube-controller-manager"

    def affected(
        self, world: World, resource: Resource, key: str, old: Object | None, new: Object | None
    ) -> Iterable[str]:
        """Return the ReplicaSet itself, a pod's controller, and for an orphan everything that selects it."""
        if resource == REPLICA_SETS:
            return [key]
        if resource != PODS:
            return ()
        return {owner for pod in (old, new) if pod is not None for owner in _owners(world, pod)}

    def reconcile(self, world: World, key: str, now: datetime.datetime) -> Outcome:
        """Adopt, create or delete pods until the count is right; then let the status say it."""
        replica_set = world.get(REPLICA_SETS, key)
        if replica_set is None:
            return Outcome()
        pods = [pod for _, pod in world.controlled(replica_set, PODS)]
        active = [pod for pod in pods if is_active(pod)]
        actions: list[Action] = []
        if not is_terminating(replica_set) and not world.is_ending(replica_set["metadata"]["namespace"]):
            adopted = _adoptions(world, replica_set)
            actions += adopted
            actions += _scale(replica_set, active, adopted=len(adopted), now=now)
        status, again = status_of(replica_set, active, now)
        if status != (replica_set.get("status") or {}):
            actions.append(Patch(REPLICA_SETS, key, {"status": _cleared(replica_set, status)}, "status"))
        return Outcome(actions, again)


def _owners(world: World, pod: Object) -> Iterable[str]:
    controller = controller_of(pod)
    if controller is not None:
        found = world.of_uid(controller["uid"])
        if found is not None and found[0] == REPLICA_SETS:
            yield found[1]
        return
    labels = pod["metadata"].get("labels") or {}
    if not labels:
        return
    for key, replica_set in world.in_namespace(REPLICA_SETS, pod["metadata"]["namespace"]):
        if selects(replica_set["spec"].get("selector"), labels):
            yield key


def owner_reference(resource: Resource, owner: Object) -> Object:
    """Return the reference by which an object says who controls it."""
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _adoptions(world: World, replica_set: Object) -> list[Action]:
    """Return what makes the selected pods that nobody controls ours."""
    selector = replica_set["spec"].get("selector")
    reference = owner_reference(REPLICA_SETS, replica_set)
    found: list[Action] = []
    for key, pod in world.in_namespace(PODS, replica_set["metadata"]["namespace"]):
        if controller_uid(pod) or not is_active(pod) or not selects(selector, pod["metadata"].get("labels") or {}):
            continue
        references = [*(pod["metadata"].get("ownerReferences") or ()), reference]
        patch = {"metadata": {"ownerReferences": references, "uid": pod["metadata"]["uid"]}}
        found.append(Patch(PODS, key, patch))
    return found


def _scale(replica_set: Object, active: Sequence[Object], *, adopted: int, now: datetime.datetime) -> list[Action]:
    missing = replica_set["spec"].get("replicas", 1) - len(active) - adopted
    if missing > 0:

        def tell(pod: Object) -> Record:
            message = f"Created pod: {pod['metadata']['name']}"
            return record(
                REPLICA_SETS, replica_set, reason="SuccessfulCreate", message=message, component=COMPONENT, now=now
            )

        return [Create(PODS, pod_of(replica_set), tell) for _ in range(missing)]
    actions: list[Action] = []
    for pod in sorted(active, key=_expendable)[: max(0, -missing)]:
        actions.append(Delete(PODS, key_of(pod), pod["metadata"]["uid"]))
        message = f"Deleted pod: {pod['metadata']['name']}"
        actions.append(
            record(REPLICA_SETS, replica_set, reason="SuccessfulDelete", message=message, component=COMPONENT, now=now)
        )
    return actions


def pod_of(replica_set: Object) -> Object:
    """Return a new pod of the template."""
    meta = replica_set["metadata"]
    template = replica_set["spec"]["template"]
    wanted = template.get("metadata") or {}
    copied = {name: wanted[name] for name in ("labels", "annotations", "finalizers") if wanted.get(name)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": f"{meta['name']}-",
            "namespace": meta["namespace"],
            "ownerReferences": [owner_reference(REPLICA_SETS, replica_set)],
            **copied,
        },
        "spec": template["spec"],
    }


def _expendable(pod: Object) -> tuple[bool, bool, bool, str]:
    """Sort pods by who goes first: without a node, not running, not ready, then the youngest."""
    created = pod["metadata"].get("creationTimestamp") or ""
    youth = "".join(chr(0x10FFFF - ord(character)) for character in created)
    return bool(pod["spec"].get("nodeName")), phase(pod) == "Running", is_ready(pod), youth


def status_of(replica_set: Object, active: Sequence[Object], now: datetime.datetime) -> tuple[Object, float | None]:
    """Return the status, and after how many seconds it will change by itself (minReadySeconds)."""
    spec = replica_set["spec"]
    template_labels = (spec["template"].get("metadata") or {}).get("labels") or {}
    full = sum(template_labels.items() <= (pod["metadata"].get("labels") or {}).items() for pod in active)
    waits = [seconds_until_available(pod, spec.get("minReadySeconds") or 0, now) for pod in active]
    available = sum(wait == 0 for wait in waits)
    ready = sum(wait is not None for wait in waits)
    status: Object = {"replicas": len(active)}
    counts = {"fullyLabeledReplicas": full, "readyReplicas": ready, "availableReplicas": available}
    status.update({name: count for name, count in counts.items() if count})
    status["observedGeneration"] = replica_set["metadata"].get("generation", 1)
    soon = [wait for wait in waits if wait]
    return status, min(soon) if soon else None


def _cleared(replica_set: Object, status: Object) -> Object:
    """Return a merge patch to a status: what it no longer has is removed."""
    return {name: None for name in (replica_set.get("status") or {}) if name not in status} | status
