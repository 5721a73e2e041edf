# SPDX-License-Identifier: Apache-2.0
"""The engines by name, and which one is taken when nobody says."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from ringfence.dataplanes.base import Answer, Probe
from ringfence.dataplanes.memory import MemoryDataplane
from ringfence.dataplanes.registry import ENGINES, Engine, choose, engine
from ringfence.errors import UsageError


def answering(name: str, answer: Answer, remedy: str = "") -> Engine:
    """Return an engine whose probe gives an answer."""
    return replace(ENGINES["memory"], name=name, probe=lambda: Probe(answer, f"it said {answer.value}", remedy))


def test_engines_are_known_by_name() -> None:
    """Building one gives a dataplane of that name; what is not there is a usage error that lists what is."""
    assert list(ENGINES) == ["ebpf", "nftables", "memory"]
    assert isinstance(engine("memory").build(), MemoryDataplane)
    assert engine("memory").probe().answer is Answer.YES
    assert not engine("memory").filters
    assert engine("nftables").filters
    assert engine("ebpf").filters
    with pytest.raises(UsageError, match=r'^there is no dataplane "pf"; choose one of ebpf, nftables, memory$'):
        engine("pf")


@pytest.mark.kernel
def test_the_kernels_engine_can_be_built_and_probed() -> None:
    """With privileges, on a kernel with nftables and eBPF: then the faster one is taken."""
    for name in ("nftables", "ebpf"):
        assert engine(name).probe().answer is Answer.YES
        assert engine(name).build().name == name
    assert choose().name == "ebpf"


def test_the_first_engine_that_says_yes_is_taken_and_the_reason_tells_of_the_others() -> None:
    """A probe that could not tell has not said yes."""
    engines = [
        answering("a", Answer.NO, "install a"),
        answering("b", Answer.UNKNOWN),
        answering("c", Answer.YES),
        answering("d", Answer.YES),
    ]
    choice = choose("auto", {each.name: each for each in engines})

    assert choice.name == "c"
    assert choice.reason == "not a: it said no (install a); not b: it said could not tell; c: it said yes"


def test_where_nothing_can_run_every_reason_is_told() -> None:
    """With the remedy."""
    with pytest.raises(UsageError, match=r"^no dataplane can run here: not a: it said no \(install a\)$"):
        choose("auto", {"a": answering("a", Answer.NO, "install a")})


def test_an_engine_asked_for_by_name_is_not_probed() -> None:
    """Running it will say what is missing."""
    assert choose("memory").reason == "asked for by name"
    with pytest.raises(UsageError):
        choose("pf")


def test_listing_engines_imports_none() -> None:
    """A machine without an engine's library can still run the others, and names cost nothing."""
    code = "import sys, ringfence.dataplanes.registry; print(sorted(m for m in sys.modules if 'dataplanes.' in m))"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout

    assert printed.strip() == "['ringfence.dataplanes.base', 'ringfence.dataplanes.registry']"
