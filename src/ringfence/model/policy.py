# SPDX-License-Identifier: Apache-2.0
"""Policies of every API in one shape: tiers of ordered policies, each with ordered rules.

A NetworkPolicy is a policy of the tier ``kubernetes`` whose rules all allow and whose tier denies by default.
ClusterNetworkPolicy and Calico policies are tiers around it. A new policy API lowers to these values, and nothing
else changes.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from ringfence.model.addresses import Address, Block
from ringfence.model.cluster import Cluster, Endpoint
from ringfence.model.labels import EVERYTHING, Selector
from ringfence.model.ports import AnyTraffic, Ports


class Direction(enum.Enum):
    """Seen from the pod that a policy selects: traffic to it, or traffic from it."""

    INGRESS = "ingress"
    EGRESS = "egress"


class Action(enum.Enum):
    """What a rule, or the end of a tier, says of a flow. ``PASS`` leaves the tier undecided."""

    ALLOW = "allow"
    DENY = "deny"
    PASS = "pass"


@dataclass(frozen=True, slots=True, order=True)
class ObjectRef:
    """Names an API object: ``NetworkPolicy demo/demo-policy``; ``namespace`` is empty for cluster-wide kinds."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


def listed(refs: Sequence[ObjectRef], most: int) -> str:
    """Name objects in a sentence, a kind only where it begins: ``NetworkPolicy demo/a, demo/b and 3 more``."""
    names: list[str] = []
    kind = ""
    for ref in refs[:most]:
        names.append(str(ref).removeprefix(f"{kind} "))
        kind = ref.kind
    rest = len(refs) - len(names)
    last = f"{rest} more" if rest else names.pop()
    return f"{', '.join(names)} and {last}" if names else last


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """Where a rule was written: the object and the field path (``spec.ingress[0]``)."""

    object: ObjectRef
    path: str

    def __str__(self) -> str:
        return f"{self.object} {self.path}"


@dataclass(frozen=True, slots=True)
class InNamespace:
    """The one namespace of this name, whether or not it exists yet."""

    name: str

    def __str__(self) -> str:
        return f"namespace {self.name}"


@dataclass(frozen=True, slots=True)
class NamespacesMatching:
    """The namespaces whose labels match; a namespace that the cluster does not know yet matches nothing."""

    selector: Selector

    def __str__(self) -> str:
        return f"namespaces with {self.selector}"


NamespaceScope = InNamespace | NamespacesMatching


def in_scope(scope: NamespaceScope, namespace: str, cluster: Cluster) -> bool:
    """Tell whether a namespace is within a scope, in this cluster."""
    match scope:
        case InNamespace(name):
            return name == namespace
        case NamespacesMatching(selector):
            labels = cluster.namespace_labels(namespace)
            return labels is not None and selector.matches(labels)


@dataclass(frozen=True, slots=True)
class PodPeer:
    """Pods of a scope whose labels match; never hostNetwork pods (SEMANTICS 25). Also used for a policy's subject."""

    scope: NamespaceScope
    pods: Selector = EVERYTHING

    def covers(self, endpoint: Endpoint, cluster: Cluster) -> bool:
        """Tell whether this selects an endpoint."""
        return (
            not endpoint.host_network
            and in_scope(self.scope, endpoint.key.namespace, cluster)
            and self.pods.matches(endpoint.labels)
        )

    def __str__(self) -> str:
        return f"pods with {self.pods} in {self.scope}" if self.pods.requirements else f"all pods in {self.scope}"


@dataclass(frozen=True, slots=True)
class BlockPeer:
    """Addresses of a block, whoever holds them: pods and nodes included (SEMANTICS 15)."""

    block: Block

    def covers(self, address: Address) -> bool:
        """Tell whether the block covers an address."""
        return self.block.contains(address)

    def __str__(self) -> str:
        return str(self.block)


Peer = PodPeer | BlockPeer


class AnyPeer(enum.Enum):
    """Sentinel: every peer, inside and outside of the cluster."""

    ANY = "any peer"


ANY_PEER = AnyPeer.ANY


@dataclass(frozen=True, slots=True)
class Peers:
    """Exactly these peers, any one of them suffices; none at all matches nothing."""

    members: tuple[Peer, ...]

    def __str__(self) -> str:
        return " or ".join(map(str, self.members)) or "nobody"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: what to do with flows whose peer and traffic match. ``origin`` is for every later explanation.

    A rule whose object is broken keeps its place with ``peers=Peers(())``: it matches nothing (SEMANTICS 37).
    """

    action: Action
    peers: AnyPeer | Peers
    traffic: AnyTraffic | Ports
    origin: Origin


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy: whom it selects, and its ordered rules per direction.

    ``ingress``/``egress`` None leaves that direction of the subject alone; an empty tuple isolates it and allows
    nothing. ``order`` sorts within the tier (ties by ``ref``); NetworkPolicies are a union and all have order 0.
    """

    ref: ObjectRef
    subject: PodPeer
    ingress: tuple[Rule, ...] | None = None
    egress: tuple[Rule, ...] | None = None
    order: float = 0

    def rules(self, direction: Direction) -> tuple[Rule, ...] | None:
        """Return the rules of a direction, None where the policy leaves it alone."""
        return self.ingress if direction is Direction.INGRESS else self.egress


@dataclass(frozen=True, slots=True)
class Tier:
    """A tier of policies. ``default`` is for endpoints that at least one of its policies selects in a direction:
    ``DENY`` ends there, ``PASS`` goes on to the next tier. After the last tier a flow is allowed.
    """

    name: str
    order: float
    default: Action
    policies: tuple[Policy, ...] = ()

    def __post_init__(self) -> None:
        if self.default is Action.ALLOW:
            raise ValueError("a tier's default is deny or pass")
        object.__setattr__(self, "policies", tuple(sorted(self.policies, key=lambda p: (p.order, p.ref))))


@dataclass(frozen=True, slots=True)
class PolicySet:
    """All policies, in tiers sorted by order."""

    tiers: tuple[Tier, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "tiers", tuple(sorted(self.tiers, key=lambda t: (t.order, t.name))))

    def policies(self) -> tuple[Policy, ...]:
        """Return every policy, in the order in which tiers are asked."""
        return tuple(policy for tier in self.tiers for policy in tier.policies)


NETWORK_POLICY_TIER = "kubernetes"
NETWORK_POLICY_TIER_ORDER = 1000.0
