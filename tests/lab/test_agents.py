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


LISTENER = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("", 9999))
while True:
    print(server.recv(100).decode().strip(), flush=True)
"""
TALKER = "for n in $(seq 300); do echo {name} > /dev/udp/{address}/9999; done; sleep 1000"


def test_no_packet_of_a_pod_is_older_than_its_policy(lab: Lab) -> None:
    """Pods that send from their first instruction, made in one breath with the policy that forbids it: nothing of
    theirs arrives, while their twins that no policy selects are heard from the first packet on.
    """
    lab.must("create", "namespace", "firsts")
    lab.must("apply", "-n", "firsts", "-f", "-", stdin=pod("server", "python3", "-u", "-c", LISTENER, nodeName=NODE))
    lab.must("wait", "-n", "firsts", "pod/server", "--for=condition=Ready", "--timeout=20s")
    address = lab.get("pod", "server", "-n", "firsts")["status"]["podIP"]
    for number in range(3):
        spec = {"podSelector": {"matchLabels": {"mute": f"yes-{number}"}}, "policyTypes": ["Egress"]}
        items = [{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": f"mute-{number}"},
                  "spec": spec}]  # fmt: skip
        for name in (f"mute-{number}", f"free-{number}"):
            made = json.loads(pod(name, "bash", "-c", TALKER.format(name=name, address=address)))
            made["metadata"]["labels"] = {"mute": f"yes-{number}"} if name.startswith("mute") else {}
            items.append(made)
        lab.must("apply", "-n", "firsts", "-f", "-", stdin="\n---\n".join(map(json.dumps, items)))
        names = (f"pod/mute-{number}", f"pod/free-{number}")
        lab.must("wait", "-n", "firsts", *names, "--for=condition=Ready", "--timeout=20s")
        lab.until(lambda name=names[1]: name[4:] in heard(lab), f"a word of {names[1]}")  # type: ignore[misc]

    assert {name.partition("-")[0] for name in heard(lab)} == {"free"}
    lab.must("delete", "namespace", "firsts", "--wait=false")


def heard(lab: Lab) -> set[str]:
    """Return who was heard by the server."""
    return set(lab.must("logs", "server", "-n", "firsts").split())


def _command_line(pid: int) -> list[str]:
    shown = subprocess.run(["ps", "-ww", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=True)
    return shown.stdout.split()
