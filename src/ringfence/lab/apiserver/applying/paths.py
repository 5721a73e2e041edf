# SPDX-License-Identifier: Apache-2.0
"""Names for the parts of an object, sets of them, and how ``metadata.managedFields`` writes them (``FieldsV1``).

A path is a tuple of elements, each written as FieldsV1 writes it: ``f:NAME`` a field or map key, ``k:{"name":"x"}`` an
item of a keyed list, ``v:"x"`` an item of a set. A field set is a plain ``frozenset`` of paths: union, difference and
intersection are Python's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

Path = tuple[str, ...]
FieldSet = frozenset[Path]

_RANK = {"f": 0, "k": 1, "v": 2, "i": 3}


def field(name: str) -> str:
    """Return the element for a field or a map's key."""
    return f"f:{name}"


def keyed(keys: Mapping[str, Any]) -> str:
    """Return the element for a list's item that has these key values."""
    return f"k:{_json({key: keys[key] for key in sorted(keys)})}"


def valued(value: Any) -> str:
    """Return the element for a set's item."""
    return f"v:{_json(value)}"


def encode(fields: Iterable[Path]) -> dict[str, Any]:
    """Return a set as FieldsV1: nested objects; ``"."`` marks an inner path that is itself in the set."""
    tree: dict[str, Any] = {}
    for path in sorted(fields, key=_by_name):
        node = tree
        for element in path:
            node = node.setdefault(element, {})
        node["."] = {}
    return _tidy(tree)


def _tidy(node: dict[str, Any]) -> dict[str, Any]:
    """Leave out the mark where nothing is below: a bare ``{}`` says the same."""
    if node.keys() == {"."}:
        return {}
    marked: dict[str, Any] = {".": {}} if "." in node else {}
    return marked | {element: _tidy(below) for element, below in node.items() if element != "."}


def decode(fields_v1: Mapping[str, Any]) -> FieldSet:
    """Return the set that FieldsV1 says; raises ``ValueError`` if it is none."""
    found: set[Path] = set()
    _collect(fields_v1, (), found)
    return frozenset(found)


def _collect(node: Any, path: Path, found: set[Path]) -> None:
    if not isinstance(node, Mapping):
        raise ValueError(f"fieldsV1 holds {node!r} at {path}")  # noqa: TRY004 - malformed input, not a wrong call
    if not node and path:
        found.add(path)
    for element, below in node.items():
        if element == ".":
            found.add(path)
        elif element[:1] in _RANK and element[1:2] == ":":
            _collect(below, (*path, element), found)
        else:
            raise ValueError(f"fieldsV1 has an unknown element {element!r}")


def shown(path: Path) -> str:
    """Return a path as conflicts show it: ``.spec.containers[name="web"].image``."""
    return "".join(_shown(element) for element in path)


def _shown(element: str) -> str:
    kind, text = element[0], element[2:]
    match kind:
        case "f":
            return f".{text}"
        case "k":
            return "[" + ",".join(f"{key}={_json(value)}" for key, value in json.loads(text).items()) + "]"
        case "v":
            return f"[={text}]"
        case _:
            return f"[{text}]"


def under(path: Path, roots: Iterable[Path]) -> bool:
    """Tell whether a path is one of the roots or lies below one."""
    return any(path[: len(root)] == root for root in roots)


def _by_name(path: Path) -> tuple[tuple[int, str], ...]:
    return tuple((_RANK[element[0]], element[2:]) for element in path)


def _order(path: Path) -> tuple[tuple[bool, int, str], ...]:
    last = len(path) - 1
    return tuple((depth < last, _RANK[element[0]], element[2:]) for depth, element in enumerate(path))


def in_order(fields: Iterable[Path]) -> list[Path]:
    """Return paths sorted: what is in the set itself before what is below, fields before items, each by name."""
    return sorted(fields, key=_order)


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
