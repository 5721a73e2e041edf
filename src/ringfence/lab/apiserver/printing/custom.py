# SPDX-License-Identifier: Apache-2.0
"""Tables of custom resources: the columns that their definition asks for (``additionalPrinterColumns``)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ringfence.lab.apiserver.objects import Object, encode, name_of
from ringfence.lab.apiserver.printing.durations import since
from ringfence.lab.apiserver.printing.layout import NAME, Cell, Cells, Column, Layout, Now
from ringfence.lab.apiserver.printing.others import ANY_CUSTOM

_STEP = re.compile(
    r"\.(?P<field>(?:[^.\[\\]|\\.)+)"
    r"|\['(?P<quoted>[^']+)'\]"
    r"|\[(?P<index>-?\d+|\*)\]"
    r"|\[\?\(\s*@\.(?P<path>[^=!\s]+)\s*==\s*(?P<quote>['\"])(?P<value>.*?)(?P=quote)\s*\)\]"
)

Finder = Callable[[Any], list[Any]]


def layout(columns: Sequence[Object]) -> Layout:
    """Return the table of a version of a custom kind; name and age if it asks for no columns."""
    if not columns:
        return ANY_CUSTOM
    finders = [(_finder(column.get("jsonPath", "")), column.get("type", "string")) for column in columns]

    def cells(obj: Object, now: Now) -> Cells:
        return [name_of(obj), *(_cell(find(obj), kind, now) for find, kind in finders)]

    shown = (
        Column(
            column.get("name", ""),
            type=column.get("type", "string"),
            format=column.get("format", ""),
            description=column.get("description", ""),
            wide=bool(column.get("priority")),
        )
        for column in columns
    )
    return Layout((NAME, *shown), cells)


def _finder(path: str) -> Finder:
    """Return what finds a column's values: none at all for the few JSON paths that we cannot read."""
    try:
        return compile_path(path)
    except ValueError:
        return lambda _: []


def _cell(found: list[Any], kind: str, now: Now) -> Cell:
    if not found or found[0] is None:
        return None
    value = found[0]
    match kind:
        case "date":
            return since(value, now)
        case "integer" | "number" | "boolean" if isinstance(value, int | float | bool):
            return value
        case "string":
            return ",".join(map(_text, found))
        case _:
            return _text(value)


def _text(value: Any) -> str:
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case dict() | list():
            return encode(value).decode()
        case _:
            return str(value)


def compile_path(path: str) -> Finder:
    r"""Return what finds the values of a simple JSON path: ``.spec.ports[0].port``, ``.a['b.c']``, ``.m.x\.y``,
    ``.status.conditions[?(@.type=="Ready")].status``, ``[*]``. Raises ``ValueError`` for any other path.
    """
    steps: list[Callable[[Any], Iterable[Any]]] = []
    place = 0
    while place < len(path):
        found = _STEP.match(path, place)
        if not found:
            raise ValueError(f"cannot read the JSON path {path!r} from {path[place:]!r} on")
        steps.append(_step(found))
        place = found.end()

    def find(obj: Any) -> list[Any]:
        values = [obj]
        for step in steps:
            values = [inner for value in values for inner in step(value)]
        return values

    return find


def _step(found: re.Match[str]) -> Callable[[Any], Iterable[Any]]:
    if key := found["field"] or found["quoted"]:
        key = key.replace("\\.", ".")
        return lambda value: [value[key]] if isinstance(value, dict) and key in value else []
    if (index := found["index"]) == "*":
        return lambda value: value if isinstance(value, list) else []
    if index is not None:
        position = int(index)
        return lambda value: value[position:][:1] if isinstance(value, list) else []
    inner = compile_path("." + found["path"])
    wanted = found["value"]
    return lambda value: [v for v in value if wanted in map(_text, inner(v))] if isinstance(value, list) else []
