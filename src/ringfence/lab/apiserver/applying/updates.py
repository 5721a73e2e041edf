# SPDX-License-Identifier: Apache-2.0
"""Who owns what after a create, an update or a patch: whoever changed a field takes it from whoever had it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ringfence.lab.apiserver.applying import managers as managing
from ringfence.lab.apiserver.applying.managers import Manager, Owned
from ringfence.lab.apiserver.applying.paths import FieldSet, Path, field
from ringfence.lab.apiserver.applying.typed import Comparison, compare
from ringfence.lab.apiserver.schema.nodes import Form, Schema

# identity and bookkeeping: nobody owns these
_UNOWNED = frozenset(
    {
        ("f:apiVersion",),
        ("f:kind",),
        ("f:metadata",),
        *(
            ("f:metadata", field(name))
            for name in (
                "creationTimestamp",
                "generation",
                "managedFields",
                "name",
                "namespace",
                "resourceVersion",
                "selfLink",
                "uid",
            )
        ),
    }
)


def track_update(
    old: Mapping[str, Any] | None,
    new: Mapping[str, Any],
    *,
    manager: str,
    now: str,
    schema: Schema | None = None,
    subresource: str = "",
) -> dict[str, Any]:
    """Return the new object with ``managedFields`` brought up to date; ``old`` is None for a create.

    ``now`` is a meta/v1 Time. ``new`` may itself change managedFields (kubectl does, when it moves from client-side to
    server-side apply): what it says counts if it can be read, ``[{}]`` forgets all, nothing at all keeps the old ones.
    An update that changes nothing leaves managedFields as they were, times included.
    """
    known = known_managers(old, new, subresource)
    comparison = owned_changes(schema, old, new, subresource)
    taken = comparison.taken
    after = {who: owned.less(taken | comparison.removed) for who, owned in known.items()}
    if taken:
        version = str(new.get("apiVersion", ""))
        me = Manager(manager, "Update", version, subresource)
        mine = after.get(me, Owned(frozenset(), version))
        after[me] = replace(mine, fields=mine.fields | taken, time=now)
    return managing.written(new, after)


def known_managers(
    old: Mapping[str, Any] | None, new: Mapping[str, Any], subresource: str = ""
) -> dict[Manager, Owned]:
    """Return the managers before a write: those that the request names, else those of the object as it is."""
    if not subresource:
        if managing.is_reset(new):
            return {}
        named = managing.read(new)
        if named:
            return named
    return managing.read(old)


def owned_changes(
    schema: Schema | None, old: Mapping[str, Any] | None, new: Mapping[str, Any], subresource: str
) -> Comparison:
    """Compare two objects in what this path of the API may change and somebody can own."""
    before = _blank(schema) if old is None else old
    comparison = compare(schema, before, new).without(closed(schema, subresource))
    return Comparison(comparison.added - _UNOWNED, comparison.modified - _UNOWNED, comparison.removed - _UNOWNED)


def ownable(fields: FieldSet) -> FieldSet:
    """Return a set without identity and bookkeeping."""
    return fields - _UNOWNED


def closed(schema: Schema | None, subresource: str) -> tuple[Path, ...]:
    """Return the roots that this path of the API does not write: status on the main one, all but status on its own."""
    if subresource == "status":
        names = set(schema.properties) - {"status", "metadata"} if schema else {"spec"}
        return tuple((field(name),) for name in sorted(names))
    return (("f:status",),) if schema and schema.has_status else ()


# fields that Go holds as structs and not as pointers: it writes them even if nothing is in them
_ALWAYS_THERE = ("metadata", "spec", "status", "strategy", "template")


def _blank(schema: Schema | None) -> dict[str, Any]:
    """Return the object that a create is compared with: what Go writes of an empty struct, so that nobody owns that."""
    return {"metadata": {}} if schema is None else _empty(schema)


def _empty(schema: Schema) -> Any:
    if schema.form is Form.LIST:
        return []
    if schema.name.endswith(".ObjectMeta"):
        return {}
    names = {*(schema.raw.get("required") or ()), *(n for n in _ALWAYS_THERE if n in schema.properties)}
    nodes = {name: schema.field(name) for name in sorted(names)}
    return {name: _empty(node) for name, node in nodes.items() if node and node.form not in (Form.SCALAR, Form.ANY)}
