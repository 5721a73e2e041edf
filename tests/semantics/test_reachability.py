# SPDX-License-Identifier: Apache-2.0
"""Who reaches whom: what is said of parties is what ``evaluate`` says of every pair of their addresses."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from hypothesis import given, settings

from ringfence.apis.workloads import Owner
from ringfence.model.cluster import Cluster, ContainerPort, Node, PodKey
from ringfence.model.flow import Flow
from ringfence.model.policy import Peers, PolicySet
from ringfence.model.ports import PortMatch, PortRange, Ports, Protocol
from ringfence.semantics.allowed import Allowed
from ringfence.semantics.drawing import dot
from ringfence.semantics.evaluate import evaluate
from ringfence.semantics.exchanges import Exchange
from ringfence.semantics.page import page
from ringfence.semantics.parties import Kind, parties
from ringfence.semantics.reachability import Reachability, document, reachability
from ringfence.semantics.relations import Relation
from ringfence.semantics.space import Space, space
from ringfence.semantics.tables import listing, matrix
from ringfence.semantics.wording import Wording
from tests.semantics.busy_worlds import World, worlds
from tests.semantics.small_worlds import block, network_policies, pod, policy, rule


def reach(
    cluster: Cluster,
    policies: PolicySet,
    owners: Mapping[PodKey, Owner] | None = None,
    *,
    grouped: bool = True,
    protocol: Protocol | None = None,
    port: int | None = None,
) -> Reachability:
    """Return who reaches whom in a cluster."""
    cuts = [(protocol, PortRange(port, port))] if protocol is not None and port is not None else []
    found = space(cluster, policies, cuts=cuts)
    everyone = parties(found, owners or {}, grouped=grouped)
    wording = Wording(found.spans, protocol=protocol, port=port)
    return reachability(Allowed(found, policies), everyone, wording, chosen=lambda _source, _destination: True)


def told(reached: Reachability) -> dict[tuple[str, str], str]:
    """Return every exchange in words."""
    return {ends: reached.text(each) for ends, each in reached.by_ends.items()}


def _expected(found: Space, each: Exchange, policies: PolicySet, version: int) -> tuple[int, int] | None:
    """Fold ``evaluate`` over every pair of addresses and every span; None if there is no such pair."""
    always, ever, pairs = -1, 0, 0
    for ours in (m for c, m in each.source.parts if c.version == version):
        for theirs in (m for c, m in each.destination.parts if c.version == version):
            for source in ours.addresses:
                for destination in theirs.addresses:
                    relation = found.relations.of(source, destination)
                    from_node = relation in (Relation.FROM_OWN_NODE, Relation.EACH_OTHERS_NODE)
                    own = each.source.kind is Kind.OWN_NODE
                    if relation is Relation.ITSELF or (not each.source.is_pods and from_node != own):
                        continue
                    flows = (Flow(source, destination, span.protocol, span.port) for span in found.spans.members)
                    verdicts = (evaluate(flow, found.cluster, policies).allowed for flow in flows)
                    mask = sum(allowed << number for number, allowed in enumerate(verdicts))
                    always, ever, pairs = always & mask, ever | mask, pairs + 1
    return (always, ever) if pairs else None


@given(drawn=worlds)
@settings(deadline=None, max_examples=12)
def test_an_exchange_is_what_evaluate_says_of_all_its_addresses(drawn: World) -> None:
    """Grouped by labels: what holds for all pairs of addresses, and what for some."""
    found = space(drawn.cluster, drawn.one)
    wording = Wording(found.spans)
    reached = reach(drawn.cluster, drawn.one)
    for each in reached.exchanges:
        for version, traffic in each.families:
            expected = _expected(found, each, drawn.one, version)
            assert expected is not None
            always, ever = (wording.told(mask, version) for mask in expected)
            assert (traffic.always, traffic.ever) == (always, ever), (each.source.name, each.destination.name)


@given(drawn=worlds)
@settings(deadline=None, max_examples=25)
def test_every_pod_is_in_one_party_and_every_form_can_be_printed(drawn: World) -> None:
    """Nobody is lost in grouping; and no world breaks a renderer."""
    reached = reach(drawn.cluster, drawn.one)
    pods = [e for e in drawn.cluster.endpoints.values() if not e.host_network and drawn.cluster.addresses_of(e)]
    parties_ = parties(reached.allowed.space, {})

    assert sorted(key for party in parties_ for key in party.pods) == sorted(each.key for each in pods)
    assert len({party.name for party in parties_}) == len(parties_)
    assert document(reached)["kind"] == "Reachability"
    for text in (dot(reached), page(reached), *matrix(reached), *listing(reached)):
        assert text


SHOP = [
    pod("shop/web-1", "10.0.0.1", {"app": "web"}, ports=[ContainerPort("http", 8080, Protocol.TCP)]),
    pod("shop/web-2", "10.0.0.2", {"app": "web"}, ports=[ContainerPort("http", 8081, Protocol.TCP)]),
    pod("shop/db", "10.0.0.3", {"app": "db"}, node="node-b"),
    pod("bank/safe", "10.0.0.4 fd00::4", {"app": "safe"}),
]
NODES = [Node("node-a", addresses=frozenset({ipaddress.ip_address("10.1.0.1")}))]


def _tcp(*ranges: tuple[int, int]) -> Ports:
    return Ports(tuple(PortMatch(Protocol.TCP, PortRange(*each)) for each in ranges))


def test_pods_without_an_owner_are_grouped_by_namespace_and_labels() -> None:
    """Replicas by hand are one party; a single pod goes by its name."""
    reached = reach(Cluster(nodes=NODES, endpoints=SHOP), PolicySet())

    assert [each.name for each in reached.sources] == [
        "bank/safe",
        "shop/db",
        "shop/{app=web}",
        "nodes",
        "own node",
        "outside (0.0.0.0/0, ::/0)",
    ]
    assert "own node" not in {each.name for each in reached.destinations}


def test_pods_of_one_workload_are_one_party_and_equal_names_are_told_apart() -> None:
    """A Deployment and a StatefulSet may have the same name."""
    keys = [each.key for each in SHOP[:3]]
    owners = {
        keys[0]: Owner("Deployment", "shop", "web"),
        keys[1]: Owner("Deployment", "shop", "web"),
        keys[2]: Owner("StatefulSet", "shop", "web"),
    }
    names = {each.name: len(each.pods) for each in reach(Cluster(endpoints=SHOP), PolicySet(), owners).sources}

    assert names["shop/web (Deployment)"] == 2
    assert names["shop/web (StatefulSet)"] == 1


def test_one_pod_has_nothing_to_say_of_itself_and_two_of_one_group_do() -> None:
    """A pod reaches itself always; whether it reaches its replica is a question of policy."""
    words = told(reach(Cluster(endpoints=SHOP), network_policies(policy(ingress=()))))

    assert ("shop/db", "shop/db") not in words
    assert words["shop/{app=web}", "shop/{app=web}"] == "none"


def test_pods_of_a_group_that_differ_are_some_pods() -> None:
    """A port name with another number on each replica."""
    named = Ports((PortMatch(Protocol.TCP, PortRange(8080, 8080)), PortMatch(Protocol.UDP)))
    peers = Peers((block("10.0.0.1/32"),))
    policies = network_policies(policy(ingress=(rule(peers, named), rule(traffic=_tcp((22, 22))))))
    words = told(reach(Cluster(endpoints=SHOP), policies))

    assert words["shop/{app=web}", "shop/db"] == "TCP/22, TCP/8080 UDP (some pods)"


def test_families_that_differ_are_said_apart() -> None:
    """A rule on 0.0.0.0/0 is none on ::/0."""
    lone = pod("shop/dual", "10.0.0.9 fd00::9", {"app": "dual"})
    policies = network_policies(policy(ingress=(rule(Peers((block("0.0.0.0/0"),)), _tcp((80, 81), (82, 90))),)))
    words = told(reach(Cluster(endpoints=[*SHOP, lone]), policies))

    assert words["bank/safe", "shop/dual"] == "TCP/80-90 (IPv4); none (IPv6)"


def test_what_is_nearly_all_is_said_by_what_is_not() -> None:
    """Shorter is clearer."""
    policies = network_policies(policy(ingress=(rule(traffic=_tcp((1, 24), (26, 65535))),)))
    lone = Cluster(endpoints=[pod("shop/web", "10.0.0.1")])
    others = Ports((*_tcp((0, 24), (26, 65535)).matches, *(PortMatch(p) for p in Protocol if p is not Protocol.TCP)))
    nearly = network_policies(policy(ingress=(rule(traffic=others),)))

    assert told(reach(lone, policies))["outside (0.0.0.0/0)", "shop/web"] == "TCP/1-24,26-65535"
    assert told(reach(lone, nearly))["outside (0.0.0.0/0)", "shop/web"] == "all except TCP/25"


def test_blocks_cut_the_outside_into_named_pieces() -> None:
    """By networks, by a network with exceptions, or by the first of many."""
    peers = [
        Peers((block("203.0.113.0/24"),)),
        Peers((block("10.0.0.0/8", "10.1.0.0/16", "10.2.0.0/16"),)),
        Peers(tuple(block(f"172.16.{n}.0/24") for n in range(0, 20, 2))),
    ]
    policies = network_policies(policy(ingress=tuple(rule(each) for each in peers)))
    names = [each.name for each in reach(Cluster(endpoints=SHOP[:1]), policies).sources if each.kind is Kind.OUTSIDE]

    assert names == [
        "outside (10.0.0.0/8 except 10.1.0.0/16, 10.2.0.0/16)",
        "outside (172.16.0.0/24, 172.16.2.0/24, 172.16.4.0/24 and 7 more)",
        "outside (203.0.113.0/24)",
        "outside (elsewhere)",
    ]


def test_a_port_that_is_asked_about_is_all_that_is_said() -> None:
    """Whatever else is allowed."""
    policies = network_policies(policy(ingress=(rule(traffic=_tcp((80, 90))),)))
    words = told(reach(Cluster(endpoints=SHOP), policies, protocol=Protocol.TCP, port=85))

    assert words["bank/safe", "shop/db"] == "TCP/85"
    assert words["shop/db", "bank/safe"] == "TCP/85"


def test_the_own_node_reaches_its_pods_and_other_nodes_do_not() -> None:
    """Whatever the policies say."""
    words = told(reach(Cluster(nodes=NODES, endpoints=SHOP), network_policies(policy(ingress=()))))

    assert words["own node", "shop/{app=web}"] == "all"
    assert ("own node", "shop/db") not in words  # it runs on a node that nobody knows
    assert words["nodes", "shop/db"] == "none"
    assert words["shop/db", "nodes"] == "all"


def test_a_list_names_many_at_once() -> None:
    """All pods, or all of a namespace, have one name; pods that no policy tells apart share lines."""
    many = [pod(f"bank/b{n}", f"10.0.1.{n}", {"n": str(n)}) for n in range(1, 9)]
    web = SHOP[:2]
    cluster = Cluster(endpoints=[*many, *web])
    lines = listing(reach(cluster, network_policies(policy(ingress=()))))

    assert [" ".join(line.split()) for line in lines] == [
        "FROM TRAFFIC TO",
        "bank/* (8) all bank/* (8), outside (0.0.0.0/0)",
        "shop/{app=web} all bank/* (8), outside (0.0.0.0/0)",
        "outside (0.0.0.0/0) all bank/* (8)",
    ]


def test_what_a_cluster_says_is_escaped_in_a_page_and_in_a_graph() -> None:
    """Labels are no markup."""
    evil = '</script><b>"\\'
    pods = [pod(f"shop/{n}", f"10.0.0.{n}", {"x": evil}) for n in (1, 2)]
    reached = reach(Cluster(endpoints=pods), PolicySet())

    assert "<b>" not in page(reached)
    assert page(reached).count("</script>") == 1
    assert '\\"\\\\' in dot(reached)


def test_the_same_traffic_both_ways_is_one_edge() -> None:
    """With two heads."""
    drawn = dot(reach(Cluster(endpoints=SHOP[2:]), PolicySet()))

    assert '"bank/safe" -> "shop/db" [label="all", dir=both];' in drawn
    assert '"shop/db" -> "bank/safe"' not in drawn


def test_a_document_has_the_ends_and_what_passes() -> None:
    """The whole of a small one."""
    whole = document(
        reach(Cluster(endpoints=SHOP[2:3]), network_policies(policy(ingress=(rule(traffic=_tcp((5, 6))),))))
    )

    assert whole == {
        "apiVersion": "ringfence.io/v1alpha1",
        "kind": "Reachability",
        "notes": [],
        "ends": [
            {
                "name": "shop/db",
                "kind": "pod",
                "namespace": "shop",
                "workload": None,
                "pods": ["db"],
                "networks": [],
                "addresses": ["10.0.0.3"],
            },
            {
                "name": "outside (0.0.0.0/0)",
                "kind": "outside",
                "namespace": None,
                "workload": None,
                "pods": [],
                "networks": ["0.0.0.0/0"],
                "addresses": [],
            },
        ],
        "connections": [
            {
                "from": "shop/db",
                "to": "outside (0.0.0.0/0)",
                "ipFamilies": ["IPv4"],
                "allowed": [
                    {"protocol": "TCP", "ports": [{"first": 1, "last": 65535}]},
                    {"protocol": "UDP", "ports": [{"first": 1, "last": 65535}]},
                    {"protocol": "SCTP", "ports": [{"first": 1, "last": 65535}]},
                    {"protocol": "ICMP", "ports": None},
                ],
                "allowedForSome": [],
            },
            {
                "from": "outside (0.0.0.0/0)",
                "to": "shop/db",
                "ipFamilies": ["IPv4"],
                "allowed": [{"protocol": "TCP", "ports": [{"first": 5, "last": 6}]}],
                "allowedForSome": [],
            },
        ],
    }


def test_parties_without_addresses_in_common_have_no_exchange() -> None:
    """IPv4 here, IPv6 there."""
    words = told(reach(Cluster(endpoints=[SHOP[0], pod("shop/six", "fd00::9")]), PolicySet()))

    assert ("shop/web-1", "shop/six") not in words
