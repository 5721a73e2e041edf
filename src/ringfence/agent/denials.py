# SPDX-License-Identifier: Apache-2.0
"""A verdict in words: who was denied what, and which rule of which policy decided, or no rule of which policies.

Dataplanes speak of addresses and digests. Whose addresses they are, and what the digests stand for, is asked of the
state; its workshop also remembers the rulesets of programs before the present one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ringfence.agent.reconcile import Kind, State
from ringfence.apis.core import NodeObject, node_of
from ringfence.compiler.flat import NamedRule, RuleId
from ringfence.compiler.flat_profiles import rule_id
from ringfence.compiler.program import Ruleset, RulesetId
from ringfence.dataplanes.verdicts import VerdictEvent
from ringfence.model import ports
from ringfence.model.addresses import Address
from ringfence.model.policy import Origin, listed

NAMED_POLICIES = 10
REMEMBERED_RULESETS = 256


class Wording:
    """Puts verdicts into words, and remembers what it looked up. Not for two threads at once.

    A state's workshop works in place: nobody may be making the next state meanwhile.
    """

    def __init__(self) -> None:
        self._rules: dict[RulesetId, Mapping[RuleId, Origin]] = {}
        self._nodes: tuple[Mapping[str, NodeObject], Mapping[Address, str]] = ({}, {})

    def facts(self, event: VerdictEvent, state: State) -> dict[str, Any]:
        """Return all that is known of a verdict, by name; what is not known is left out."""
        protocol = event.protocol.value if isinstance(event.protocol, ports.Protocol) else event.protocol
        facts = {
            **self._end("source", event.client, state),
            **self._end("destination", event.server, state),
            "protocol": protocol,
            "port": event.port,
            "direction": None if event.direction is None else event.direction.value,
            "reason": event.reason.value,
            **self._deciding(event, state),
            "lost": event.lost or None,
        }
        return {name: value for name, value in facts.items() if value is not None}

    def _end(self, which: str, address: Address, state: State) -> dict[str, Any]:
        """Return whose an address is. A hostNetwork pod has none of its own: its node is named."""
        pod = None if state.workshop is None else state.workshop.holder(address)
        node = self._node_addresses(state).get(address) if pod is None else None
        return {
            f"{which}_pod": None if pod is None else str(pod.key),
            f"{which}_node": node,
            f"{which}_address": str(address),
        }

    def _deciding(self, event: VerdictEvent, state: State) -> dict[str, Any]:
        if event.ruleset is None:
            return {}
        ruleset = None if state.workshop is None else state.workshop.ruleset(event.ruleset)
        if ruleset is None:
            return {"ruleset": event.ruleset, "rule": event.rule}
        origin = None if event.rule is None else self._origins(ruleset).get(event.rule)
        if origin is None:
            return {"policies": listed(ruleset.policies, NAMED_POLICIES), "rule": event.rule}
        return {"policy": str(origin.object), "rule": origin.path}

    def _origins(self, ruleset: Ruleset) -> Mapping[RuleId, Origin]:
        """Return a ruleset's rules by their ids: both are digests, so what was once found out stays true."""
        if ruleset.id not in self._rules:
            if len(self._rules) >= REMEMBERED_RULESETS:
                self._rules.clear()
            self._rules[ruleset.id] = {
                rule_id(NamedRule(rule.action, rule.origin)): rule.origin for rule in ruleset.rules
            }
        return self._rules[ruleset.id]

    def _node_addresses(self, state: State) -> Mapping[Address, str]:
        nodes = state.objects.get(Kind.NODES, {})
        if nodes is not self._nodes[0]:
            found = {address: name for name, each in nodes.items() for address in node_of(each).addresses}
            self._nodes = nodes, found
        return self._nodes[1]
