# SPDX-License-Identifier: Apache-2.0
"""Kinds as a client sees them: where their collections are, and which ones a server has (discovery, read purely)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind that can be listed and watched."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """Group and version as objects say them."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def base(self) -> str:
        """The path of the group version."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    @property
    def everywhere(self) -> str:
        """The path of the collection over all namespaces."""
        return f"{self.base}/{self.plural}"

    def collection(self, namespace: str = "") -> str:
        """Return the path of the collection in a namespace."""
        return f"{self.base}/namespaces/{namespace}/{self.plural}" if self.namespaced else self.everywhere

    def path(self, key: str, subresource: str = "") -> str:
        """Return the path of the object with a key (``namespace/name``, or ``name``), or of a part of it."""
        namespace, _, name = key.rpartition("/")
        path = f"{self.collection(namespace)}/{name}"
        return f"{path}/{subresource}" if subresource else path


CONFIG_MAPS = Resource("", "v1", "ConfigMap", "configmaps")
ENDPOINTS = Resource("", "v1", "Endpoints", "endpoints")
EVENTS = Resource("", "v1", "Event", "events")
NAMESPACES = Resource("", "v1", "Namespace", "namespaces", namespaced=False)
NODES = Resource("", "v1", "Node", "nodes", namespaced=False)
PODS = Resource("", "v1", "Pod", "pods")
SERVICES = Resource("", "v1", "Service", "services")
SERVICE_ACCOUNTS = Resource("", "v1", "ServiceAccount", "serviceaccounts")
DEPLOYMENTS = Resource("apps", "v1", "Deployment", "deployments")
REPLICA_SETS = Resource("apps", "v1", "ReplicaSet", "replicasets")
LEASES = Resource("coordination.k8s.io", "v1", "Lease", "leases")
ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")
DEFINITIONS = Resource(
    "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False
)


def watchable(resource_list: Mapping[str, Any]) -> list[Resource]:
    """Return what of an ``APIResourceList`` can be listed and watched; subresources are no kinds of their own."""
    group, _, version = resource_list["groupVersion"].rpartition("/")
    return [
        Resource(group, version, entry["kind"], entry["name"], bool(entry["namespaced"]))
        for entry in resource_list.get("resources") or ()
        if "/" not in entry["name"] and {"list", "watch"} <= set(entry.get("verbs") or ())
    ]


def distinct(resources: Iterable[Resource]) -> list[Resource]:
    """Leave out what shows the same objects again: a second version of a kind, and events in their newer group."""
    found: dict[tuple[str, str], Resource] = {}
    for resource in resources:
        if (resource.group, resource.kind) != ("events.k8s.io", "Event"):
            found.setdefault((resource.group, resource.kind), resource)
    return list(found.values())


def of_definition(definition: Mapping[str, Any]) -> Resource | None:
    """Return the kind that an established CustomResourceDefinition adds, None if it is not served (yet)."""
    spec = definition["spec"]
    conditions = (definition.get("status") or {}).get("conditions") or ()
    established = any(c.get("type") == "Established" and c.get("status") == "True" for c in conditions)
    served = [v for v in spec["versions"] if v.get("served")]
    if not established or not served or definition["metadata"].get("deletionTimestamp"):
        return None
    version = next((v for v in served if v.get("storage")), served[0])
    return Resource(
        spec["group"], version["name"], spec["names"]["kind"], spec["names"]["plural"], spec["scope"] == "Namespaced"
    )
