# SPDX-License-Identifier: Apache-2.0
"""The corpus with real packets: every case as namespaces, with a kernel dataplane as the judge."""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

import pytest

from ringfence.cases.build import load
from ringfence.cases.run import run
from ringfence.host import netns
from ringfence.lab.casebed import ENGINES, Packets
from ringfence.lab.config import NetworkPlugin

pytestmark = pytest.mark.kernel

FILES = sorted(Path(__file__).parent.glob("*.yaml"))
BRIDGED = ("np-00-both-halves", "np-18-every-address-of-a-pod-counts", "np-34-protocols-do-not-mix", "np-mix-nodes")
AT_DEVICES = (
    "np-00-both-halves",
    "np-20-errors-about-allowed",
    "np-21-keep-keeps",
    "np-21-through-a-service",
    "np-22-hairpin",
    "np-31-clusterip-is-judged",
    "np-32-nodeport-cluster",
)


@pytest.mark.parametrize("name", sorted(ENGINES))
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_kernel_gives_the_expected_verdicts(path: Path, name: str) -> None:
    """What the packets meet is what the case expects, probe by probe, after every step; and nothing stays behind."""
    case = load(path)
    differences = run(case, Packets(name, settings=case.script.settings))

    assert differences == [], "\n".join(map(str, differences))
    assert not netns.listing(f"rf-case{os.getpid()}-")


@pytest.mark.parametrize("name", sorted(ENGINES))
@pytest.mark.parametrize("path", [p for p in FILES if p.stem.startswith(BRIDGED)], ids=lambda path: path.stem)
def test_bridged_pods_are_judged_alike(path: Path, name: str) -> None:
    """On a bridge, too, policy sees every packet between pods of one node."""
    plugins: tuple[NetworkPlugin, ...] = get_args(NetworkPlugin)
    assert "kubenet" in plugins

    case = load(path)

    assert run(case, Packets(name, "kubenet", case.script.settings)) == []


@pytest.mark.parametrize("plugin", get_args(NetworkPlugin))
@pytest.mark.parametrize("path", [p for p in FILES if p.stem.startswith(AT_DEVICES)], ids=lambda path: path.stem)
def test_programs_at_devices_alone_judge_alike(path: Path, plugin: NetworkPlugin) -> None:
    """Where nobody is at netfilter's hooks: Services, node ports, open connections and errors included."""
    case = load(path)

    assert run(case, Packets("ebpf", plugin, case.script.settings, ebpf_hook="tc-alone")) == []
