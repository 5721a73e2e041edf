# SPDX-License-Identifier: Apache-2.0
"""The policy that would admit a connection which nothing but isolation stands against: exactly that, no more.

Suggested only where no rule came so near that commands would make it match (``fixes`` has those), and where both ends
can be told by their labels or address.
"""

from __future__ import annotations

import re
from typing import Any

from ringfence.model.cluster import Endpoint
from ringfence.model.flow import Flow
from ringfence.model.policy import Direction
from ringfence.semantics.evaluate import Reason
from ringfence.semantics.explain import End
from ringfence.semantics.findings import JudgedHalf

# Labels that controllers give to pods: another for each pod or each rollout.
_FLEETING = frozenset(
    {
        "pod-template-hash",
        "controller-revision-hash",
        "pod-template-generation",
        "statefulset.kubernetes.io/pod-name",
        "apps.kubernetes.io/pod-index",
        "controller-uid",
        "batch.kubernetes.io/controller-uid",
        "batch.kubernetes.io/job-completion-index",
    }
)


def suggestion(side: JudgedHalf, flow: Flow, far: End) -> dict[str, Any] | None:
    """Return a NetworkPolicy that admits a flow to or from the other end, None where none plainly follows."""
    subject = side.subject
    near = side.nearest is not None and side.nearest.closable
    if side.reason is not Reason.DEFAULT or near or subject is None or flow.port is None:
        return None
    chosen, peer = _selector(subject), _peer(subject, far)
    if chosen is None or peer is None:
        return None
    word = "from" if side.direction is Direction.INGRESS else "to"
    rule = {word: [peer], "ports": [{"protocol": flow.protocol.value, "port": flow.port}]}
    name = re.sub(r"[^a-z0-9]+", "-", f"{subject.key.name}-{word}-{far.pod.name if far.pod else far.address}")
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name.strip("-"), "namespace": subject.key.namespace},
        "spec": {
            "podSelector": chosen,
            "policyTypes": [side.direction.value.capitalize()],
            side.direction.value: [rule],
        },
    }


def _peer(subject: Endpoint, far: End) -> dict[str, Any] | None:
    if far.endpoint is None:
        return None if far.address is None else {"ipBlock": {"cidr": f"{far.address}/{far.address.max_prefixlen}"}}
    pods, namespace = _selector(far.endpoint), far.endpoint.key.namespace
    if pods is None:
        return None
    if namespace == subject.key.namespace:
        return {"podSelector": pods}
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}, "podSelector": pods}


def _selector(endpoint: Endpoint) -> dict[str, Any] | None:
    """Return what selects a pod by the labels that last; None if it has none, since nothing would be everything."""
    labels = {key: value for key, value in endpoint.labels.items() if key not in _FLEETING}
    return {"matchLabels": labels} if labels else None
