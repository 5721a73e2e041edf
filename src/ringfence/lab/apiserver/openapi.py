# SPDX-License-Identifier: Apache-2.0
"""OpenAPI v3 documents of the served kinds: what ``kubectl explain``, ``apply`` and ``create`` read.

Per group version one document: the paths with the query parameters that kubectl looks for before it uses them
(``fieldValidation``, ``dryRun``), the kinds' real schemas, and for the patch formats the content types, from which
kubectl tells whether it may send strategic merge patches.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ringfence.lab.apiserver.resources import Resource
from ringfence.lab.apiserver.schema.definitions import definitions, kinds

Document = dict[str, Any]

_SCHEMAS = "#/components/schemas/"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_GVK = "x-kubernetes-group-version-kind"
_PATCHES = ("application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json")
_STRATEGIC = "application/strategic-merge-patch+json"
_METHODS = (
    # verb, HTTP method, whether on the collection
    ("list", "get", True),
    ("create", "post", True),
    ("deletecollection", "delete", True),
    ("get", "get", False),
    ("update", "put", False),
    ("patch", "patch", False),
    ("delete", "delete", False),
)
_PARAMETERS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "list": (
        ("allowWatchBookmarks", "boolean", "Ask for BOOKMARK events in a watch."),
        ("continue", "string", "Go on with a list where the last page ended."),
        ("fieldSelector", "string", "Select by fields."),
        ("labelSelector", "string", "Select by labels."),
        ("limit", "integer", "The largest number of objects in one answer."),
        ("resourceVersion", "string", "How new the answer must be."),
        ("resourceVersionMatch", "string", "How resourceVersion counts for lists."),
        ("sendInitialEvents", "boolean", "Begin a watch with what is there."),
        ("timeoutSeconds", "integer", "How long the request may last."),
        ("watch", "boolean", "Watch for changes."),
    ),
    "create": (),
    "update": (),
    "patch": (("force", "boolean", "Take fields from other managers (server-side apply only)."),),
    "delete": (
        ("gracePeriodSeconds", "integer", "Seconds before the object is deleted; 0 is at once."),
        ("orphanDependents", "boolean", "Deprecated: use propagationPolicy."),
        ("propagationPolicy", "string", "What becomes of dependents: Orphan, Background or Foreground."),
    ),
}
_WRITE_PARAMETERS = (
    ("dryRun", "string", "All: check everything, keep nothing."),
    ("fieldManager", "string", "The name of who changes what this request changes."),
    ("fieldValidation", "string", "What to do about unknown and repeated fields: Ignore, Warn or Strict."),
)


def index(documents: Iterable[tuple[str, str, Sequence[Resource]]]) -> Document:
    """Return what ``GET /openapi/v3`` answers, for (group, version, kinds): a path with a hash for each document."""
    paths = {}
    for group, version, resources in documents:
        path = _base(group, version).lstrip("/")
        paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={fingerprint(resources)}"}
    return {"paths": paths}


def fingerprint(resources: Sequence[Resource]) -> str:
    """Return a digest that changes whenever the document of these kinds would: clients cache by it."""
    said = [
        [r.group, r.version, r.kind, r.plural, sorted(r.subresources), _schema_text(r) if r.custom else ""]
        for r in resources
    ]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:40].upper()


def _schema_text(resource: Resource) -> str:
    shape = resource.shape()
    return json.dumps(shape.raw, sort_keys=True) if shape else ""


def document(group: str, version: str, resources: Iterable[Resource]) -> Document:
    """Return the OpenAPI v3 document of one group version."""
    served = list(resources)
    paths = {path: item for resource in served for path, item in _paths(resource)}
    return {
        "openapi": "3.0.0",
        "info": {"title": f"Kubernetes {_base(group, version)}", "version": "v1.32.0"},
        "paths": {path: paths[path] for path in sorted(paths)},
        "components": {"schemas": _components(served), "securitySchemes": _TOKEN},
    }


_TOKEN = {
    "BearerToken": {
        "description": "Bearer Token authentication",
        "type": "apiKey",
        "name": "authorization",
        "in": "header",
    }
}


def _base(group: str, version: str) -> str:
    return f"/apis/{group}/{version}" if group else f"/api/{version}"


def _paths(resource: Resource) -> Iterator[tuple[str, Document]]:
    base = _base(resource.group, resource.version)
    scope = "/namespaces/{namespace}" if resource.namespaced else ""
    collection = f"{base}{scope}/{resource.plural}"
    item = f"{collection}/{{name}}"
    yield collection, _path(resource, on_collection=True, verbs=resource.verbs)
    if set(resource.verbs) & {"get", "update", "patch", "delete"}:
        yield item, _path(resource, on_collection=False, verbs=resource.verbs)
    if resource.namespaced and "list" in resource.verbs:
        yield f"{base}/{resource.plural}", _path(resource, on_collection=True, verbs=("list",))
    if "status" in resource.subresources:
        yield f"{item}/status", _path(resource, on_collection=False, verbs=("get", "patch", "update"))


def _path(resource: Resource, *, on_collection: bool, verbs: Iterable[str]) -> Document:
    allowed = set(verbs)
    made: Document = {
        method: _operation(resource, verb)
        for verb, method, collection in _METHODS
        if collection is on_collection and verb in allowed
    }
    shared = [_path_parameter("namespace")] if resource.namespaced else []
    made["parameters"] = shared if on_collection else [_path_parameter("name"), *shared]
    return made


def _operation(resource: Resource, verb: str) -> Document:
    action = {"create": "post", "update": "put", "get": "get", "patch": "patch", "list": "list"}.get(verb, verb)
    reference = {"$ref": _SCHEMAS + component_name(resource)}
    answer = {"$ref": _SCHEMAS + component_name(resource) + "List"} if verb == "list" else reference
    if verb in ("delete", "deletecollection"):
        answer = {"$ref": _SCHEMAS + _META + "Status"}
    made: Document = {
        "description": f"{verb} {resource.kind}",
        "operationId": f"{verb}{resource.group.title().replace('.', '')}{resource.version.title()}{resource.kind}",
        "parameters": [_query_parameter(*parameter) for parameter in _parameters(verb)],
        "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": answer}}}},
        "x-kubernetes-action": action,
        _GVK: {"group": resource.group, "kind": resource.kind, "version": resource.version},
    }
    body = _body(resource, verb, reference)
    if body is not None:
        made["requestBody"] = {"content": body, "required": verb != "delete"}
    return made


def _parameters(verb: str) -> tuple[tuple[str, str, str], ...]:
    if verb == "deletecollection":
        return (*_PARAMETERS["list"], *_PARAMETERS["delete"], _WRITE_PARAMETERS[0])
    own = _PARAMETERS.get(verb, ())
    if verb in ("create", "update", "patch"):
        return (*_WRITE_PARAMETERS, *own)
    return (*own, _WRITE_PARAMETERS[0]) if verb == "delete" else own


def _body(resource: Resource, verb: str, reference: Document) -> Document | None:
    match verb:
        case "create" | "update":
            return {"application/json": {"schema": reference}}
        case "patch":
            formats = _PATCHES if resource.custom else (*_PATCHES, _STRATEGIC)
            return {content_type: {"schema": {"type": "object"}} for content_type in formats}
        case "delete" | "deletecollection":
            return {"application/json": {"schema": {"$ref": f"{_SCHEMAS}{_META}DeleteOptions"}}}
        case _:
            return None


def _query_parameter(name: str, kind: str, description: str) -> Document:
    return {
        "name": name,
        "in": "query",
        "description": description,
        "schema": {"type": kind, "uniqueItems": True},
    }


def _path_parameter(name: str) -> Document:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "uniqueItems": True}}


def component_name(resource: Resource) -> str:
    """Return the name of a kind's component: ``io.k8s.api.core.v1.Pod``, for custom kinds ``com.example.v1.Widget``."""
    known = kinds().get((resource.group, resource.version, resource.kind))
    if known is not None and not resource.custom:
        return known
    reversed_group = ".".join(reversed((resource.group or "core").split(".")))
    return f"{reversed_group}.{resource.version}.{resource.kind}"


def _components(resources: Sequence[Resource]) -> Document:
    """Return the schemas of the kinds, of their lists, and of all that they refer to."""
    made: Document = {}
    for resource in resources:
        name, shape = component_name(resource), resource.shape()
        if shape is not None and (resource.custom or not shape.name):
            gvk = {"group": resource.group, "kind": resource.kind, "version": resource.version}
            made[name] = {**shape.raw, _GVK: [gvk]}
        elif shape is not None:
            made[name] = definitions()[name]
        else:
            made[name] = {"type": "object"}
        made[f"{name}List"] = _list_component(resource, name)
    open_ends = {_META + "Status", _META + "DeleteOptions", *_references(made)} - made.keys()
    while open_ends:
        made.update((name, definitions()[name]) for name in open_ends)
        open_ends = set().union(*(_references(made[name]) for name in open_ends)) - made.keys()
    return {name: made[name] for name in sorted(made)}


def _list_component(resource: Resource, name: str) -> Document:
    properties = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"$ref": f"{_SCHEMAS}{_META}ListMeta"},
        "items": {"type": "array", "items": {"$ref": _SCHEMAS + name}},
    }
    gvk = {"group": resource.group, "kind": resource.list_kind, "version": resource.version}
    return {
        "description": f"{resource.list_kind} is a list of {resource.kind}",
        "type": "object",
        "required": ["items"],
        "properties": properties,
        _GVK: [gvk],
    }


def _references(node: Any) -> set[str]:
    if isinstance(node, list):
        return set().union(*map(_references, node)) if node else set()
    if not isinstance(node, Mapping):
        return set()
    found = set().union(*map(_references, node.values())) if node else set()
    reference = node.get("$ref")
    return found | {reference.removeprefix(_SCHEMAS)} if isinstance(reference, str) else found
