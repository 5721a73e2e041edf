# SPDX-License-Identifier: Apache-2.0
"""Under fire, at the size of a test; and the proof that the fire would be noticed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.kernel, pytest.mark.lab]

ROOT = Path(__file__).parents[2]


def torture(evidence: Path, *options: str) -> tuple[int, Any, str]:
    """Run the harness; returns its exit code, what it counted, and the evidence of what was wrong."""
    command = [sys.executable, "-m", "tools.torture", "-o", "json", "--evidence", str(evidence), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    counted = json.loads(done.stdout or "{}")
    sys.stdout.write(f"{done.stderr}\n{json.dumps(counted, indent=1)}\n")  # for the report of a failed test
    return done.returncode, counted, evidence.read_text() if evidence.exists() else ""


@pytest.mark.parametrize(("dataplane", "switch"), [("nftables", "4"), ("ebpf", "0")])
def test_no_verdict_is_wrong_while_everything_changes_and_dies(tmp_path: Path, dataplane: str, switch: str) -> None:
    """Policies, labels and pods change, agents are killed, the API server goes, our rules are tampered with, engines
    are exchanged: every packet gets a verdict that the states around it allow, and open connections that stay allowed
    live on.
    """
    often = ("--kill-every", "2.5", "--outage-every", "6", "--tamper-every", "5", "--switch-every", switch)
    which = ("--dataplane", dataplane, "--seconds", "15", "--seed", "20")
    code, counted, wrong = torture(tmp_path / "evidence.json", *which, *often)

    assert wrong == ""
    assert code == 0
    assert not any(counted["mustBeZero"].values())
    observed = counted["observations"]
    for kind in ("new_tcp", "new_udp", "kept_udp"):
        assert observed[kind]["passed"] > 200
        assert observed[kind]["dropped"] > 200
    assert observed["kept_tcp"]["passed"] > 200
    assert {"policies added", "policies edited", "policies deleted", "pods labelled"} <= counted["changes"].keys()
    assert counted["events"]["agents killed with SIGKILL"] > 0
    assert counted["events"]["API server lost and found"] > 0
    assert counted["events"]["our rules tampered with"] > 0
    assert ("engines changed" in counted["events"]) is (switch != "0")


@pytest.mark.parametrize(("dataplane", "told"), [("nftables", "table inet ringfence"), ("ebpf", "FlatProgram(")])
def test_the_harness_notices_faults(tmp_path: Path, dataplane: str, told: str) -> None:
    """Rules that are flushed, or deleted and loaded again, packets that get lost: all of it is counted, and evidence is
    kept.
    """
    evidence = tmp_path / "evidence.json"
    quiet = ("--dataplane", dataplane, "--kill-every", "0", "--outage-every", "0", "--tamper-every", "0")
    code, counted, _ = torture(evidence, "--seconds", "8", "--seed", "2", "--fault", "all", *quiet)

    assert code == 1
    zeros = counted["mustBeZero"]
    assert zeros["new connections that passed though no state allowed it"] > 0
    assert zeros["new connections that were dropped though every state allowed it"] > 0
    assert zeros["open connections that went on though they had to be cut"] > 0
    assert zeros["open connections that were lost though they stayed allowed"] > 0
    kept = json.loads(evidence.read_text())["evidence"]
    assert {"flow", "seen", "allowed", "spans", "policies", "done", "tables"} <= kept[0].keys()
    assert told in "".join(kept[0]["tables"].values())
