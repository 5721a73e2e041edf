# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import msgspec
import pytest

from ringfence.agent import denials
from ringfence.agent.denials import Wording
from ringfence.agent.reconcile import Event, Kind, State, decode, reconcile
from ringfence.compiler.flat import RuleId
from ringfence.compiler.program import RulesetId
from ringfence.dataplanes.verdicts import Reason, VerdictEvent
from ringfence.kube.changes import Listed, Removed, Upserted
from ringfence.model import ports
from ringfence.model.flow import Flow
from ringfence.model.policy import Direction
from tests.agent.telling import TellingDataplane

SERVER, CLIENT, FAR, HOST = "10.1.0.1", "10.1.0.2", "10.2.0.1", "10.0.0.2"


def pod(name: str, address: str, *, node: str = "n1", **spec: Any) -> dict[str, Any]:
    """Return a pod whose app label is its name."""
    return {
        "metadata": {"namespace": "demo", "name": name, "uid": f"uid-{name}", "labels": {"app": name}},
        "spec": {"nodeName": node, **spec},
        "status": {"podIP": address, "podIPs": [{"ip": address}]},
    }


def policy(name: str, **spec: Any) -> dict[str, Any]:
    """Return a policy of the server, or of whom it says."""
    selector = {"podSelector": {"matchLabels": {"app": "server"}}}
    return {"metadata": {"namespace": "demo", "name": name}, "spec": {**selector, **spec}}


FROM_CLIENT = policy("from-client", ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}])
DENY_ALL = policy("deny-all", podSelector={}, policyTypes=["Ingress"])


def listed(kind: Kind, *things: dict[str, Any]) -> Event:
    """Return the event of a list."""
    named = ((thing["metadata"], decode(kind, msgspec.json.encode(thing))) for thing in things)
    return Event(kind, Listed({f"{meta['namespace']}/{meta['name']}".lstrip("/"): told for meta, told in named}))


def state(*policies: dict[str, Any]) -> State:
    """Return what an agent of n1 knows: a server and a client here, others elsewhere, and policies."""
    nodes = [
        {"metadata": {"namespace": "", "name": f"n{i}"}, "status": {"addresses": [{"address": f"10.0.0.{i}"}]}}
        for i in (1, 2)
    ]
    here = [pod("server", SERVER), pod("client", CLIENT)]
    elsewhere = [pod("far", FAR, node="n2"), pod("hostly", HOST, node="n2", hostNetwork=True)]
    return reconcile(
        State("n1"),
        [
            listed(Kind.NAMESPACES, {"metadata": {"namespace": "", "name": "demo"}}),
            listed(Kind.NODES, *nodes),
            listed(Kind.PODS, *here, *elsewhere),
            listed(Kind.POLICIES, *policies),
        ],
    ).state


def told(at: State, source: str, destination: str = SERVER) -> VerdictEvent:
    """Return what a dataplane with a state's program tells of a connection to port 80."""
    assert at.program is not None
    dataplane = TellingDataplane()
    try:
        dataplane.report_allows(True)
        dataplane.apply(at.program)
        dataplane.meet(Flow(ip_address(source), ip_address(destination), ports.Protocol.TCP, 80))
        (event,) = dataplane.read()
    finally:
        dataplane.close()
    return event


def test_denial_that_no_rule_prevents_names_both_ends_and_the_policies() -> None:
    """The one whose rules did not match, and the one that has none."""
    known = state(FROM_CLIENT, DENY_ALL)

    assert Wording().facts(told(known, FAR), known) == {
        "source_pod": "demo/far",
        "source_address": FAR,
        "destination_pod": "demo/server",
        "destination_address": SERVER,
        "protocol": "TCP",
        "port": 80,
        "direction": "ingress",
        "reason": "no_rule",
        "policies": "NetworkPolicy demo/deny-all and demo/from-client",
    }


def test_verdict_of_a_rule_names_the_policy_and_the_rule() -> None:
    """By the id that the kernel knows it by, again and again, and when it has been forgotten in between."""
    known = state(FROM_CLIENT, DENY_ALL)
    wording, event = Wording(), told(known, CLIENT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(denials, "REMEMBERED_RULESETS", 1)
        for each in (event, event, told(known, CLIENT, SERVER)):
            facts = wording.facts(each, known)

            assert (facts["reason"], facts["policy"], facts["rule"]) == (
                "rule",
                "NetworkPolicy demo/from-client",
                "spec.ingress[0]",
            )
            assert "policies" not in facts
            known = reconcile(known, [listed(Kind.POLICIES, FROM_CLIENT)]).state
            event = told(known, CLIENT)


def test_egress_is_the_sources_business() -> None:
    """The policies are those of the client, whoever the server is; of many, ten are named."""
    everywhere = [policy(f"none-{i}", podSelector={}, policyTypes=["Egress"]) for i in range(12)]
    known = state(*everywhere)
    facts = Wording().facts(told(known, SERVER, "192.0.2.1"), known)

    assert facts["direction"] == "egress"
    assert facts["source_pod"] == "demo/server"
    assert facts["policies"].endswith(" and 2 more")
    assert "destination_pod" not in facts
    assert "destination_node" not in facts
    assert facts["destination_address"] == "192.0.2.1"


def test_nodes_are_named_and_their_pods_are_not() -> None:
    """The address of a hostNetwork pod is its node's."""
    known = state(DENY_ALL)
    wording = Wording()
    for source, node in ((HOST, "n2"), (HOST, "n2")):
        facts = wording.facts(told(known, source), known)

        assert facts["source_node"] == node
        assert "source_pod" not in facts
    moved = {"metadata": {"namespace": "", "name": "n3"}, "status": {"addresses": [{"address": HOST}]}}
    known = reconcile(known, [listed(Kind.NODES, moved)]).state

    assert wording.facts(told(known, HOST), known)["source_node"] == "n3"


def test_ruleset_that_is_no_more_is_named_still() -> None:
    """A packet was dropped, and then the policy went: the line comes afterwards."""
    before = state(DENY_ALL)
    event = told(before, FAR)
    gone = Removed("demo/deny-all", decode(Kind.POLICIES, msgspec.json.encode(DENY_ALL)))
    after = reconcile(before, [Event(Kind.POLICIES, gone)]).state
    assert after.program is not None
    assert after.program.rulesets == ()

    assert Wording().facts(event, after)["policies"] == "NetworkPolicy demo/deny-all"


def test_address_is_its_newest_holders() -> None:
    """A pod that took over another's address is named, and nobody once it has ended."""
    known = state(DENY_ALL)
    newer = pod("newer", FAR, node="n2")
    newer["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    come = Upserted("demo/newer", decode(Kind.PODS, msgspec.json.encode(newer)))
    known = reconcile(known, [Event(Kind.PODS, come)]).state
    assert Wording().facts(told(known, FAR), known)["source_pod"] == "demo/newer"
    known = reconcile(known, [listed(Kind.PODS, pod("server", SERVER))]).state

    assert "source_pod" not in Wording().facts(told(known, FAR), known)


def test_what_nobody_knows_is_left_out_and_what_is_known_stands() -> None:
    """A packet that cannot be read, a ruleset and a rule of nobody, an agent that knows nothing yet."""
    known = state(DENY_ALL)
    strange = VerdictEvent(
        0, False, Reason.UNPARSABLE, Direction.EGRESS, ip_address(SERVER), ip_address("192.0.2.1"),
        47, None, RulesetId("r"), RuleId("q"), 7,
    )  # fmt: skip

    assert Wording().facts(strange, known) == {
        "source_pod": "demo/server",
        "source_address": SERVER,
        "destination_address": "192.0.2.1",
        "protocol": 47,
        "direction": "egress",
        "reason": "unparsable",
        "ruleset": "r",
        "rule": "q",
        "lost": 7,
    }
    ruleset = told(known, FAR).ruleset
    foreign = VerdictEvent(
        0, True, Reason.RULE, None, ip_address(FAR), ip_address(SERVER), 6, 80, ruleset, RuleId("q"), 0
    )
    facts = Wording().facts(foreign, known)
    assert (facts["policies"], facts["rule"]) == ("NetworkPolicy demo/deny-all", "q")
    assert "direction" not in facts
    nobodys = VerdictEvent(0, False, Reason.NO_RULE, None, ip_address(FAR), ip_address(SERVER), 6, 80, None, None, 0)
    assert Wording().facts(nobodys, State("n1")) == {
        "source_address": FAR,
        "destination_address": SERVER,
        "protocol": 6,
        "port": 80,
        "reason": "no_rule",
    }
