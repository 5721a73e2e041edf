# SPDX-License-Identifier: Apache-2.0
"""One finding: which rule, of which object, where, and what."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ringfence.apis.fields import UNKNOWN_FIELD
from ringfence.apis.manifests import kind_of
from ringfence.errors import FieldError, InvalidObject
from ringfence.model.policy import ObjectRef
from ringfence.semantics.lint.rules import RULES, LintRule, Severity

CLUSTER_WIDE = frozenset({"Namespace", "Node"})


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands in a file; line and column count from 1."""

    file: str
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule found. ``number`` is the object's among those that were given; ``place`` is set for files."""

    rule: LintRule
    object: ObjectRef
    path: str
    message: str
    number: int = -1
    place: Place | None = None
    remedy: str = ""

    @property
    def severity(self) -> Severity:
        """How grave it is."""
        return self.rule.severity

    @property
    def advice(self) -> str:
        """What to do: of this very finding, or what the rule says."""
        return self.remedy or self.rule.remedy


def is_network_policy(obj: Mapping[str, Any]) -> bool:
    """Tell whether an object is a NetworkPolicy of Kubernetes, in whatever version; others have that kind too."""
    return kind_of(obj) in ("NetworkPolicy.networking.k8s.io", "NetworkPolicy.extensions")


def ref_of(obj: Mapping[str, Any]) -> ObjectRef:
    """Return what to call an object, however broken it is."""
    meta = obj.get("metadata")
    meta = meta if isinstance(meta, dict) else {}
    kind = str(obj.get("kind") or "object")
    namespace = "" if kind in CLUSTER_WIDE else str(meta.get("namespace") or "default")
    return ObjectRef(kind, namespace, str(meta.get("name") or meta.get("generateName") or ""))


def refused(ref: ObjectRef, errors: Iterable[FieldError], number: int = -1) -> Iterator[Finding]:
    """Yield what an API server says of an object as findings."""
    for error in errors:
        rule = RULES["unknown-field" if error.reason == UNKNOWN_FIELD else "invalid"]
        yield Finding(rule, ref, error.path, error.message, number)


def unreadable(problem: InvalidObject) -> Iterator[Finding]:
    """Yield what is wrong with a file, or with an object that cannot be told from others, as findings."""
    for error in problem.errors:
        place = Place(problem.file or "", error.line or 1, error.column or 1)
        ref = ObjectRef(problem.kind.partition(".")[0], "", problem.name)
        yield Finding(RULES["invalid"], ref, error.path, error.message, place=place)
