# SPDX-License-Identifier: Apache-2.0
"""Where a pod may run: pure predicates of a pod and a node, and the choice among the nodes that fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ringfence.lab.controllers.pods import condition, selects
from ringfence.lab.controllers.resources import Object

_REPELLING = ("NoSchedule", "NoExecute")


@dataclass(frozen=True, slots=True)
class Placed:
    """The pod goes to this node."""

    node: str


@dataclass(frozen=True, slots=True)
class Unschedulable:
    """No node fits; ``message`` says why in kube-scheduler's words."""

    message: str


def place(pod: Object, nodes: Sequence[Object], held: Mapping[str, int]) -> Placed | Unschedulable:
    """Choose the fitting node with the fewest pods (``held`` counts them), the first by name among equals."""
    if not nodes:
        return Unschedulable("no nodes available to schedule pods")
    reasons: dict[str, int] = {}
    fitting: list[str] = []
    for node in nodes:
        name = node["metadata"]["name"]
        reason = why_not(pod, node, held.get(name, 0))
        if reason:
            reasons[reason] = reasons.get(reason, 0) + 1
        else:
            fitting.append(name)
    if fitting:
        return Placed(min(fitting, key=lambda name: (held.get(name, 0), name)))
    total = len(nodes)
    listed = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    return Unschedulable(
        f"0/{total} nodes are available: {listed}. preemption: 0/{total} nodes are available: "
        f"{total} Preemption is not helpful for scheduling."
    )


def why_not(pod: Object, node: Object, held: int) -> str:
    """Return why a pod cannot run on a node, empty if it can."""
    spec = pod.get("spec") or {}
    if (node.get("spec") or {}).get("unschedulable"):
        return "node(s) were unschedulable"
    ready = condition(node, "Ready")
    if ready is None or ready.get("status") != "True":
        return "node(s) were not ready"
    taint = _untolerated(spec.get("tolerations") or (), (node.get("spec") or {}).get("taints") or ())
    if taint:
        return f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value') or ''}}}"
    if not _is_chosen(spec, node):
        return "node(s) didn't match Pod's node affinity/selector"
    room = ((node.get("status") or {}).get("allocatable") or {}).get("pods")
    if room is not None and held >= int(room):
        return "Too many pods"
    return ""


def _untolerated(tolerations: Iterable[Mapping[str, Any]], taints: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    known = list(tolerations)
    for taint in taints:
        if taint.get("effect") in _REPELLING and not any(_tolerates(toleration, taint) for toleration in known):
            return taint
    return {}


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("key") and toleration["key"] != taint.get("key"):
        return False
    if toleration.get("operator") == "Exists":
        return True
    return bool(toleration.get("key")) and (toleration.get("value") or "") == (taint.get("value") or "")


def _is_chosen(spec: Mapping[str, Any], node: Object) -> bool:
    labels = node["metadata"].get("labels") or {}
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return True
    # the terms are alternatives; "a null or empty node selector term matches no objects"
    return any(_matches(term, labels, node) for term in required.get("nodeSelectorTerms") or ())


def _matches(term: Mapping[str, Any], labels: Mapping[str, str], node: Object) -> bool:
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    named = {"metadata.name": node["metadata"]["name"]}
    return selects({"matchExpressions": expressions}, labels) and selects({"matchExpressions": fields}, named)
