# SPDX-License-Identifier: Apache-2.0
"""What an API server refuses of an object, before it is sent: one entry point for every kind that we know.

NetworkPolicies are judged whole, unknown fields included (as kubectl's strict validation does). Of what stands
beside them, only what policy has a use for is judged: the metadata of every kind, the spec of Services, the labels of
pod templates, and the types of the fields of Pods and Nodes that we read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ringfence.apis import networkpolicy, services
from ringfence.apis.core import NamespaceObject, NodeObject, Pod, convert
from ringfence.apis.fields import REQUIRED, required, within
from ringfence.apis.meta import (
    LABEL_SELECTOR,
    NAME_RULES,
    OBJECT_META,
    is_dns1123_subdomain,
    object_meta_errors,
    selector_errors,
    validate_labels,
)
from ringfence.apis.shapes import Record, Scalar, conform, unknown_fields
from ringfence.apis.workloads import is_workload, template_pods
from ringfence.errors import FieldError, InvalidObject

_META = Record({"metadata": OBJECT_META})
_TEMPLATE = Record({"metadata": OBJECT_META, "spec": Scalar.ANYTHING})
_WORKLOAD = Record(
    {"metadata": OBJECT_META, "spec": Record({"selector": LABEL_SELECTOR, "template": _TEMPLATE})},
)
_SELECTING = frozenset({"DaemonSet", "Deployment", "ReplicaSet", "StatefulSet"})
_CLUSTER_WIDE = frozenset({"Namespace", "Node"})
_REMOVED = frozenset({"extensions/v1beta1", "extensions/v1", "networking.k8s.io/v1beta1"})
"""Versions that NetworkPolicies of old manifests have, and that no supported API server serves."""


def judges(obj: Mapping[str, Any]) -> bool:
    """Tell whether anything of an object but its apiVersion and kind is looked at here."""
    return _judge(obj) is not None


def refusals(obj: Mapping[str, Any]) -> list[FieldError]:
    """Return every complaint that an API server has about an object on creation; none about kinds not known here."""
    judge = _judge(obj)
    found = judge(obj) if judge is not None else []
    match obj:
        case {"metadata": {"generateName": str(prefix)}} if prefix:
            # The server makes up the name; validation proper comes after that.
            return [each for each in found if (each.path, each.reason) != ("metadata.name", REQUIRED)]
        case _:
            return found


def _judge(obj: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], list[FieldError]] | None:
    match obj.get("apiVersion"), obj.get("kind"):
        case "networking.k8s.io/v1", "NetworkPolicy":
            return _network_policy
        case str(version), "NetworkPolicy" if version in _REMOVED:
            return _removed
        case "v1", "Service":
            return _service
        case "v1", ("Pod" | "Namespace" | "Node"):
            return _core
        case _ if is_workload(obj):
            return _workload
        case _:
            return None


def _network_policy(obj: Mapping[str, Any]) -> list[FieldError]:
    return [*unknown_fields(obj, networkpolicy.SHAPE, ""), *networkpolicy.validate(obj)]


def _removed(obj: Mapping[str, Any]) -> list[FieldError]:
    message = f'no matches for kind "NetworkPolicy" in version "{obj["apiVersion"]}"; it is networking.k8s.io/v1 now'
    return [FieldError("apiVersion", message, "")]


def _service(obj: Mapping[str, Any]) -> list[FieldError]:
    readable, type_errors = conform(obj, services.SHAPE, "")
    found = [*_meta_errors(obj, readable), *services.spec_errors(readable.get("spec", {}))]
    return [*unknown_fields(obj, services.SHAPE, ""), *_without_follow_ups(type_errors, found)]


def _core(obj: Mapping[str, Any]) -> list[FieldError]:
    readable, type_errors = conform(obj, _META, "")
    found = [*unknown_fields(obj.get("metadata"), OBJECT_META, "metadata")]
    found += _without_follow_ups(type_errors, _meta_errors(obj, readable))
    # What is wrong with the metadata was said above, and at every place of it.
    return found + [each for each in _unread(obj) if not within(each.path, "metadata")]


def _unread(obj: Mapping[str, Any]) -> Sequence[FieldError]:
    """Return what keeps an object from being read as what it is."""
    try:
        match obj["kind"]:
            case "Namespace":
                convert(NamespaceObject, obj)
            case "Node":
                convert(NodeObject, obj)
            case _:
                convert(Pod, obj)
    except InvalidObject as error:
        return error.errors
    return ()


def _workload(obj: Mapping[str, Any]) -> list[FieldError]:
    readable, type_errors = conform(obj, _WORKLOAD, "") if obj["kind"] in _SELECTING else conform(obj, _META, "")
    found = _meta_errors(obj, readable)
    if obj["kind"] in _SELECTING:
        spec = readable.get("spec", {})
        labels = spec.get("template", {}).get("metadata", {}).get("labels", {})
        found += validate_labels(labels, "spec.template.labels")
        if "selector" in spec:
            found += selector_errors(spec["selector"], "spec.selector")
        else:
            found.append(required("spec.selector"))
    # Several pods of a workload are broken alike.
    pods = template_pods([obj], ()) if not type_errors and not found else []
    template = "spec.jobTemplate.spec.template" if obj["kind"] == "CronJob" else "spec.template"
    unread = [replace(error, path=f"{template}.{error.path}") for pod in pods[:1] for error in _unread(pod)]
    return [*_without_follow_ups(type_errors, found), *unread]


def _meta_errors(obj: Mapping[str, Any], readable: Mapping[str, Any]) -> list[FieldError]:
    """Check metadata; a namespace that is missing comes from the request, and is no error."""
    kind = obj["kind"]
    namespaced = kind not in _CLUSTER_WIDE
    meta = {**({"namespace": "default"} if namespaced else {}), **readable.get("metadata", {})}
    return object_meta_errors(meta, namespaced=namespaced, name_rule=NAME_RULES.get(kind, is_dns1123_subdomain))


def _without_follow_ups(type_errors: list[FieldError], found: list[FieldError]) -> list[FieldError]:
    """Return all complaints but those that an ill-typed part would have made good or bad."""
    return [*type_errors, *(e for e in found if not any(within(t.path, e.path) for t in type_errors))]
