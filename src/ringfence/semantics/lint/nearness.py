# SPDX-License-Identifier: Apache-2.0
"""Whether a selector that finds nobody was meant for a pod that is there, or need not find anybody.

Only slips are near: the right value under another key, or the same word in another spelling. Names of one family
(argocd-server, argocd-repo-server; app-a, app-b) are different names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ringfence.model.labels import Operator, Requirement, Selector

_SEPARATORS = re.compile(r"[-_.]")
_ON = frozenset({"allow", "allowed", "enable", "enabled", "on", "true", "yes"})
_SHORTEST = 4
"""Shorter words that differ by a letter are different words."""


def is_switch(requirement: Requirement) -> bool:
    """Tell whether a requirement asks for a label that pods are given to opt in: nobody need have it yet."""
    if requirement.operator is Operator.EXISTS:
        return True
    return requirement.operator is Operator.IN and _ON.issuperset(value.lower() for value in requirement.values)


def is_slip(wanted: Selector, labels: Mapping[str, str]) -> bool:
    """Tell whether labels are what a selector that they do not meet was probably meant to say."""
    unmet = wanted.unmet(labels)
    return bool(unmet) and all(_slipped(each, labels) for each in unmet)


def _slipped(requirement: Requirement, labels: Mapping[str, str]) -> bool:
    if requirement.operator is not Operator.IN:
        return False
    has = labels.get(requirement.key)
    if has is None:
        return any(value in requirement.values for value in labels.values())
    return any(_alike(has, value) for value in requirement.values)


def _alike(one: str, other: str) -> bool:
    """Tell whether two words differ by case, separators, a letter too many, or two letters that changed places."""
    short, long = sorted((_SEPARATORS.sub("", one.lower()), _SEPARATORS.sub("", other.lower())), key=len)
    if short == long:
        return True
    if len(short) < _SHORTEST:
        return False
    places = range(len(long))
    if len(short) == len(long):
        return any(short[:i] + short[i : i + 2][::-1] + short[i + 2 :] == long for i in places)
    return any(long[i].isalpha() and long[:i] + long[i + 1 :] == short for i in places)
