# SPDX-License-Identifier: Apache-2.0
"""Two items for one, one for two, rules cut in two: found by evidence only."""

from __future__ import annotations

import pytest

from tests.semantics.lint.linted import findings, found, namespace, policy, workload

TWO = "{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{namespaceSelector: %s}, {podSelector: %s}]}]}"
ONE = "{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{namespaceSelector: %s, podSelector: %s}]}]}"
WEB = workload("shop/web", "{app: web}")
PROMETHEUS = workload("monitoring/prometheus", "{app: prometheus}")
MONITORING = "{matchLabels: {kubernetes.io/metadata.name: monitoring}}"
LABELLED = "{matchLabels: {app: prometheus}}"


@pytest.mark.parametrize("everywhere", ["{}", "{matchLabels: {kubernetes.io/metadata.name: shop}}"])
def test_an_item_that_the_other_covers_is_found(everywhere: str) -> None:
    """Pods need not be known: the podSelector has no effect."""
    (finding,) = findings(policy(TWO % (everywhere, LABELLED)))

    assert (finding.rule.name, finding.path) == ("and-or", "spec.ingress[0].from[1]")
    assert finding.message.startswith("from[0] admits all pods of ")


def test_two_items_that_only_make_sense_as_one_are_found() -> None:
    """The pods are not here, they are there."""
    (finding,) = findings(policy(TWO % (MONITORING, LABELLED)), WEB, PROMETHEUS)

    assert finding.rule.name == "and-or"
    assert "Deployment monitoring/prometheus in those of from[0]" in finding.message


def test_two_items_that_look_like_one_are_told_of() -> None:
    """A namespace, then pods, and no pod that shows what is meant."""
    (finding,) = findings(policy(TWO % (MONITORING, LABELLED)))

    assert (finding.rule.name, finding.path) == ("either-or", "spec.ingress[0].from[0]")
    assert finding.message == (
        "admits all pods of the namespaces with kubernetes.io/metadata.name=monitoring; the next item, pods with"
        " app=prometheus of namespace shop"
    )


def test_two_items_that_may_well_be_meant_are_no_finding() -> None:
    """Pods first, then a namespace; or a third item, as in the Kubernetes documentation; or pods show it."""
    items = f"{{podSelector: {LABELLED}}}, {{namespaceSelector: {MONITORING}}}"
    swapped = f"{{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{{from: [{items}]}}]}}"
    three = swapped.replace("from: [", "from: [{ipBlock: {cidr: 203.0.113.0/24}}, ")

    assert found(policy(swapped)) == found(policy(three)) == []
    assert found(policy(TWO % (MONITORING, "{matchLabels: {app: web}}")), WEB, PROMETHEUS) == []
    assert found(policy(TWO % (MONITORING, "{}")), WEB, PROMETHEUS) == []
    assert found(policy(TWO % (MONITORING, "{}"))) == []


def test_two_items_of_which_one_matches_nobody_are_that_finding_alone() -> None:
    """There is no evidence that they belong together."""
    given = policy(TWO % (MONITORING, "{matchLabels: {app: gone}}"))

    assert found(given, WEB, PROMETHEUS) == []
    assert found(given, WEB, PROMETHEUS, whole=True) == [
        ("peer-matches-nothing", "spec.ingress[0].from[1].podSelector")
    ]


def test_one_item_that_only_makes_sense_as_two_is_found() -> None:
    """The pods are here, and none is there."""
    (finding,) = findings(policy(ONE % (MONITORING, "{matchLabels: {app: web}}")), WEB, PROMETHEUS)

    assert (finding.rule.name, finding.path) == ("and-or", "spec.ingress[0].from[0]")
    assert "Deployment shop/web of the policy's own namespace has" in finding.message


def test_one_item_that_matches_somebody_or_may_is_no_finding() -> None:
    """In files, nothing is known of namespaces that they do not hold."""
    assert found(policy(ONE % (MONITORING, LABELLED)), WEB, PROMETHEUS) == []
    assert found(policy(ONE % (MONITORING, "{matchLabels: {app: web}}")), WEB, namespace("monitoring")) == []


RULES = "{podSelector: {}, policyTypes: [Ingress], ingress: %s}"


def test_a_rule_cut_in_two_is_found_in_either_order() -> None:
    """One dash too many."""
    peers, ports = "{from: [{podSelector: {matchLabels: {app: web}}}]}", "{ports: [{port: 80}]}"

    assert found(policy(RULES % f"[{peers}, {ports}]")) == [("split-rule", "spec.ingress[0]")]
    assert found(policy(RULES % f"[{ports}, {peers}]")) == [("split-rule", "spec.ingress[1]")]


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param("[{from: [{podSelector: {}}]}, {ports: [{port: 80}]}]", id="the own namespace, and a public port"),
        pytest.param("[{from: [{podSelector: {matchLabels: {a: b}}}], ports: [{port: 80}]}, {ports: [{port: 81}]}]",
                     id="ports in both"),
        pytest.param("[{from: [{podSelector: {matchLabels: {a: b}}}]}, {ports: [{port: 80}]}, {ports: [{port: 81}]}]",
                     id="more than two"),
        pytest.param("[{from: [{podSelector: {matchLabels: {a: b}}}]}]", id="one"),
    ],
)  # fmt: skip
def test_rules_that_stand_by_themselves_are_no_finding(rules: str) -> None:
    """Each is complete."""
    assert found(policy(RULES % rules)) == []


def test_a_rule_for_everything_is_no_half_of_another() -> None:
    """It is another mistake."""
    assert found(policy(RULES % "[{from: [{podSelector: {matchLabels: {a: b}}}]}, {}]")) == [
        ("void-rule", "spec.ingress[1]")
    ]


def test_dns_to_everybody_is_a_rule_by_itself() -> None:
    """Egress to some pods, and to DNS anywhere."""
    egress = "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {a: b}}}]}, %s]}"
    dns = "{ports: [{port: 53, protocol: UDP}, {port: 53}]}"

    assert found(policy(egress % dns)) == []
    assert ("split-rule", "spec.egress[0]") in found(policy(egress % "{ports: [{port: 80}]}"))
