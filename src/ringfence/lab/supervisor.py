# SPDX-License-Identifier: Apache-2.0
"""Keeps a lab's processes running: the API server, the kubelets with their controllers, an agent per node.

It stands where systemd and the kubelet stand on a real node: it starts, restarts what dies, and stops. What the
processes do is theirs. It holds the lab's lock for as long as it lives, which is how everyone else knows that the lab
is up. It imports little, because ``lab up`` waits for it.

On a SIGHUP it reads the lab's configuration anew. Agents of another engine then take the place of those that run, node
after node, each only when what the one before enforces is alone in force.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from ringfence.errors import RingfenceError
from ringfence.lab.config import LabConfig, LabPaths, read_config

GRACE = 8.0  # seconds that processes have to stop before they are killed
SETTLE = 20.0  # seconds that an agent of another engine has to get what it enforces into force
_FIRST_DELAY, _LAST_DELAY = 0.1, 5.0  # seconds before a dead process is started again: doubled each time
_HEALTHY = 10.0  # seconds after which a process counts as having come up well
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(slots=True)
class Child:
    """One process that must run: its name, how it starts, and where its network namespace is."""

    name: str
    argv: tuple[str, ...]
    netns: str | None = None
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    delay: float = _FIRST_DELAY
    due: float = field(default=0.0)


def children_of(config: LabConfig, paths: LabPaths, netns_of: Callable[[str], str]) -> tuple[Child, ...]:
    """Return the processes of a lab, in the order in which they start; they are stopped in the reverse order."""
    here = ("--lab-dir", str(paths.directory))
    python = (sys.executable, "-m")
    children = [Child("apiserver", (*python, "ringfence.lab.apiserver", *here))]
    for node in config.nodes if config.network_policy != "none" else ():
        kubeconfig = paths.kubeconfig if config.simulated else paths.node_kubeconfig
        argv = (
            *(*python, "ringfence", "agent", "--kubeconfig", str(kubeconfig), "--node-name", node),
            *("--dataplane", config.network_policy, "--gate-socket", str(paths.gate_socket(node))),
            *("--pod-start", config.pod_start, *config.agent_options),
        )
        children.append(Child(f"agent-{node}", argv, netns=None if config.simulated else netns_of(node)))
    children.append(Child("nodes", (*python, "ringfence.lab.nodes", *here)))
    return tuple(children)


class Supervisor:
    """Runs the children until asked to stop. ``plan`` reads which there should be, ``settled`` tells of an agent that
    what it enforces is alone in force, ``open_up`` takes away what agents left that are there no more.
    """

    def __init__(
        self,
        paths: LabPaths,
        plan: Callable[[], tuple[Child, ...]],
        *,
        settled: Callable[[Child], bool],
        open_up: Callable[[Child], None],
    ) -> None:
        self._paths = paths
        self._plan = plan
        self._settled = settled
        self._open_up = open_up
        self._children = plan()
        self._successors: collections.deque[Child] = collections.deque()
        self._latest: Child | None = None  # of the successors, until it has settled
        self._latest_since = 0.0
        self._leavings: list[Child] = []  # of whom what they enforced is still to be taken away
        self._stopping = False
        self._changed = False

    def run(self) -> None:
        """Start everything, restart what dies, and return once a SIGTERM or SIGINT has stopped everything."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, self._change)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)  # only to interrupt the sleep below
        for child in self._children:
            self._start(child)
        while not self._stopping:
            if self._changed:
                self._changed = False
                self._replan()
            self._succeed(time.monotonic())
            self._take_away()
            self._restart_dead(time.monotonic())
            signal.sigtimedwait({signal.SIGUSR1}, 0.05 if self._latest is not None else 0.2)
        self._stop_all()

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _change(self, _number: int, _frame: FrameType | None) -> None:
        self._changed = True

    def _replan(self) -> None:
        """Compare what runs with what should: who is new is started at once, who is not wanted ends, the others wait
        for their turn.
        """
        try:
            wanted = self._plan()
        except RingfenceError as error:
            _say(f"what should run cannot be read; what runs stays: {error}")
            return
        running = {child.name: child for child in self._children}
        for name in sorted(running.keys() - {child.name for child in wanted}):
            self._end(running[name], GRACE)
            self._leavings.append(running[name])
        self._leavings = [child for child in self._leavings if child.name not in {each.name for each in wanted}]
        self._children = tuple(running.get(child.name, child) for child in wanted)
        others = (child for child in wanted if child.name in running and running[child.name].argv != child.argv)
        self._successors, self._latest = collections.deque(others), None

    def _succeed(self, now: float) -> None:
        """Let the next successor take its place, once the latest one has settled."""
        if self._latest is not None and not self._has_settled(self._latest):
            if now - self._latest_since > SETTLE:
                _say(f"{self._latest.name} does not get into force what it should; the others stay as they are")
                self._successors.clear()
                self._latest = None
            return
        self._latest = None
        if self._successors:
            self._latest = self._successors.popleft()
            place = [child.name for child in self._children].index(self._latest.name)
            self._end(self._children[place], GRACE)
            self._children = (*self._children[:place], self._latest, *self._children[place + 1 :])
            self._latest_since = now
            self._start(self._latest)

    def _has_settled(self, child: Child) -> bool:
        try:
            return self._settled(child)
        except (RingfenceError, OSError):  # cannot be told now; asked again
            return False

    def _take_away(self) -> None:
        self._leavings = [child for child in self._leavings if not self._opened_up(child)]

    def _opened_up(self, child: Child) -> bool:
        try:
            self._open_up(child)
        except (RingfenceError, OSError) as error:
            _say(f"what {child.name} enforced cannot be taken away; trying again: {error}")
            return False
        _say(f"{child.name} is not wanted any more; what it enforced is taken away")
        return True

    def _start(self, child: Child) -> None:
        with self._paths.log(child.name).open("ab") as log, _inside(child.netns):
            child.process = subprocess.Popen(
                child.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - this process has one thread
            )
        child.started = time.monotonic()

    def _restart_dead(self, now: float) -> None:
        for child in self._children:
            if child.process is not None and child.process.poll() is not None:
                child.delay = _FIRST_DELAY if now - child.started > _HEALTHY else min(child.delay * 2, _LAST_DELAY)
                child.due = now + child.delay
                _say(f"{child.name} ended with {child.process.returncode}; starting it again")
                child.process = None
            if child.process is None and now >= child.due:
                self._start(child)

    def _stop_all(self) -> None:
        deadline = time.monotonic() + GRACE
        for child in reversed(self._children):  # the kubelets first: they need the others to stop their pods well
            self._end(child, max(0.1, deadline - time.monotonic()))

    def _end(self, child: Child, patience: float) -> None:
        if child.process is None:
            return
        child.process.terminate()
        try:
            child.process.wait(patience)
        except subprocess.TimeoutExpired:
            _say(f"{child.name} did not stop in time; killing it")
            child.process.kill()
            child.process.wait()
        child.process = None


@contextlib.contextmanager
def _inside(netns: str | None) -> Iterator[None]:
    if netns is None:
        yield
        return
    from ringfence.host.netns import enter  # noqa: PLC0415 - a simulated lab has no namespaces

    with enter(netns):
        yield


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _die_with_parent() -> None:
    # A killed supervisor must not leave processes that nobody restarts or stops (prctl(2)).
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def lock(paths: LabPaths) -> int | None:
    """Take a lab's lock; return its descriptor, or None if the lab's supervisor holds it. Released at process end."""
    descriptor = os.open(paths.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def main() -> int:
    """``python -m ringfence.lab.supervisor DIR``."""
    paths = LabPaths(Path(sys.argv[1]))
    config = read_config(paths)
    held = lock(paths)
    if held is None:
        _say(f"lab {config.name} has a supervisor already")
        return 2
    os.ftruncate(held, 0)
    os.pwrite(held, f"{os.getpid()}\n".encode(), 0)

    def netns_of(node: str) -> str:
        from ringfence.lab.topology import plan_topology  # noqa: PLC0415 - a simulated lab has no namespaces

        return plan_topology(config.name, config.network_plugin, config.nodes).node(node).netns

    def plan() -> tuple[Child, ...]:
        return children_of(read_config(paths), paths, netns_of)

    def settled(agent: Child) -> bool:
        from ringfence.lab import engines  # noqa: PLC0415 - only where engines change

        wanted = agent.argv[agent.argv.index("--dataplane") + 1]
        return agent.netns is None or engines.in_force(agent.netns) == {wanted}

    def open_up(agent: Child) -> None:
        from ringfence.lab import engines  # noqa: PLC0415 - only where engines change

        if agent.netns is not None:
            engines.take_away(agent.netns)

    Supervisor(paths, plan, settled=settled, open_up=open_up).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
