# SPDX-License-Identifier: Apache-2.0
"""What the tables of a program hold, written down; that the kernel takes and holds it, ``test_ebpf_apply`` shows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.compiler.flat import NO_ATOM, Decision
from ringfence.compiler.flatten import flatten
from ringfence.compiler.program import Program
from ringfence.dataplanes.ebpf import layout
from ringfence.dataplanes.ebpf.render import PAIRS, PODS, RANGES, RULES, TRAFFIC, Image, render
from tests.dataplanes.nftables.test_nft_golden import PROGRAMS

GOLDEN = Path(__file__).with_name("golden")


def written(program: Program) -> str:
    """Return what the tables hold, a line for each entry, sorted."""
    lines = [f"{table:<10} {key} -> {value}" for table, key, value in _entries(render(flatten(program, "ebpf")))]
    return "\n".join(sorted(lines)) + "\n"


def _entries(image: Image) -> Iterator[tuple[str, str, str]]:
    for key, view in image.peers.items():
        yield f"rf_peers{4 if len(key) == 4 else 6}", str(layout.unpack_address(key)), _view(view)
    for key, view in image.blocks.items():
        block = layout.unpack_block(key)
        yield f"rf_blocks{block.version}", str(block), _view(view)
    for key, value in image.facts[PAIRS].items():
        ruleset, atom = layout.unpack_pair_key(key)
        profile, rest = layout.unpack_pair(value)
        peer = "anybody else" if atom == NO_ATOM else f"atom {atom}"
        yield PAIRS, f"ruleset {ruleset}, {peer}", f"profile {profile}, else {_decision(rest)}"
    for key, value in image.facts[TRAFFIC].items():
        profile, protocol, ports = layout.unpack_traffic_key(key)
        which = f"port {ports.first}" if ports.first == ports.last else "all ports"
        yield TRAFFIC, f"profile {profile}, protocol {protocol} {which}", _decision(layout.unpack_decision(value))
    for key, value in image.facts[RANGES].items():
        profile, protocol, ports = layout.unpack_range_key(key)
        decided = _decision(layout.unpack_decision(value))
        yield RANGES, f"profile {profile}, protocol {protocol} ports {ports.first}-{ports.last}", decided
    for table in (RULES, PODS):
        for key, value in image.facts[table].items():
            yield table, layout.unpack_id(key), layout.unpack_text(value)


def _view(data: bytes) -> str:
    view = layout.unpack_view(data)
    said = {name: getattr(view, name) for name in ("ingress", "egress", "atom", "pod")}
    parts = [f"{name} {layout.digits(number)}" for name, number in said.items() if number]
    return ", ".join([*parts, *(["own node"] if view.own_node else [])]) or "nothing"


def _decision(decision: Decision) -> str:
    word = "allowed" if decision.allowed else "denied"
    return f"{word} by {'no rule' if decision.rule is None else decision.rule}"


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_renders_to_its_golden_file(name: str) -> None:
    """The whole text is as it was reviewed; ``RINGFENCE_GOLDEN=write`` writes it anew."""
    file = GOLDEN / f"{name}.txt"
    text = written(PROGRAMS[name])
    if os.environ.get("RINGFENCE_GOLDEN") == "write":
        file.write_text(text)

    assert text == file.read_text()


def test_every_golden_file_has_its_program() -> None:
    """None is left behind."""
    assert {file.stem for file in GOLDEN.iterdir()} == set(PROGRAMS)
