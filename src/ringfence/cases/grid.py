# SPDX-License-Identifier: Apache-2.0
"""Tables of expected against seen, as a case has them: sources down, destinations across. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ringfence.cases.run import Difference
from ringfence.cases.script import Asks, Probe
from ringfence.cases.tables import CORNER

LEGEND = ". allowed   X denied   - not asked   X>. denied was expected, allowed was seen"
_MARKS = {True: ".", False: "X"}
_WIDEST = 12  # columns; of wider tables only the rows and columns in which something differs are shown

_Traffic = tuple[str, str]  # what is sent, and in which family


@dataclass(frozen=True, slots=True)
class Grid:
    """One kind of traffic, and the lines of its table; the first line has the destinations."""

    traffic: str
    lines: tuple[str, ...]


def grids(probes: Sequence[Probe], expected: Sequence[bool], differences: Iterable[Difference]) -> tuple[Grid, ...]:
    """Return a table for each kind of traffic in which something differs; equal ones of both families are one.

    A single question needs no table, and questions about errors and open connections have none.
    """
    wrong = {difference.probe for difference in differences if difference.connection is None}
    cells: dict[_Traffic, dict[tuple[str, str], str]] = {}
    differing: dict[_Traffic, set[tuple[str, str]]] = {}
    for probe, allowed in zip(probes, expected, strict=True):
        if probe.asks is Asks.CONNECTION:
            traffic, pair = (probe.traffic, probe.family), (str(probe.source), str(probe.destination))
            mark = _MARKS[allowed]
            if probe in wrong:
                mark = f"{mark}>{_MARKS[not allowed]}"
                differing.setdefault(traffic, set()).add(pair)
            cells.setdefault(traffic, {})[pair] = mark
    tables: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for (word, family), wanted in differing.items():
        if len(cells[word, family]) > 1:
            tables.setdefault(_lines(cells[word, family], wanted), {}).setdefault(word, []).append(family)
    return tuple(Grid(_words(traffics), lines) for lines, traffics in tables.items())


def _words(traffics: Mapping[str, Sequence[str]]) -> str:
    return ", ".join(f"{word} {' and '.join(families)}" for word, families in traffics.items())


def _lines(cells: dict[tuple[str, str], str], differing: set[tuple[str, str]]) -> tuple[str, ...]:
    rows, columns = (list(dict.fromkeys(pair[side] for pair in cells)) for side in (0, 1))
    if len(columns) > _WIDEST:
        rows = [row for row in rows if any(row == source for source, _ in differing)]
        columns = [column for column in columns if any(column == destination for _, destination in differing)]
    table = [[CORNER, *columns], *([row, *(cells.get((row, column), "-") for column in columns)] for row in rows)]
    widths = [max(len(line[number]) for line in table) for number in range(len(columns) + 1)]
    return tuple(
        "  ".join(
            word.ljust(width) if number == 0 or line is table[0] else word.center(width)
            for number, (word, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in table
    )
