# SPDX-License-Identifier: Apache-2.0
"""What a program depends on, and what none can hold. That it means what the oracle says, ``tests/fuzz`` looks after."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings

from ringfence.compiler.compile import compile_program
from ringfence.errors import Unsupported
from ringfence.model.cluster import Cluster
from ringfence.model.policy import Action, PolicySet
from tests.semantics.small_worlds import clusters, deciding_tiers, network_policies, pod, policy, rule


@given(cluster=clusters(), policies=deciding_tiers())
@settings(deadline=None, max_examples=30)
def test_a_program_depends_on_nothing_but_its_input(cluster: Cluster, policies: PolicySet) -> None:
    """The order in which objects were learned leaves no trace."""
    backwards = Cluster(
        list(cluster.namespaces.values())[::-1],
        list(cluster.nodes.values())[::-1],
        # the newest holder of an address stays the newest
        cluster.endpoints.values(),
    )
    shuffled = network_policies(*policies.policies()[::-1])
    for name in cluster.nodes:
        assert compile_program(cluster, policies, name) == compile_program(backwards, shuffled, name)


def test_what_cannot_be_compiled_yet_is_refused_whole() -> None:
    """A rule that passes to another tier is no NetworkPolicy's; a program that left it out would be wrong."""
    passing = replace(rule(), action=Action.PASS)
    with pytest.raises(Unsupported):
        compile_program(
            Cluster(endpoints=[pod("shop/web", "10.0.0.3")]), network_policies(policy(ingress=(passing,))), "n"
        )
