# SPDX-License-Identifier: Apache-2.0
"""Strategic merge patch: a merge patch that knows from the schema which lists merge, and by which key.

Kubernetes' own format, sent by ``kubectl apply``, ``edit``, ``patch`` and ``set``. Beside values it holds directives:

=============================== ===========================================================================
``$patch: replace``             in an object: it replaces the old one; in a list's item: the list replaces
``$patch: delete``              in an object: it is emptied; in a list's item: the item of this key goes
``$deleteFromPrimitiveList/F``  these values leave the list F
``$setElementOrder/F``          the order of the list F, by key or value; items not named keep their places
``$retainKeys``                 only these keys of the object stay
=============================== ===========================================================================
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from ringfence.lab.apiserver.patches.errors import PatchError
from ringfence.lab.apiserver.patches.order import ordered
from ringfence.lab.apiserver.schema.nodes import Schema

_PATCH = "$patch"
_RETAIN = "$retainKeys"
_DELETE_PREFIX = "$deleteFromPrimitiveList/"
_ORDER_PREFIX = "$setElementOrder/"


def strategic_merge(obj: Mapping[str, Any], patch: Any, schema: Schema | None) -> dict[str, Any]:
    """Apply a strategic merge patch; without a schema every list replaces, as for fields that no schema names."""
    if not isinstance(patch, Mapping):
        raise PatchError("error decoding patch: a strategic merge patch is an object")
    return _merge_object(obj, patch, schema)


def _merge_object(original: Mapping[str, Any], patch: Mapping[str, Any], schema: Schema | None) -> dict[str, Any]:
    match patch.get(_PATCH):
        case None:
            pass
        case "replace":
            return {key: copy.deepcopy(value) for key, value in patch.items() if key != _PATCH}
        case "delete":
            return {}
        case other:
            raise PatchError(f"unknown patch type: {other} in map: {dict(patch)}")
    merged = _retained(original, patch)
    for key, value in patch.items():
        if key.startswith(_DELETE_PREFIX):
            _remove_primitives(merged, key.removeprefix(_DELETE_PREFIX), value)
    for key, value in patch.items():
        if not key.startswith("$"):
            _merge_field(merged, key, value, patch, schema)
    for key in patch:
        name = key.removeprefix(_ORDER_PREFIX)
        # a list that the patch orders without changing it
        if name != key and name not in patch and isinstance(merged.get(name), list):
            field = schema.child(name) if schema else None
            merged[name] = _ordered(merged[name], merged[name], _order_of(patch, name), field)
    return merged


def _merge_field(merged: dict[str, Any], key: str, value: Any, patch: Mapping[str, Any], schema: Schema | None) -> None:
    field = schema.child(key) if schema else None
    old = merged.get(key)
    if value is None:
        merged.pop(key, None)
    elif isinstance(value, Mapping) and isinstance(old, Mapping):
        replaces = field is not None and "replace" in field.patch_strategies
        merged[key] = _merge_object({} if replaces else old, value, field)
    elif isinstance(value, list):
        merged[key] = _merge_list(old if isinstance(old, list) else [], value, _order_of(patch, key), field)
    elif _is_about_nothing(value):
        merged.pop(key, None)
    else:
        merged[key] = _added(value)


def _is_about_nothing(value: Any) -> bool:
    """Tell whether a value that the patch adds speaks of something that is not there: a ``$patch`` for nothing."""
    return isinstance(value, Mapping) and _PATCH in value


def _added(value: Any) -> Any:
    """Return what is left of a value where there was none: without directives and nulls."""
    if isinstance(value, Mapping):
        return {
            key: _added(below)
            for key, below in value.items()
            if below is not None and not key.startswith("$") and not _is_about_nothing(below)
        }
    if isinstance(value, list):
        return [_added(item) for item in value if not _is_about_nothing(item)]
    return value


def _retained(original: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of the original with only the keys that ``$retainKeys`` names, if the patch has it."""
    if _RETAIN not in patch:
        return dict(original)
    keep = patch[_RETAIN]
    if not isinstance(keep, list):
        raise PatchError("$retainKeys must be a list of keys")
    for key in patch:
        if not key.startswith("$") and patch[key] is not None and key not in keep:
            raise PatchError(f"patch has a key that is not in $retainKeys: {key}")
    return {key: value for key, value in original.items() if key in keep}


def _remove_primitives(merged: dict[str, Any], name: str, values: Any) -> None:
    if not isinstance(values, list):
        raise PatchError(f"{_DELETE_PREFIX}{name} must be a list of values")
    if isinstance(merged.get(name), list):
        merged[name] = [item for item in merged[name] if item not in values]


def _order_of(patch: Mapping[str, Any], name: str) -> list[Any] | None:
    order = patch.get(_ORDER_PREFIX + name)
    if order is not None and not isinstance(order, list):
        raise PatchError(f"{_ORDER_PREFIX}{name} must be a list")
    return order


def _merge_list(old: list[Any], patch: list[Any], order: list[Any] | None, field: Schema | None) -> list[Any]:
    if field is None or "merge" not in field.patch_strategies:
        replacement: list[Any] = _added(patch)
        return replacement
    if not field.merge_key:
        merged = [*old, *(item for index, item in enumerate(patch) if item not in old and item not in patch[:index])]
        return ordered(merged, named=order if order is not None else patch, before=old, identity=_primitive)
    return _merge_keyed(old, patch, order, field)


def _merge_keyed(old: list[Any], patch: list[Any], order: list[Any] | None, field: Schema) -> list[Any]:
    key_of = _Keyed(field.merge_key)
    special = [item for item in patch if _is_about_nothing(item)]
    changes = [item for item in patch if not _is_about_nothing(item)]
    _check_order(changes, order, key_of)
    for item in special:
        if item[_PATCH] not in ("replace", "delete"):
            raise PatchError(f"unknown patch type: {item[_PATCH]} in map: {dict(item)}")
    if any(item[_PATCH] == "replace" for item in special):
        replacement: list[Any] = _added(changes)
        return _ordered(replacement, [], order if order is not None else changes, field)
    gone = [key_of(item) for item in special]
    merged = [item for item in old if key_of(item) not in gone]
    for change in changes:
        key = key_of(change)
        places = [index for index, item in enumerate(merged) if key_of(item) == key]
        if places:
            merged[places[0]] = _merge_object(merged[places[0]], change, field.items)
        else:
            merged.append(_added(change))
    return _ordered(merged, old, order if order is not None else changes, field)


def _ordered(merged: list[Any], before: list[Any], order: list[Any] | None, field: Schema | None) -> list[Any]:
    if order is None or field is None or "merge" not in field.patch_strategies:
        return merged
    return ordered(
        merged, named=order, before=before, identity=_Keyed(field.merge_key) if field.merge_key else _primitive
    )


def _check_order(changes: list[Any], order: list[Any] | None, key_of: _Keyed) -> None:
    """Refuse a patch whose list is not in the order that it asks for itself."""
    if not order:
        return
    places = iter(key_of(item) for item in order)
    if not all(key_of(change) in places for change in changes):
        raise PatchError(f"The order in patch list:\n{changes}\n doesn't match {_ORDER_PREFIX} list:\n{order}\n")


class _Keyed:
    """The identity of an item: the value of its merge key."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, item: Any) -> Any:
        if not isinstance(item, Mapping):
            raise PatchError(f"expected a list of objects with the merge key {self._key}, found {item!r}")
        if self._key not in item:
            shown = " ".join(f"{name}:{value}" for name, value in sorted(item.items()))
            raise PatchError(f"map: map[{shown}] does not contain declared merge key: {self._key}")
        return item[self._key]


def _primitive(item: Any) -> Any:
    return item
