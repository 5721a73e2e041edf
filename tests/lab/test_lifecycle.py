# SPDX-License-Identifier: Apache-2.0
"""A lab comes and goes without a trace in the machine's own network, whatever ends it."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path

import pytest

from tests.lab.labs import Lab, brought_up, ringfence, run

pytestmark = [pytest.mark.kernel, pytest.mark.lab]


def _machine() -> str:
    """Return everything of the machine's own network that a lab could touch."""
    looks = (
        ("ip", "-o", "link"),
        ("ip", "-o", "address"),
        ("ip", "route", "show", "table", "all"),
        ("ip", "-6", "route", "show", "table", "all"),
        ("ip", "rule"),
        ("nft", "list", "ruleset"),
        ("sysctl", "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"),
    )
    return "\n".join(run(*look).out for look in looks)


def _names(lab: str) -> list[str]:
    return [entry.name for entry in Path("/run/netns").glob(f"rf-{lab}-*")]


def test_a_lab_leaves_no_trace_in_the_machines_own_network() -> None:
    """Links, addresses, routes, rules and nftables are the same before, while and after."""
    before = _machine()
    for lab in brought_up("traceless", "--network-policy", "nftables"):
        lab.must("run", "web", "--image=agnhost:2.33", "--", "netexec")
        lab.must("wait", "--for=condition=Ready", "pod/web", "--timeout=20s")
        assert _machine() == before
        assert _names("traceless")

    assert _machine() == before
    assert not _names("traceless")
    assert not lab.directory.exists()


def test_two_labs_run_side_by_side() -> None:
    """The same addresses in both, and each kubectl sees its own."""
    for one in brought_up("side-a", "--network-policy", "nftables", "--node-count", "1"):
        for two in brought_up("side-b", "--network-policy", "nftables", "--node-count", "1"):
            one.must("create", "namespace", "only-here")
            assert one.kubectl("get", "namespace", "only-here").code == 0
            assert two.kubectl("get", "namespace", "only-here").code == 1
            again = ringfence("lab", "up", "--name", "side-a")
            assert again.code == 2
            assert 'lab "side-a" is running already' in again.err
            listed = ringfence("lab", "status", "--all", "-o", "json")
            assert {"side-a", "side-b"} <= {entry["name"] for entry in json.loads(listed.out)}


def test_the_next_up_clears_what_a_killed_lab_left() -> None:
    """Killed at once, supervisor and all: the next up of that name works, and down leaves nothing."""
    assert ringfence("lab", "up", "--name", "killed", "--network-policy", "nftables").code == 0
    lab = Lab("killed")
    lab.must("run", "web", "--image=agnhost:2.33", "--", "netexec")
    lab.must("wait", "--for=condition=Ready", "pod/web", "--timeout=20s")
    supervisor = int((lab.directory / "lock").read_text())
    children = run("ps", "-o", "pid=", "--ppid", str(supervisor)).out.split()
    for pid in [supervisor, *map(int, children)]:
        os.kill(pid, signal.SIGKILL)

    for fresh in brought_up("killed", "--network-policy", "nftables"):
        assert fresh.get("pods")["items"] == []
    assert not _names("killed")


def test_a_lab_survives_its_api_server(lab: Lab) -> None:
    """Killed, the API server comes back on the same port with all objects, and pods ran on meanwhile."""
    lab.must("create", "namespace", "survivor")
    lab.must("run", "web", "-n", "survivor", "--image=agnhost:2.33", "--", "netexec")
    lab.must("wait", "-n", "survivor", "--for=condition=Ready", "pod/web", "--timeout=20s")
    before = lab.get("pod", "web", "-n", "survivor")
    pid = run("pgrep", "-f", f"ringfence.lab.apiserver --lab-dir {lab.directory}$").out.split()[0]
    os.kill(int(pid), signal.SIGKILL)

    lab.until(lambda: lab.kubectl("get", "--raw", "/readyz").code == 0, "the API server")
    after = lab.get("pod", "web", "-n", "survivor")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["status"]["containerStatuses"][0]["restartCount"] == 0
    assert lab.exec("web", "/agnhost", "connect", "127.0.0.1:8080", "--timeout=2s", namespace="survivor").code == 0
    lab.must("delete", "namespace", "survivor")


def test_a_port_in_use_is_one_clear_sentence() -> None:
    """And nothing is left of the lab that could not be."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = ringfence("lab", "up", "--name", "noport", "--port", str(port))

    assert done.code == 2
    assert done.err.strip() == f"Error: port {port} on 127.0.0.1 is in use; name another with --port, or none"
    assert not _names("noport")


def test_credentials_merge_into_the_users_kubeconfig(lab: Lab, tmp_path: Path) -> None:
    """As az aks get-credentials: merged, current, refused where it would overwrite something else."""
    target = tmp_path / "config"
    target.write_text(
        "apiVersion: v1\nkind: Config\nclusters: [{name: other, cluster: {server: 'https://127.0.0.1:1'}}]\n"
        "users: []\ncontexts: []\ncurrent-context: other\n"
    )
    done = ringfence("lab", "get-credentials", "--name", lab.name, "--file", str(target))
    assert done.out == f'Merged "{lab.name}" as current context in {target}\n'
    seen = run("kubectl", "config", "get-clusters", env={"KUBECONFIG": str(target)}).out
    assert set(seen.split()) == {"NAME", "other", lab.name}
    assert run("kubectl", "get", "nodes", "-o", "name", env={"KUBECONFIG": str(target)}).out.count("node/") == 2

    target.write_text(target.read_text().replace("127.0.0.1", "localhost"))
    refused = ringfence("lab", "get-credentials", "--name", lab.name, "--file", str(target))
    assert refused.code == 2
    assert "--overwrite-existing" in refused.err


def test_a_command_runs_in_a_pod_and_on_a_node(lab: Lab) -> None:
    """Lab exec reaches both, with their exit codes; a wrong name is one sentence."""
    lab.must("run", "runs", "--image=agnhost:2.33", "--", "pause")
    lab.must("wait", "--for=condition=Ready", "pod/runs", "--timeout=20s")

    pod = ringfence("lab", "exec", "--name", lab.name, "default/runs", "--", "sh", "-c", "hostname; exit 3")
    assert (pod.code, pod.out, pod.err) == (3, "runs\n", "command terminated with exit code 3\n")
    node = ringfence("lab", "exec", "--name", lab.name, "--node", "aks-nodepool1-000000", "--", "nft", "list", "tables")
    assert "table inet ringfence" in node.out
    on_node = ("lab", "exec", "--name", lab.name, "--node", "aks-nodepool1-000000", "--")
    failed = ringfence(*on_node, "sh", "-c", "exit 2")
    assert (failed.code, failed.err) == (2, "command terminated with exit code 2\n")
    nothing = ringfence(*on_node, "no-such-command")
    assert (nothing.code, nothing.err) == (2, "Error: this machine has no command 'no-such-command'\n")
    missing = ringfence("lab", "exec", "--name", lab.name, "default/nobody", "--", "true")
    assert (missing.code, missing.err) == (2, 'Error: pods "nobody" not found\n')
    lab.must("delete", "pod", "runs", "--now")


def test_no_such_lab_says_how_to_make_it() -> None:
    """Status, exec, credentials and down of a lab that is not there."""
    for words in (["status"], ["get-credentials"], ["exec", "a/b", "true"]):
        done = ringfence("lab", words[0], "--name", "nowhere", *words[1:])
        assert done.code == 2
        assert 'there is no lab "nowhere"' in done.err
        assert "ringfence lab up --name nowhere" in done.err
