# SPDX-License-Identifier: Apache-2.0
"""What is written and means nothing, or the opposite."""

from __future__ import annotations

import pytest

from tests.semantics.lint.linted import findings, found, policy

DNS = "{ports: [{port: 53, protocol: UDP}, {port: 53}]}"


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        (f"{{policyTypes: [Ingress], egress: [{DNS}]}}", "spec.egress"),
        ("{policyTypes: [Egress], egress: [], ingress: [{ports: [{port: 1}]}, {ports: [{port: 2}]}]}", "spec.ingress"),
    ],
)
def test_rules_that_policy_types_leave_out_are_found(spec: str, path: str) -> None:
    """They look as if they did something."""
    assert found(policy(spec)) == [("ignored-rules", path)]


@pytest.mark.parametrize(
    "spec", [f"{{egress: [{DNS}]}}", "{policyTypes: [Egress], ingress: []}", "{ingress: [{ports: [{port: 1}]}]}"]
)
def test_rules_that_count_and_lists_that_hold_none_are_no_finding(spec: str) -> None:
    """Without policyTypes, egress rules count by being there."""
    assert found(policy(spec)) == []


def test_lists_that_were_written_down_empty_are_found() -> None:
    """Whoever writes from: [] may mean nobody; a list whose items slipped out of it is null."""
    spec = "{ingress: [{from: [], ports: [{port: 1}]}, {from: null, ports: [{port: 2}]}, {ports: []}]}"
    messages = {each.path: each.message for each in findings(policy(spec), rule="empty-means-any")}

    assert messages == {
        "spec.ingress[0].from": "[] means from everybody",
        "spec.ingress[1].from": "null means from everybody",
        "spec.ingress[2].ports": "[] means every port of every protocol",
    }


def test_anywhere_is_written_as_an_empty_list_by_many() -> None:
    """An egress list that is null is an accident, though."""
    egress = "{policyTypes: [Egress], egress: [{to: %s, ports: [{port: 53, protocol: UDP}, {port: 53}]}]}"

    assert found(policy(egress % "[]")) == []
    assert found(policy(egress % "null")) == [("empty-means-any", "spec.egress[0].to")]


def test_a_null_rule_admits_everything_and_has_no_empty_list() -> None:
    """As the API server reads it."""
    assert found(policy("{ingress: [null]}")) == []


def test_a_rule_beside_one_that_admits_everything_is_void() -> None:
    """Whichever stands first."""
    (finding,) = findings(policy("{ingress: [{ports: [{port: 1}]}, {}, {ports: [{port: 2}]}]}"))

    assert (finding.rule.name, finding.path) == ("void-rule", "spec.ingress[1]")
    assert finding.message == "admits everything, so that the other 2 rules of ingress have no effect"
    assert found(policy("{ingress: [{}]}")) == []


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("allow-all-ingress", "{podSelector: {}, policyTypes: [Ingress]}"),
        ("allow-web", "{ingress: []}"),
        ("default-deny", "{policyTypes: [Ingress], ingress: [{}]}"),
        ("deny-all", "{policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]}"),
    ],
)
def test_a_policy_that_does_the_opposite_of_its_name_is_found(name: str, spec: str) -> None:
    """[] and [{}] are easily confused."""
    assert found(policy(spec, name=name)) == [("opposite-of-name", "spec")]


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("allow-dns", f"{{policyTypes: [Ingress, Egress], egress: [{DNS}]}}"),
        ("allow-nothing", "{ingress: []}"),
        ("disallow-all", "{ingress: []}"),
        ("default-deny", "{ingress: []}"),
        ("deny-egress", f"{{policyTypes: [Egress], egress: [{DNS}]}}"),
        ("deny-ingress-allow-egress", "{policyTypes: [Egress], egress: [{}]}"),
        ("web", "{ingress: [{}]}"),
        ("shallow", "{ingress: []}"),
    ],
)
def test_a_policy_that_keeps_to_its_name_is_no_finding(name: str, spec: str) -> None:
    """Nor is one whose name says neither."""
    assert found(policy(spec, name=name)) == []
