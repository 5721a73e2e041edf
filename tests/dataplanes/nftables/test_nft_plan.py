# SPDX-License-Identifier: Apache-2.0
"""What each kind of event costs: which transactions, and how many elements in them."""

from __future__ import annotations

import pytest

from ringfence.compiler.program import Program
from ringfence.dataplanes.nftables.changes import Plan
from ringfence.dataplanes.nftables.layout import Names
from ringfence.dataplanes.nftables.observe import Observed
from ringfence.dataplanes.nftables.plan import Obstacle, make_plan
from ringfence.dataplanes.nftables.render import render
from ringfence.model.policy import Action
from tests.dataplanes.router import Allow, egress, ingress, make_program

MANY = tuple(f"10.77.{i // 250}.{i % 250 + 1}" for i in range(1000))
BLOCKS = tuple(f"198.{18 + i // 256}.{i % 256}.0/28" for i in range(500))


def plan(before: Program, after: Program) -> Plan | Obstacle:
    """Return the plan from one program to another, neither of which anybody has bent."""
    return make_plan(Observed(present=True, table=render(before), known=True), render(after), Names())


def steps(before: Program, after: Program) -> list[tuple[str, int]]:
    """Return the transactions of a plan: purpose, and how many elements it changes."""
    found = plan(before, after)
    assert isinstance(found, Plan)
    return [(t.purpose, sum(len(change.elements) for change in t.changes)) for t in found.transactions]


def server(*rules: Allow) -> Program:
    """Return the program in which these rules admit peers to the server."""
    return make_program(ingress("server", *rules))


def members(*peers: str, expression: str = "app=client") -> Allow:
    """Allow whoever an expression covers."""
    return Allow(peers, ("TCP/80",), expression=expression)


def test_nothing_to_do_is_no_transaction() -> None:
    """The plan from a table to itself is empty."""
    assert steps(server(members(*MANY)), server(members(*MANY))) == []


def test_a_peer_that_comes_is_one_element() -> None:
    """However many there are already; and one that goes likewise."""
    few, more = server(members(*MANY)), server(members(*MANY, "10.99.0.1"))

    assert steps(few, more) == [("grow", 1)]
    assert steps(more, few) == [("shrink", 1)]


def test_a_block_that_comes_is_one_element() -> None:
    """However many blocks the rule has already; one that touches another replaces it by a wider one."""
    few = server(Allow(BLOCKS))

    assert steps(few, server(Allow((*BLOCKS, "203.0.113.0/24")))) == [("grow", 1)]
    assert steps(few, server(Allow((*BLOCKS, "198.18.0.16/28")))) == [("grow", 2)]
    assert steps(few, server(Allow(BLOCKS[1:]))) == [("shrink", 1)]


def test_a_block_among_very_many_is_one_element_of_a_hash_set() -> None:
    """An interval set would make the kernel walk through all of it; with a new prefix length comes a new set."""
    crowd = tuple(f"198.{18 + i // 256}.{i % 256}.{32 * (i % 8)}/28" for i in range(1200))
    few = server(Allow(crowd))

    assert steps(few, server(Allow((*crowd, "203.0.113.0/28")))) == [("grow", 1)]
    assert steps(few, server(Allow(crowd[1:]))) == [("shrink", 1)]
    assert steps(few, server(Allow((*crowd, "203.0.113.7/32")))) == [
        ("create", 0), ("fill", 1), ("close", 2), ("delete", 0),
    ]  # fmt: skip
    assert not any(each.interval for each in render(few).sets.values())


def test_a_peer_with_another_label_is_added_before_it_is_taken_away() -> None:
    """It is admitted by two rules for a moment, and by none at no moment."""
    before = server(members("client", expression="a"), members("other", expression="b"))
    after = server(members(expression="a"), members("other", "client", expression="b"))

    assert steps(before, after) == [("grow", 2), ("shrink", 2)]  # an element in each family


def test_a_pod_that_is_isolated_anew_needs_no_hook_to_change() -> None:
    """Its chain and set are made beside, and one element leads to them; the way back deletes them."""
    free, isolated = make_program(), server(members("client"))

    assert steps(free, isolated) == [("create", 0), ("fill", 2), ("close", 4)]
    assert steps(isolated, free) == [("open", 4), ("delete", 0)]


def test_other_rules_of_one_direction_are_one_switch() -> None:
    """Each flow has one half that changes: no moment in between is needed."""
    before, after = server(members("client")), server(members("client"), Allow(("203.0.113.0/24",)))

    assert [purpose for purpose, _ in steps(before, after)] == ["create", "fill", "close", "delete"]


def test_other_rules_of_both_directions_are_asked_together_for_a_moment() -> None:
    """A flow between two pods of the node may have two halves that change."""
    before = make_program(ingress("server", Allow(("client",))), egress("client", Allow(("other",))))
    after = make_program(ingress("server", Allow(("other",))), egress("client", Allow(("server",))))
    found = plan(before, after)

    assert isinstance(found, Plan)
    assert [t.purpose for t in found.transactions] == ["create", "fill", "close", "open", "delete"]
    assert found.transactions[0].text.count("jump ingress4-") == 2
    assert "both-" in found.transactions[2].text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            server(members("client")),
            server(members("other"), Allow(("203.0.113.0/24",))),
        ),
        (
            make_program(ingress("server", members("client")), egress("client", members("other", expression="to"))),
            make_program(ingress("server", members("other")), egress("client", members("server", expression="to"))),
        ),
        (
            server(Allow(("client",), ("TCP/80",), Action.DENY, expression="bad"), Allow()),
            server(Allow(("other",), ("TCP/80",), Action.DENY, expression="bad"), Allow()),
        ),
    ],
    ids=["rules and their members", "one half gained, the other lost", "members of a rule that denies"],
)
def test_what_is_entangled_is_no_change_in_place(before: Program, after: Program) -> None:
    """The sets concerned, and the dispatch, have to be made once more under other names; nothing else has."""
    found = plan(before, after)

    assert isinstance(found, Obstacle)
    assert found.bent == ()
    assert any(name.startswith("peers4-") for name in found.stale)
    assert {name for name in found.stale if name.startswith("dispatch-")} == {
        f"dispatch-{direction}{version}" for direction in ("ingress", "egress") for version in (4, 6)
    }


def test_what_somebody_bent_is_told() -> None:
    """A chain whose rules are not what its name says keeps everything from being reached under its name."""
    table = render(server(members("client")))
    (name,) = (name for name in table.chains if name.startswith("ingress4-"))
    bent = type(table)(table.sets, table.maps, {**table.chains, name: type(table.chains[name])(name, ())})

    found = make_plan(Observed(present=True, table=bent), table, Names())

    assert found == Obstacle(bent=(name,))


def test_a_plan_reads_as_its_steps() -> None:
    """Each transaction has a text that can be shown before it is run, and the same as commands."""
    found = plan(server(members("client")), server(members("client", "other"), Allow(("203.0.113.0/24",))))
    shown = plan(make_program(), server(members("client")))

    assert isinstance(found, Obstacle)
    assert isinstance(shown, Plan)
    assert str(shown).startswith("# 1. create\nadd table inet ringfence\n")
    assert "# 3. close\nadd element inet ringfence isolated-ingress4 { 10.9.2.2 }\n" in str(shown)
    assert not any("flush" in t.text for t in shown.transactions)
