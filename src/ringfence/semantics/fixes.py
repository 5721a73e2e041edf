# SPDX-License-Identifier: Apache-2.0
"""The nearest fix as a command that can be pasted: only where it plainly follows from what a rule misses.

Each closes one gap and no other. What a person should rather decide (whether to admit a whole protocol, which of
several labels is meant) is said in words by ``nearest``.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any, assert_never

from ringfence.model.addresses import Address
from ringfence.model.cluster import Endpoint
from ringfence.model.flow import Flow
from ringfence.model.labels import Labels, Operator, Requirement, Selector
from ringfence.model.policy import Direction, Origin
from ringfence.semantics.knowledge import Knowledge

_TEMPLATES = frozenset({"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController"})


def changes(unmet: Iterable[Requirement]) -> dict[str, str | None]:
    """Return label values that meet requirements, None for a label that has to go; for In, the first of its values."""
    wanted: dict[str, str | None] = {}
    for requirement in unmet:
        match requirement.operator:
            case Operator.IN:
                wanted[requirement.key] = requirement.values[0]
            case Operator.EXISTS:
                wanted.setdefault(requirement.key, "")
            case Operator.NOT_IN | Operator.DOES_NOT_EXIST:
                wanted.setdefault(requirement.key, None)
            case _:
                assert_never(requirement.operator)
    return wanted


def label_command(command: str, unmet: Iterable[Requirement], labels: Labels) -> str:
    """Complete a ``kubectl label`` command so that the requirements are met."""
    wanted = changes(unmet)
    words = [f"{key}-" if value is None else f"{key}={value}" for key, value in wanted.items()]
    overwrite = any(value is not None and key in labels for key, value in wanted.items())
    return " ".join([command, *words, *(["--overwrite"] if overwrite else [])])


def label_pod(endpoint: Endpoint, unmet: Iterable[Requirement], known: Knowledge) -> str:
    """Return the command that labels a pod: its workload's template, where it has one, since pods come and go."""
    key, owner = endpoint.key, known.owners.get(endpoint.key)
    if owner is None:
        return label_command(f"kubectl label pod {key.name} -n {key.namespace}", unmet, endpoint.labels)
    labels = changes(unmet)
    if owner.kind not in _TEMPLATES:
        pairs = ",".join(f"{label}={value}" if value is not None else f"{label}-" for label, value in labels.items())
        return f"set {pairs} in the pod template of {owner.kind} {key.namespace}/{owner.name}"
    patch = {"spec": {"template": {"metadata": {"labels": labels}}}}
    name = f"{owner.kind.lower()} {owner.name} -n {key.namespace}"
    return f"kubectl patch {name} --type=merge -p {shlex.quote(_json(patch))}"


def add_port(origin: Origin, flow: Flow) -> str:
    """Return the command that adds a flow's port to the ports of a rule."""
    return _patch(origin, "ports", {"protocol": flow.protocol.value, "port": flow.port})


def add_address(origin: Origin, direction: Direction, address: Address) -> str:
    """Return the command that adds an address to the peers of a rule."""
    return _patch(origin, _side(direction), {"ipBlock": {"cidr": f"{address}/{address.max_prefixlen}"}})


def add_namespace(origin: Origin, direction: Direction, namespace: str, pods: Selector) -> str:
    """Return the command that adds the same pods of another namespace to the peers of a rule."""
    named = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    return _patch(origin, _side(direction), {"namespaceSelector": named, "podSelector": _written(pods)})


def _side(direction: Direction) -> str:
    return "from" if direction is Direction.INGRESS else "to"


def _patch(origin: Origin, field: str, entry: Mapping[str, Any]) -> str:
    pointer = "/" + re.sub(r"\[(\d+)\]", r"/\1", origin.path).replace(".", "/")
    patch = _json([{"op": "add", "path": f"{pointer}/{field}/-", "value": entry}])
    ref = origin.object
    return f"kubectl patch {ref.kind.lower()} {ref.name} -n {ref.namespace} --type=json -p {shlex.quote(patch)}"


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _written(selector: Selector) -> dict[str, Any]:
    """Return a selector as the API writes it."""
    labels = {r.key: r.values[0] for r in selector.requirements if r.operator is Operator.IN and len(r.values) == 1}
    expressions = [
        {"key": r.key, "operator": r.operator.value, **({"values": list(r.values)} if r.values else {})}
        for r in selector.requirements
        if (r.key, r.values) not in {(key, (value,)) for key, value in labels.items()} or r.operator is not Operator.IN
    ]
    return {
        **({"matchLabels": labels} if labels else {}),
        **({"matchExpressions": expressions} if expressions else {}),
    }
