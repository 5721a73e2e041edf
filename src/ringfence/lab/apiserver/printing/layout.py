# SPDX-License-Identifier: Apache-2.0
"""What a table of objects is made of: columns, and a function that fills one row."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ringfence.lab.apiserver.objects import Object

Cell = str | int | float | bool | None
Cells = list[Cell]
Now = datetime.datetime

NONE = "<none>"
UNKNOWN = "<unknown>"


@dataclass(frozen=True, slots=True)
class Column:
    """A column; ``wide`` ones are shown by ``kubectl get -o wide`` alone. ``type`` is an OpenAPI type."""

    name: str
    type: str = "string"
    format: str = ""
    description: str = ""
    wide: bool = False

    def definition(self) -> Object:
        """Return the meta/v1 TableColumnDefinition."""
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format,
            "description": self.description or f"{self.name} of the object.",
            "priority": 1 if self.wide else 0,
        }


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of a kind, and how one object fills them at one moment."""

    columns: Sequence[Column]
    cells: Callable[[Object, Now], Cells]


NAME = Column("Name", format="name", description="Name must be unique within a namespace.")
AGE = Column("Age", description="How long ago the object was created.")


def wide(name: str, type: str = "string") -> Column:  # noqa: A002 - the field's own name
    """Return a column for ``-o wide``."""
    return Column(name, type=type, wide=True)


def number(name: str) -> Column:
    """Return a column of integers."""
    return Column(name, type="integer")


def listed(values: Sequence[Any], separator: str = ",") -> str:
    """Return values joined, ``<none>`` if there are none."""
    return separator.join(map(str, values)) or NONE
