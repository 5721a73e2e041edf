# SPDX-License-Identifier: Apache-2.0
"""How long the command line, a lab, a pod and a policy take, as a user waits for them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from bench.rows import Rows, timed
from ringfence.host.netns import enter
from ringfence.lab.walkthrough import POLICY

PYTHON = sys.executable
KUBECTL = str(Path(PYTHON).with_name("kubectl"))
COMMANDS = ("", "agent", "demo", "doctor", "explain", "lab", "lab up", "verdicts")


def _ringfence(*words: str) -> str:
    return subprocess.run([PYTHON, "-m", "ringfence", *words], check=True, capture_output=True, text=True).stdout


@contextmanager
def _lab(name: str, *options: str) -> Iterator[Callable[..., str]]:
    _ringfence("lab", "up", "--name", name, *options)
    directory = Path(os.environ["RINGFENCE_HOME"]) / name
    environment = {**os.environ, "KUBECONFIG": str(directory / "kubeconfig"), "KUBECACHEDIR": str(directory / "cache")}

    def kubectl(*words: str, stdin: str = "") -> str:
        done = subprocess.run(
            [KUBECTL, *words], env=environment, input=stdin, check=True, capture_output=True, text=True
        )
        return done.stdout

    try:
        yield kubectl
    finally:
        _ringfence("lab", "down", "--name", name)


def bench_help(rows: Rows) -> None:
    """Each command's --help, against a bare interpreter."""
    script = str(Path(PYTHON).with_name("ringfence"))
    for words in COMMANDS:
        argv = [script, *words.split(), "--help"]
        figures, baseline = [], []
        for _ in range(9):
            figures.append(timed(lambda argv=argv: subprocess.run(argv, check=True, capture_output=True)))  # type: ignore[misc]
            baseline.append(timed(lambda: subprocess.run([PYTHON, "-c", "pass"], check=True, capture_output=True)))
        rows.row(f"ringfence {words} --help".replace("  ", " "), figures[1:], against=baseline[1:], aim="under 100 ms")


def bench_lab_up(rows: Rows) -> None:
    """Bring a lab with two nodes up, from the command's start to all nodes Ready; then weigh its processes."""
    for plugin in ("azure", "kubenet"):
        ups, downs, memory = [], [], []
        for _ in range(4):
            ups.append(timed(lambda: _ringfence("lab", "up", "--network-plugin", plugin)))  # noqa: B023 - called here
            memory.append(_memory_of(Path(os.environ["RINGFENCE_HOME"]) / "lab"))
            downs.append(timed(lambda: _ringfence("lab", "down")))
        rows.row(f"lab up, 2 nodes, {plugin}", ups[1:], unit="s", aim="under 1.5 s")
        rows.row(f"lab down, 2 nodes, {plugin}", downs[1:], unit="s")
        rows.row(f"memory of its processes, {plugin} (sum of proportional sets)", memory, unit="MB")


def _memory_of(directory: Path) -> float:
    total = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if str(directory).encode() in (entry / "cmdline").read_bytes():
                rollup = (entry / "smaps_rollup").read_text()
                total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        except OSError:
            continue
    return total / 1024


def bench_pods(rows: Rows) -> None:
    """200 pods of one Deployment on 5 nodes, from kubectl apply to all Available; and one pod alone."""
    manifest = json.dumps(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "many"},
            "spec": {
                "replicas": 200,
                "selector": {"matchLabels": {"app": "many"}},
                "template": {
                    "metadata": {"labels": {"app": "many"}},
                    "spec": {"containers": [{"name": "main", "image": "agnhost:2.33", "args": ["pause"]}]},
                },
            },
        }
    )
    with _lab("bench", "--node-count", "5") as kubectl:
        singles = []
        for index in range(5):
            start = time.perf_counter()
            kubectl("run", f"one-{index}", "--image=agnhost:2.33", "--", "pause")
            kubectl("wait", "--for=condition=Ready", f"pod/one-{index}", "--timeout=30s")
            singles.append(time.perf_counter() - start)
        rows.row("one pod: kubectl run, kubectl wait", singles)
        start = time.perf_counter()
        kubectl("apply", "-f", "-", stdin=manifest)
        kubectl("rollout", "status", "deployment/many", "--timeout=120s")
        rows.row("200 pods on 5 nodes, Available", [time.perf_counter() - start], unit="s", aim="under 20 s")


def bench_policy(rows: Rows) -> None:
    """From kubectl apply of a policy to the first dropped packet, and from kubectl delete to the first that passes."""
    with _lab("bench") as kubectl:
        kubectl("create", "namespace", "demo")
        for name, command in (("server", ("netexec",)), ("client", ("pause",))):
            kubectl("run", name, "-n", "demo", "--image=agnhost:2.33", f"--labels=app={name}x", "--", *command)
        kubectl("wait", "-n", "demo", "--for=condition=Ready", "pod", "--all", "--timeout=30s")
        kubectl("label", "pod", "server", "-n", "demo", "app=server", "--overwrite")
        pod = json.loads(kubectl("get", "pod", "server", "-n", "demo", "-o", "json"))
        source = _netns_of("client")
        applies, drops, baseline = [], [], []
        for _ in range(7):
            with _Stream(source, pod["status"]["podIP"]) as stream:
                start = time.perf_counter()
                kubectl("apply", "-f", "-", stdin=POLICY)
                applied = time.perf_counter()
                drops.append(stream.first_lost(start) - start)
                applies.append(applied - start)
            kubectl("delete", "networkpolicy", "demo-policy", "-n", "demo")
            baseline.append(timed(lambda: kubectl("version", "--client")))
        rows.row("kubectl apply of a policy, start to end", applies[1:], against=baseline[1:])
        rows.row("its start to the first dropped packet", drops[1:], aim="under 100 ms")
        rows.say("  (baseline: kubectl version --client, which talks to nobody)")


def _netns_of(pod: str) -> str:
    return next(
        entry.name for entry in Path("/run/netns").iterdir() if entry.name.startswith("rf-bench-") and pod in entry.name
    )


class _Stream:
    """A UDP packet each millisecond from a namespace to netexec's UDP port, each of which is answered if it passes."""

    def __init__(self, netns: str, address: str) -> None:
        import socket  # noqa: PLC0415 - used here only

        with enter(netns):
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect((address, 8081))
        self._socket.settimeout(0.05)
        self._sent: dict[int, float] = {}
        self._answered: set[int] = set()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send), threading.Thread(target=self._receive)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._socket.close()

    def _send(self) -> None:
        for number in range(10_000):  # bounded: ten seconds
            if self._stop.is_set():
                return
            self._sent[number] = time.perf_counter()
            self._socket.send(f"echo {number}".encode())
            time.sleep(0.001)

    def _receive(self) -> None:
        while not self._stop.is_set():
            try:
                self._answered.add(int(self._socket.recv(64).split()[-1]))
            except (TimeoutError, ValueError):
                continue

    def first_lost(self, since: float) -> float:
        """Return when the first packet of three lost in a row was sent."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            time.sleep(0.2)
            settled = time.perf_counter() - 0.1
            lost = [n for n, at in list(self._sent.items()) if since < at < settled and n not in self._answered]
            for number in lost:
                if {number + 1, number + 2} <= set(lost):
                    return self._sent[number]
        raise SystemExit("no packet was dropped within 5 s")
