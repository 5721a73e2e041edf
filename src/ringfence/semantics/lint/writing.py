# SPDX-License-Identifier: Apache-2.0
"""What is written and means nothing, or the opposite of what it seems to: seen in the policy alone.

Looks at the object as it was written, since an empty list and a missing one mean the same and look different.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ringfence.model.policy import ANY_PEER, Direction, Rule
from ringfence.model.ports import ANY_TRAFFIC
from ringfence.semantics.lint.findings import Finding
from ringfence.semantics.lint.parts import Written, found, rules_of

_NEGATIONS = frozenset({"no", "non", "none", "not", "nothing", "nobody", "dis", "disallow", "deny", "block"})
_WORDS = re.compile(r"[a-z]+")


def ignored_rules(written: Written) -> Iterator[Finding]:
    """Find rules of a direction that policyTypes leaves out."""
    spec = written.object.get("spec") or {}
    for direction in Direction:
        rules = spec.get(direction.value)
        if rules and written.policy.rules(direction) is None:
            types = ", ".join(map(str, spec.get("policyTypes") or ()))
            message = f"has {_count(rules)} and no effect, since policyTypes is [{types}]"
            yield found("ignored-rules", written, f"spec.{direction.value}", message)


def empty_lists(written: Written) -> Iterator[Finding]:
    """Find lists of peers or ports that were written down and hold nothing.

    ``to: []`` is how many write "anywhere", and hardly ever a mistake.
    """
    for direction, rule in rules_of(written):
        entry = _entry(written.object, direction, rule)
        side, whom = ("from", "from everybody") if direction is Direction.INGRESS else ("to", "to everybody")
        for field, means in ((side, whom), ("ports", "every port of every protocol")):
            if field in entry and not entry[field] and (field, entry[field]) != ("to", []):
                text = "null" if entry[field] is None else "[]"
                yield found("empty-means-any", written, f"{rule.origin.path}.{field}", f"{text} means {means}")


def void_rules(written: Written) -> Iterator[Finding]:
    """Find rules that admit everything, beside others."""
    for direction in Direction:
        rules = written.policy.rules(direction) or ()
        opened = next((rule for rule in rules if _admits_all(rule)), None)
        if opened is not None and len(rules) > 1:
            message = f"admits everything, so that the other {_count(rules[1:])} of {direction.value} have no effect"
            yield found("void-rule", written, opened.origin.path, message)


def opposite_of_name(written: Written) -> Iterator[Finding]:
    """Find policies whose name says allow or deny, and which do the opposite in every direction that they are about."""
    words = set(_WORDS.findall(written.policy.ref.name.lower()))
    says_allow, says_deny = "allow" in words, bool(words & {"deny", "denyall", "block"})
    about = {d: rules for d in Direction if (rules := written.policy.rules(d)) is not None}
    if says_allow and not words & _NEGATIONS and about and not any(about.values()):
        message = f"allows nothing, and isolates {' and '.join(d.value for d in about)}; its name says allow"
        yield found("opposite-of-name", written, "spec", message)
    if says_deny and not says_allow and about and all(any(map(_admits_all, rules)) for rules in about.values()):
        message = f"allows all {' and '.join(d.value for d in about)}; its name says deny"
        yield found("opposite-of-name", written, "spec", message)


def _admits_all(rule: Rule) -> bool:
    return rule.peers is ANY_PEER and rule.traffic is ANY_TRAFFIC


def _entry(obj: Mapping[str, Any], direction: Direction, rule: Rule) -> Mapping[str, Any]:
    """Return a rule as it was written."""
    index = int(rule.origin.path.rpartition("[")[2].rstrip("]"))
    entry = obj["spec"][direction.value][index]
    return entry if isinstance(entry, dict) else {}


def _count(rules: object) -> str:
    number = len(rules) if isinstance(rules, (list, tuple)) else 1
    return f"{number} rule" + ("s" if number > 1 else "")
