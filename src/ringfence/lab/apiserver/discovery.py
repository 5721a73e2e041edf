# SPDX-License-Identifier: Apache-2.0
"""What the server serves, as clients ask for it: API versions, groups and kinds, aggregated (v2) or one by one."""

from __future__ import annotations

import platform

from ringfence.lab.apiserver.objects import Object
from ringfence.lab.apiserver.registry import Registry
from ringfence.lab.apiserver.resources import Resource, Subresource

VERSION = "v1.32.6"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


def version() -> Object:
    """Return ``/version``: the Kubernetes version whose behaviour the server has."""
    major, minor, _ = VERSION.removeprefix("v").split(".")
    return {
        "major": major,
        "minor": minor,
        "gitVersion": VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": f"python{platform.python_version()}",
        "compiler": "ringfence",
        "platform": f"{platform.system().lower()}/{_architecture()}",
    }


def _architecture() -> str:
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def wants_aggregated(accept: str) -> bool:
    """Tell whether a client understands the aggregated form (since Kubernetes 1.30 as v2)."""
    clauses = (clause.replace(" ", "") for clause in accept.split(","))
    return any("g=apidiscovery.k8s.io" in clause and "v=v2;" in f"{clause};" for clause in clauses)


def aggregated(registry: Registry, *, core: bool) -> Object:
    """Return the APIGroupDiscoveryList of ``/api`` (core) or ``/apis`` (the rest)."""
    items = []
    for group, versions in registry.groups().items():
        if core is not (group == ""):
            continue
        items.append(
            {
                "metadata": {"name": group, "creationTimestamp": None} if group else {"creationTimestamp": None},
                "versions": [
                    {
                        "version": version,
                        "resources": [_aggregated_resource(r) for r in registry.resources(group, version)],
                        "freshness": "Current",
                    }
                    for version in versions
                ],
            }
        )
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}


def _aggregated_resource(resource: Resource) -> Object:
    made: Object = {
        "resource": resource.plural,
        "responseKind": {"group": resource.group, "version": resource.version, "kind": resource.kind},
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular,
        "verbs": sorted(resource.verbs),
    }
    if resource.short_names:
        made["shortNames"] = list(resource.short_names)
    if resource.categories:
        made["categories"] = list(resource.categories)
    if resource.subresources:
        made["subresources"] = [
            {
                "subresource": name,
                "responseKind": {
                    "group": part.group if part.kind else resource.group,
                    "version": part.version or resource.version,
                    "kind": part.kind or resource.kind,
                },
                "verbs": sorted(part.verbs),
            }
            for name, part in sorted(resource.subresources.items())
        ]
    return made


def api_versions(address: str) -> Object:
    """Return the APIVersions of ``/api``."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def group_list(registry: Registry) -> Object:
    """Return the APIGroupList of ``/apis``."""
    groups = [_group(group, versions) for group, versions in registry.groups().items() if group]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def group(registry: Registry, name: str) -> Object | None:
    """Return the APIGroup of ``/apis/NAME``, None if there is no such group."""
    versions = registry.groups().get(name)
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, versions)} if name and versions else None


def _group(name: str, versions: list[str]) -> Object:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def resource_list(registry: Registry, group: str, version: str) -> Object | None:
    """Return the APIResourceList of one version of a group, None if it is not served."""
    if version not in registry.groups().get(group, ()):
        return None
    found = []
    for resource in registry.resources(group, version):
        found.append(_resource(resource))
        found += [_subresource(resource, name, part) for name, part in sorted(resource.subresources.items())]
    group_version = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": found}


def _resource(resource: Resource) -> Object:
    made: Object = {
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": sorted(resource.verbs),
    }
    if resource.short_names:
        made["shortNames"] = list(resource.short_names)
    if resource.categories:
        made["categories"] = list(resource.categories)
    return made


def _subresource(resource: Resource, name: str, part: Subresource) -> Object:
    made: Object = {
        "name": f"{resource.plural}/{name}",
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": part.kind or resource.kind,
        "verbs": sorted(part.verbs),
    }
    if part.kind:
        made["group"], made["version"] = part.group, part.version
    return made
