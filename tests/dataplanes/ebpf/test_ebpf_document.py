# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs/dataplanes/ebpf.md").read_text()
GOLDEN = Path(__file__).with_name("golden").joinpath("demo.txt").read_text().splitlines()

DUMP = re.findall(r"^\[(\d+)\] +(.*)$", DOCUMENT, re.MULTILINE)


def test_the_pipeline_page_shows_what_is_rendered() -> None:
    """Every line of its dump stands in the golden file, so the page cannot rot."""
    assert [number for number, _ in DUMP] == [str(n + 1) for n in range(len(DUMP))]
    assert [line for _, line in DUMP if line not in GOLDEN] == []


def test_every_number_has_its_sentence() -> None:
    """Each numbered line is explained, and each explanation has its line."""
    explained = re.findall(r"^(\d+)\. ", DOCUMENT.split("## A packet's way")[0], re.MULTILINE)

    assert explained == [number for number, _ in DUMP]


def test_the_page_names_every_table() -> None:
    """Each map of the C program is in it."""
    header = (ROOT / "src/ringfence/dataplanes/ebpf/bpf/maps.h").read_text()
    tables = set(re.findall(r"^} (rf_\w+) SEC", header, re.MULTILINE)) - {"rf_budgets"}

    assert {table.rstrip("6") for table in tables if table not in DOCUMENT} <= {"rf_peers", "rf_blocks"}
