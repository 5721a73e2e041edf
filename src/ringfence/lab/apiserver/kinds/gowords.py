# SPDX-License-Identifier: Apache-2.0
"""Values as Go's ``%#v`` prints them: how kube-apiserver shows maps, slices and selectors in its messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ringfence.apis.fields import printed
from ringfence.lab.apiserver.objects import Object


def labels(pairs: Mapping[str, str]) -> str:
    """Return a ``map[string]string``."""
    if not pairs:
        return "map[string]string(nil)"
    return "map[string]string{" + ", ".join(f"{printed(k)}:{printed(v)}" for k, v in sorted(pairs.items())) + "}"


def strings(values: Sequence[str] | None) -> str:
    """Return a ``[]string``."""
    return "[]string(nil)" if values is None else "[]string{" + ", ".join(map(printed, values)) + "}"


def selector(wanted: Object) -> str:
    """Return a ``v1.LabelSelector``."""
    expressions = [
        f"v1.LabelSelectorRequirement{{Key:{printed(e.get('key', ''))}, Operator:{printed(e.get('operator', ''))}, "
        f"Values:{strings(e.get('values'))}}}"
        for e in wanted.get("matchExpressions") or ()
    ]
    listed = f"{{{', '.join(expressions)}}}" if expressions else "(nil)"
    pairs = labels(wanted.get("matchLabels") or {})
    return f"v1.LabelSelector{{MatchLabels:{pairs}, MatchExpressions:[]v1.LabelSelectorRequirement{listed}}}"
