# SPDX-License-Identifier: Apache-2.0
"""The document's own command lines, typed at real kubectl and at the client pod's shell."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ringfence.lab.walkthrough import STEPS, walk
from tests.lab.labs import KUBECTL, Lab, brought_up, ringfence


@pytest.mark.kernel
@pytest.mark.lab
@pytest.mark.parametrize("plugin", ["azure", "kubenet"])
def test_the_walk_through_comes_out_as_the_document_says(plugin: str, tmp_path: Path) -> None:
    """Talk, policy, TIMEOUT, label, talk: with real packets, on both network plugins."""
    for lab in brought_up(f"walk-{plugin}", "--network-plugin", plugin, "--network-policy", "nftables"):
        _walk(lab, tmp_path)


@pytest.mark.lab
def test_a_simulated_lab_walks_the_same_way(tmp_path: Path) -> None:
    """The memory dataplane decides the same, with no namespace and no privilege."""
    for lab in brought_up("walk-memory", "--network-policy", "memory"):
        _walk(lab, tmp_path)


def _walk(lab: Lab, directory: Path) -> None:
    path = f"{KUBECTL.parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "KUBECONFIG": str(lab.kubeconfig), "TERM": "dumb"}
    environment["KUBECACHEDIR"] = str(directory / "cache")
    outcomes = list(walk(directory, environment))
    differing = [f"{o.line} printed {o.printed!r}, expected {o.step.expected}" for o in outcomes if not o.met]

    assert not differing, "\n".join([*differing, lab.words()])
    assert len(outcomes) == len(STEPS)


@pytest.mark.lab
def test_the_demo_says_without_root_that_it_is_simulated() -> None:
    """The label stands in the output, and the exit code follows the outcome."""
    done = ringfence("demo", "--name", "simulated", "--network-policy", "memory")

    assert done.code == 0, done.out + done.err
    assert "SIMULATED" in done.out
    assert f"{len(STEPS)} of {len(STEPS)} steps as expected" in done.out
