# SPDX-License-Identifier: Apache-2.0
"""Engines of a lab: chosen, changed while pods talk, taken away, and gone with the lab whatever ends it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from ringfence.dataplanes.ebpf.folders import FOLDER, folder_of
from ringfence.errors import HostRefused
from ringfence.host import netns
from ringfence.host.bpf.links import BpfLink
from ringfence.lab import engines
from ringfence.lab.config import LabConfig, NetworkPolicy, paths_of, read_config, write_config
from ringfence.lab.topology import PREFIX
from tests.lab.labs import Lab, brought_up, ringfence, run

pytestmark = [pytest.mark.kernel, pytest.mark.lab]

NODES = ("aks-nodepool1-000000", "aks-nodepool1-000001")


def update(lab: Lab, engine: str) -> str:
    """Change a lab's engine."""
    done = ringfence("lab", "update", "--name", lab.name, "--network-policy", engine)
    assert done.code == 0, done.err + lab.words()
    return done.out


def nodes(lab: Lab) -> list[str]:
    """Return the namespaces of a lab's nodes."""
    return netns.listing(f"{PREFIX}-{lab.name}-node")


def in_force(lab: Lab) -> list[set[str]]:
    """Return the engines that have something in force, for each node."""
    return [set(engines.in_force(namespace)) for namespace in nodes(lab)]


def pinned(lab: Lab) -> dict[Path, list[int]]:
    """Return the folders of pins of a lab's nodes, and the ids of the links in them."""
    folders = [folder_of(netns.path(namespace).stat().st_ino) for namespace in nodes(lab)]
    found: dict[Path, list[int]] = {folder: [] for folder in folders}
    for folder in folders:
        for pin in folder.glob("*/link_*"):
            with BpfLink.from_pin(pin) as link:
                found[folder].append(link.now().id)
    return found


def alive(links: Iterator[int]) -> list[int]:
    """Return which of the links are still there."""
    found = []
    for number in links:
        with contextlib.suppress(HostRefused), BpfLink.from_id(number):
            found.append(number)
    return found


class Talk:
    """One connection after the other from the client to the server, all of which should be made."""

    def __init__(self, lab: Lab, address: str) -> None:
        self._lab, self._address = lab, address
        self._stop = threading.Event()
        self.made, self.failed = 0, 0
        self._thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        loop = f"for n in $(seq 5); do /agnhost connect {self._address}:80 --timeout=2s || echo failed; done"
        while not self._stop.is_set():
            done = ringfence("lab", "exec", "--name", self._lab.name, "default/client", "--", "sh", "-c", loop)
            self.made += 5
            self.failed += done.out.count("failed") + (done.code != 0)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def test_an_engine_is_changed_and_taken_away_while_pods_talk() -> None:
    """There and back: what is allowed stays allowed at every moment, what is denied stays denied until ``none``; a
    policy that was stored meanwhile is enforced by the next engine; the lab leaves nothing behind.
    """
    with contextlib.contextmanager(brought_up)("changing", "--network-policy", "ebpf") as lab:
        for name in ("server", "client", "stranger"):
            lab.must("run", name, "--image=agnhost:2.33", f"--labels=app={name}", "--", "netexec", "--http-port=80")
        lab.must("wait", "--for=condition=Ready", "pod", "--all", "--timeout=20s")
        address = lab.get("pod", "server")["status"]["podIP"]
        lab.must("apply", "-f", "-", stdin=policy("allow-client", "client"))
        lab.until(lambda: not reaches(lab, "stranger", address), "the policy")
        assert in_force(lab) == [{"ebpf"}, {"ebpf"}]
        with Talk(lab, address) as talk:
            said = update(lab, "nftables")
            assert in_force(lab) == [{"nftables"}, {"nftables"}]
            assert not reaches(lab, "stranger", address)
            update(lab, "ebpf")
            assert not reaches(lab, "stranger", address)
        assert said == 'lab "changing": nftables enforces policies on 2 nodes\n'
        assert talk.made >= 10
        assert talk.failed == 0

        assert update(lab, "none") == 'lab "changing": no policy is enforced on 2 nodes\n'
        assert in_force(lab) == [set(), set()]
        assert reaches(lab, "stranger", address)
        lab.must("run", "late", "--image=agnhost:2.33", "--", "pause")
        lab.must("wait", "--for=condition=Ready", "pod/late", "--timeout=20s")
        lab.must("apply", "-f", "-", stdin=policy("allow-client", "stranger"))
        update(lab, "ebpf")
        lab.until(lambda: reaches(lab, "stranger", address) and not reaches(lab, "client", address), "the new policy")
        shown = json.loads(ringfence("lab", "status", "--name", lab.name, "-o", "json").out)
        assert shown["networkPolicy"] == "ebpf"
        held = pinned(lab)
        assert all(held.values())

    assert not [folder for folder in held if folder.exists()]
    assert not alive(number for numbers in held.values() for number in numbers)


def policy(name: str, app: str) -> str:
    """Return a policy that lets only pods of an app reach the server."""
    ingress = [{"from": [{"podSelector": {"matchLabels": {"app": app}}}]}]
    spec = {"podSelector": {"matchLabels": {"app": "server"}}, "ingress": ingress}
    meta = {"name": name}
    return json.dumps({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec})


def reaches(lab: Lab, pod: str, address: str) -> bool:
    """Tell whether a pod can connect to the server."""
    return lab.exec(pod, "/agnhost", "connect", f"{address}:80", "--timeout=500ms").code == 0


def test_what_a_killed_lab_has_in_the_kernel_is_found_and_taken_away() -> None:
    """Killed at once, supervisor, agents and all: ``down`` leaves no pin and no link."""
    assert ringfence("lab", "up", "--name", "slain", "--network-policy", "ebpf", "--node-count", "1").code == 0
    lab = Lab("slain")
    held = pinned(lab)
    assert all(held.values())
    supervisor = int((lab.directory / "lock").read_text())
    children = run("ps", "-o", "pid=", "--ppid", str(supervisor)).out.split()
    for pid in [supervisor, *map(int, children)]:
        os.kill(pid, signal.SIGKILL)
    assert alive(number for numbers in held.values() for number in numbers)

    assert ringfence("lab", "down", "--name", "slain").code == 0

    assert not [folder for folder in held if folder.exists()]
    assert not alive(number for numbers in held.values() for number in numbers)
    assert FOLDER.exists()


def test_what_cannot_be_changed_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lab that is not there, one that is simulated, and one that does not run."""
    monkeypatch.setenv("RINGFENCE_HOME", str(tmp_path))
    missing = ringfence("lab", "update", "--name", "nowhere", "--network-policy", "ebpf")
    assert (missing.code, missing.err) == (
        2,
        'Error: there is no lab "nowhere"; bring it up with: ringfence lab up --name nowhere\n',
    )
    refused: dict[NetworkPolicy, str] = {
        "memory": "cannot change between simulated and real",
        "nftables": "is not running",
    }
    for engine, complaint in refused.items():
        paths = paths_of(engine)
        paths.directory.mkdir(parents=True)
        write_config(paths, LabConfig(engine, 1, NODES, network_policy=engine))
        done = ringfence("lab", "update", "--name", engine, "--network-policy", "ebpf")
        assert done.code == 2
        assert done.err.startswith(f'Error: lab "{engine}" {complaint}; ')
        assert read_config(paths).network_policy == engine
