# SPDX-License-Identifier: Apache-2.0
"""agnhost as a pod finds it: the built program, run as a process of its own."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from ringfence.host import netns


@dataclass(frozen=True)
class Done:
    """What a run printed, and its exit code."""

    code: int
    out: str
    err: str


class Agnhost:
    """Runs the program, in a network namespace if there is a name for one."""

    def __init__(self, program: Path, namespace: str = "") -> None:
        self.program = program
        self.namespace = namespace

    def _inside(self) -> AbstractContextManager[None]:
        return netns.enter(self.namespace) if self.namespace else contextlib.nullcontext()

    def run(self, *words: str) -> Done:
        """Run a command line to its end."""
        with self._inside():
            process = subprocess.Popen(
                [str(self.program), *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        out, err = process.communicate(timeout=30)
        return Done(process.returncode, out, err)

    @contextlib.contextmanager
    def serving(
        self, *words: str, said: str, env: Mapping[str, str] | None = None
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run a server until the block ends; begins when its log has said something."""
        with self._inside():
            process = subprocess.Popen(
                [str(self.program), *words], stderr=subprocess.PIPE, env={**os.environ, **(env or {})}
            )
        try:
            _wait_for(process, said)
            yield process
        finally:
            process.kill()
            process.wait()
            assert process.stderr is not None
            process.stderr.close()


def _wait_for(process: subprocess.Popen[bytes], said: str) -> None:
    assert process.stderr is not None
    log, deadline = b"", time.monotonic() + 10
    while said.encode() not in log:
        assert time.monotonic() < deadline, log
        if select.select([process.stderr], [], [], 0.1)[0]:
            part = os.read(process.stderr.fileno(), 4096)
            assert part, log
            log += part
