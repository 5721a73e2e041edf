# SPDX-License-Identifier: Apache-2.0
"""The order of a merged list: what the patch names in the patch's order, the rest in the order that it had."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


def ordered(
    merged: Sequence[Any],
    *,
    named: Sequence[Any],
    before: Sequence[Any],
    identity: Callable[[Any], Any],
) -> list[Any]:
    """Sort a merged list. ``named`` are the items whose order the patch gives, ``before`` the list as it was.

    The named and the others are each in their own order; they are then woven together: another item comes first
    only if it was before the named one in the old list, so a new item stands before all that it is not known to follow.
    """
    wanted = [identity(item) for item in named]
    old = [identity(item) for item in before]
    ours = sorted((i for i in merged if identity(i) in wanted), key=lambda item: wanted.index(identity(item)))
    others = [item for item in merged if identity(item) not in wanted]
    woven: list[Any] = []
    for item in ours:
        key = identity(item)
        while others and _stood_before(old, identity(others[0]), key):
            woven.append(others.pop(0))
        woven.append(item)
    return woven + others


def _stood_before(old: Sequence[Any], first: Any, second: Any) -> bool:
    return first in old and second in old and old.index(first) < old.index(second)
