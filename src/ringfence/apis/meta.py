# SPDX-License-Identifier: Apache-2.0
"""What every API object shares: its metadata, and label selectors. Validation as the API server does it.

Used for every kind that the lab's API server stores. The syntax of single names and values is in ``names``; which
kinds exist, and whether they live in namespaces, is the caller's knowledge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ringfence.apis.fields import forbidden, invalid, invalids, required, too_long
from ringfence.apis.names import (
    SyntaxRule,
    is_dns1035_label,
    is_dns1123_label,
    is_dns1123_subdomain,
    is_label_key,
    is_label_value,
    is_port_name,
    is_port_number,
    size,
)
from ringfence.apis.shapes import ListOf, MapOf, Record, Scalar, child, conform
from ringfence.errors import FieldError

__all__ = [
    "LABEL_SELECTOR",
    "NAME_RULES",
    "OBJECT_META",
    "is_dns1035_label",
    "is_dns1123_label",
    "is_dns1123_subdomain",
    "is_label_key",
    "is_label_value",
    "is_port_name",
    "is_port_number",
    "object_meta_errors",
    "selector_errors",
    "validate_annotations",
    "validate_label_selector",
    "validate_labels",
    "validate_object_meta",
    "validate_object_meta_update",
]

ANNOTATIONS_LIMIT = 256 * 1024
"""Bytes of all annotation keys and values of an object together."""

NAME_RULES: Mapping[str, SyntaxRule] = {
    "Namespace": is_dns1123_label,
    "Service": is_dns1035_label,
}
"""Kinds whose names are not just any DNS subdomain."""

OBJECT_META = Record(
    {
        "name": Scalar.STRING,
        "generateName": Scalar.STRING,
        "namespace": Scalar.STRING,
        "uid": Scalar.STRING,
        "resourceVersion": Scalar.STRING,
        "selfLink": Scalar.STRING,
        "generation": Scalar.INTEGER,
        "creationTimestamp": Scalar.STRING,
        "deletionTimestamp": Scalar.STRING,
        "deletionGracePeriodSeconds": Scalar.INTEGER,
        "labels": MapOf(Scalar.STRING),
        "annotations": MapOf(Scalar.STRING),
        "finalizers": ListOf(Scalar.STRING),
        "ownerReferences": ListOf(
            Record(
                {
                    "apiVersion": Scalar.STRING,
                    "kind": Scalar.STRING,
                    "name": Scalar.STRING,
                    "uid": Scalar.STRING,
                    "controller": Scalar.BOOLEAN,
                    "blockOwnerDeletion": Scalar.BOOLEAN,
                }
            )
        ),
        "managedFields": ListOf(Scalar.ANYTHING),
    }
)

LABEL_SELECTOR = Record(
    {
        "matchLabels": MapOf(Scalar.STRING),
        "matchExpressions": ListOf(
            Record({"key": Scalar.STRING, "operator": Scalar.STRING, "values": ListOf(Scalar.STRING)})
        ),
    }
)


def validate_object_meta(
    metadata: object,
    *,
    namespaced: bool,
    name_rule: SyntaxRule = is_dns1123_subdomain,
    path: str = "metadata",
) -> list[FieldError]:
    """Check an object's metadata on creation, after a name was generated and the namespace filled in.

    ``name_rule`` is the syntax of the kind's names (``NAME_RULES``).
    """
    meta, type_errors = conform(metadata, OBJECT_META, path)
    reported = {error.path for error in type_errors}
    found = object_meta_errors(meta, namespaced=namespaced, name_rule=name_rule, path=path)
    return type_errors + [error for error in found if error.path not in reported]


def object_meta_errors(
    meta: Mapping[str, Any],
    *,
    namespaced: bool,
    name_rule: SyntaxRule = is_dns1123_subdomain,
    path: str = "metadata",
) -> list[FieldError]:
    """Check metadata that already conforms to ``OBJECT_META``."""
    errors: list[FieldError] = []
    prefix = meta.get("generateName", "")
    if prefix:
        errors += invalids(child(path, "generateName"), prefix, name_rule(_as_prefix(prefix)))
    name = meta.get("name", "")
    if name:
        errors += invalids(child(path, "name"), name, name_rule(name))
    else:
        errors.append(required(child(path, "name"), "name or generateName is required"))
    errors += _namespace_errors(meta.get("namespace", ""), namespaced, child(path, "namespace"))
    if meta.get("generation", 0) < 0:
        errors.append(invalid(child(path, "generation"), meta["generation"], "must be greater than or equal to 0"))
    errors += validate_labels(meta.get("labels", {}), child(path, "labels"))
    errors += validate_annotations(meta.get("annotations", {}), child(path, "annotations"))
    errors += _owner_errors(meta.get("ownerReferences", []), child(path, "ownerReferences"))
    errors += _finalizer_errors(meta.get("finalizers", []), child(path, "finalizers"))
    return errors


def validate_object_meta_update(new: object, old: object, *, path: str = "metadata") -> list[FieldError]:
    """Check what an update may not change in an object's metadata; its labels and annotations as on creation."""
    changed, errors = conform(new, OBJECT_META, path)
    stored, _ = conform(old, OBJECT_META, path)
    if not changed.get("resourceVersion"):
        errors.append(invalid(child(path, "resourceVersion"), "", "must be specified for an update"))
    for field in ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"):
        if changed.get(field) != stored.get(field):
            errors.append(invalid(child(path, field), changed.get(field), "field is immutable"))
    if "deletionTimestamp" in stored:
        added = sorted(set(changed.get("finalizers", [])) - set(stored.get("finalizers", [])))
        if added:
            shown = ", ".join(f'"{name}"' for name in added)
            detail = "no new finalizers can be added if the object is being deleted, found new finalizers"
            errors.append(forbidden(child(path, "finalizers"), f"{detail} []string{{{shown}}}"))
    errors += validate_labels(changed.get("labels", {}), child(path, "labels"))
    errors += validate_annotations(changed.get("annotations", {}), child(path, "annotations"))
    errors += _owner_errors(changed.get("ownerReferences", []), child(path, "ownerReferences"))
    return errors


def validate_labels(labels: Mapping[str, str], path: str) -> list[FieldError]:
    """Check label keys and values; the path of every complaint is that of the whole map, as the API server has it."""
    errors: list[FieldError] = []
    for key, value in sorted(labels.items()):
        errors += invalids(path, key, is_label_key(key))
        errors += invalids(path, value, is_label_value(value))
    return errors


def validate_annotations(annotations: Mapping[str, str], path: str) -> list[FieldError]:
    """Check annotation keys (as label keys, in any case) and their size in all."""
    errors: list[FieldError] = []
    for key in sorted(annotations):
        errors += invalids(path, key, is_label_key(key.lower()))
    if sum(size(key) + size(value) for key, value in annotations.items()) > ANNOTATIONS_LIMIT:
        errors.append(too_long(path, ANNOTATIONS_LIMIT))
    return errors


def validate_label_selector(selector: object, path: str, *, allow_invalid_values: bool = False) -> list[FieldError]:
    """Check a label selector, its JSON types included.

    ``allow_invalid_values`` is for updates of objects that were stored with bad values before these were checked.
    """
    shaped, errors = conform(selector, LABEL_SELECTOR, path)
    reported = {error.path for error in errors}
    found = selector_errors(shaped, path, allow_invalid_values=allow_invalid_values)
    return errors + [error for error in found if error.path not in reported]


def selector_errors(selector: Mapping[str, Any], path: str, *, allow_invalid_values: bool = False) -> list[FieldError]:
    """Check a label selector that already conforms to ``LABEL_SELECTOR``."""
    errors = validate_labels(selector.get("matchLabels", {}), child(path, "matchLabels"))
    for index, expression in enumerate(selector.get("matchExpressions", [])):
        if expression is not None:
            at = f"{path}.matchExpressions[{index}]"
            errors += _requirement_errors(expression, at, allow_invalid_values=allow_invalid_values)
    return errors


def _requirement_errors(expression: Mapping[str, Any], path: str, *, allow_invalid_values: bool) -> list[FieldError]:
    errors: list[FieldError] = []
    operator = expression.get("operator", "")
    values = expression.get("values", [])
    if operator in ("In", "NotIn"):
        if not values:
            errors.append(required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            errors.append(forbidden(f"{path}.values", detail))
    else:
        errors.append(invalid(f"{path}.operator", operator, "not a valid selector operator"))
    key = expression.get("key", "")
    errors += invalids(f"{path}.key", key, is_label_key(key))
    if not allow_invalid_values:
        for index, value in enumerate(values):
            if value is not None:
                errors += invalids(f"{path}.values[{index}]", value, is_label_value(value))
    return errors


def _as_prefix(name: str) -> str:
    # A generated name goes on after a final hyphen, so that one is no mistake.
    return f"{name[:-1]}a" if name.endswith("-") else name


def _namespace_errors(namespace: str, namespaced: bool, path: str) -> list[FieldError]:  # noqa: FBT001 - kind's fact
    if not namespaced:
        return [forbidden(path, "not allowed on this type")] if namespace else []
    return invalids(path, namespace, is_dns1123_label(namespace)) if namespace else [required(path)]


def _owner_errors(owners: Sequence[Mapping[str, Any] | None], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    controller = ""
    for owner in owners:
        if owner is None:
            continue
        for field, detail in (
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ):
            if not owner.get(field):
                errors.append(invalid(f"{path}.{field}", owner.get(field, ""), detail))
        if (owner.get("apiVersion"), owner.get("kind")) == ("v1", "Event"):
            errors.append(invalid(path, owner, "/v1, Kind=Event is disallowed from being an owner"))
        if owner.get("controller"):
            this = f"{owner.get('kind', '')}/{owner.get('name', '')}"
            if controller:
                detail = 'Only one reference can have Controller set to true. Found "true" in references for'
                errors.append(invalid(path, owners, f"{detail} {controller} and {this}"))
            controller = controller or this
    return errors


def _finalizer_errors(finalizers: Sequence[str | None], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for name in finalizers:
        if name is not None:
            errors += invalids(path, name, is_label_key(name))
    if {"orphan", "foregroundDeletion"} <= set(finalizers):
        detail = "finalizer orphan and foregroundDeletion cannot be both set"
        errors.append(invalid(path, finalizers, detail))
    return errors
