# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import ipaddress
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.dataplanes.nftables import layout, spelling
from ringfence.dataplanes.nftables.layout import Names
from ringfence.dataplanes.nftables.observe import decode
from ringfence.dataplanes.nftables.render import Memory, render
from ringfence.dataplanes.nftables.rulesets import no_rule
from ringfence.errors import Unsupported
from ringfence.model.policy import Action, Direction, ObjectRef, listed
from tests.dataplanes.router import Allow, egress, ingress, make_program


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


def test_members_that_change_change_no_name() -> None:
    """A pod that comes to an expression, or a block to a rule, makes no object anew."""
    before = render(make_program(ingress("server", Allow(("client",), expression="x"), Allow(("10.0.0.0/8",)))))
    after = render(
        make_program(
            ingress("server", Allow(("client", "other"), expression="x"), Allow(("10.0.0.0/8", "192.0.2.1/32")))
        )
    )

    assert before.objects().keys() == after.objects().keys()
    changed = {name for name, each in after.sets.items() if before.sets[name] != each}
    assert {name.rpartition("-")[0] for name in changed} == {"peers4", "peers6", "blocks4"}
    assert before.chains == after.chains


def test_a_salt_changes_every_name_of_what_is_named_by_content() -> None:
    """A repair shares no chain and no set of ports with what somebody bent."""
    program = make_program(ingress("server", Allow(("client",), ("TCP/80", "TCP/90"))))
    plain, salted = (render(program, Names(salt=salt)) for salt in (0, 1))

    same = plain.objects().keys() & salted.objects().keys()
    assert {key for key in same if key[0] == "chain"} == {("chain", hook) for hook in ("forward", "input", "output")}
    assert not any(name.startswith("ports") for _, name in same)
    assert len(plain.objects()) == len(salted.objects())


def test_a_version_changes_the_name_of_one_object_and_of_what_leads_to_it() -> None:
    """The chains that ask a set follow it to its other name."""
    program = make_program(ingress("server", Allow(("client",))), egress("other", Allow(("10.0.0.0/8",))))
    plain = render(program)
    name = next(name for name in plain.sets if name.startswith("peers4"))

    other = render(program, Names(versions={name: 3}))

    assert other.sets[f"{name}.3"].elements == plain.sets[name].elements
    changed = {key[1].rpartition("-")[0] for key in other.objects().keys() - plain.objects().keys()}
    assert changed == {"peers4", "ingress4"}


def test_what_was_rendered_before_changes_cost_and_not_the_result() -> None:
    """A table made with a memory of others equals one that is made without."""
    memory = Memory()
    programs = [
        make_program(
            ingress("server", Allow(("client",), expression="x"), Allow(("10.0.0.0/8",), ("TCP/80", "TCP/90")))
        ),
        make_program(
            ingress("server", Allow(("other",), expression="x"), Allow(("10.0.0.0/9",), ("TCP/80", "TCP/90")))
        ),
        make_program(ingress("server", *(Allow((f"10.1.{i}.1",), (f"TCP/{i % 3 + 1}",)) for i in range(40)))),
        make_program(egress("client")),
    ]
    for program, names in itertools.product([*programs, *programs], (Names(), Names(salt=2))):
        assert render(program, names, memory) == render(program, names)


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


@given(st.lists(st.integers(1, 253).map(lambda size: ObjectRef("NetworkPolicy", "demo", "p" * size)), min_size=1))
def test_what_drops_the_rest_names_as_many_policies_as_a_comment_has_room_for(policies: list[ObjectRef]) -> None:
    """The others are counted; a single name that is too long keeps its start and its end."""
    comment = no_rule(Direction.INGRESS, policies)
    whole = f"no ingress rule of {listed(policies, len(policies))} allows it"

    assert comment.startswith("no ingress rule of NetworkPolicy demo/p")
    assert comment.endswith(" allows it")
    assert len(comment) <= spelling.MAX_COMMENT
    if len(whole) <= spelling.MAX_COMMENT:
        assert comment == whole
    elif "~" not in comment:
        named = comment.count("demo/")
        assert comment == f"no ingress rule of {listed(policies, named)} allows it"
        assert len(f"no ingress rule of {listed(policies, named + 1)} allows it") > spelling.MAX_COMMENT
    else:
        assert len(f"no ingress rule of {listed(policies, 1)} allows it") > spelling.MAX_COMMENT


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
