# SPDX-License-Identifier: Apache-2.0
"""From a NetworkPolicy, as stored, to the model. Defaults are filled in here; what is broken stays closed.

Objects come from servers of any age and from files, so each may be invalid. "The broken rule matches nothing,
isolation stands, the rest of the policy works" (SEMANTICS 37):

* a rule with anything wrong in it keeps its place and matches nothing;
* a podSelector with something wrong in it selects by what is right in it, that is, at least every pod that it could
  have meant (requirements are ANDed), and all rules of the policy match nothing: an allowance meant for pods that
  we cannot tell would widen what other policies leave to the rest;
* policyTypes with something wrong in it isolates in both directions; the rules of a direction that it does not name
  for certain match nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec

from ringfence.apis.cidrs import REMEMBERED, CidrForm, parse_cidr
from ringfence.apis.fields import within
from ringfence.apis.names import is_label_key, is_label_value
from ringfence.apis.networkpolicy.validation import Leniency, examine
from ringfence.errors import FieldError
from ringfence.model.addresses import Block
from ringfence.model.labels import EVERYTHING, Operator, Requirement, Selector
from ringfence.model.policy import (
    ANY_PEER,
    NETWORK_POLICY_TIER,
    NETWORK_POLICY_TIER_ORDER,
    Action,
    AnyPeer,
    BlockPeer,
    InNamespace,
    NamespacesMatching,
    ObjectRef,
    Origin,
    Peer,
    Peers,
    PodPeer,
    Policy,
    PolicySet,
    Rule,
    Tier,
)
from ringfence.model.ports import ANY_PORT, ANY_TRAFFIC, AnyTraffic, NamedPort, PortMatch, PortRange, Ports, Protocol

DEFAULT_NAMESPACE = "default"
_STORED = Leniency(cidrs=CidrForm.LEGACY)
_NOTHING = Peers(())


@dataclass(frozen=True, slots=True)
class Lowered:
    """A policy of the model, and what was wrong with the object that it comes from."""

    policy: Policy
    problems: tuple[FieldError, ...] = ()


def decode_network_policy(raw: bytes) -> Lowered:
    """Lower a NetworkPolicy from its JSON; raises ``msgspec.DecodeError`` for what is not JSON."""
    return lower(msgspec.json.decode(raw))


def policy_set(policies: Iterable[Policy]) -> PolicySet:
    """Return policies as the NetworkPolicy tier: isolated pods are denied what no policy allows (SEMANTICS 19)."""
    return PolicySet((Tier(NETWORK_POLICY_TIER, NETWORK_POLICY_TIER_ORDER, Action.DENY, tuple(policies)),))


def lower(policy: object) -> Lowered:
    """Lower a decoded NetworkPolicy, valid or not; never raises, and never allows what a broken part might forbid."""
    examined = examine(policy, _STORED)
    metadata = examined.readable.get("metadata", {})
    spec = examined.readable.get("spec", {})
    namespace = metadata.get("namespace") or DEFAULT_NAMESPACE
    ref = ObjectRef("NetworkPolicy", namespace, metadata.get("name", ""))
    reader = _Reader(ref, spec, examined.errors)
    lowered = Policy(
        ref=ref,
        subject=PodPeer(InNamespace(namespace), reader.subject()),
        ingress=reader.rules("ingress"),
        egress=reader.rules("egress"),
    )
    return Lowered(lowered, examined.errors)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads the spec of one policy, knowing what is wrong with it."""

    ref: ObjectRef
    spec: Mapping[str, Any]
    errors: tuple[FieldError, ...]

    def broken(self, path: str) -> bool:
        return any(within(error.path, path) for error in self.errors)

    def subject(self) -> Selector:
        """Read the podSelector: "An empty podSelector matches all pods in this namespace" (SEMANTICS 3)."""
        if not self.broken("spec.podSelector"):
            return _selector(self.spec.get("podSelector", {}))
        whole = self.spec.get("podSelector", {})
        labels = {
            k: v for k, v in whole.get("matchLabels", {}).items() if not is_label_key(k) and not is_label_value(v)
        }
        expressions = [
            expression
            for index, expression in enumerate(whole.get("matchExpressions", []))
            if not self.broken(f"spec.podSelector.matchExpressions[{index}]")
        ]
        return _selector({"matchLabels": labels, "matchExpressions": expressions})

    def rules(self, direction: str) -> tuple[Rule, ...] | None:
        """Read the rules of a direction, None if the policy leaves it alone."""
        unsure = self.broken("spec.policyTypes") or any(error.path in ("", "spec") for error in self.errors)
        named = self._names(direction)
        if not named and not unsure:
            return None
        void = not named or self.broken("spec.podSelector")
        entries = self.spec.get(direction, [])
        return tuple(self._rule(direction, index, entry, void=void) for index, entry in enumerate(entries))

    def _names(self, direction: str) -> bool:
        """Tell whether policyTypes names a direction, or would when defaulted.

        "If this field is not specified, it will default based on the existence of ingress or egress rules; policies
        that contain an egress section are assumed to affect egress, and all policies (whether or not they contain an
        ingress section) are assumed to affect ingress" (SEMANTICS 1).
        """
        types = self.spec.get("policyTypes", [])
        # What was said there and cannot be read is not what is meant by saying nothing.
        if types or self.broken("spec.policyTypes"):
            return direction.capitalize() in types
        return direction == "ingress" or bool(self.spec.get(direction)) or self.broken(f"spec.{direction}")

    def _rule(self, direction: str, index: int, entry: Mapping[str, Any] | None, *, void: bool) -> Rule:
        path = f"spec.{direction}[{index}]"
        origin = Origin(self.ref, path)
        if void or entry is None or self.broken(path):
            return Rule(Action.ALLOW, _NOTHING, ANY_TRAFFIC, origin)
        peers = _peers(entry.get("from" if direction == "ingress" else "to", []), self.ref.namespace)
        return Rule(Action.ALLOW, peers, _traffic(entry.get("ports", [])), origin)


def _peers(entries: list[Mapping[str, Any]], namespace: str) -> AnyPeer | Peers:
    """Read ``from`` or ``to``: "If this field is empty or missing, this rule matches all sources" (SEMANTICS 5)."""
    return Peers(tuple(_peer(entry, namespace) for entry in entries)) if entries else ANY_PEER


def _peer(entry: Mapping[str, Any], namespace: str) -> Peer:
    if "ipBlock" in entry:
        block = entry["ipBlock"]
        return _block(block["cidr"], *block["except"]) if "except" in block else _block(block["cidr"])
    pods = _selector(entry["podSelector"]) if "podSelector" in entry else EVERYTHING
    if "namespaceSelector" in entry:
        return PodPeer(NamespacesMatching(_selector(entry["namespaceSelector"])), pods)
    return PodPeer(InNamespace(namespace), pods)


@lru_cache(maxsize=REMEMBERED)
def _block(*cidrs: str) -> BlockPeer:
    """Return a CIDR without its exceptions: the same object for the same texts, so that what is made of it is kept."""
    whole, *holes = (network for text in cidrs if (network := parse_cidr(text)) is not None)
    return BlockPeer(Block(whole, tuple(holes)))


def _traffic(entries: list[Mapping[str, Any]]) -> AnyTraffic | Ports:
    """Read ``ports``: "If this field is empty or missing, this rule matches all ports" (SEMANTICS 6)."""
    return Ports(tuple(_port(entry) for entry in entries)) if entries else ANY_TRAFFIC


def _port(entry: Mapping[str, Any]) -> PortMatch:
    protocol = Protocol(entry.get("protocol", "TCP"))
    match entry.get("port"):
        case None:
            return PortMatch(protocol, ANY_PORT)
        case int() as first:
            return PortMatch(protocol, PortRange(first, entry.get("endPort", first)))
        case name:
            return PortMatch(protocol, NamedPort(name))


def _selector(selector: Mapping[str, Any]) -> Selector:
    labels = [Requirement(key, Operator.IN, (value,)) for key, value in selector.get("matchLabels", {}).items()]
    expressions = [
        Requirement(e["key"], Operator(e["operator"]), tuple(e.get("values", [])))
        for e in selector.get("matchExpressions", [])
    ]
    return Selector((*labels, *expressions))
