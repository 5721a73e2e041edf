# SPDX-License-Identifier: Apache-2.0
"""What a reflector tells: the whole state, or one change of it. Values only; ``kube.reflector`` makes them.

Keys are ``namespace/name``, or ``name`` for objects without a namespace. ``version`` is the resourceVersion of the
change, for whoever must know which of two came first; two tellings of one state are equal whatever it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Listed(Generic[T]):
    """The whole state after a list or a relist: what is not in it is gone. Always the first event."""

    items: Mapping[str, T]


@dataclass(frozen=True, slots=True)
class Upserted(Generic[T]):
    """An object was added or modified."""

    key: str
    object: T
    version: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Removed(Generic[T]):
    """An object was deleted; ``object`` is its last state."""

    key: str
    object: T
    version: str = field(default="", compare=False)


Change = Listed[T] | Upserted[T] | Removed[T]
