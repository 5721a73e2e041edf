# SPDX-License-Identifier: Apache-2.0
"""What the compiler keeps, shares, splits and refuses."""

from __future__ import annotations

import time
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from ringfence.apis.networkpolicy import policy_set
from ringfence.compiler.compile import compile_program, spans
from ringfence.compiler.program import PeerSet, PeerSetId, PortSpan, Program, empty_program
from ringfence.errors import Unsupported
from ringfence.model.addresses import Block
from ringfence.model.cluster import Cluster, ContainerPort, Endpoint, Namespace, Node, PodKey
from ringfence.model.labels import EVERYTHING, Labels, Operator, Requirement, Selector
from ringfence.model.policy import (
    ANY_PEER,
    Action,
    AnyPeer,
    BlockPeer,
    InNamespace,
    NamespacesMatching,
    ObjectRef,
    Origin,
    Peers,
    PodPeer,
    Policy,
    PolicySet,
    Rule,
    Tier,
)
from ringfence.model.ports import ANY_TRAFFIC, AnyTraffic, NamedPort, PortMatch, PortRange, Ports, Protocol

WEB = Selector((Requirement("app", Operator.IN, ("web",)),))
HTTP = Ports((PortMatch(Protocol.TCP, NamedPort("http")),))
PORT_80 = (PortSpan(Protocol.TCP, PortRange(80, 80)),)


def endpoint(
    name: str, address: str, *, app: str = "web", node: str = "n", namespace: str = "demo", http: int | None = None
) -> Endpoint:
    """Return a pod with one address."""
    ports = () if http is None else (ContainerPort("http", http, Protocol.TCP),)
    addresses = frozenset({ip_address(address)})
    return Endpoint(PodKey(namespace, name), f"uid-{name}", Labels({"app": app}), addresses, node, ports)


def cluster(*endpoints: Endpoint) -> Cluster:
    """Return a cluster with two namespaces and two nodes."""
    node_addresses = frozenset({ip_address("10.224.0.4")})
    return Cluster([Namespace("demo"), Namespace("other")], [Node("n", addresses=node_addresses), Node("m")], endpoints)


def rule(peers: AnyPeer | Peers = ANY_PEER, traffic: AnyTraffic | Ports = ANY_TRAFFIC, index: int = 0) -> Rule:
    """Return a rule that allows."""
    return Rule(Action.ALLOW, peers, traffic, Origin(ObjectRef("NetworkPolicy", "demo", "p"), f"spec.ingress[{index}]"))


def policy(
    *, name: str = "p", ingress: tuple[Rule, ...] | None = None, egress: tuple[Rule, ...] | None = None
) -> Policy:
    """Return a policy for the web pods of the demo namespace."""
    return Policy(ObjectRef("NetworkPolicy", "demo", name), PodPeer(InNamespace("demo"), WEB), ingress, egress)


def program(built: Cluster, *policies: Policy) -> Program:
    """Compile policies for node n."""
    return compile_program(built, policy_set(policies), "n")


def peer_set(compiled: Program, set_id: AnyPeer | PeerSetId) -> PeerSet:
    """Return a peer set by its id."""
    return next(each for each in compiled.peer_sets if each.id == set_id)


def test_a_node_without_pods_has_an_empty_program() -> None:
    """Policies alone enforce nothing; a node that is not known yet has no addresses."""
    assert compile_program(cluster(), policy_set([policy(ingress=())]), "unknown") == empty_program("unknown")
    assert program(cluster()).node_addresses == {ip_address("10.224.0.4")}


def test_every_address_of_every_local_pod_is_listed_isolated_or_not() -> None:
    """Sorted by address; pods of other nodes and hostNetwork pods are not the node's business."""
    host = replace(endpoint("host", "10.224.0.4"), host_network=True)
    lost = endpoint("lost", "10.0.0.1")
    compiled = program(
        cluster(
            lost,
            endpoint("b", "10.0.0.2"),
            endpoint("a", "10.0.0.1", app="db"),
            endpoint("away", "10.0.0.3", node="m"),
            host,
        ),
        policy(ingress=()),
    )

    assert [(str(e.address), e.pod.name, e.ingress is None, e.egress is None) for e in compiled.endpoints] == [
        ("10.0.0.1", "a", True, True),
        ("10.0.0.2", "b", False, True),
    ]


def test_pods_with_the_same_policies_share_a_ruleset() -> None:
    """However many they are; a pod with one policy more has its own."""
    pods = [endpoint(f"p{n}", f"10.0.0.{n}") for n in range(1, 5)]
    more = replace(policy(name="q", ingress=(rule(index=1),)), subject=PodPeer(InNamespace("demo"), EVERYTHING))
    compiled = program(cluster(*pods, endpoint("db", "10.0.0.9", app="db")), policy(ingress=(rule(),)), more)

    assert len({entry.ingress for entry in compiled.endpoints[:4]}) == 1
    assert len(compiled.rulesets) == 2
    assert [ruleset.id for ruleset in compiled.rulesets] == sorted(ruleset.id for ruleset in compiled.rulesets)


def test_a_ruleset_names_the_policies_that_isolate_its_pods_also_those_without_rules() -> None:
    """Sorted, and only those that isolate this direction; other policies, another ruleset, be its rules the same."""
    deny_all = replace(policy(name="deny-all", ingress=()), subject=PodPeer(InNamespace("demo"), EVERYTHING))
    away = policy(name="away", ingress=None, egress=())
    built = cluster(endpoint("a", "10.0.0.1"), endpoint("db", "10.0.0.2", app="db"))
    compiled = program(built, policy(name="p", ingress=(rule(Peers(())),)), deny_all, away)

    by_id = {ruleset.id: ruleset for ruleset in compiled.rulesets}
    web, db = (by_id[entry.ingress] for entry in compiled.endpoints if entry.ingress)
    assert [policy.name for policy in web.policies] == ["deny-all", "p"]
    assert [policy.name for policy in db.policies] == ["deny-all"]
    assert web.rules == db.rules == ()
    assert compiled.endpoints[0].egress is not None
    assert [policy.name for policy in by_id[compiled.endpoints[0].egress].policies] == ["away"]
    assert compiled == program(built, away, deny_all, policy(name="p", ingress=(rule(Peers(())),)))
    with pytest.raises(ValueError, match="there is a policy"):
        replace(web, policies=())


def test_rules_that_can_never_match_are_left_out_and_isolation_stays() -> None:
    """Broken rules, ports of none, and names that the pod does not have."""
    compiled = program(
        cluster(endpoint("a", "10.0.0.1")),
        policy(
            ingress=(rule(Peers(())), rule(traffic=Ports(())), rule(traffic=HTTP)),
            egress=(rule(Peers(())), rule(traffic=Ports(())), rule(traffic=HTTP)),
        ),
    )

    assert [ruleset.rules for ruleset in compiled.rulesets] == [(), ()]
    assert compiled.endpoints[0].ingress is not None
    assert compiled.peer_sets == ()


def test_a_peer_set_is_named_by_its_expression_and_holds_its_content() -> None:
    """Pods come and go, the id stays; the order in which peers are written makes no difference."""
    block = BlockPeer(Block(ip_network("10.1.0.0/16"), (ip_network("10.1.128.0/17"),)))
    wider = BlockPeer(Block(ip_network("10.1.0.0/18")))
    pods = PodPeer(NamespacesMatching(EVERYTHING), WEB)
    one = Peers((block, wider, pods))
    a, b = endpoint("a", "10.0.0.1"), endpoint("b", "10.0.0.2", namespace="other", node="m")
    before = program(cluster(a), policy(ingress=(rule(one), rule(Peers((pods, wider, block, pods)), index=1))))
    after = program(cluster(a, b), policy(ingress=(rule(one), rule(Peers((pods, wider, block, pods)), index=1))))

    (old,), (new,) = before.peer_sets, after.peer_sets
    assert old.id == new.id
    assert before.rulesets == after.rulesets
    assert old.addresses == {ip_address("10.0.0.1")}
    assert new.addresses == {ip_address("10.0.0.1"), ip_address("10.0.0.2")}
    assert new.networks == (ip_network("10.1.0.0/17"),)
    assert (
        new.expression
        == "10.1.0.0/16 except 10.1.128.0/17 or 10.1.0.0/18 or pods with app=web in namespaces with everything"
    )


def test_expressions_that_read_alike_are_different_sets() -> None:
    """An id must never stand for two expressions, however odd the values are."""
    one = PodPeer(InNamespace("demo"), Selector((Requirement("a", Operator.IN, ("b,c",)),)))
    other = PodPeer(InNamespace("demo"), Selector((Requirement("a", Operator.IN, ("b", "c")),)))
    compiled = program(
        cluster(endpoint("a", "10.0.0.1")), policy(ingress=(rule(Peers((one,))), rule(Peers((other,)), index=1)))
    )

    assert len(compiled.peer_sets) == 2


def test_a_namespace_that_is_not_known_matches_no_namespace_selector() -> None:
    """SEMANTICS 35; by name it is in scope all the same."""
    built = Cluster([], [], [endpoint("a", "10.0.0.1")])
    by_label = rule(Peers((PodPeer(NamespacesMatching(EVERYTHING)),)))
    by_name = rule(Peers((PodPeer(InNamespace("demo")),)), index=1)
    compiled = program(built, policy(ingress=(by_label, by_name)))

    sizes = [len(peer_set(compiled, each.peers).addresses) for each in compiled.rulesets[0].rules]
    assert sizes == [0, 1]


def test_named_ingress_ports_are_the_subjects_own() -> None:
    """SEMANTICS 9: pods whose name is another number have another ruleset; those without it, a rule less."""
    compiled = program(
        cluster(
            endpoint("a", "10.0.0.1", http=80),
            endpoint("b", "10.0.0.2", http=8080),
            endpoint("c", "10.0.0.3", http=80),
            endpoint("d", "10.0.0.4"),
        ),
        policy(ingress=(rule(traffic=HTTP),)),
    )
    by_id = {ruleset.id: ruleset for ruleset in compiled.rulesets}
    traffic = [[each.traffic for each in by_id[entry.ingress].rules] for entry in compiled.endpoints if entry.ingress]

    assert traffic == [[PORT_80], [(PortSpan(Protocol.TCP, PortRange(8080, 8080)),)], [PORT_80], []]
    assert compiled.endpoints[0].ingress == compiled.endpoints[2].ingress


def test_named_egress_ports_are_split_by_the_destinations_number() -> None:
    """SEMANTICS 9, 10: each number reaches exactly the pods that have it; blocks reach pods only."""
    pods = Peers((PodPeer(InNamespace("demo")),))
    block = Peers((BlockPeer(Block(ip_network("10.0.0.0/30"))),))
    traffic = Ports((PortMatch(Protocol.TCP, NamedPort("http")), PortMatch(Protocol.UDP, PortRange(53, 53))))
    compiled = program(
        cluster(
            endpoint("a", "10.0.0.1", http=80),
            endpoint("b", "10.0.0.2", http=8080, node="m"),
            endpoint("c", "10.0.0.9", http=80, node="m"),
            endpoint("d", "10.0.0.3", http=80, namespace="other"),
            replace(endpoint("host", "10.0.0.10", http=80), host_network=True),
        ),
        policy(egress=(rule(pods, traffic), rule(block, HTTP, index=1), rule(ANY_PEER, HTTP, index=2))),
    )
    found = []
    for each in compiled.rulesets[0].rules:
        assert not isinstance(each.traffic, AnyTraffic)
        addresses = sorted(map(str, peer_set(compiled, each.peers).addresses))
        assert each.origin.path
        found.append((each.origin.path[-2], each.traffic[0].ports.first, addresses))

    assert found == [
        ("0", 53, ["10.0.0.1", "10.0.0.2", "10.0.0.9"]),
        ("0", 80, ["10.0.0.1", "10.0.0.9"]),
        ("0", 8080, ["10.0.0.2"]),
        ("1", 80, ["10.0.0.1", "10.0.0.3"]),
        ("1", 8080, ["10.0.0.2"]),
        ("2", 80, ["10.0.0.1", "10.0.0.3", "10.0.0.9"]),
        ("2", 8080, ["10.0.0.2"]),
    ]
    assert peer_set(compiled, compiled.rulesets[0].rules[1].peers).expression == (
        '(all pods in namespace demo) and pods with port "http" TCP/80'
    )


def test_port_spans_are_disjoint_and_sorted() -> None:
    """Overlapping and touching ranges of a protocol are one; protocols sort by number."""
    given = [
        PortSpan(Protocol.UDP, PortRange(1, 5)),
        PortSpan(Protocol.TCP, PortRange(10, 20)),
        PortSpan(Protocol.TCP, PortRange(15, 18)),
        PortSpan(Protocol.TCP, PortRange(21, 22)),
        PortSpan(Protocol.TCP, PortRange(24, 24)),
    ]

    assert spans(given) == (
        PortSpan(Protocol.TCP, PortRange(10, 22)),
        PortSpan(Protocol.TCP, PortRange(24, 24)),
        PortSpan(Protocol.UDP, PortRange(1, 5)),
    )


def test_what_no_program_can_hold_is_refused_with_every_reason() -> None:
    """Several tiers, tiers that pass, rules that pass: never compiled to something else."""
    passing = replace(policy(ingress=(rule(),)), ingress=(replace(rule(), action=Action.PASS),))
    tiers = PolicySet(
        (
            Tier("admin", 1, Action.PASS, (passing,)),
            Tier("kubernetes", 2, Action.DENY, (policy(name="q", ingress=()),)),
        )
    )

    with pytest.raises(Unsupported) as caught:
        compile_program(cluster(), tiers, "n")
    assert caught.value.refusals == (
        "policies in more than one tier (admin, kubernetes)",
        "tier admin passes by default",
        "NetworkPolicy demo/p spec.ingress[0] passes to the next tier",
    )


def test_a_thousand_policies_over_two_thousand_pods_compile_in_a_moment() -> None:
    """20 namespaces, 20 nodes: what an agent does at every change (aim: well under a second)."""
    pods = [
        endpoint(
            f"p{n}",
            str(ip_address(0x0A000000 + n)),
            app=f"a{n % 50}",
            node=f"n{n % 19}",
            namespace=f"ns{n % 20}",
            http=80,
        )
        for n in range(2000)
    ]
    built = Cluster([Namespace(f"ns{n}") for n in range(20)], [], pods)
    policies = []
    for number in range(1000):
        namespace, selector = f"ns{number % 20}", Selector((Requirement("app", Operator.IN, (f"a{number % 50}",)),))
        ref = ObjectRef("NetworkPolicy", namespace, f"p{number}")
        peers = Peers((PodPeer(InNamespace(namespace), selector), PodPeer(NamespacesMatching(EVERYTHING), selector)))
        rules = tuple(Rule(Action.ALLOW, peers, HTTP, Origin(ref, f"spec.ingress[{index}]")) for index in range(3))
        policies.append(Policy(ref, PodPeer(InNamespace(namespace), selector), rules, rules))

    started = time.process_time()
    compiled = compile_program(built, policy_set(policies), "n7")
    took = time.process_time() - started

    assert len(compiled.endpoints) == 105
    assert all(entry.ingress for entry in compiled.endpoints)
    # Generous, for a busy machine that measures coverage: one pass over all pairs would take several times as long.
    assert took < 2
