# SPDX-License-Identifier: Apache-2.0
"""From a CustomResourceDefinition to the kinds that it adds, one ``Resource`` for each version that it serves."""

from __future__ import annotations

from collections.abc import Callable

from ringfence.lab.apiserver.objects import Object, spec_of
from ringfence.lab.apiserver.printing import custom
from ringfence.lab.apiserver.registry import Registry
from ringfence.lab.apiserver.resources import STATUS_VERBS, Resource, ScalePaths, Subresource
from ringfence.lab.apiserver.schema.kinds import of_definition


def served(definition: Object) -> list[Resource]:
    """Return the kinds that a definition adds: one for each version that it serves."""
    spec = spec_of(definition)
    names = spec["names"]
    schemas = of_definition(definition)
    stored = next((v["name"] for v in spec["versions"] if v.get("storage")), "")
    return [
        Resource(
            group=spec["group"],
            version=version["name"],
            kind=names["kind"],
            plural=names["plural"],
            singular=names.get("singular") or names["kind"].lower(),
            storage=storage_of(definition),
            namespaced=spec.get("scope") == "Namespaced",
            short_names=tuple(names.get("shortNames") or ()),
            categories=tuple(names.get("categories") or ()),
            subresources=_subresources(version),
            spec_fields="",
            selectable=tuple(f["jsonPath"].lstrip(".") for f in version.get("selectableFields") or ()),
            to_storage=None if version["name"] == stored else _as_version(f"{spec['group']}/{stored}"),
            from_storage=None
            if version["name"] == stored and len(spec["versions"]) == 1
            else _as_version(f"{spec['group']}/{version['name']}"),
            custom=True,
            schema=schemas[version["name"]],
            layout=custom.layout(version.get("additionalPrinterColumns") or ()),
        )
        for version in spec["versions"]
        if version.get("served")
    ]


def register(registry: Registry, definition: Object) -> None:
    """Serve what a definition says, and no more what it said before."""
    unregister(registry, definition)
    for resource in served(definition):
        registry.add(resource)


def unregister(registry: Registry, definition: Object) -> None:
    """Serve nothing of a definition any more."""
    spec = spec_of(definition)
    registry.remove_custom(spec["group"], spec["names"]["plural"])


def storage_of(definition: Object) -> str:
    """Return where the objects of a custom kind are kept."""
    spec = spec_of(definition)
    return f"{spec['names']['plural']}.{spec['group']}"


def _subresources(version: Object) -> dict[str, Subresource]:
    found: dict[str, Subresource] = {}
    asked = version.get("subresources") or {}
    if "status" in asked:
        found["status"] = Subresource(STATUS_VERBS)
    if scale := asked.get("scale"):
        paths = ScalePaths(
            spec=scale.get("specReplicasPath", "").lstrip("."),
            status=scale.get("statusReplicasPath", "").lstrip("."),
            selector=(scale.get("labelSelectorPath") or "").lstrip("."),
        )
        found["scale"] = Subresource(STATUS_VERBS, "Scale", "autoscaling", "v1", paths)
    return found


def _as_version(api_version: str) -> Callable[[Object], Object]:
    """Return the conversion of strategy None: "only changes the apiVersion field and leaves all else as it is"."""
    return lambda obj: obj if obj.get("apiVersion") == api_version else {**obj, "apiVersion": api_version}
