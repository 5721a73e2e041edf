# SPDX-License-Identifier: Apache-2.0
"""An address that goes from pod to pod within one change, in whatever order the pods are told."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from ringfence.apis.networkpolicy import lower, policy_set
from ringfence.compiler.compile import compile_program
from ringfence.compiler.incremental import KeptProgram
from ringfence.model.cluster import Cluster, Endpoint, Namespace, Node
from ringfence.model.labels import Labels, Operator, Requirement, Selector
from ringfence.model.policy import (
    Action,
    NamespacesMatching,
    ObjectRef,
    Origin,
    Peers,
    PodPeer,
    Policy,
    PolicySet,
    Rule,
)
from ringfence.model.ports import ANY_TRAFFIC
from ringfence.model.settings import DEFAULTS
from tests.compiler.test_compile import endpoint

FIRST, SECOND, THIRD = "10.0.0.1", "10.0.0.2", "10.0.0.3"
SERVER = endpoint("server", "10.0.0.9", app="server", http=80)
NAMESPACES, NODE = [Namespace("demo")], Node("n")


def policies() -> PolicySet:
    """Return policies with pods as peers, by labels and by a named port, and all pods as subjects."""
    web = {"podSelector": {"matchLabels": {"app": "web"}}}
    to = {"to": [web], "ports": [{"protocol": "TCP", "port": "http"}]}
    spec = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [{"from": [web]}], "egress": [to]}
    return policy_set([lower({"metadata": {"namespace": "demo", "name": "p"}, "spec": spec}).policy])


BEFORE = [endpoint("one", FIRST, http=80), endpoint("two", SECOND, http=81), endpoint("three", THIRD, http=80), SERVER]
AFTER = {
    "replaced": {"uid-one": None, "uid-heir": endpoint("heir", FIRST, http=80)},
    "replaced by another kind": {"uid-one": None, "uid-heir": endpoint("heir", FIRST, app="api", http=82)},
    "exchanged": {"uid-one": endpoint("one", SECOND, http=80), "uid-two": endpoint("two", FIRST, http=81)},
    "handed round": {
        "uid-one": endpoint("one", SECOND, http=80),
        "uid-two": endpoint("two", THIRD, app="api", http=81),
        "uid-three": endpoint("three", FIRST, http=80),
    },
    "lost to a newer one": {
        "uid-one": replace(BEFORE[0], addresses=frozenset()),
        "uid-heir": endpoint("heir", FIRST, http=80),
    },
}


@pytest.mark.parametrize("change", AFTER.values(), ids=AFTER.keys())
def test_an_address_changes_hands_within_one_change(change: dict[str, Endpoint | None]) -> None:
    """The program is that of a fresh start, and stays so when everything is taken back."""
    held = {pod.uid: pod for pod in BEFORE}
    wanted = policies()
    for order in itertools.permutations(change):
        kept = KeptProgram({"demo": NAMESPACES[0]}, NODE, "n", held, wanted, DEFAULTS)
        back: dict[str, Endpoint | None] = {uid: held.get(uid) for uid in order}
        now = {**held, **change}
        for told, pods in (({uid: change[uid] for uid in order}, now), (back, {**now, **back})):
            there = [pod for pod in pods.values() if pod is not None and pod.addresses]

            assert kept.change(told, []) == compile_program(Cluster(NAMESPACES, [NODE], there), wanted, "n")


def test_a_namespace_comes_and_goes_under_policies_that_select_it_by_its_labels() -> None:
    """Its pods become subjects and peers with its labels, and stop to be."""
    wide = PodPeer(NamespacesMatching(Selector((Requirement("team", Operator.IN, ("a",)),))))
    ref = ObjectRef("Wide", "", "w")
    rule = Rule(Action.ALLOW, Peers((wide,)), ANY_TRAFFIC, Origin(ref, "spec.ingress[0]"))
    policy = Policy(ref, wide, (rule,), None)
    wanted = policy_set([policy, *policies().policies()])
    held = {pod.uid: pod for pod in BEFORE}
    spaces = [
        Namespace("demo", Labels(labels)) for labels in ({}, {"team": "a"}, {"team": "a", "x": "y"}, {"team": "b"})
    ]
    kept = KeptProgram({}, NODE, "n", held, wanted, DEFAULTS)

    for space in (*spaces, None, spaces[1]):
        after = kept.change({}, [], {"demo": space})

        assert after == compile_program(Cluster([space] if space else [], [NODE], BEFORE), wanted, "n")
    assert kept.change({}, [(wanted.tiers[0], policy, None)]) == compile_program(
        Cluster([spaces[1]], [NODE], BEFORE), policies(), "n"
    )
    assert kept.change({}, [], {"demo": None}) == compile_program(Cluster([], [NODE], BEFORE), policies(), "n")
