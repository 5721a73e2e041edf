# SPDX-License-Identifier: Apache-2.0
"""What is left by agents that were killed or refused in mid-change, and by hands that know our names."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from ringfence.dataplanes.nftables.apply import NftablesDataplane
from ringfence.dataplanes.nftables.difference import Difference, Reset
from ringfence.dataplanes.nftables.elements import merged_spans, spans_of
from ringfence.dataplanes.nftables.encoding import encode
from ringfence.dataplanes.nftables.layout import Names, Set
from ringfence.dataplanes.nftables.observe import Observed, observe
from ringfence.dataplanes.nftables.plan import in_force
from ringfence.dataplanes.nftables.render import render
from ringfence.dataplanes.nftables.steps import steps
from ringfence.errors import HostRefused
from ringfence.host.nft_elements import ElementChange
from tests.dataplanes.router import Allow, Router, egress, ingress, make_program

pytestmark = pytest.mark.kernel

MEMBERS = "app=client"
ONE = make_program(
    ingress("server", Allow(("client",), ("UDP/53",))), ingress("client", Allow(("server",), expression=MEMBERS))
)
TWO = make_program(
    ingress("server", Allow(("other",), ("UDP/53",))), ingress("client", Allow(("server", "other"), expression=MEMBERS))
)


def assert_holds_two(router: Router) -> None:
    """Assert that the kernel holds the second program, with nothing left over."""
    observed = observe(router.nft)
    assert observed == Observed(present=True, table=render(TWO, in_force(observed.table)))


def test_a_change_that_is_refused_for_long_can_still_be_made(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each attempt goes on from what the last one left in force, and does not wrap it in chains of its own."""
    router.dataplane.apply(ONE)
    change_elements = router.nft.change_elements

    def no_peers(changes: Iterable[ElementChange]) -> None:
        given = list(changes)
        if any(change.set.startswith("peers") for change in given):
            raise HostRefused("no memory", asked="", answered="")
        change_elements(given)

    with monkeypatch.context() as patch:
        patch.setattr(router.nft, "change_elements", no_peers)
        for number in range(20):
            with pytest.raises(HostRefused, match="no memory"):
                (router.dataplane if number % 2 else NftablesDataplane(router.nft)).apply(TWO)

    router.dataplane.apply(TWO)
    assert_holds_two(router)


@pytest.mark.parametrize("made", range(1, 6))
def test_a_start_tidies_up_in_one_go_after_a_kill(router: Router, made: int) -> None:
    """Chains that judge by old and new rules are used if they are there, and deleted once."""
    router.dataplane.apply(ONE)
    plan = router.nftables.plan(TWO)
    assert "both" in str(plan)
    assert len(plan.transactions) > made
    for transaction in plan.transactions[:made]:
        router.nft.run(transaction.text)

    NftablesDataplane(router.nft).apply(TWO)

    assert_holds_two(router)


def test_a_chain_of_a_killed_agent_is_not_trusted(router: Router) -> None:
    """Somebody emptied the chain that judges by old and new rules, which a start would use again."""
    router.dataplane.apply(ONE)
    create = router.nftables.plan(TWO).transactions[0].text
    router.nft.run(create)
    both = next(line.split()[4] for line in create.splitlines() if "add chain inet ringfence both-" in line)
    router.nft.run(f"flush chain inet ringfence {both}")

    fresh = NftablesDataplane(router.nft)
    assert both not in {word for t in fresh.plan(TWO).transactions[:-1] for word in t.text.split()}
    fresh.apply(TWO)
    assert not fresh.drifted()


def test_a_verdict_that_does_not_come_back_is_undone(router: Router) -> None:
    """Going to the client's egress rules, packets would never be asked for the server's ingress."""
    program = make_program(egress("client", Allow(("server",))), ingress("server"))
    router.dataplane.apply(program)
    ((address, verdict),) = observe(router.nft).table.maps["dispatch-egress4"].elements.items()
    place = "element inet ringfence dispatch-egress4"
    router.nft.run(f"delete {place} {{ {address} }}\nadd {place} {{ {address} : {verdict.replace('jump', 'goto')} }}")
    assert router.datagram("client", "server", 4, 53)

    assert router.dataplane.drifted()
    router.dataplane.apply(program)

    assert not router.datagram("client", "server", 4, 53)
    assert not router.dataplane.drifted()


@pytest.mark.parametrize("limit", ["size 1", "limit rate 1/day"])
def test_a_set_that_somebody_limited_is_exchanged(router: Router, limit: str) -> None:
    """Its elements are ours, but it could not take more of them, or would not find them."""
    router.dataplane.apply(ONE)
    name = next(n for n in observe(router.nft).table.sets if n.startswith("peers4"))
    listed = router.nft.listing("table inet ringfence")
    limited = listed.replace(
        f"set {name} {{\n\t\ttype ipv4_addr\n", f"set {name} {{\n\t\ttype ipv4_addr\n\t\t{limit}\n"
    )
    assert limited != listed
    router.nft.run(f"delete table inet ringfence\n{limited}")

    assert router.dataplane.drifted()
    router.dataplane.apply(TWO)

    assert_holds_two(router)


@pytest.mark.parametrize(("key", "bits"), [("ipv4_addr", 32), ("ipv6_addr", 128), ("inet_service", 16)])
def test_spans_change_in_place_up_to_the_edges(router: Router, key: str, bits: int) -> None:
    """Whatever spans become whatever others, from the first address to the last: both at first, then the new alone."""
    chance = random.Random(bits)
    router.nft.run(f"add table inet ringfence\nadd set inet ringfence edges {{ type {key}; flags interval; }}")
    last = (1 << bits) - 1
    places = [*range(6), *range(100, 104), *range(last - 5, last + 1)]
    now = merged_spans(())
    for _ in range(150):
        ends = [sorted(chance.choices(places, k=2)) for _ in range(chance.randint(0, 5))]
        goal = merged_spans((first, last) for first, last in ends)
        if goal == now:
            continue
        reset = Reset(Set("edges", key, True, goal), goal - now, now - goal)
        met = []
        for transaction in steps(Difference((), (), (), (reset,), ()), {}, Names()).transactions:
            router.nft.change_elements(map(encode, transaction.changes))
            met.append(merged_spans(spans_of(observe(router.nft).table.sets["edges"].elements)))
        assert met[-1] == goal
        assert met[0] in (goal, merged_spans((*spans_of(now), *spans_of(goal))))
        now = goal


def test_a_change_that_somebody_made_for_us_hides_nothing(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between our look and our commit they add the very elements that we would, and more: that is not counted as ours.

    Adding what is there already would be no commit, and theirs would make up for it.
    """
    few, more = (
        make_program(ingress("server", Allow(peers, expression=MEMBERS)))
        for peers in (("client",), ("client", "other"))
    )
    router.dataplane.apply(few)
    (grow,) = router.nftables.plan(more).transactions
    change_elements = router.nft.change_elements

    def late(changes: Iterable[ElementChange]) -> None:
        router.nft.run(f"{grow.text}insert rule inet ringfence forward accept\n")
        change_elements(changes)

    with monkeypatch.context() as patch:
        patch.setattr(router.nft, "change_elements", late)
        with pytest.raises(HostRefused):
            router.dataplane.apply(more)

    assert router.dataplane.drifted()
    router.dataplane.apply(more)
    assert not router.dataplane.drifted()
    assert observe(router.nft).table.chains["forward"].rules[0].text.startswith("jump ")
