# SPDX-License-Identifier: Apache-2.0
"""The parts of objects that have paths of their own, beside ``/status``: scale, binding, eviction, finalize."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ringfence.apis import fields
from ringfence.lab.apiserver import applying, bodies, deleting, writing
from ringfence.lab.apiserver.api import Api
from ringfence.lab.apiserver.objects import Object, copy, dig, metadata, spec_of
from ringfence.lab.apiserver.printing.selectors import selector
from ringfence.lab.apiserver.requests import Target
from ringfence.lab.apiserver.status import bad_request, conflict, invalid
from ringfence.lab.apiserver.writing import Write, Written

_SCALE = ("autoscaling/v1", "Scale")


def write(request: Write, verb: str, body: Any, media: str) -> Written:
    """Write to a part of an object; raises ``Failure``."""
    part = request.target.subresource
    if part == "scale":
        return _write_scale(request, verb, body, media)
    return _WRITERS[part](request, body)


def read_scale(api: Api, target: Target) -> Object:
    """Return how many there should be and are, as an autoscaling/v1 Scale."""
    return _scale(target, target.resource.is_shown(writing.existing(api, target).object))


def _scale(target: Target, obj: Object) -> Object:
    paths = target.resource.subresources["scale"].scale
    meta = metadata(obj)
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    wanted = dig(obj, paths.selector) if paths.selector else None
    shown = selector(wanted) if isinstance(wanted, dict) else wanted
    status: Object = {"replicas": dig(obj, paths.status) or 0}
    if shown:
        status["selector"] = shown
    return {
        "apiVersion": _SCALE[0],
        "kind": _SCALE[1],
        "metadata": {key: meta[key] for key in kept if key in meta},
        "spec": {"replicas": dig(obj, paths.spec) or 0},
        "status": status,
    }


def _write_scale(request: Write, verb: str, body: Any, media: str) -> Written:
    """Change the number of replicas, and nothing else."""
    target = request.target
    old = writing.existing(request.api, target)
    shown = target.resource.is_shown(old.object)
    scale = _scale(target, shown)
    if verb == "patch":
        if media == writing.APPLY_PATCH:
            media = writing.MERGE_PATCH
        body = writing.patched_object(scale, body, media, None)
    asked = bodies.as_object(body, api_version=_SCALE[0], kind=_SCALE[1])
    replicas = spec_of(asked).get("replicas", 0)
    if not isinstance(replicas, int) or replicas < 0:
        errors = [fields.invalid("spec.replicas", replicas, "must be greater than or equal to 0")]
        raise invalid("autoscaling", "Scale", target.name, errors)
    if metadata(asked).get("resourceVersion") not in (None, "", scale["metadata"]["resourceVersion"]):
        raise conflict(target.resource.group, target.resource.plural, target.name)
    new = copy(shown)
    _put(new, target.resource.subresources["scale"].scale.spec, replicas)
    updated = writing.replace(
        Write(request.api, Target(target.resource, target.namespace, target.name), request.options), new, old
    )
    return Written(_scale(target, updated.object))


def _put(obj: Object, path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for name in parents:
        obj = obj.setdefault(name, {})
    obj[last] = value


def _bind(request: Write, body: Any) -> Written:
    """Put a pod on a node: what schedulers do. A pod is bound once."""
    api, target = request.api, request.target
    binding = bodies.as_object(body, api_version="v1", kind="Binding")
    node = dig(binding, "target.name")
    if not node:
        raise invalid("", "Binding", target.name, [fields.required("target.name")])
    old = writing.existing(api, target)
    new = copy(old.object)
    spec = new["spec"]
    if metadata(new).get("deletionTimestamp"):
        raise conflict(
            "", "pods/binding", target.name, f"pod {target.name} is being deleted, cannot be assigned to a host"
        )
    if spec.get("nodeName"):
        raise conflict(
            "", "pods/binding", target.name, f'pod {target.name} is already assigned to node "{spec["nodeName"]}"'
        )
    spec["nodeName"] = node
    scheduled = {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": api.now()}
    conditions = [c for c in new["status"].get("conditions") or () if c.get("type") != "PodScheduled"]
    new["status"]["conditions"] = [*conditions, scheduled]
    _store_tracked(request, new, old.object)
    return Written(
        {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, created=True
    )


def _evict(request: Write, body: Any) -> Written:
    """Delete a pod politely. The lab has no disruption budgets, so nothing stands against it."""
    if not isinstance(body, dict):
        raise bad_request("the body of an eviction is an Eviction object")
    target = Target(request.resource, request.target.namespace, request.target.name)
    options = deleting.delete_options(body.get("deleteOptions"), {"dryRun": "All"} if request.options.dry_run else {})
    deleting.delete(request.api, target, options)
    return Written(
        {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, created=True
    )


def _finalize(request: Write, body: Any) -> Written:
    """Set a namespace's finalizers: what the namespace controller does once the namespace is empty."""
    old = writing.existing(request.api, request.target)
    asked = bodies.as_object(body, api_version="v1", kind="Namespace")
    if metadata(asked).get("resourceVersion") not in (None, "", old.object["metadata"]["resourceVersion"]):
        raise conflict("", "namespaces", request.target.name)
    new = copy(old.object)
    new["spec"] = {"finalizers": spec_of(asked).get("finalizers") or []}
    return writing.store(request, new, old)


def _store_tracked(request: Write, new: Object, old: Object) -> Written:
    options, resource = request.options, request.resource
    tracked = applying.track_update(
        old,
        new,
        manager=options.manager,
        now=request.api.now(),
        schema=resource.shape(),
        subresource=request.target.subresource,
    )
    return writing.store(request, tracked, writing.existing(request.api, request.target))


_WRITERS: dict[str, Callable[[Write, Any], Written]] = {"binding": _bind, "eviction": _evict, "finalize": _finalize}
