# SPDX-License-Identifier: Apache-2.0
"""A cluster in memory that does what controllers ask, at once: for looking at whole stories step by step."""

from __future__ import annotations

import datetime
import itertools
from typing import Any

from ringfence.lab.apiserver.defaults import apply_defaults
from ringfence.lab.apiserver.patches import merge_patch
from ringfence.lab.controllers.actions import (
    Action,
    Bind,
    Create,
    Delete,
    DeleteAll,
    FinalizeNamespace,
    Patch,
    Record,
)
from ringfence.lab.controllers.loop import Controller, Outcome
from ringfence.lab.controllers.resources import (
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    NAMESPACES,
    NODES,
    PODS,
    REPLICA_SETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    Object,
    Resource,
)
from ringfence.lab.controllers.world import World, key_of

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
KINDS = (NAMESPACES, NODES, PODS, SERVICES, SERVICE_ACCOUNTS, DEPLOYMENTS, REPLICA_SETS, ENDPOINT_SLICES)


class Cluster:
    """The world, and what an API server would make of actions on it."""

    def __init__(self) -> None:
        self.world = World()
        self.events: list[str] = []
        self.now = NOW
        self._numbers = itertools.count(1)
        for resource in KINDS:
            self.world.follow(resource)

    def add(self, resource: Resource, obj: Object) -> Object:
        """Store an object as the server would."""
        number = next(self._numbers)
        meta = {"uid": f"uid-{number}", "generation": 1, "creationTimestamp": f"2026-01-01T00:00:{number % 60:02d}Z"}
        if "generateName" in obj["metadata"]:
            meta["name"] = f"{obj['metadata']['generateName']}{number:04d}"
        identity = {"apiVersion": resource.api_version, "kind": resource.kind}
        stored = apply_defaults({**identity, **obj, "metadata": {**meta, **obj["metadata"]}})
        return self._store(resource, stored)

    def change(self, resource: Resource, key: str, patch: Object, *, status: bool = False) -> Object:
        """Merge something into an object."""
        old = self.get(resource, key)
        new = merge_patch(old, patch)
        if not status and new.get("spec") != old.get("spec"):
            new["metadata"] = {**new["metadata"], "generation": old["metadata"].get("generation", 1) + 1}
        return self._store(resource, apply_defaults(new))

    def _store(self, resource: Resource, obj: Object) -> Object:
        obj["metadata"]["resourceVersion"] = str(next(self._numbers))
        self.world.put(resource, key_of(obj), obj)
        return obj

    def get(self, resource: Resource, key: str) -> Object:
        """Return an object that must be there."""
        found = self.world.get(resource, key)
        assert found is not None, f"no {resource.kind} {key}"
        return found

    def all(self, resource: Resource) -> list[Object]:
        """Return the objects of a kind, by name."""
        return [obj for _, obj in sorted(self.world.all(resource).items())]

    def perform(self, action: Action) -> None:
        """Do what a controller asks."""
        match action:
            case Create(resource=resource, object=obj, tell=tell):
                made = self.add(resource, obj)
                if tell is not None:
                    self.perform(tell(made))
            case Patch(resource=resource, key=key, patch=patch, subresource=subresource):
                self.change(resource, key, patch, status=subresource == "status")
            case Delete(resource=resource, key=key):
                self.world.remove(resource, key)
            case DeleteAll(resource=resource, namespace=namespace):
                for key, _ in self.world.in_namespace(resource, namespace):
                    self.world.remove(resource, key)
            case Bind(key=key, node=node, told=told):
                self.change(PODS, key, {"spec": {"nodeName": node}})
                self.perform(told)
            case Record(event=event):
                self.events.append(f"{event['reason']} {event['message']}")
            case FinalizeNamespace(name=name):
                self.world.remove(NAMESPACES, name)

    def look(self, controller: Controller, key: str) -> Outcome:
        """Let a controller look at one key, and do what it asks."""
        outcome = controller.reconcile(self.world, key, self.now)
        for action in outcome.actions:
            self.perform(action)
        return outcome


def namespace(name: str, **meta: Any) -> Object:
    """Return a namespace."""
    return {"metadata": {"name": name, **meta}, "spec": {"finalizers": ["kubernetes"]}}


def node(name: str, *, ready: str = "True", **spec: Any) -> Object:
    """Return a node."""
    labels = {"kubernetes.io/os": "linux", "kubernetes.io/hostname": name}
    status = {"conditions": [{"type": "Ready", "status": ready}], "allocatable": {"pods": "110"}}
    return {"metadata": {"name": name, "labels": labels}, "spec": spec, "status": status}


def pod(name: str, **more: Any) -> Object:
    """Return a pod of namespace ``demo``; ``labels`` and ``status`` beside fields of the spec."""
    labels, status = more.pop("labels", {"app": "web"}), more.pop("status", {})
    containers = [{"name": "c", "image": "i", "ports": [{"name": "http", "containerPort": 80}]}]
    meta = {"name": name, "namespace": "demo", "labels": labels}
    return {"metadata": meta, "spec": {"containers": containers, **more}, "status": status}


def running(*addresses: str, ready: bool = True, since: str = "2026-01-01T00:00:00Z") -> Object:
    """Return the status of a running pod."""
    conditions = [{"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": since}]
    return {"phase": "Running", "podIPs": [{"ip": address} for address in addresses], "conditions": conditions}
