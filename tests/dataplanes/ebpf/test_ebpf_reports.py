# SPDX-License-Identifier: Apache-2.0
"""Verdicts that real packets get are reported and counted."""

from __future__ import annotations

import ipaddress
import select
import socket

import pytest

from ringfence.compiler.flat import NamedRule
from ringfence.compiler.flat_profiles import rule_id
from ringfence.dataplanes.ebpf.apply import EbpfDataplane
from ringfence.dataplanes.verdicts import Reason, Reports, VerdictEvent, VerdictKind
from ringfence.model.policy import Action, Direction
from ringfence.model.ports import Protocol
from tests.dataplanes.router import SOON, VERSIONS, Allow, Router, address, egress, ingress, make_program

pytestmark = pytest.mark.kernel

PROGRAM = make_program(
    ingress("server", Allow(("client",), ("TCP/80", "UDP/53")), Allow(("other",), ("TCP/22",), Action.DENY)),
    egress("other", Allow(None)),
)


@pytest.fixture
def dataplane(router: Router) -> EbpfDataplane:
    """Return the router's engine, with a program in force."""
    assert isinstance(router.dataplane, EbpfDataplane)
    router.dataplane.apply(PROGRAM)
    router.dataplane.read()
    return router.dataplane


def heard(dataplane: EbpfDataplane) -> list[VerdictEvent]:
    """Return events, as soon as there are any."""
    assert select.select([dataplane.fileno()], [], [], SOON)[0]
    return dataplane.read()


def test_the_engine_reports(dataplane: EbpfDataplane) -> None:
    """It is one of those that can."""
    assert isinstance(dataplane, Reports)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_denial_names_both_ends_and_the_ruleset(router: Router, dataplane: EbpfDataplane, version: int) -> None:
    """No rule allows it: which ruleset that is, is told."""
    router.datagram("client", "server", version, 5353)

    (event,) = heard(dataplane)
    (ruleset,) = [r for r in PROGRAM.rulesets if r.direction is Direction.INGRESS]
    assert (event.allowed, event.reason, event.direction) == (False, Reason.NO_RULE, Direction.INGRESS)
    assert (event.client, event.server) == tuple(
        ipaddress.ip_address(address(w, version)) for w in ("client", "server")
    )
    assert (event.protocol, event.port, event.ruleset, event.rule) == (Protocol.UDP, 5353, ruleset.id, None)


def test_a_denial_by_a_rule_names_it(router: Router, dataplane: EbpfDataplane) -> None:
    """By its id, a digest of action and origin."""
    with router.listen("server", 4, 22):
        assert not router.connects("other", "server", 4, 22)

    event = heard(dataplane)[0]
    (denying,) = [rule for r in PROGRAM.rulesets for rule in r.rules if rule.action is Action.DENY]
    assert event.reason is Reason.RULE
    assert event.rule == rule_id(NamedRule(denying.action, denying.origin))


def test_allowed_connections_are_reported_if_wanted(router: Router, dataplane: EbpfDataplane) -> None:
    """Once each, and not any more when they are not wanted any more."""
    assert router.datagram("client", "server", 4, 53)
    assert not select.select([dataplane.fileno()], [], [], 0)[0]

    dataplane.report_allows(True)
    assert router.datagram("client", "server", 4, 53)
    (event,) = heard(dataplane)
    assert (event.allowed, event.reason, event.direction) == (True, Reason.RULE, Direction.INGRESS)

    dataplane.report_allows(False)
    assert router.datagram("client", "server", 4, 53)
    assert not select.select([dataplane.fileno()], [], [], 0)[0]


def test_a_flood_is_cut_short_and_counted(router: Router, dataplane: EbpfDataplane) -> None:
    """Each endpoint reports a few; its next event says how many were left out, and the counters have all."""
    before = dataplane.verdict_counts()
    with router.opened("client", 4, socket.SOCK_DGRAM) as near:
        for _ in range(500):
            near.sendto(b"x", (address("server", 4), 9))
    events = heard(dataplane)
    kind = VerdictKind(allowed=False, direction=Direction.INGRESS, reason=Reason.NO_RULE)

    assert 1 <= len(events) < 100
    assert dataplane.verdict_counts()[kind] - before[kind] == 500
    select.select([], [], [], 0.25)  # the time in which an endpoint may report again
    router.datagram("client", "server", 4, 9)
    assert len(events) + sum(event.lost for event in (*events, *heard(dataplane))) + 1 >= 500


def test_reports_go_on_when_tables_are_exchanged(router: Router, dataplane: EbpfDataplane) -> None:
    """The descriptor stays the same, what was not read yet is kept, and counts only grow."""
    descriptor = dataplane.fileno()
    router.datagram("client", "server", 4, 9)
    counts = dataplane.verdict_counts()
    peers = tuple(f"10.50.{number % 250}.{number // 250}/32" for number in range(1000))
    dataplane.apply(make_program(ingress("server", Allow(peers, ("TCP/80",)))))

    assert dataplane.fileno() == descriptor
    assert [event.port for event in heard(dataplane)] == [9]
    assert not select.select([descriptor], [], [], 0)[0]
    router.datagram("client", "server", 4, 10)
    assert [event.port for event in heard(dataplane)] == [10]
    assert all(dataplane.verdict_counts()[kind] >= count for kind, count in counts.items())
