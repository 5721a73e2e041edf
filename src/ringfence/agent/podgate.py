# SPDX-License-Identifier: Apache-2.0
"""Decides whether a pod's traffic may start: "A pod is isolated before its first packet" (SEMANTICS 30).

It may, once one of these is proven:

1. Its policy is in force: the program in the kernel was compiled from a state that has this very pod with the
   addresses that it is about to use, and policies as new as the question (``evidence``).
2. No policy could select it: none of those that its namespace has now, whatever the agent has committed. It does not
   wait then, unless an address of it still means its last holder to the kernel.

Before that the answer is no, and why; nothing is guessed. What cannot be proven (the API server does not answer) stays
closed. Whoever would rather have pods start than be safe says ``--pod-start open``: the gate is open for everybody.
"""

from __future__ import annotations

import asyncio
import enum
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ringfence.agent.evidence import Evidence, still_anothers, why_older
from ringfence.agent.metrics import Metrics
from ringfence.agent.reconcile import Kind, State, why_not_in_force
from ringfence.agent.standing import Standing
from ringfence.apis.core import Pod
from ringfence.errors import ClusterError

FIRST_PAUSE, LAST_PAUSE = 0.25, 4.0
"""Seconds after which evidence that nothing matches is asked for again: longer each time."""
REMEMBERED = 500
"""Questions whose proofs are kept, for who asks again."""
BEHIND_SECONDS = 1.0
"""A watch that does not tell of a policy for so long after a list has it is followed anew."""


class Reader(Protocol):
    """Asks the API server how things are now; ``agent.policies`` does."""

    async def now(self, namespace: str) -> Evidence:
        """Return the policies of a namespace by a request that is sent after this call; raises ``ClusterError``."""
        ...

    async def knows(self, namespace: str, name: str, uid: str) -> bool:
        """Tell whether there is this very pod."""
        ...


class PodStart(enum.Enum):
    """Whether a pod's traffic waits for its policy."""

    CLOSED = "closed"
    OPEN = "open"


class Ground(enum.Enum):
    """Why a gate is open. The values are what the metric says."""

    IN_FORCE = "in_force"
    UNSELECTED = "unselected"
    SETTING = "setting"


@dataclass(frozen=True, slots=True)
class Question:
    """Who asks to start: a pod, and the addresses that it is about to use."""

    namespace: str
    name: str
    uid: str
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Opening:
    """The answer: open on some ground, or closed (``ground`` None) and why. ``in_force``: policy is, whatever it is."""

    ground: Ground | None
    in_force: bool
    reason: str = ""


class PodGate:
    """The gates of one node's pods. ``behind`` is called when the watch of a kind is proven to be late."""

    def __init__(
        self,
        standing: Standing,
        reader: Reader,
        *,
        metrics: Metrics,
        start: PodStart = PodStart.CLOSED,
        behind: Callable[[Kind], None] = lambda _: None,
    ) -> None:
        self._standing = standing
        self._reader = reader
        self._metrics = metrics
        self._start = start
        self._behind = behind
        self._asked: dict[Question, _Waiting] = {}

    async def ask(self, question: Question, seconds: float) -> Opening:
        """Wait until a pod may start, at most some seconds."""
        clock = asyncio.get_running_loop().time
        began = clock()
        waiting = self._waiting(question)
        if self._start is PodStart.OPEN:
            opening = Opening(Ground.SETTING, in_force=waiting.in_force())
        else:
            try:
                async with asyncio.timeout(seconds):
                    opening = await self._wait(waiting)
            except TimeoutError:
                opening = Opening(None, in_force=False, reason=self._explained(waiting.reason()))
        self._metrics.pod_starts.labels(ground=opening.ground.value if opening.ground else "refused").inc()
        if opening.ground is not None:
            self._metrics.pod_start_wait_seconds.observe(clock() - began)
        return opening

    def _waiting(self, question: Question) -> _Waiting:
        """Return what is known of a question, if it was asked before: what was proven once stays so."""
        waiting = self._asked.pop(question, None) or _Waiting(self._standing, question)
        waiting.fresh = False
        self._asked[question] = waiting
        if len(self._asked) > REMEMBERED:
            del self._asked[next(iter(self._asked))]
        return waiting

    def _explained(self, reason: str) -> str:
        return reason if self._standing.trouble is None else f"{reason}; {self._standing.trouble}"

    async def _wait(self, waiting: _Waiting) -> Opening:
        pause = FIRST_PAUSE
        if (opening := waiting.opening()) is not None:
            return opening
        while True:
            if not (waiting.proven and waiting.fresh):
                # who has no time to wait for the answer may ask again, and find what it proved
                await asyncio.shield(asyncio.create_task(waiting.look(self._reader)))
            try:
                async with asyncio.timeout(pause) as patience:
                    while (opening := waiting.opening()) is None:
                        if waiting.proven and waiting.known:
                            patience.reschedule(None)  # everything was told; only the commit is awaited
                        await self._standing.moved()
                    return opening
            except TimeoutError:
                if not patience.expired():
                    raise
            if pause >= BEHIND_SECONDS:
                await self._find_the_late(waiting)
            pause = min(2 * pause, LAST_PAUSE)

    async def _find_the_late(self, waiting: _Waiting) -> None:
        """Say which watches do not tell what the API server has, by now."""
        asked = waiting.asked
        if waiting.unheard:
            self._behind(Kind.POLICIES)
        if not waiting.known and await self._reader.knows(asked.namespace, asked.name, asked.uid):
            self._behind(Kind.PODS)


class _Waiting:
    """A pod before its gate, and what was proven for it so far."""

    def __init__(self, standing: Standing, question: Question) -> None:
        self._standing = standing
        self.asked = question
        self._evidence: Evidence | None = None
        self._trouble = "the API server has not said yet which policies there are"
        self.fresh = False
        """Whether the evidence is younger than the last time that this was asked."""
        self.proven = False
        """Whether policies that are in force were as new as the evidence: they only become newer."""

    async def look(self, reader: Reader) -> None:
        """Get evidence of now. Failing that, what there was stays: nothing is proven by silence."""
        if self._host_network():
            return
        try:
            self._evidence = await reader.now(self.asked.namespace)
        except ClusterError as error:
            self._trouble = f"the API server does not say which policies there are: {error}"
        else:
            self.fresh = True
            self._older()

    def opening(self) -> Opening | None:
        """Return the grounds on which the pod may start, None if there are none yet."""
        if self.in_force() and (self._host_network() or self._older() is None):
            return Opening(Ground.IN_FORCE, in_force=True)
        if self.fresh and not self._could_be_selected() and not self._inherited():
            return Opening(Ground.UNSELECTED, in_force=False)
        return None

    def reason(self) -> str:
        """Return why there are none."""
        asked = self.asked
        return (
            why_not_in_force(self._standing.committed, asked.namespace, asked.name, asked.uid, asked.addresses)
            or self._older()
            or "the agent is about to open"
        )

    @property
    def known(self) -> bool:
        """Whether the watch has told of the pod."""
        return self._pod() is not None

    @property
    def unheard(self) -> bool:
        """Whether the watch has not told yet of what the evidence has."""
        if self._evidence is None:
            return False
        return why_older(self._standing.held(self._standing.latest, self.asked.namespace), self._evidence) is not None

    def in_force(self) -> bool:
        """Tell whether the committed program has the pod."""
        asked = self.asked
        committed = self._standing.committed
        return why_not_in_force(committed, asked.namespace, asked.name, asked.uid, asked.addresses) is None

    def _older(self) -> str | None:
        if self.proven:
            return None
        if self._evidence is None:
            return self._trouble
        older = why_older(self._standing.held(self._standing.committed, self.asked.namespace), self._evidence)
        self.proven = older is None
        return older

    def _pod(self) -> Pod | None:
        return _pod(self._standing.latest, self.asked)

    def _host_network(self) -> bool:
        pod = self._pod()
        return pod is not None and bool(pod.spec.hostNetwork)

    def _could_be_selected(self) -> bool:
        pod = self._pod()
        return self._evidence is None or self._evidence.could_select(None if pod is None else pod.metadata.labels or {})

    def _inherited(self) -> bool:
        """Tell whether what is in force may take one of the pod's addresses for somebody else's."""
        committed = self._standing.committed
        if committed is None or committed.program is None or not self.asked.addresses:
            return True
        try:
            addresses = frozenset(map(ipaddress.ip_address, self.asked.addresses))
        except ValueError:
            return True
        return bool(still_anothers(committed.program, self.asked.uid, addresses))


def _pod(state: State | None, asked: Question) -> Pod | None:
    pod: Pod | None = state.objects.get(Kind.PODS, {}).get(asked.uid) if state is not None else None
    if pod is None or (pod.metadata.namespace, pod.metadata.name) != (asked.namespace, asked.name):
        return None
    return pod
