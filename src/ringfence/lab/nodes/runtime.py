# SPDX-License-Identifier: Apache-2.0
"""Containers, as the kubelet asks for them: start, watch, exec, attach, signal. Values, and one seam.

``Runtime`` is the seam: ``runner_client`` has processes made, ``simulated`` plays them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ringfence.lab.nodes.wire import Frame


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: its exit code (128 + signal when killed), the signal or 0, and when (Unix time)."""

    code: int
    signal: int
    finished: float


@dataclass(frozen=True, slots=True)
class Process:
    """What a command of a container runs as: the same for the container's own program and for ``exec``."""

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str = ""
    tty: bool = False
    stdin: bool = False
    once: bool = False
    uid: int = 0
    gid: int = 0
    groups: Sequence[int] = ()
    add: Sequence[str] = ()
    drop: Sequence[str] = ()
    privileged: bool = False


@dataclass(frozen=True, slots=True)
class Container:
    """A container to start. ``id`` is unique in the lab; ``about`` is kept for whoever lists the containers later.

    ``log`` and the sources of ``volumes`` (source, target, read only) are relative to the lab's directory of pods;
    ``files`` (path to text) are written into its root.
    """

    id: str
    process: Process
    hostname: str
    log: str
    network: Path | None
    files: Mapping[str, str] = field(default_factory=dict)
    volumes: Sequence[tuple[str, str, bool]] = ()
    about: Mapping[str, Any] = field(default_factory=dict)


class NotStarted(Exception):
    """A program could not be started; ``str()`` says why, in a container runtime's words."""


class Session(Protocol):
    """A conversation with a running process."""

    async def receive(self) -> Frame | None:
        """Return the next STDOUT, STDERR or EXIT frame; None when the runtime has gone away."""

    async def send(self, kind: int, payload: bytes) -> None:
        """Send a STDIN, STDIN_END or RESIZE frame."""

    async def close(self) -> None:
        """End the conversation."""


class Running(Protocol):
    """A container that was started."""

    pid: int
    started: float

    async def wait(self) -> Exit:
        """Wait for its end; raises ``HostRefused`` if the runtime goes away before."""


class Runtime(Protocol):
    """What runs containers."""

    async def ensure(self) -> None:
        """Have what runs containers ready; raises ``RingfenceError``."""

    async def shutdown(self) -> None:
        """End every container."""

    async def start(self, container: Container) -> Running:
        """Start a container; raises ``NotStarted``."""

    async def adopt(self) -> list[Mapping[str, Any]]:
        """Return the containers that run or ran: ``id``, ``pid``, ``started``, ``exit`` (None or an ``Exit``'s fields),
        ``about``.
        """

    async def watch(self, container: str, pid: int, started: float) -> Running:
        """Watch a container that an earlier kubelet started; raises ``NotStarted`` if it is not there."""

    async def exec(self, container: str, process: Process) -> Session:
        """Run a further process in a container; raises ``NotStarted``."""

    async def attach(self, container: str, *, stdin: bool) -> Session:
        """Listen and speak to a container's first process; raises ``NotStarted``."""

    async def terminate(self, container: str, pid: int) -> bool:
        """Ask a container to end (SIGTERM); False if its program cannot hear that, so waiting for it is in vain."""

    async def kill(self, container: str) -> None:
        """End a container (SIGKILL)."""

    async def remove(self, container: str) -> None:
        """Forget a container that has ended."""
