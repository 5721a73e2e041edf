# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import pytest

from ringfence.compiler.program import Program
from ringfence.dataplanes.base import Answer, Applied, Dataplane
from ringfence.dataplanes.nftables.apply import NftablesDataplane
from ringfence.dataplanes.nftables.observe import Observed, observe
from ringfence.dataplanes.nftables.plan import in_force
from ringfence.dataplanes.nftables.probe import probe
from ringfence.dataplanes.nftables.render import render
from ringfence.errors import HostRefused
from ringfence.host.nft_elements import Element, ElementChange
from ringfence.model.settings import Established, Settings
from tests.dataplanes.router import Allow, Router, egress, ingress, make_program

pytestmark = pytest.mark.kernel

CLIENT = make_program(ingress("server", Allow(("client",))))
KEPT = dataclasses.replace(CLIENT, settings=Settings(established=Established.KEEP))
OTHER = make_program(ingress("server", Allow(("other",), ("UDP", "TCP/80-90")), Allow(("192.0.2.0/24",))))


def verdicts(router: Router) -> tuple[bool, bool]:
    """Tell what gets through to the server: the client's datagram, the other's."""
    return router.datagram("client", "server", 4, 53), router.datagram("other", "server", 4, 53)


def holds(router: Router, program: Program) -> bool:
    """Tell whether the kernel holds exactly what a program renders to, with nothing left over."""
    observed = observe(router.nft)
    return observed == Observed(present=True, table=render(program, in_force(observed.table)))


def test_the_engine_is_a_dataplane(router: Router) -> None:
    """It keeps the contract's shape, as a type checker sees it."""
    engine: Dataplane = router.dataplane

    assert engine.name == "nftables"


def test_applying_again_is_no_transaction(router: Router) -> None:
    """The first apply creates and switches; an equal program afterwards touches nothing."""
    first = router.dataplane.apply(CLIENT)
    again = router.dataplane.apply(make_program(ingress("server", Allow(("client",)))))
    changed = router.dataplane.apply(OTHER)

    assert first.transactions == len(("create", "fill", "switch"))
    assert again == Applied(transactions=0)
    assert changed.transactions == len(("create", "fill", "close", "delete"))
    assert changed.deleted > 0
    assert holds(router, OTHER)


def test_a_fresh_process_adopts_what_is_in_force(router: Router) -> None:
    """A new agent with the same program changes nothing, with another converges by difference."""
    router.dataplane.apply(CLIENT)
    fresh = NftablesDataplane(router.nft)

    assert not fresh.drifted()
    assert fresh.apply(CLIENT) == Applied(transactions=0)
    assert fresh.apply(OTHER).transactions == len(("create", "fill", "close", "delete"))
    assert holds(router, OTHER)


def test_a_kill_between_transactions_leaves_the_old_or_the_new_verdicts(router: Router) -> None:
    """After any prefix of the plan one whole program is in force, and the next process completes and tidies."""
    router.dataplane.apply(CLIENT)
    plan = router.nftables.plan(OTHER)

    for steps in range(len(plan.transactions) + 1):
        NftablesDataplane(router.nft).apply(CLIENT)
        for transaction in plan.transactions[:steps]:
            router.nft.run(transaction.text)

        assert verdicts(router) in ((True, False), (False, True))
        NftablesDataplane(router.nft).apply(OTHER)
        assert verdicts(router) == (False, True)
        assert holds(router, OTHER)


@pytest.mark.parametrize("steps", [1, 2])
def test_a_killed_apply_can_be_taken_back(router: Router, steps: int) -> None:
    """If the program changed back meanwhile, what the killed apply left is deleted, or left behind by the switch."""
    router.dataplane.apply(CLIENT)
    for transaction in router.nftables.plan(OTHER).transactions[:steps]:
        router.nft.run(transaction.text)

    NftablesDataplane(router.nft).apply(CLIENT)

    assert verdicts(router) == (True, False)
    assert holds(router, CLIENT)


def _name(kind: str) -> str:
    return next(n for _, n in render(CLIENT).objects() if n.startswith(kind))


PEERS, CHAIN, MAP = _name("peers4"), _name("ingress4"), _name("dispatch-ingress4")
BASES = {("chain", hook) for hook in ("forward", "input", "output")}


@pytest.mark.parametrize(
    "edit",
    [
        "delete table inet ringfence",
        "flush chain inet ringfence forward",
        "add rule inet ringfence forward accept",
        "insert rule inet ringfence input accept",
        "add table inet ringfence { flags dormant; }",
        f"flush chain inet ringfence {CHAIN}",
        f"insert rule inet ringfence {CHAIN} return",
        f"flush set inet ringfence {PEERS}",
        f"delete element inet ringfence {MAP} {{ 10.9.2.2 }}",
        "flush chain inet ringfence input\ndelete chain inet ringfence input\nadd chain inet ringfence input",
        "add chain inet ringfence forward { policy drop; }",
        "add chain inet ringfence theirs { type filter hook forward priority 7; policy drop; }",
        "add set inet ringfence theirs { type mark; elements = { 1 }; }",
        "add map inet ringfence theirs { type mark : verdict; elements = { 1 : drop }; }",
        "add quota inet ringfence theirs { 20 mbytes; }",
        "add counter inet ringfence theirs",
    ],
)
def test_drift_is_noticed_and_repaired(router: Router, edit: str) -> None:
    """Whatever somebody does to our table is seen, and the next apply of the same program undoes it."""
    router.dataplane.apply(CLIENT)
    assert not router.dataplane.drifted()

    router.nft.run(edit)

    assert router.dataplane.drifted()
    assert router.dataplane.apply(CLIENT).repaired
    assert verdicts(router) == (True, False)
    assert not router.dataplane.drifted()


def test_what_somebody_bent_is_exchanged_for_copies_with_other_names(router: Router) -> None:
    """Nothing that somebody bent stays in force; a fresh process goes on with the sets, and leaves nothing over."""
    router.dataplane.apply(CLIENT)
    router.nft.run(f"flush chain inet ringfence {CHAIN}")
    router.dataplane.apply(CLIENT)

    assert not observe(router.nft).table.objects().keys() & (render(CLIENT).objects().keys() - BASES)
    assert verdicts(router) == (True, False)

    NftablesDataplane(router.nft).apply(CLIENT)

    assert holds(router, CLIENT)


def test_others_commits_are_no_drift(router: Router) -> None:
    """A change of somebody else's table costs one look and is forgotten."""
    router.dataplane.apply(CLIENT)

    router.nft.run("add table inet rfother\ndelete table inet rfother")

    assert not router.dataplane.drifted()
    assert router.dataplane.apply(CLIENT) == Applied(transactions=0)


def test_another_table_stays_as_it_is_byte_for_byte(router: Router) -> None:
    """Apply, change, repair and remove touch our table alone."""
    router.nft.run(
        """
        table inet rfother {
            counter hits { packets 1 bytes 2; }
            set s { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 }; }
            chain c { counter name hits accept comment "theirs"; }
            map m { type ipv4_addr : verdict; elements = { 10.0.0.1 : jump c }; }
            chain forward { type filter hook forward priority 0; ip saddr vmap @m; }
        }
        """
    )
    try:
        before = router.nft.listing("table inet rfother")
        router.dataplane.apply(CLIENT)
        router.dataplane.apply(OTHER)
        router.nft.run("flush chain inet ringfence forward")
        router.dataplane.apply(OTHER)
        router.dataplane.remove()

        assert router.nft.listing("table inet rfother") == before
        assert router.nft.listing("tables") == "table inet rfother\n"
    finally:
        router.nft.run("delete table inet rfother")


def test_our_accepting_never_overrides_anothers_drop(router: Router) -> None:
    """What our rules allow, another table may still drop."""
    router.dataplane.apply(CLIENT)
    router.nft.run("table inet rfother { chain c { type filter hook forward priority 10; udp dport 53 drop; }; }")
    try:
        assert not router.datagram("client", "server", 4, 53)
        assert router.datagram("client", "server", 4, 54)
    finally:
        router.nft.run("delete table inet rfother")


@pytest.mark.parametrize(
    ("before", "refused"),
    [(CLIENT, "add set"), (CLIENT, "peers"), (CLIENT, "dispatch"), (KEPT, "add rule inet ringfence forward ")],
)
def test_a_refused_program_leaves_the_old_one_in_force(
    router: Router, monkeypatch: pytest.MonkeyPatch, before: Program, refused: str
) -> None:
    """If the kernel says no, its answer is kept, the old program stays, and the next apply starts from the kernel."""
    router.dataplane.apply(before)
    run, change_elements = router.nft.run, router.nft.change_elements

    def bad_run(text: str) -> str:
        return run(f"{text}delete table inet rfnowhere\n" if refused in text else text)

    def bad_change(changes: Iterable[ElementChange]) -> None:
        given = list(changes)
        bad = [ElementChange(False, "ringfence", "rfnowhere", [Element(bytes(4))])]
        change_elements([*given, *(bad if any(refused in change.set for change in given) else [])])

    with monkeypatch.context() as patch:
        patch.setattr(router.nft, "run", bad_run)
        patch.setattr(router.nft, "change_elements", bad_change)
        with pytest.raises(HostRefused) as caught:
            router.dataplane.apply(OTHER)

    assert "No such file or directory" in caught.value.answered
    assert verdicts(router) == (True, False)
    router.dataplane.apply(OTHER)
    assert holds(router, OTHER)


def test_what_cannot_be_tidied_away_does_not_undo_a_program(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused deletion is no failure: the new program is in force; the leftovers are drift until they are gone."""
    router.dataplane.apply(CLIENT)
    committed = router.nft.run

    def commit(text: str) -> str:
        return committed(f"{text}delete table inet rfnowhere\n" if "delete" in text else text)

    with monkeypatch.context() as patch:
        patch.setattr(router.nft, "run", commit)
        router.dataplane.apply(OTHER)

    assert verdicts(router) == (False, True)
    assert router.dataplane.drifted()
    assert router.dataplane.apply(OTHER).deleted > 0
    assert holds(router, OTHER)


def test_a_table_that_goes_in_the_midst_of_an_apply_is_missed(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody deletes the table before our last transaction: that one is refused, and theirs is no commit of ours."""
    router.dataplane.apply(CLIENT)
    commit = router.nft.run

    def run(text: str) -> str:
        if "delete" in text:
            commit("delete table inet ringfence")
        return commit(text)

    monkeypatch.setattr(router.nft, "run", run)
    router.dataplane.apply(OTHER)
    monkeypatch.undo()

    assert router.dataplane.drifted()
    router.dataplane.apply(OTHER)
    assert verdicts(router) == (False, True)


def test_removal_opens_and_is_idempotent(router: Router) -> None:
    """After ``remove`` nothing of ours is left, and every packet passes."""
    router.dataplane.apply(make_program(ingress("server"), egress("client")))

    router.dataplane.remove()
    router.dataplane.remove()

    assert verdicts(router) == (True, True)
    assert router.nft.listing("tables") == ""
    assert not router.dataplane.drifted()


def test_this_machine_can_run_the_engine() -> None:
    """The probe tries in a namespace of its own, and says yes where these tests run."""
    assert probe().answer is Answer.YES
