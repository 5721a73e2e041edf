# SPDX-License-Identifier: Apache-2.0
"""A disagreement written as a case of the corpus: one step for each world, and what the oracle says of the flows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import yaml

from ringfence.cases.format import PodSpec
from ringfence.model.cluster import Cluster
from ringfence.model.flow import Flow
from ringfence.model.settings import DEFAULTS
from tests.fuzz.agreement import Disagreement, Misjudged
from tests.fuzz.wire import on_the_wire
from tests.fuzz.worlds import PodAt, World

_HEAD = "# SPDX-License-Identifier: Apache-2.0\n"
_SHOWN = 10


class _Plain(yaml.SafeDumper):
    """Writes what stands twice out twice."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the base class's signature
        """Tell that nothing is an alias."""
        return True


def case_text(found: Disagreement) -> str:
    """Return the case file; its expectations are the oracle's verdicts, with the last world in force."""
    worlds = [step for step in found.steps if isinstance(step, World)]
    if not worlds:
        return f"{_HEAD}# no case can say this\n# {found}\n"
    first, *rest = worlds
    steps = [_beginning(first)] + [_change(old, new) for old, new in zip(worlds, rest, strict=False)]
    steps[-1]["expect"] = list(_expectations(found.misjudged, worlds[-1].meaning[0]))
    case = {
        "shows": f"Found by fuzzing. {found.what}",
        "cluster": {
            "nodes": _nodes(first),
            "namespaces": {name: dict(labels) for name, labels in first.namespaces.items()},
            "pods": {_name(pod): _pod(pod) for pod in first.pods},
        },
        "steps": steps,
    }
    chosen = worlds[-1].settings
    if chosen != DEFAULTS:
        case["settings"] = {
            "nodeProbes": chosen.node_probes.value,
            "ownNodeEgress": chosen.own_node_egress.value,
            "establishedConnections": chosen.established.value,
        }
    return _HEAD + yaml.dump(case, Dumper=_Plain, sort_keys=False, width=110, allow_unicode=True)


def _beginning(world: World) -> dict[str, Any]:
    return {"apply": [_policy(each) for each in world.policies]} if world.policies else {}


def _change(old: World, new: World) -> dict[str, Any]:
    """Return what leads from one world to the next, in the fields of a step."""
    step: dict[str, Any] = {}
    known = {_name(pod): pod for pod in old.pods}
    policies = {_policy_name(each): each for each in old.policies}
    if new.nodes != old.nodes:
        step["nodes"] = _nodes(new)
    gone = [f"NetworkPolicy {name}" for name in policies if name not in map(_policy_name, new.policies)]
    gone += [f"Pod {name}" for name in known if name not in map(_name, new.pods)]
    gone += [f"Namespace {name}" for name in old.namespaces if name not in new.namespaces]
    namespaces = {name: dict(ls) for name, ls in new.namespaces.items() if old.namespaces.get(name) != ls}
    if namespaces:
        step["namespaces"] = namespaces
    pods = {_name(pod): _pod(pod) for pod in new.pods if known.get(_name(pod)) != pod}
    if pods:
        step["pods"] = pods
    applied = [_policy(each) for each in new.policies if policies.get(_policy_name(each)) != each]
    if applied:
        step["apply"] = applied
    if gone:
        step["delete"] = gone
    return step


def _nodes(world: World) -> dict[str, Any]:
    # A case has no pod on a node that it does not have; one without an address judges the same.
    names = sorted({*world.nodes, *(pod.node for pod in world.pods)}) or ["n1"]
    return {name: {"addresses": list(world.nodes.get(name, ()))} for name in names}


def _name(pod: PodAt) -> str:
    return f"{pod.namespace}/{pod.name}"


def _pod(pod: PodAt) -> dict[str, Any]:
    default = msgspec.to_builtins(PodSpec())
    said = {key: value for key, value in msgspec.to_builtins(pod.spec).items() if value != default[key]}
    return {**said, "node": pod.node, "addresses": list(pod.addresses)}


def _policy(manifest: dict[str, Any]) -> dict[str, Any]:
    meta = {key: value for key, value in manifest["metadata"].items() if key != "uid"}
    return {**manifest, "metadata": meta}


def _policy_name(manifest: dict[str, Any]) -> str:
    return f"{manifest['metadata']['namespace']}/{manifest['metadata']['name']}"


def _expectations(misjudged: Sequence[Misjudged], cluster: Cluster) -> Iterator[dict[str, Any]]:
    by_ends: dict[tuple[str, str, bool], list[str]] = {}
    # Flows that can be sent first: not every edge of a block is an address that somebody can have.
    for each in sorted(misjudged, key=lambda m: (m.expected is m.got, not on_the_wire(m.flow, cluster))):
        ends = str(each.flow.source), str(each.flow.destination), each.expected
        by_ends.setdefault(ends, []).append(_traffic(each.flow))
    for (source, destination, allowed), traffic in itertools.islice(by_ends.items(), _SHOWN):
        verdict = "allow" if allowed else "deny"
        yield {"traffic": list(dict.fromkeys(traffic)), "from": source, "to": destination, "verdict": verdict}


def _traffic(flow: Flow) -> str:
    return "ICMP" if flow.port is None else f"{flow.protocol.value}/{flow.port}"
