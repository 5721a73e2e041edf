# SPDX-License-Identifier: Apache-2.0
"""The oracle and the compiled program, written apart, say the same of every flow; sampled flows pass the kernel so."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.compiler.compile import compile_program
from ringfence.compiler.interpret import judge
from ringfence.dataplanes.memory import MemoryDataplane
from ringfence.errors import Unsupported
from ringfence.model.cluster import Cluster
from ringfence.model.flow import Flow
from ringfence.model.policy import Action, PolicySet
from ringfence.model.ports import Protocol
from ringfence.semantics.evaluate import evaluate
from tests.semantics.small_worlds import (
    ADDRESSES,
    PORTS,
    clusters,
    network_policies,
    pod,
    pod_peers,
    policy,
    rule,
    rules,
)

# A port of every class that rules can tell apart, and one that no rule names.
_TRAFFIC = (
    *((protocol, port) for protocol in (Protocol.TCP, Protocol.UDP, Protocol.SCTP) for port in (*PORTS, 9)),
    (Protocol.ICMP, None),
)


def _flows() -> Iterator[Flow]:
    for source, destination in itertools.product(ADDRESSES, repeat=2):
        if source.version == destination.version:
            for protocol, port in _TRAFFIC:
                yield Flow(source, destination, protocol, port)


@st.composite
def _policies(draw: st.DrawFn) -> PolicySet:
    sides = st.one_of(st.none(), st.lists(rules, max_size=3).map(tuple))
    members = []
    for index in range(draw(st.integers(0, 4))):
        drawn = policy(f"p{index}", subject=draw(pod_peers), ingress=draw(sides), egress=draw(sides))
        members.append(replace(drawn, order=0))
    return network_policies(*members)


@given(cluster=clusters(), policies=_policies())
@settings(deadline=None, max_examples=60)
def test_oracle_program_and_memory_agree_on_every_cell(cluster: Cluster, policies: PolicySet) -> None:
    """For every pair of addresses, every protocol and every class of ports: the same verdict, and the same halves."""
    programs = {name: compile_program(cluster, policies, name) for name in cluster.nodes}
    dataplanes = {name: MemoryDataplane() for name in programs}
    for name, dataplane in dataplanes.items():
        dataplane.apply(programs[name])
    for flow in _flows():
        expected = evaluate(flow, cluster, policies).allowed

        assert all(judge(program, flow).allowed for program in programs.values()) is expected, str(flow)
        assert all(dataplane.judge(flow).allowed for dataplane in dataplanes.values()) is expected, str(flow)


@given(cluster=clusters(), policies=_policies())
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


def test_the_comparison_notices_a_wrong_verdict() -> None:
    """A policy that is left out of the program makes the two differ: the test above can fail."""
    victim = pod("shop/web", "10.0.0.3")
    cluster = Cluster(endpoints=[victim])
    isolating = network_policies(policy("deny", ingress=()))
    flow = next(f for f in _flows() if f.destination in victim.addresses and f.source not in victim.addresses)

    assert not evaluate(flow, cluster, isolating).allowed
    assert judge(compile_program(cluster, network_policies(), victim.node), flow).allowed


def test_what_cannot_be_compiled_yet_is_refused_whole() -> None:
    """A rule that passes to another tier is no NetworkPolicy's; a program that left it out would be wrong."""
    passing = replace(rule(), action=Action.PASS)
    with pytest.raises(Unsupported):
        compile_program(
            Cluster(endpoints=[pod("shop/web", "10.0.0.3")]), network_policies(policy(ingress=(passing,))), "n"
        )
