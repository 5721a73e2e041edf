# SPDX-License-Identifier: Apache-2.0
"""The engines that need no kernel, by name; each is imported when it is asked for."""

from __future__ import annotations

import importlib
from typing import cast

from ringfence.cases.script import Engine
from ringfence.errors import UsageError
from ringfence.model.settings import DEFAULTS, Settings

_ENGINES = {
    "reference": "ringfence.cases.reference:Reference",
    "interpreted": "ringfence.cases.compiled:Interpreted",
    "memory": "ringfence.cases.compiled:Memory",
}
NAMES = tuple(sorted(_ENGINES))


def engine(name: str, settings: Settings = DEFAULTS) -> Engine:
    """Return a new engine, in an empty cluster; raises ``UsageError`` for a name that is none."""
    place = _ENGINES.get(name)
    if place is None:
        raise UsageError(f"no engine {name!r}: one of {', '.join(NAMES)}")
    module, _, attribute = place.partition(":")
    return cast("Engine", getattr(importlib.import_module(module), attribute)(settings))
