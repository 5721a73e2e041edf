# SPDX-License-Identifier: Apache-2.0
"""What must hold of a CustomResourceDefinition."""

from __future__ import annotations

from ringfence.apis import fields, names
from ringfence.errors import FieldError
from ringfence.lab.apiserver.objects import Object, name_of, spec_of

_SCOPES = ("Cluster", "Namespaced")
_APPROVAL = "api-approved.kubernetes.io"
_APPROVAL_RULE = (
    f'protected groups must have approval annotation "{_APPROVAL}", '
    "see https://github.com/kubernetes/enhancements/pull/1111"
)
_TYPES = ("array", "boolean", "integer", "number", "object", "string")


def errors(new: Object, old: Object | None) -> list[FieldError]:
    """Return what is wrong with a definition; ``old`` is None on creation."""
    spec = spec_of(new)
    found = _name_errors(new)
    if not spec.get("scope"):
        found.append(fields.required("spec.scope"))
    elif spec["scope"] not in _SCOPES:
        found.append(fields.not_supported("spec.scope", spec["scope"], _SCOPES))
    found += _version_errors(spec.get("versions") or [])
    if old is not None:
        before = spec_of(old)
        for path in ("group", "scope", "names.plural", "names.kind"):
            value, kept = _at(spec, path), _at(before, path)
            if value != kept:
                found.append(fields.invalid(f"spec.{path}", value, "field is immutable"))
    return found


def _at(spec: Object, path: str) -> str:
    place, _, field = path.rpartition(".")
    return str((spec.get(place) or {} if place else spec).get(field))


def _name_errors(new: Object) -> list[FieldError]:
    spec = spec_of(new)
    group, named = spec.get("group") or "", spec.get("names") or {}
    plural = named.get("plural") or ""
    found: list[FieldError] = []
    if name_of(new) != f"{plural}.{group}":
        found.append(fields.invalid("metadata.name", name_of(new), 'must be spec.names.plural+"."+spec.group'))
    if not group:
        found.append(fields.required("spec.group"))
    elif bad := names.is_dns1123_subdomain(group):
        found += fields.invalids("spec.group", group, bad)
    elif "." not in group:
        found.append(fields.invalid("spec.group", group, "should be a domain with at least one dot"))
    if group.endswith((".k8s.io", ".kubernetes.io")) and not (new["metadata"].get("annotations") or {}).get(_APPROVAL):
        found.append(fields.required(f"metadata.annotations[{_APPROVAL}]", _APPROVAL_RULE))
    for field in ("plural", "singular", "kind", "listKind"):
        value = named.get(field) or ""
        if not value:
            found.append(fields.required(f"spec.names.{field}"))
        else:
            found += fields.invalids(f"spec.names.{field}", value, names.is_dns1035_label(value.lower()))
    if named.get("kind") and named.get("kind") == named.get("listKind"):
        found.append(fields.invalid("spec.names.listKind", named["listKind"], "kind and listKind may not be the same"))
    for index, short in enumerate(named.get("shortNames") or ()):
        found += fields.invalids(f"spec.names.shortNames[{index}]", short, names.is_dns1035_label(short))
    return found


def _version_errors(versions: list[Object]) -> list[FieldError]:
    if not versions:
        return [fields.required("spec.versions")]
    found: list[FieldError] = []
    names_seen = [version.get("name") or "" for version in versions]
    if len(set(names_seen)) != len(names_seen):
        found.append(fields.invalid("spec.versions", names_seen, "must contain unique version names"))
    if sum(1 for version in versions if version.get("storage")) != 1:
        why = "must have exactly one version marked as storage version"
        found.append(fields.invalid("spec.versions", names_seen, why))
    for index, version in enumerate(versions):
        path = f"spec.versions[{index}]"
        found += fields.invalids(f"{path}.name", names_seen[index], names.is_dns1035_label(names_seen[index]))
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if schema is None:
            found.append(fields.required(f"{path}.schema.openAPIV3Schema", "schemas are required"))
        else:
            found += _root_errors(schema, f"{path}.schema.openAPIV3Schema")
    return found


def _root_errors(schema: Object, path: str) -> list[FieldError]:
    if not schema.get("type"):
        return [fields.required(f"{path}.type", "must not be empty at the root")]
    if schema["type"] != "object":
        return [fields.invalid(f"{path}.type", schema["type"], "must be object at the root")]
    return _structural_errors(schema, path)


def _structural_errors(schema: Object, path: str) -> list[FieldError]:
    """Return where a schema is not structural: every field says its type ("must not be empty for specified …")."""
    found: list[FieldError] = []
    if schema.get("type") and schema["type"] not in _TYPES:
        found.append(fields.not_supported(f"{path}.type", schema["type"], _TYPES))
    for name, below in sorted((schema.get("properties") or {}).items()):
        place = f"{path}.properties[{name}]"
        found += _typed(below, place, "must not be empty for specified object fields") + _structural_errors(
            below, place
        )
    items = schema.get("items")
    if isinstance(items, dict):
        found += _typed(items, f"{path}.items", "must not be empty for specified array items")
        found += _structural_errors(items, f"{path}.items")
    elif schema.get("type") == "array":
        found.append(fields.required(f"{path}.items", "must be specified"))
    values = schema.get("additionalProperties")
    if isinstance(values, dict):
        place = f"{path}.additionalProperties"
        found += _typed(values, place, "must not be empty for specified object fields") + _structural_errors(
            values, place
        )
    return found


def _typed(schema: Object, path: str, why: str) -> list[FieldError]:
    free = schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
    return [] if schema.get("type") or free else [fields.required(f"{path}.type", why)]
