# SPDX-License-Identifier: Apache-2.0
"""Label selectors as ``kubectl get`` shows them: ``app=web,tier in (a,b),!canary``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ringfence.lab.apiserver.printing.layout import NONE

_SHAPES = {"In": "{0} in ({1})", "NotIn": "{0} notin ({1})", "Exists": "{0}", "DoesNotExist": "!{0}"}


def labels(pairs: Mapping[str, str] | None) -> str:
    """Return labels as a selector, ``<none>`` if there are none."""
    return ",".join(f"{key}={value}" for key, value in sorted((pairs or {}).items())) or NONE


def selector(wanted: Mapping[str, Any] | None) -> str:
    """Return a meta/v1 LabelSelector, ``<none>`` if it is empty, ``<error>`` if it means nothing."""
    wanted = wanted or {}
    parts = [(key, f"{key}={value}") for key, value in (wanted.get("matchLabels") or {}).items()]
    for expression in wanted.get("matchExpressions") or ():
        shape = _SHAPES.get(expression.get("operator", ""))
        if shape is None:
            return "<error>"
        key = expression.get("key", "")
        parts.append((key, shape.format(key, ",".join(sorted(expression.get("values") or ())))))
    return ",".join(text for _, text in sorted(parts)) or NONE
