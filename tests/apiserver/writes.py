# SPDX-License-Identifier: Apache-2.0
"""Requests to the server without HTTP, as short as tests like them."""

from __future__ import annotations

from typing import Any

from ringfence.lab.apiserver import deleting, subresources, writing
from ringfence.lab.apiserver.api import Api
from ringfence.lab.apiserver.objects import copy
from ringfence.lab.apiserver.requests import FieldValidation, Target, WriteOptions
from ringfence.lab.apiserver.resources import Resource
from ringfence.lab.apiserver.writing import Write

Object = dict[str, Any]

GROUPS = {
    "networkpolicies": ("networking.k8s.io", "v1"),
    "deployments": ("apps", "v1"),
    "replicasets": ("apps", "v1"),
    "customresourcedefinitions": ("apiextensions.k8s.io", "v1"),
    "endpointslices": ("discovery.k8s.io", "v1"),
    "widgets": ("example.com", "v1"),
}


class Requests:
    """Makes requests to an Api, in the namespace ``default`` for kinds that have one."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.warnings: list[str] = []

    def resource(self, plural: str, version: str = "") -> Resource:
        """Return a kind."""
        group, preferred = GROUPS.get(plural, ("", "v1"))
        found = self.api.registry.find(group, version or preferred, plural)
        assert found is not None, plural
        return found

    def _write(self, plural: str, name: str, sub: str, options: Object) -> Write:
        resource = self.resource(plural, options.pop("version", ""))
        namespace = "default" if resource.namespaced else ""
        chosen = WriteOptions(
            manager=options.pop("manager", "tester"),
            validation=FieldValidation(options.pop("validation", "Strict")),
            **options,
        )
        return Write(self.api, Target(resource, namespace, name, sub), chosen, self.warnings)

    def create(self, plural: str, obj: Object, **options: Any) -> Object:
        """POST."""
        return copy(writing.create(self._write(plural, "", "", options), obj).object)

    def update(self, plural: str, obj: Object, *, sub: str = "", **options: Any) -> Object:
        """PUT."""
        write = self._write(plural, obj["metadata"]["name"], sub, options)
        if sub not in ("", "status"):
            return copy(subresources.write(write, "update", obj, "application/json").object)
        return copy(writing.update(write, obj).object)

    def patch(
        self, plural: str, name: str, patch: Any, *, sub: str = "", kind: str = "merge", **options: Any
    ) -> Object:
        """PATCH; ``kind`` is json, merge, strategic-merge or apply."""
        media = writing.APPLY_PATCH if kind == "apply" else f"application/{kind}-patch+json"
        write = self._write(plural, name, sub, options)
        if sub not in ("", "status"):
            return copy(subresources.write(write, "patch", patch, media).object)
        return copy(writing.patch(write, patch, media).object)

    def part(self, plural: str, name: str, sub: str, body: Object, **options: Any) -> Object:
        """POST to a part of an object."""
        return copy(
            subresources.write(self._write(plural, name, sub, options), "create", body, "application/json").object
        )

    def delete(self, plural: str, name: str, **options: Any) -> Object:
        """DELETE."""
        resource = self.resource(plural)
        target = Target(resource, "default" if resource.namespaced else "", name)
        return copy(deleting.delete(self.api, target, deleting.DeleteOptions(**options)))

    def get(self, plural: str, name: str) -> Object | None:
        """GET the stored object, None if there is none."""
        resource = self.resource(plural)
        return self.api.get(resource.storage, "default" if resource.namespaced else "", name)


def pod(name: str = "web", **spec: Any) -> Object:
    """Return a pod's manifest."""
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}], **spec}}


def deployment(name: str = "web", **spec: Any) -> Object:
    """Return a Deployment's manifest."""
    template = {"metadata": {"labels": {"app": name}}, "spec": pod()["spec"]}
    return {
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": template, **spec},
    }


def service(name: str = "web", **spec: Any) -> Object:
    """Return a Service's manifest."""
    return {"metadata": {"name": name}, "spec": {"selector": {"app": name}, "ports": [{"port": 80}], **spec}}


def causes(failure: Any) -> list[tuple[str, str]]:
    """Return field and message of a refusal's causes."""
    return [(c["field"], c["message"]) for c in failure.status["details"]["causes"]]
