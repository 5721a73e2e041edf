# SPDX-License-Identifier: Apache-2.0
"""How a Deployment moves from old ReplicaSets to the new one: pure arithmetic on counts, and names from content."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

HASH_LABEL = "pod-template-hash"
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # no vowels: names that spell nothing
_LENGTH = 10


def template_hash(template: Mapping[str, Any], collisions: int = 0) -> str:
    """Return the label value that tells the pods of one template from those of another."""
    text = json.dumps([template, collisions], sort_keys=True, separators=(",", ":"))
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:12], "big")
    digits = []
    for _ in range(_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(digits)


def without_hash(template: Mapping[str, Any]) -> dict[str, Any]:
    """Return a ReplicaSet's template as its Deployment has it."""
    metadata = dict(template.get("metadata") or {})
    labels = {key: value for key, value in (metadata.get("labels") or {}).items() if key != HASH_LABEL}
    metadata.pop("labels", None)
    metadata.pop("creationTimestamp", None)
    if labels:
        metadata["labels"] = labels
    return {**template, "metadata": metadata}


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far a rolling update may stray from the count: pods more, and pods fewer."""

    surge: int
    unavailable: int


def bounds(spec: Mapping[str, Any]) -> Bounds:
    """Return the bounds of a Deployment's strategy, percentages resolved: surge rounds up, unavailable rounds down.

    "This can not be 0 if MaxSurge is 0": where rounding makes both 0, one pod may be missing.
    """
    strategy = spec.get("strategy") or {}
    if strategy.get("type") == "Recreate":
        return Bounds(0, 0)
    rolling = strategy.get("rollingUpdate") or {}
    replicas = spec.get("replicas", 1)
    surge = _resolved(rolling.get("maxSurge", "25%"), replicas, up=True)
    unavailable = _resolved(rolling.get("maxUnavailable", "25%"), replicas, up=False)
    return Bounds(surge, max(unavailable, 1) if surge == 0 else unavailable)


def _resolved(value: Any, replicas: int, *, up: bool) -> int:
    if isinstance(value, int):
        return value
    share = int(str(value).removesuffix("%")) * replicas / 100
    return math.ceil(share) if up else math.floor(share)


@dataclass(frozen=True, slots=True)
class Counts:
    """One ReplicaSet: how many pods it is told to have, has, and has available."""

    wanted: int
    actual: int = 0
    available: int = 0


def new_size(replicas: int, limits: Bounds, new: Counts, old: Sequence[Counts]) -> int:
    """Return how many pods the new ReplicaSet should be told to have: as many as the surge leaves room for."""
    if new.wanted >= replicas:
        return replicas
    room = replicas + limits.surge - new.wanted - sum(counts.wanted for counts in old)
    return min(replicas, new.wanted + max(0, room))


def old_sizes(replicas: int, limits: Bounds, new: Counts, old: Sequence[Counts]) -> list[int]:
    """Return how many pods each old ReplicaSet (oldest first) should be told to have.

    First the pods that are not available go, which costs nothing; then as many available ones as may be missing.
    """
    minimum = replicas - limits.unavailable
    everything = new.wanted + sum(counts.wanted for counts in old)
    budget = max(0, everything - minimum - max(0, new.wanted - new.available))
    sizes = [counts.wanted for counts in old]
    if budget == 0:
        return sizes
    for index, counts in enumerate(old):
        idle = min(budget, max(0, counts.wanted - counts.available))
        sizes[index] -= idle
        budget -= idle
    spare = max(0, new.available + sum(counts.available for counts in old) - minimum)
    for index in range(len(old)):
        cut = min(spare, sizes[index])
        sizes[index] -= cut
        spare -= cut
    return sizes
