# SPDX-License-Identifier: Apache-2.0
"""What a lab passes on to its agents, and what it says of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.lab.labs import Lab, brought_up, ringfence
from tests.lab.test_pods import pod, process_of

pytestmark = [pytest.mark.kernel, pytest.mark.lab]

NODE = "aks-nodepool1-000000"


@pytest.fixture(scope="module")
def odd_lab() -> Iterator[Lab]:
    """Bring up a lab in which every choice is the other one."""
    options = ("--node-probes=deny", "--own-node-egress=allow", "--established-connections=keep", "--pod-start=open")
    yield from brought_up("odd", "--network-policy", "nftables", "--node-count", "1", *options)


def ready(name: str) -> tuple[int, dict[str, bool]]:
    """Return the exit code of ``lab status``, and whether each node is ready."""
    done = ringfence("lab", "status", "--name", name, "-o", "json")
    return done.code, {node["name"]: node["ready"] for node in json.loads(done.out)["nodes"]}


def test_settings_reach_the_agents(odd_lab: Lab) -> None:
    """Each agent of the lab runs with the choices that ``lab up`` was given."""
    words = _command_line(process_of(odd_lab, "ringfence", "agent", "--node-name", NODE))

    assert {"--node-probes=deny", "--own-node-egress=allow", "--established-connections=keep"} <= set(words)
    assert words[words.index("--pod-start") + 1] == "open"


def test_pods_that_start_open_do_not_wait_for_an_agent_that_hangs(odd_lab: Lab) -> None:
    """Its gate opens though nobody answers: that is what was asked for."""
    agent = process_of(odd_lab, "ringfence", "agent", "--node-name", NODE)
    os.kill(agent, signal.SIGSTOP)
    try:
        odd_lab.must("apply", "-f", "-", stdin=pod("hasty", "sleep", "1000"))
        odd_lab.must("wait", "pod/hasty", "--for=condition=Ready", "--timeout=20s")
    finally:
        os.kill(agent, signal.SIGCONT)


def test_node_whose_agent_hangs_is_not_ready(lab: Lab) -> None:
    """``lab status`` and the Node object say so within seconds, and that it is well again."""
    agent = process_of(lab, "ringfence", "agent", "--node-name", NODE)
    assert ready(lab.name)[0] == 0
    os.kill(agent, signal.SIGSTOP)
    try:
        began = time.monotonic()
        lab.until(lambda: not ready(lab.name)[1][NODE], "the news", seconds=15)
        assert time.monotonic() - began < 10
        assert ready(lab.name)[0] == 1
    finally:
        os.kill(agent, signal.SIGCONT)
    lab.until(lambda: ready(lab.name)[0] == 0, "the recovery")


def _command_line(pid: int) -> list[str]:
    shown = subprocess.run(["ps", "-ww", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=True)
    return shown.stdout.split()
