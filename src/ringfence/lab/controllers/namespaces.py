# SPDX-License-Identifier: Apache-2.0
"""Namespaces: what every one of them has, and how one goes away: its content first, then itself.

Deleting a namespace asks for every object in it to be deleted, each in its own way (pods have their grace). When the
last one is gone, the namespace is finalized; nothing new can be made in it meanwhile (the API server refuses).
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from ringfence.lab.controllers.actions import Action, Create, DeleteAll, FinalizeNamespace, Patch
from ringfence.lab.controllers.loop import Outcome
from ringfence.lab.controllers.pods import is_terminating
from ringfence.lab.controllers.resources import CONFIG_MAPS, NAMESPACES, SERVICE_ACCOUNTS, Object, Resource
from ringfence.lab.controllers.world import World

FINALIZER = "kubernetes"
ROOT_CA = "kube-root-ca.crt"
_ROOT_CA_NOTE = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the "
    "internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes "
    "clusters."
)


class Namespaces:
    """One key per namespace. ``root_ca`` is the PEM that pods verify the API server with."""

    name = "namespaces"
    manager = "kube-controller-manager"

    def __init__(self, root_ca: str) -> None:
        self._root_ca = root_ca

    def affected(
        self, world: World, resource: Resource, key: str, old: Object | None, new: Object | None
    ) -> Iterable[str]:
        """Return the namespace itself, that of what it must have, and that of what comes or goes while it ends."""
        if resource == NAMESPACES:
            return [key]
        if not resource.namespaced:
            return ()
        namespace, _, name = key.rpartition("/")
        if name in ("default", ROOT_CA) and resource in (SERVICE_ACCOUNTS, CONFIG_MAPS):
            return [namespace]
        found = world.get(NAMESPACES, namespace)
        if found is not None and is_terminating(found) and (old is None or new is None):
            return [namespace]
        return ()

    def reconcile(self, world: World, key: str, now: datetime.datetime) -> Outcome:  # noqa: ARG002 - as declared
        """Furnish the namespace, or clear it out."""
        namespace = world.get(NAMESPACES, key)
        if namespace is None:
            return Outcome()
        if not is_terminating(namespace):
            return Outcome(self._furniture(world, key))
        if FINALIZER not in ((namespace.get("spec") or {}).get("finalizers") or ()):
            return Outcome()
        return Outcome(_clearing(world, key))

    def _furniture(self, world: World, namespace: str) -> list[Action]:
        actions: list[Action] = []
        if world.get(SERVICE_ACCOUNTS, f"{namespace}/default") is None:
            account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _named("default", namespace)}
            actions.append(Create(SERVICE_ACCOUNTS, account))
        data = {"ca.crt": self._root_ca}
        there = world.get(CONFIG_MAPS, f"{namespace}/{ROOT_CA}")
        if there is None:
            meta = {**_named(ROOT_CA, namespace), "annotations": {"kubernetes.io/description": _ROOT_CA_NOTE}}
            made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}
            actions.append(Create(CONFIG_MAPS, made))
        elif there.get("data") != data:
            actions.append(Patch(CONFIG_MAPS, f"{namespace}/{ROOT_CA}", {"data": data}))
        return actions


def _named(name: str, namespace: str) -> Object:
    return {"name": name, "namespace": namespace}


def _clearing(world: World, namespace: str) -> list[Action]:
    """Return the deletions of all that nobody asked to delete yet; when nothing is left, the end."""
    kinds = tuple(resource for resource in world.resources if resource.namespaced)
    left = {kind: [obj for _, obj in world.in_namespace(kind, namespace)] for kind in kinds}
    if not any(left.values()):
        return [FinalizeNamespace(namespace, kinds)]
    return [
        DeleteAll(kind, namespace) for kind, objects in left.items() if not all(is_terminating(obj) for obj in objects)
    ]
