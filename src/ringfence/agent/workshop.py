# SPDX-License-Identifier: Apache-2.0
"""What a state's program was made with, kept to make the next one of: one event costs what it changes.

A workshop belongs to the latest state that was made with it. It changes in place, so that an older state, or one whose
step failed, finds that it has gone on without them, and builds another from its objects: that costs time, and nothing
else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ringfence.apis.census import Census
from ringfence.apis.core import NamespaceObject, NodeObject, Pod, namespace_of, node_of
from ringfence.apis.networkpolicy import policy_set
from ringfence.compiler.incremental import KeptProgram
from ringfence.compiler.program import Program, Ruleset, RulesetId
from ringfence.model.addresses import Address
from ringfence.model.cluster import Endpoint
from ringfence.model.policy import Policy
from ringfence.model.settings import Settings


class Workshop:
    """Everything that is kept between two steps. ``at`` counts the changes; -1 if one of them failed."""

    def __init__(
        self,
        node: str,
        settings: Settings,
        *,
        namespaces: Iterable[NamespaceObject],
        nodes: Mapping[str, NodeObject],
        pods: Mapping[str, Pod],
        policies: Iterable[Policy],
    ) -> None:
        own = nodes.get(node)
        self.at = 0
        self._census = Census(pods)
        self._kept = KeptProgram(
            {each.metadata.name: namespace_of(each) for each in namespaces},
            node_of(own) if own is not None else None,
            node,
            self._census.endpoints,
            policy_set(policies),
            settings,
        )

    @property
    def program(self) -> Program:
        """The program."""
        return self._kept.program

    def holder(self, address: Address) -> Endpoint | None:
        """Return the pod that an address belongs to, None if it is no pod's."""
        return self._census.holder(address)

    def ruleset(self, ruleset_id: RulesetId) -> Ruleset | None:
        """Return a ruleset of this program or of one before; None for one that never was, or is long forgotten."""
        return self._kept.ruleset(ruleset_id)

    def change(
        self,
        pods: Mapping[str, Pod | None],
        policies: Iterable[tuple[Policy | None, Policy | None]],
        namespaces: Mapping[str, NamespaceObject | None],
        own: NodeObject | None,
    ) -> Program:
        """Take in what has changed (None: gone; of policies old and new), and the node; return the program."""
        at, self.at = self.at, -1
        tier = policy_set(()).tiers[0]
        self._kept.move(node_of(own) if own is not None else None)
        program = self._kept.change(
            self._census.change(pods),
            [(tier, old, new) for old, new in policies],
            {name: None if each is None else namespace_of(each) for name, each in namespaces.items()},
        )
        self.at = at + 1
        return program
