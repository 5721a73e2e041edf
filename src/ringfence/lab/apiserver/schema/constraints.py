# SPDX-License-Identifier: Apache-2.0
"""Whether a custom resource's values keep to its schema: each broken rule in kube-apiserver's words.

Everything of a structural schema except CEL rules (``x-kubernetes-validations``), which the lab does not evaluate.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ringfence.errors import FieldError
from ringfence.lab.apiserver.schema.nodes import Form, ListKind, Schema


def violations(schema: Schema, value: Any) -> list[FieldError]:
    """Return every broken rule of an object of a custom kind."""
    return list(_violations(schema, value, ""))


def _violations(schema: Schema, value: Any, path: str) -> Iterator[FieldError]:
    if schema.is_built_in:
        return  # metadata: every kind's metadata is checked alike, elsewhere
    wrong = _type_problem(schema, value, path)
    if wrong is not None:
        yield wrong
        return
    if value is None:
        return
    yield from _enum(schema, value, path)
    yield from _combinations(schema, value, path)
    match value:
        case bool():
            return
        case str():
            yield from _string(schema.raw, value, path)
        case int() | float():
            yield from _number(schema.raw, value, path)
        case list():
            yield from _list(schema, value, path)
        case _:
            yield from _object(schema, value, path)


def _type_problem(schema: Schema, value: Any, path: str) -> FieldError | None:
    wanted = schema.raw.get("type")
    if value is None:
        if schema.raw.get("nullable") or wanted is None:
            return None
        return _invalid(path, '"null"', f'{_in_body(path)} must be of type {wanted}: "null"')
    if schema.extension("int-or-string"):
        fits = isinstance(value, str | int) and not isinstance(value, bool)
        wanted = "integer,string"
    else:
        fits = wanted is None or _is_of_type(value, wanted)
    if fits:
        return None
    found = _type_of(value)
    return _invalid(path, f'"{found}"', f'{_in_body(path)} must be of type {wanted}: "{found}"')


def _is_of_type(value: Any, wanted: str) -> bool:
    match wanted:
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "integer":
            return not isinstance(value, bool) and (
                isinstance(value, int) or (isinstance(value, float) and value.is_integer())
            )
        case _:
            return _type_of(value) == wanted


def _type_of(value: Any) -> str:
    match value:
        case bool():
            return "boolean"
        case str():
            return "string"
        case int():
            return "integer"
        case float():
            return "number"
        case list():
            return "array"
        case _:
            return "object"


def _enum(schema: Schema, value: Any, path: str) -> Iterator[FieldError]:
    allowed = schema.raw.get("enum")
    if allowed and value not in allowed:
        listed = ", ".join(_json(choice) for choice in allowed)
        message = f"Unsupported value: {_json(value)}: supported values: {listed}"
        yield FieldError(path, message, "FieldValueNotSupported")


def _string(raw: Mapping[str, Any], value: str, path: str) -> Iterator[FieldError]:
    where = _in_body(path)
    if "maxLength" in raw and len(value) > raw["maxLength"]:
        yield FieldError(path, f"Too long: may not be more than {raw['maxLength']} bytes", "FieldValueTooLong")
    if "minLength" in raw and len(value) < raw["minLength"]:
        yield _invalid(path, _json(value), f"{where} should be at least {raw['minLength']} chars long")
    if "pattern" in raw and not _matches(raw["pattern"], value):
        yield _invalid(path, _json(value), f"{where} should match '{raw['pattern']}'")
    check = _FORMATS.get(raw.get("format") or "")
    if check is not None and not check(value):
        yield _invalid(path, _json(value), f"{where} must be of type {raw['format']}: {_json(value)}")


def _matches(pattern: str, value: str) -> bool:
    try:
        return re.search(_python_pattern(pattern), value) is not None
    except re.error:
        return True  # RE2 syntax that Python does not read; refusing good objects would be worse


def _python_pattern(pattern: str) -> str:
    r"""RE2's ``$`` and ``\z`` are the very end of the text; Python's ``$`` also stands before a last newline."""
    return re.sub(r"(?<!\\)\$$", r"\\Z", pattern).replace(r"\z", r"\Z")


def _number(raw: Mapping[str, Any], value: float, path: str) -> Iterator[FieldError]:
    where = _in_body(path)
    if "maximum" in raw:
        strict, limit = bool(raw.get("exclusiveMaximum")), raw["maximum"]
        if value > limit or (strict and value == limit):
            bound = "less than" if strict else "less than or equal to"
            yield _invalid(path, _json(value), f"{where} should be {bound} {_json(limit)}")
    if "minimum" in raw:
        strict, limit = bool(raw.get("exclusiveMinimum")), raw["minimum"]
        if value < limit or (strict and value == limit):
            bound = "greater than" if strict else "greater than or equal to"
            yield _invalid(path, _json(value), f"{where} should be {bound} {_json(limit)}")
    if raw.get("multipleOf") and value % raw["multipleOf"]:
        yield _invalid(path, _json(value), f"{where} should be a multiple of {_json(raw['multipleOf'])}")


def _list(schema: Schema, value: list[Any], path: str) -> Iterator[FieldError]:
    raw = schema.raw
    if "maxItems" in raw and len(value) > raw["maxItems"]:
        message = f"Too many: {len(value)}: must have at most {raw['maxItems']} items"
        yield FieldError(path, message, "FieldValueTooMany")
    if "minItems" in raw and len(value) < raw["minItems"]:
        yield _invalid(path, str(len(value)), f"{_in_body(path)} should have at least {raw['minItems']} items")
    yield from _duplicates(schema, value, path)
    if schema.items is not None:
        for index, item in enumerate(value):
            yield from _violations(schema.items, item, f"{path}[{index}]")


def _duplicates(schema: Schema, value: list[Any], path: str) -> Iterator[FieldError]:
    kind = schema.list_kind
    if kind is ListKind.ATOMIC and not schema.raw.get("uniqueItems"):
        return
    seen: list[Any] = []
    for index, item in enumerate(value):
        identity = item
        if kind is ListKind.MAP and isinstance(item, Mapping):
            identity = {key: item.get(key, schema.key_default(key)) for key in schema.list_keys}
        if identity in seen:
            yield FieldError(f"{path}[{index}]", f"Duplicate value: {_json(identity)}", "FieldValueDuplicate")
        seen.append(identity)


def _object(schema: Schema, value: Mapping[str, Any], path: str) -> Iterator[FieldError]:
    raw = schema.raw
    for name in raw.get("required") or ():
        if name not in value:
            yield FieldError(_below(path, name), "Required value", "FieldValueRequired")
    if "maxProperties" in raw and len(value) > raw["maxProperties"]:
        message = f"Too many: {len(value)}: must have at most {raw['maxProperties']} items"
        yield FieldError(path, message, "FieldValueTooMany")
    if "minProperties" in raw and len(value) < raw["minProperties"]:
        yield _invalid(
            path, str(len(value)), f"{_in_body(path)} should have at least {raw['minProperties']} properties"
        )
    for name, below in value.items():
        child = schema.child(name)
        if child is not None and child.form is not Form.ANY:
            yield from _violations(child, below, _below(path, name))


def _combinations(schema: Schema, value: Any, path: str) -> Iterator[FieldError]:
    """Check allOf, anyOf, oneOf and not. Their parts only restrict, so each is a schema of its own."""
    for part in schema.raw.get("allOf") or ():
        yield from _violations(Schema(part, {}), value, path)
    named = f'"{path}"'
    options = schema.raw.get("anyOf") or ()
    if options and not any(_satisfies(part, value, path) for part in options):
        yield _invalid(path, '""', f"{named} must validate at least one schema (anyOf)")
    options = schema.raw.get("oneOf") or ()
    fitting = sum(_satisfies(part, value, path) for part in options)
    if options and fitting != 1:
        found = "Found none valid" if fitting == 0 else f"Found {fitting} valid alternatives"
        yield _invalid(path, '""', f"{named} must validate one and only one schema (oneOf). {found}")
    if schema.raw.get("not") and _satisfies(schema.raw["not"], value, path):
        yield _invalid(path, '""', f"{named} must not validate the schema (not)")


def _satisfies(part: Mapping[str, Any], value: Any, path: str) -> bool:
    return not any(_violations(Schema(part, {}), value, path))


def _invalid(path: str, value: str, why: str) -> FieldError:
    return FieldError(path, f"Invalid value: {value}: {why}", "FieldValueInvalid")


def _in_body(path: str) -> str:
    return f"{path} in body" if path else "in body"


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _reads(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    return check


def _is_cidr(text: str) -> bool:
    return "/" in text and _reads(lambda cidr: ipaddress.ip_network(cidr, strict=False))(text)


# the formats that Kubernetes checks; others are documentation
_FORMATS: dict[str, Callable[[str], bool]] = {
    "ipv4": _reads(ipaddress.IPv4Address),
    "ipv6": _reads(ipaddress.IPv6Address),
    "cidr": _is_cidr,
    "date": _reads(datetime.date.fromisoformat),
    "date-time": _reads(datetime.datetime.fromisoformat),
    "uuid": lambda text: re.fullmatch(r"(?i)[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}", text) is not None,
}
