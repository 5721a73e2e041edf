# SPDX-License-Identifier: Apache-2.0
"""What the API server says of, and does to, the JSON of a built-in kind when it decodes it.

kube-apiserver decodes into Go structs: unknown fields are reported or dropped (``fieldValidation``), values of a wrong
type refused with the decoder's own words, nulls and empty lists and maps not kept. The texts here are those of
sigs.k8s.io/json, which clients know and people search for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ringfence.lab.apiserver.schema.nodes import Form, Schema

_INT32 = 2**31
_INT64 = 2**63
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})")
_QUANTITY = re.compile(r"[+-]?[0-9.]+([eEinumkKMGTP]*[-+]?[0-9]*)")
_QUANTITY_RULE = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
# fields whose Go type is a named string: the decoder says the name
_NAMED_STRINGS = {
    ("ContainerPort", "protocol"): "v1.Protocol",
    ("ServicePort", "protocol"): "v1.Protocol",
    ("NetworkPolicyPort", "protocol"): "v1.Protocol",
    ("EndpointPort", "protocol"): "v1.Protocol",
    ("NetworkPolicySpec", "policyTypes"): "v1.PolicyType",
    ("LabelSelectorRequirement", "operator"): "v1.LabelSelectorOperator",
    ("PodSpec", "restartPolicy"): "v1.RestartPolicy",
    ("PodSpec", "dnsPolicy"): "v1.DNSPolicy",
    ("Container", "imagePullPolicy"): "v1.PullPolicy",
    ("ServiceSpec", "type"): "v1.ServiceType",
    ("ServiceSpec", "sessionAffinity"): "v1.ServiceAffinity",
    ("DeploymentStrategy", "type"): "v1.DeploymentStrategyType",
    ("ObjectMeta", "uid"): "types.UID",
    ("OwnerReference", "uid"): "types.UID",
}


def unknown_fields(schema: Schema, obj: Any) -> list[str]:
    """Return ``unknown field "spec.foo"`` for every field that the kind does not have, in the order of the object."""
    return [f'unknown field "{path}"' for path in _unknown(schema, obj, "")]


def duplicate_fields(raw: bytes | str) -> list[str]:
    """Return ``duplicate field "spec.foo"`` for every field that a JSON text gives twice. The last one counts."""
    try:
        value = json.loads(raw, object_pairs_hook=_Pairs)
    except ValueError:
        return []  # not JSON: whoever decodes it says so
    return [f'duplicate field "{path}"' for path in _duplicates(value, "")]


def type_errors(schema: Schema, obj: Any) -> list[str]:
    """Return the decoder's complaint about every value of a wrong type; kube-apiserver reports the first alone."""
    return list(_type_errors(schema, obj, _Place("", "")))


def prune(schema: Schema, obj: Any) -> Any:
    """Return the value without what decoding and encoding again loses: unknown fields, nulls, empty lists and maps.

    Empty structs stay (``podSelector: {}`` means something), and so do empty lists that the kind requires.
    """
    match schema.form:
        case Form.STRUCT if isinstance(obj, Mapping):
            return _prune_struct(schema, obj)
        case Form.MAP if isinstance(obj, Mapping):
            values = schema.values
            if values is None:
                return dict(obj)
            return {key: _zero(values) if value is None else prune(values, value) for key, value in obj.items()}
        case Form.LIST if isinstance(obj, list):
            items = schema.items
            if items is None:
                return obj
            return [_zero(items) if item is None else prune(items, item) for item in obj]
        case _:
            return obj


def _prune_struct(schema: Schema, obj: Mapping[str, Any]) -> dict[str, Any]:
    required = schema.raw.get("required") or ()
    kept: dict[str, Any] = {}
    for name, value in obj.items():
        field = schema.field(name)
        if field is None or value is None:
            continue
        # Go's omitempty: neither an empty list nor an empty map is written; a pointer to an empty struct is
        if value in ([], {}) and name not in required and _is_collection(field):
            continue
        kept[name] = prune(field, value)
    return kept


def _is_collection(field: Schema) -> bool:
    return field.form is Form.LIST or (field.form is Form.MAP and field.values is not None)


def _zero(schema: Schema) -> Any:
    """Return what Go makes of a null inside a list or a map."""
    match schema.form:
        case Form.STRUCT | Form.MAP:
            return {}
        case Form.LIST:
            return []
        case Form.SCALAR if schema.raw.get("type") == "string":
            return ""
        case _:
            return None


def _unknown(schema: Schema, obj: Any, path: str) -> Iterator[str]:
    match schema.form:
        case Form.STRUCT if isinstance(obj, Mapping):
            for name, value in obj.items():
                below = f"{path}.{name}" if path else name
                field = schema.field(name)
                if field is not None:
                    yield from _unknown(field, value, below)
                elif not schema.keeps_unknown:
                    yield below
        case Form.MAP if isinstance(obj, Mapping) and schema.values is not None:
            for key, value in obj.items():
                yield from _unknown(schema.values, value, f"{path}.{key}" if path else key)
        case Form.LIST if isinstance(obj, list) and schema.items is not None:
            for index, item in enumerate(obj):
                yield from _unknown(schema.items, item, f"{path}[{index}]")
        case _:
            return


class _Pairs(dict[str, Any]):
    """A JSON object that remembers which keys it was given more than once."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        seen: set[str] = set()
        self.repeated = [key for key, _ in pairs if key in seen or seen.add(key)]  # type: ignore[func-returns-value]


def _duplicates(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, _Pairs):
        for key in value.repeated:
            yield f"{path}.{key}" if path else key
        for key, below in value.items():
            yield from _duplicates(below, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _duplicates(item, f"{path}[{index}]")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where Go's decoder stands: the innermost struct's name, and the struct fields on the way."""

    struct: str
    path: str

    def into(self, struct: str, field: str) -> _Place:
        return replace(self, struct=struct, path=f"{self.path}.{field}" if self.path else field)

    def mismatch(self, found: str, wanted: str) -> str:
        if not self.path:
            return f"json: cannot unmarshal {found} into Go value of type {wanted}"
        return f"json: cannot unmarshal {found} into Go struct field {self.struct}.{self.path} of type {wanted}"


def _type_errors(schema: Schema, obj: Any, place: _Place) -> Iterator[str]:  # noqa: C901 - a flat table of forms
    if obj is None:
        return
    match schema.form:
        case Form.STRUCT | Form.MAP if isinstance(obj, Mapping):
            struct = _short(schema.name)
            for name, value in obj.items():
                field = schema.child(name)
                if field is not None:
                    below = place.into(struct, name) if schema.form is Form.STRUCT else place
                    yield from _type_errors(field, value, below)
        case Form.LIST if isinstance(obj, list):
            if schema.items is not None:
                for item in obj:
                    yield from _type_errors(schema.items, item, place)
        case Form.STRUCT | Form.MAP | Form.LIST:
            yield place.mismatch(_found(obj), _go_type(schema, place))
        case Form.SCALAR:
            problem = _scalar_error(schema, obj, place)
            if problem:
                yield problem
        case Form.ANY:
            return


def _scalar_error(schema: Schema, obj: Any, place: _Place) -> str:
    kind, form = schema.raw.get("type"), schema.raw.get("format")
    if kind is None:
        if form == "int-or-string":
            return "" if isinstance(obj, str) else _integer_error(obj, place, "int32")
        return _quantity_error(obj)
    match kind:
        case "string":
            if not isinstance(obj, str):
                return place.mismatch(_found(obj), _go_type(schema, place))
            return _time_error(obj) if form == "date-time" else ""
        case "boolean":
            return "" if isinstance(obj, bool) else place.mismatch(_found(obj), "bool")
        case "integer":
            return _integer_error(obj, place, form or "int64")
        case _:
            number = isinstance(obj, int | float) and not isinstance(obj, bool)
            return "" if number else place.mismatch(_found(obj), "float64")


def _integer_error(obj: Any, place: _Place, go_type: str) -> str:
    if isinstance(obj, bool) or not isinstance(obj, int | float):
        return place.mismatch(_found(obj), go_type)
    limit = _INT32 if go_type == "int32" else _INT64
    if isinstance(obj, float) or not -limit <= obj < limit:
        return place.mismatch(f"number {obj}", go_type)
    return ""


def _time_error(text: str) -> str:
    if _TIME.fullmatch(text):
        return ""
    layout = "2006-01-02T15:04:05Z07:00"
    return f'parsing time "{text}" as "{layout}": cannot parse "{text}" as "2006"'


def _quantity_error(obj: Any) -> str:
    if isinstance(obj, int | float) and not isinstance(obj, bool):
        return ""
    return "" if isinstance(obj, str) and _QUANTITY.fullmatch(obj) else _QUANTITY_RULE


def _found(obj: Any) -> str:
    match obj:
        case bool():
            return "bool"
        case str():
            return "string"
        case int() | float():
            return "number"
        case list():
            return "array"
        case _:
            return "object"


def _short(component: str) -> str:
    return component.rsplit(".", 1)[-1]


def _go_type(schema: Schema, place: _Place) -> str:
    """Return the Go type that the decoder names for a node."""
    named = _NAMED_STRINGS.get((place.struct, place.path.rsplit(".", 1)[-1]))
    match schema.form:
        case Form.LIST:
            if named:
                return f"[]{named}"
            return f"[]{_go_type(schema.items, place)}" if schema.items else "[]interface {}"
        case Form.MAP if not schema.name:
            return f"map[string]{_go_type(schema.values, place)}" if schema.values else "map[string]interface {}"
        case Form.STRUCT | Form.MAP:
            return ".".join(schema.name.rsplit(".", 2)[-2:])
        case _:
            kind, form = schema.raw.get("type"), schema.raw.get("format")
            if kind == "string" and named:
                return named
            return {"boolean": "bool", "integer": form or "int64", "number": "float64"}.get(kind or "", "string")
