# SPDX-License-Identifier: Apache-2.0
"""All rules together: errors first, what is silenced, and objects that are broken in any way."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.semantics.lint.findings import ref_of
from ringfence.semantics.lint.rules import RULES
from ringfence.semantics.lint.run import ANNOTATION, lint
from tests.semantics.lint.linted import findings, found, namespace, node, pod, policy, service, workload

WEB = workload("shop/web", "{app: web}", "[{name: http, containerPort: 8080}]")
TYPO = "{podSelector: {matchLabels: {app: website}}}"


def annotated(obj: dict[str, Any], text: str) -> dict[str, Any]:
    """Return a copy of an object with the annotation."""
    marked = copy.deepcopy(obj)
    marked["metadata"]["annotations"] = {ANNOTATION: text}
    return marked


def test_a_policy_that_is_refused_is_told_of_that_alone() -> None:
    """What it would mean otherwise is no use while it is broken."""
    broken = policy("{podSelector: {matchLabels: {app: website}}, ingress: [{from: [{}]}]}")

    assert found(broken, WEB) == [("invalid", "spec.ingress[0].from[0]")]


def test_an_unknown_field_hides_nothing() -> None:
    """The rest of the policy is judged all the same."""
    odd = policy("{podSelector: {matchLabels: {app: website}}, ingres: []}")

    assert found(odd, WEB) == [("unknown-field", "spec.ingres"), ("selects-nothing", "spec.podSelector")]


def test_stored_policies_are_judged_as_old_servers_took_them() -> None:
    """A broken rule is an error; other kinds are not ours to judge once they are stored."""
    stale = pod("shop/UPPER", "{app: website}")

    assert found(policy("{ingress: [{from: [{}]}]}"), whole=True) == [("invalid", "spec.ingress[0].from[0]")]
    assert found(stale, whole=True) == []
    assert found(stale) == [("invalid", "metadata.name")]


@pytest.mark.parametrize("text", ["selects-nothing", "and-or, selects-nothing", "selects-nothing and-or"])
def test_an_annotation_silences_rules_for_its_object(text: str) -> None:
    """And for no other."""
    other = policy(TYPO, name="other")

    assert found(annotated(policy(TYPO), text), WEB) == []
    assert [f.object.name for f in findings(annotated(policy(TYPO), text), other, WEB)] == ["other"]
    assert found(annotated(policy(TYPO), "and-or"), WEB) != []


def test_a_rule_can_be_left_out_and_errors_cannot() -> None:
    """The API server refuses the object whatever anybody thinks of it."""
    broken = annotated(policy("{ingress: [{from: [{}]}]}"), "invalid")

    assert lint([policy(TYPO), WEB], whole=False, disabled=["selects-nothing"]) == []
    assert [f.rule.name for f in lint([broken], whole=False, disabled=["invalid"])] == ["invalid"]


def test_an_object_that_is_given_twice_counts_once_for_others() -> None:
    """As if both had been applied; each is judged for itself."""
    opened = policy("{podSelector: {}, policyTypes: [Egress], egress: [{}]}", name="q")
    shut = policy("{podSelector: {}, policyTypes: [Egress], egress: []}", name="q")
    talks = policy("{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}], ports: [{port: 1}]}]}")

    assert found(shut, opened, talks) == []
    assert found(opened, shut, talks) == [("no-dns-egress", "spec.egress")]


def test_everything_has_a_name() -> None:
    """Even what has none."""
    assert str(ref_of({"kind": "Node", "metadata": {"name": "n", "namespace": "x"}})) == "Node n"
    assert str(ref_of({"kind": "Pod", "metadata": {"generateName": "p-"}})) == "Pod default/p-"
    assert str(ref_of({"metadata": 1})) == "object default/"


def test_what_is_fine_is_not_found() -> None:
    """A small shop with everything in it: not a word."""
    dns = "{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}}], ports: %s}"
    allowed = dns % "[{port: 53, protocol: UDP}, {port: 53}]"
    good = [
        policy("{podSelector: {}, policyTypes: [Ingress, Egress]}", name="default-deny"),
        policy(f"{{podSelector: {{}}, policyTypes: [Egress], egress: [{allowed}]}}", name="allow-dns"),
        policy(
            "{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: client}}}],"
            " ports: [{port: http}]}]}",
            name="web",
        ),
        policy(
            "{podSelector: {matchLabels: {app: client}}, policyTypes: [Egress], egress: [{to: [{podSelector:"
            " {matchLabels: {app: web}}}], ports: [{port: 8080}]}]}",
            name="client",
        ),
    ]
    shop = [
        WEB,
        workload("shop/client", "{app: client}"),
        service("shop/web", "{selector: {app: web}, ports: [{port: 80, targetPort: http}]}"),
    ]
    system = [namespace("kube-system"), pod("kube-system/coredns", "{k8s-app: kube-dns}"), node("n")]

    assert found(*good, *shop, *system) == []
    assert found(*good, *shop, *system, whole=True) == []


JUNK = st.sampled_from([None, True, 7, -1, 1.5, "", "x", [], [None], [1], {}, {"a": 1}, ["x", {}]])
OBJECTS = [
    policy("{podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress, Egress],"
           " ingress: [{from: [{podSelector: {matchLabels: {a: b}}},"
           " {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}],"
           " ports: [{port: 80, endPort: 90, protocol: TCP}, {port: http}]}],"
           " egress: [{to: [{namespaceSelector: {}}], ports: [{port: http}]}]}"),
    WEB,
    pod("shop/p", ip="10.0.0.1"),
    service("shop/web", "{clusterIP: 10.96.0.1, selector: {app: web}, ports: [{port: 80, targetPort: http}]}"),
    namespace("shop", "{a: b}"),
    node("n", pods="10.0.0.0/24"),
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value in a document."""
    match value:
        case dict():
            inner = [place for key, part in value.items() for place in places(part, (*path, key))]
        case list():
            inner = [place for index, part in enumerate(value) for place in places(part, (*path, index))]
        case _:
            inner = []
    return [path, *inner] if path else inner


@settings(max_examples=300, deadline=None)
@given(st.data(), st.booleans())
def test_no_object_breaks_it(data: st.DataObject, whole: bool) -> None:  # noqa: FBT001 - a drawn value
    """Whatever stands wherever: something is found, or nothing is."""
    objects = copy.deepcopy(OBJECTS)
    number = data.draw(st.integers(0, len(objects) - 1))
    # What is stored of other kinds is what an API server took.
    number = 0 if whole else number
    *inner, last = data.draw(
        st.sampled_from([p for p in places(objects[number]) if p not in (("kind",), ("apiVersion",))])
    )
    target: Any = objects[number]
    for step in inner:
        target = target[step]
    target[last] = data.draw(JUNK)

    assert all(each.rule.name in RULES for each in lint(objects, whole=whole))
