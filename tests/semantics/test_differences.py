# SPDX-License-Identifier: Apache-2.0
"""What a change of policies gains and loses: exactly the flows whose verdict differs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import product

from hypothesis import given, settings

from ringfence.model.cluster import Cluster, Endpoint
from ringfence.model.flow import Flow
from ringfence.model.policy import Action, InNamespace, Peers, PodPeer, PolicySet
from ringfence.model.ports import PortMatch, PortRange, Ports, Protocol
from ringfence.semantics.allowed import Allowed
from ringfence.semantics.changelist import lines, markdown, summary
from ringfence.semantics.differences import Differences, differences, document
from ringfence.semantics.evaluate import evaluate
from ringfence.semantics.parties import Kind, Party, parties
from ringfence.semantics.space import space
from ringfence.semantics.wording import Wording
from tests.semantics.busy_worlds import World, worlds
from tests.semantics.small_worlds import block, labelled, network_policies, pod, policy, rule, tier


def compare(cluster: Cluster, old: PolicySet, new: PolicySet) -> tuple[Differences, tuple[Party, ...]]:
    """Compare two policy sets, pod by pod."""
    found = space(cluster, old, new)
    everyone = parties(found, {}, grouped=False)
    return differences(Allowed(found, old), Allowed(found, new), everyone, Wording(found.spans)), everyone


def said(pods: Iterable[Endpoint], old: PolicySet, new: PolicySet) -> list[str]:
    """Return the lines that say what differs, with their reasons."""
    different, everyone = compare(Cluster(endpoints=pods), old, new)
    return [f"{line}: {'; '.join(line.because)}" for line in lines(different, everyone)]


@given(drawn=worlds)
@settings(deadline=None, max_examples=12)
def test_exactly_the_flows_whose_verdict_differs_are_gained_or_lost(drawn: World) -> None:
    """Between all pods, by all traffic: what ``evaluate`` says differs is in a change, and nothing else is."""
    different, everyone = compare(drawn.cluster, drawn.one, drawn.other)
    spans = space(drawn.cluster, drawn.one, drawn.other).spans
    addresses = [(party.name, a) for party in everyone if party.is_pods for _, m in party.parts for a in m.addresses]
    expected: dict[tuple[str, str, bool, int], int] = defaultdict(int)
    for (source, ours), (destination, theirs) in product(addresses, repeat=2):
        if source == destination or ours.version != theirs.version:
            continue
        for number, span in enumerate(spans.members):
            flow = Flow(ours, theirs, span.protocol, span.port)
            old, new = (evaluate(flow, drawn.cluster, each).allowed for each in (drawn.one, drawn.other))
            if old != new:
                told = different.wording.told(1 << number, ours.version)
                expected[source, destination, new, ours.version] |= told
    names = {name for name, _ in addresses}
    found = {
        (each.exchange.source.name, each.exchange.destination.name, each.gained, version): traffic.ever
        for each in different.changes
        if {each.exchange.source.name, each.exchange.destination.name} <= names
        for version, traffic in each.exchange.families
    }

    assert {key: mask for key, mask in found.items() if mask} == {key: mask for key, mask in expected.items() if mask}


@given(drawn=worlds)
@settings(deadline=None, max_examples=15)
def test_a_change_back_is_the_opposite(drawn: World) -> None:
    """What is gained one way is lost the other way; and every difference has a reason."""
    there, everyone = compare(drawn.cluster, drawn.one, drawn.other)
    back, _ = compare(drawn.cluster, drawn.other, drawn.one)

    def keys(found: Differences, gained: bool) -> list[tuple[str, str, object]]:  # noqa: FBT001 - a kind of change
        changes = [each.exchange for each in found.changes if each.gained is gained]
        return [(e.source.name, e.destination.name, tuple(traffic.ever for _, traffic in e.families)) for e in changes]

    assert keys(there, True) == keys(back, False)
    assert keys(there, False) == keys(back, True)
    assert all(each.because for each in there.changes)
    assert markdown(there, everyone)


@given(drawn=worlds)
@settings(deadline=None, max_examples=10)
def test_the_same_policies_differ_in_nothing(drawn: World) -> None:
    """Whatever they are."""
    different, everyone = compare(drawn.cluster, drawn.one, drawn.one)

    assert summary(different) == "No connection is gained or lost."
    assert document(different)["same"] is True
    assert "because" not in markdown(different, everyone)


PODS = [pod(f"shop/{name}", f"10.0.0.{n}", {"app": name}) for n, name in enumerate(("client", "db", "web"), start=1)]
WEB = PodPeer(InNamespace("shop"), labelled(app="web"))
CLIENT = Peers((PodPeer(InNamespace("shop"), labelled(app="client")),))
HTTP = Ports((PortMatch(Protocol.TCP, PortRange(80, 80)),))


def test_isolation_is_named_by_the_policies_that_isolate() -> None:
    """All others of a namespace, the pod itself included, have one name."""
    deny = network_policies(policy("deny", ingress=()))

    assert said(PODS, PolicySet(), deny) == [
        "- all pods (3), outside (0.0.0.0/0) -> all pods (3) all: ingress isolated by NetworkPolicy shop/deny"
    ]


def test_a_rule_is_named_where_it_is_written() -> None:
    """Gained by a rule of the new policies, lost by one of the old."""
    closed = network_policies(policy("web", subject=WEB, ingress=()))
    opened = network_policies(policy("web", subject=WEB, ingress=(rule(CLIENT, HTTP, policy="web"),)))

    assert said(PODS, closed, opened) == [
        "+ shop/client -> shop/web TCP/80: ingress allowed by NetworkPolicy shop/web spec.ingress[0]"
    ]
    assert said(PODS, opened, closed) == [
        "- shop/client -> shop/web TCP/80: ingress no longer allowed by NetworkPolicy shop/web spec.ingress[0]"
    ]


def test_a_rule_that_denies_is_named() -> None:
    """In a tier whose rules may deny."""
    denying = policy("no", subject=WEB, ingress=(rule(CLIENT, HTTP, Action.DENY, policy="no"),))
    denied = PolicySet((tier(Action.PASS, denying),))

    assert said(PODS, PolicySet(), denied) == [
        "- shop/client -> shop/web TCP/80: ingress denied by NetworkPolicy shop/no spec.ingress[0]"
    ]
    assert said(PODS, denied, PolicySet()) == [
        "+ shop/client -> shop/web TCP/80: ingress no longer denied by NetworkPolicy shop/no spec.ingress[0]"
    ]


def test_a_family_in_which_nothing_changes_is_not_named() -> None:
    """A block of IPv4 says nothing of IPv6."""
    dual = [pod("shop/web", "10.0.0.3 fd00::3", {"app": "web"}), pod("shop/client", "10.0.0.1 fd00::1")]
    closed = network_policies(policy("web", subject=WEB, ingress=()))
    opened = network_policies(policy("web", subject=WEB, ingress=(rule(Peers((block("10.0.0.1/32"),)), HTTP),)))

    assert said(dual, closed, opened) == [
        "+ shop/client -> shop/web TCP/80 (IPv4): ingress allowed by NetworkPolicy shop/p spec.ingress[0]"
    ]


def test_policies_written_otherwise_are_the_same() -> None:
    """Split in two, renamed, or with a rule that another one covers."""
    whole = network_policies(policy("web", subject=WEB, ingress=(rule(CLIENT, HTTP), rule(Peers(()), HTTP))))
    split = network_policies(
        policy("a", subject=WEB, ingress=()),
        policy("b", subject=PodPeer(InNamespace("shop"), labelled(app="web")), ingress=(rule(CLIENT, HTTP),)),
    )

    assert said(PODS, whole, split) == []


def test_a_document_has_what_is_gained_and_lost() -> None:
    """With ends, traffic and reasons."""
    closed = network_policies(policy("web", subject=WEB, ingress=()))
    opened = network_policies(policy("web", subject=WEB, ingress=(rule(CLIENT, HTTP, policy="web"),)))
    different, _ = compare(Cluster(endpoints=PODS), closed, opened)
    whole = document(different)

    assert [end["name"] for end in whole["ends"]] == ["shop/client", "shop/web"]
    assert whole["lost"] == []
    assert whole["gained"] == [
        {
            "from": "shop/client",
            "to": "shop/web",
            "ipFamilies": ["IPv4"],
            "traffic": [{"protocol": "TCP", "ports": [{"first": 80, "last": 80}]}],
            "trafficForSome": [],
            "because": ["ingress allowed by NetworkPolicy shop/web spec.ingress[0]"],
        }
    ]
    assert {end["kind"] for end in whole["ends"]} == {Kind.POD.value}
