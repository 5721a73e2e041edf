# SPDX-License-Identifier: Apache-2.0
"""Labs for tests: brought up, used and taken down through the command line, as a user would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KUBECTL = Path(sys.executable).with_name("kubectl")


@dataclass(frozen=True)
class Done:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


def run(*argv: str, env: dict[str, str] | None = None, stdin: str = "", seconds: float = 60) -> Done:
    """Run a command to its end."""
    done = subprocess.run(
        argv,
        env={**os.environ, **(env or {})},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def ringfence(*words: str, stdin: str = "", env: dict[str, str] | None = None) -> Done:
    """Run ringfence itself."""
    return run(sys.executable, "-m", "ringfence", *words, stdin=stdin, env=env)


class Lab:
    """A lab that runs, and kubectl pointed at it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.directory = Path(os.environ["RINGFENCE_HOME"]) / name
        self.kubeconfig = self.directory / "kubeconfig"

    def kubectl(self, *words: str, stdin: str = "") -> Done:
        """Run real kubectl against the lab."""
        env = {"KUBECONFIG": str(self.kubeconfig), "KUBECACHEDIR": str(self.directory / "cache")}
        return run(str(KUBECTL), *words, env=env, stdin=stdin)

    def must(self, *words: str, stdin: str = "") -> str:
        """Run kubectl and return its output; fails the test if kubectl fails."""
        done = self.kubectl(*words, stdin=stdin)
        assert done.code == 0, f"kubectl {' '.join(words)}: {done.err}{done.out}"
        return done.out

    def get(self, *words: str) -> Any:
        """Return what ``kubectl get … -o json`` prints."""
        return json.loads(self.must("get", *words, "-o", "json"))

    def exec(self, pod: str, *argv: str, namespace: str = "default") -> Done:
        """Run a command in a pod through the API server."""
        return self.kubectl("exec", pod, "-n", namespace, "--", *argv)

    def until(self, condition: Callable[[], bool], what: str, *, seconds: float = 20) -> None:
        """Poll until a condition holds; fails the test with ``what`` did not come about."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not come about within {seconds} s; {self.words()}"
            time.sleep(0.05)

    def words(self) -> str:
        """Return the last lines of the lab's logs, for a failed test's message."""
        return "\n".join(f"{log.name}: {log.read_text()[-600:]}" for log in sorted(self.directory.glob("*.log")))


def brought_up(name: str, *options: str) -> Iterator[Lab]:
    """Bring a lab up, hand it out, take it down."""
    done = ringfence("lab", "up", "--name", name, *options)
    assert done.code == 0, done.err
    try:
        yield Lab(name)
    finally:
        assert ringfence("lab", "down", "--name", name).code == 0
