# SPDX-License-Identifier: Apache-2.0
"""Tables of expected against seen."""

from __future__ import annotations

import ipaddress
import itertools

from ringfence.cases.grid import grids
from ringfence.cases.run import Difference
from ringfence.cases.script import Asks, Probe, Spot
from ringfence.model.ports import Protocol


def probe(source: int, destination: int, *, version: int = 4, asks: Asks = Asks.CONNECTION) -> Probe:
    """Return a probe between two numbered pods."""
    spots = [
        Spot(ipaddress.ip_address(f"10.0.0.{n}" if version == 4 else f"fd00::{n}"), f"x/p{n}")
        for n in (source, destination)
    ]
    return Probe(spots[0], spots[1], Protocol.TCP, 80, asks)


def wrong(each: Probe) -> Difference:
    """Return a difference about a probe that was expected to be allowed."""
    return Difference(0, "", each, "allow", "deny")


def test_families_with_the_same_table_share_it() -> None:
    """And one that differs elsewhere has its own."""
    probes = [probe(s, d, version=v) for v in (4, 6) for s, d in itertools.product((1, 2), repeat=2)]
    both = grids(probes, [True] * 8, [wrong(probes[1]), wrong(probes[5])])
    one = grids(probes, [True] * 8, [wrong(probes[1]), wrong(probes[6])])

    assert [grid.traffic for grid in both] == ["TCP/80 IPv4 and IPv6"]
    assert both[0].lines == ("from\\to  x/p1  x/p2", "x/p1      .    .>X", "x/p2      .     .")
    assert [grid.traffic for grid in one] == ["TCP/80 IPv4", "TCP/80 IPv6"]


def test_wide_tables_show_what_differs_alone() -> None:
    """Of twenty pods by twenty, the rows and columns in which something is wrong."""
    probes = [probe(s, d) for s, d in itertools.product(range(1, 21), repeat=2)]
    differing = [
        each for each in probes if (each.source.pod, each.destination.pod) in (("x/p3", "x/p4"), ("x/p9", "x/p4"))
    ]
    (grid,) = grids(probes, [True] * 400, map(wrong, differing))

    assert grid.lines == ("from\\to  x/p4", "x/p3     .>X", "x/p9     .>X")


def test_single_questions_and_questions_about_errors_have_no_table() -> None:
    """The sentence about them says it all."""
    assert grids([probe(1, 2)], [True], [wrong(probe(1, 2))]) == ()
    errors = [probe(1, 2, asks=Asks.TOO_BIG), probe(2, 1, asks=Asks.FORGED)]
    assert grids(errors, [True, True], map(wrong, errors)) == ()
