# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import ipaddress
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.dataplanes.nftables import layout, spelling
from ringfence.dataplanes.nftables.observe import Observed, decode
from ringfence.dataplanes.nftables.plan import conflicts, make_plan
from ringfence.dataplanes.nftables.render import render
from ringfence.errors import Unsupported
from ringfence.model.policy import Action
from tests.dataplanes.nftables.nft_router import Allow, egress, ingress, make_program


def test_the_order_in_which_a_program_was_put_together_does_not_show() -> None:
    """Same program, same table: content is sorted, names are digests."""
    program = make_program(ingress("server", Allow(("client", "other"), ("TCP/80",))), egress("client", Allow()))
    backwards = dataclasses.replace(
        program,
        endpoints=program.endpoints[::-1],
        rulesets=program.rulesets[::-1],
        peer_sets=tuple(
            dataclasses.replace(p, addresses=frozenset(sorted(p.addresses, key=str, reverse=True)))
            for p in reversed(program.peer_sets)
        ),
    )

    assert layout.text(render(program)) == layout.text(render(backwards))


def test_what_stays_keeps_its_name() -> None:
    """A change of one set makes that set, and what leads to it, anew; everything else is shared."""
    before = render(make_program(ingress("server", Allow(("client",))), ingress("client", Allow(("other",)))))
    after = render(make_program(ingress("server", Allow(("server",))), ingress("client", Allow(("other",)))))

    changed = {key for key in after.objects() if key not in before.objects()}

    kinds = sorted(name.rpartition("-")[0] for _, name in changed)
    assert kinds == sorted(
        ["peers4", "peers6", "ingress4", "ingress6", "dispatch-ingress4", "dispatch-ingress6", "forward"]
    )


def test_a_salt_changes_every_name_and_no_meaning() -> None:
    """A repair shares no object with what somebody bent."""
    program = make_program(ingress("server", Allow(("client",), ("TCP/80", "TCP/90"))))
    plain, salted = (render(program, salt=salt) for salt in (0, 1))

    assert plain.objects().keys() & salted.objects().keys() == {("chain", "forward"), ("chain", "input")}
    assert len(plain.objects()) == len(salted.objects())


def test_passing_rules_are_refused_all_at_once() -> None:
    """What cannot be expressed is refused as a whole, with every reason."""
    program = make_program(
        ingress("server", Allow(action=Action.PASS), Allow()), egress("client", Allow(action=Action.PASS))
    )

    with pytest.raises(Unsupported) as caught:
        render(program)

    assert len(caught.value.refusals) == 2
    assert "spec.ingress[0]" in str(caught.value)
    assert "spec.egress[0]" in str(caught.value)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_a_span_reads_back_as_the_addresses_that_it_was(one: int, other: int) -> None:
    """Prefix, range or address: the text covers exactly the numbers."""
    first, last = sorted((one, other))

    text = spelling.span(first, last, 4)

    if "-" in text:
        ends = [int(ipaddress.IPv4Address(end)) for end in text.split("-")]
    else:
        network = ipaddress.ip_network(text)
        ends = [int(network.network_address), int(network.broadcast_address)]
    assert ends == [first, last]


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9))))
def test_merged_ranges_cover_the_same_and_do_not_touch(parts: list[tuple[int, int]]) -> None:
    """Interval sets must not overlap, and nft prints touching ranges as it likes: so they are joined beforehand."""
    ranges = [(first, first + more) for first, more in parts]

    result = spelling.merged(ranges)

    assert {n for a, b in result for n in range(a, b + 1)} == {n for a, b in ranges for n in range(a, b + 1)}
    assert all(b + 1 < c for (_, b), (c, _) in itertools.pairwise(result))


@given(st.text(max_size=300))
def test_every_comment_is_one_that_nft_takes(text: str) -> None:
    """At most 128 bytes, no quote, nothing unprintable; a short plain one is left as it is."""
    comment = spelling.comment(text)

    assert len(comment.encode()) <= spelling.MAX_COMMENT
    assert comment.isprintable()
    assert '"' not in comment
    if text.isascii() and text.isprintable() and len(text) <= spelling.MAX_COMMENT and not set(text) & {'"', "\\"}:
        assert comment == text


def test_long_comments_that_differ_in_the_middle_stay_apart() -> None:
    """The digest tells apart what the cut would make equal."""
    comments = {spelling.comment("x" * 100 + middle + "y" * 100) for middle in ("a", "b")}

    assert len(comments) == 2


def test_nothing_to_do_is_no_transaction() -> None:
    """The plan from a table to itself is empty."""
    table = render(make_program(ingress("server", Allow(("client",)))))

    assert make_plan(Observed(present=True, table=table), table).transactions == ()


def test_a_plan_reads_as_its_steps() -> None:
    """Create, switch, delete: each a text that can be shown before it is run."""
    before = render(make_program(ingress("server")))
    after = render(make_program(ingress("server", Allow())))

    plan = make_plan(Observed(present=True, table=before), after)

    assert [t.purpose for t in plan.transactions] == ["create", "switch", "delete"]
    assert [t.waits for t in plan.transactions] == [False, False, True]
    assert str(plan).startswith("# 1. create\nadd table inet ringfence\n")
    switch = plan.transactions[1].text.splitlines()
    assert [line.split()[0] for line in switch] == ["add", "flush", "add"]
    assert not any("flush set" in t.text or "flush table" in t.text for t in plan.transactions)


def test_what_we_never_write_decodes_to_what_never_compares_equal() -> None:
    """Expressions, verdicts and flags of others are kept as what they are: not ours."""
    rule = {"family": "inet", "table": "ringfence", "chain": "c", "handle": 1}
    observed = decode(
        [
            {"metainfo": {}},
            {"table": {"family": "inet", "name": "ringfence", "handle": 1}},
            {"chain": {"name": "c", "type": "nat", "hook": "input", "prio": 0, "policy": "drop"}},
            {"rule": {**rule, "expr": [{"match": {"op": "<", "left": {"meta": {"key": "mark"}}, "right": 1}}]}},
            {"rule": {**rule, "expr": [{"match": {"op": "==", "left": {"fib": {}}, "right": 1}}, {"log": None}]}},
            {"set": {"name": "s", "type": "ipv4_addr", "flags": ["timeout"], "elem": [{"elem": {"val": "1.2.3.4"}}]}},
            {"map": {"name": "m", "type": "ipv4_addr", "map": "mark", "elem": [["1.2.3.4", 5]]}},
            {"quota": {"name": "q"}},
        ]
    )

    assert observed.strangers == ("quota inet ringfence q",)
    assert all("not ours" in rule.text for rule in observed.table.chains["c"].rules)
    assert observed.table.chains["c"].hook == layout.Hook("nat input drop")
    assert observed.table.sets["s"].key == "ipv4_addr timeout"
    assert observed.table.maps["m"].key == "ipv4_addr : mark"


def test_an_object_that_was_changed_under_its_name_is_a_conflict() -> None:
    """Content-addressed names are trusted only as far as the content is what they say."""
    table = render(make_program(ingress("server", Allow(("client",)))))
    name = next(name for name in table.sets if name.startswith("peers4"))
    bent = dataclasses.replace(table.sets[name], elements=())
    held = layout.Table({**table.sets, name: bent}, table.maps, table.chains)

    assert conflicts(Observed(present=True, table=held), table) == [name]
    assert conflicts(Observed(present=True, table=table), table) == []
