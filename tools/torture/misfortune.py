# SPDX-License-Identifier: Apache-2.0
"""What else befalls a cluster: agents are killed, the API server goes away, somebody tampers with our rules.

Tampering opens or closes ways that policy does not: until it is repaired, verdicts on that node are counted apart. The
time to repair is measured, and must be within the announced interval.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random

from ringfence.kube.client import Client
from tools.torture.cluster import DRIFT_SECONDS, Cluster, Node
from tools.torture.storm import Storm

REPAIR_SECONDS = DRIFT_SECONDS + 2.0  # the agent's look at its rules may come that late; writing them takes the rest
_GIVE_UP_SECONDS = 20.0
_REST_SECONDS = 0.5


class Fault(enum.Enum):
    """Faults that nobody announces: for the proof that the harness notices."""

    NONE = "none"
    FLUSH = "flush"
    RELOAD = "reload"
    BLACKHOLE = "blackhole"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Window:
    """A node's rules were not ours from ``began`` to ``ended``."""

    node: str
    began: float
    ended: float


@dataclass(slots=True)
class Misfortune:
    """Everything that befell, and when."""

    cluster: Cluster
    client: Client
    storm: Storm
    renew: Callable[[], Awaitable[None]]
    random: Random
    events: Counter[str] = field(default_factory=Counter)
    windows: list[Window] = field(default_factory=list)
    repair_seconds: list[float] = field(default_factory=list)
    unrepaired: int = 0

    async def keep_killing(self, mean_seconds: float) -> None:
        """Kill an agent at random moments and start it again a moment later, for ever."""
        while True:
            await asyncio.sleep(self.random.expovariate(1 / mean_seconds))
            node = self.random.choice(list(self.cluster.nodes.values()))
            async with node.steady:
                await self._kill(node, self.random.choice((0.0, 0.1, 0.5, 1.5)))

    async def _kill(self, node: Node, away: float) -> None:
        self.storm.note(f"kill the agent of {node.name}")
        node.kill()
        self.events["agents killed with SIGKILL"] += 1
        try:
            await asyncio.sleep(away)
        finally:
            node.start()

    async def switch_engine(self) -> None:
        """Kill an agent and start another one that uses another engine: it takes over what the last one left."""
        node = self.random.choice(list(self.cluster.nodes.values()))
        async with node.steady:
            node.switch()
            await self._kill(node, self.random.choice((0.0, 0.5)))
        self.events["engines changed"] += 1

    async def lose_api_server(self) -> None:
        """Stop the API server for a while; often an agent dies meanwhile, and another starts without it."""
        self.storm.note("the API server goes")
        self.cluster.stop_api(rudely=self.random.random() < 0.5)
        if self.random.random() < 0.6:
            node = self.random.choice(list(self.cluster.nodes.values()))
            async with node.steady:
                await self._kill(node, 0.1)
            self.events["of them while the API server was away"] += 1
        await asyncio.sleep(self.random.uniform(0.1, 1.5))
        await self.cluster.start_api(self.client)
        self.storm.note("the API server is back")
        self.events["API server lost and found"] += 1

    async def tamper(self) -> None:
        """Do something to the table of a node, and wait until it is undone.

        Half of the times the agent has come to rest before, and must count a repair in time. Otherwise it may be in the
        midst of writing, and what was done may be undone, or gone, without one: then the time that a repair may take is
        waited for, and the packets after it tell.
        """
        node = self.random.choice(list(self.cluster.nodes.values()))
        resting = self.random.random() < 0.5
        async with node.steady:
            before = await self._ready(node)
            if resting:
                await self._at_rest(node)
            mischief = node.rules.mischief(self.random)
            if before is None or mischief is None:
                return
            what, do = mischief
            began = time.monotonic()
            self.storm.note(f"tamper on {node.name}, {'at rest' if resting else 'at any time'}: {what}")
            do()
            repaired = await self._repaired(node, before, _GIVE_UP_SECONDS if resting else REPAIR_SECONDS)
            ended = time.monotonic()
            # Without our rules the kernel may have tracked nothing, and after it have met a server's answer first: to
            # it the server then opened the flow, and who sent first nothing tells. Such flows are of the window.
            await self.renew()
            self.windows.append(Window(node.name, began, time.monotonic()))
        self.events["our rules tampered with"] += 1
        if repaired:
            self.repair_seconds.append(ended - began)
        if resting and (not repaired or ended - began > REPAIR_SECONDS):
            self.unrepaired += 1
        self.storm.note(f"{'' if repaired else 'not '}repaired on {node.name} after {ended - began:.2f} s")

    async def _ready(self, node: Node) -> float | None:
        """Wait until the agent is ready; returns how many repairs it counts."""
        deadline = time.monotonic() + _GIVE_UP_SECONDS
        while await node.gate.unready():
            if time.monotonic() > deadline:
                return None
            await asyncio.sleep(0.02)
        return (await node.metrics()).get("ringfence_drift_repaired_total")

    async def _at_rest(self, node: Node) -> None:
        """Wait until nothing has been written for a while."""
        seen, since = node.rules.generation(), time.monotonic()
        while time.monotonic() - since < _REST_SECONDS:
            await asyncio.sleep(0.02)
            if (now := node.rules.generation()) != seen:
                seen, since = now, time.monotonic()

    async def _repaired(self, node: Node, before: float, patience: float) -> bool:
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if (await node.metrics()).get("ringfence_drift_repaired_total", 0.0) > before:
                return True
            await asyncio.sleep(0.01)
        return False

    async def fault(self, kind: Fault) -> None:
        """Commit a fault that nobody announces; of ``ALL`` one after the other."""
        node = self.random.choice(list(self.cluster.nodes.values()))
        if kind is Fault.ALL:
            kinds = (Fault.FLUSH, Fault.BLACKHOLE, Fault.RELOAD)
            kind = kinds[self.events["unannounced faults"] % len(kinds)]
        self.events["unannounced faults"] += 1
        self.storm.note(f"fault {kind.value} on {node.name}")
        match kind:
            case Fault.FLUSH:
                node.rules.flush()
            case Fault.RELOAD:
                await node.rules.reload()
            case Fault.BLACKHOLE:
                await self._lose_packets(0.5)
            case Fault.NONE | Fault.ALL:
                raise AssertionError(kind)

    async def _lose_packets(self, seconds: float) -> None:
        """Drop every packet on every node for a while, without touching what is ours."""
        for node in self.cluster.nodes.values():
            hook = "type filter hook forward priority -10; policy accept;"
            rule = "meta l4proto { tcp, udp } drop"
            node.nft.run(f"add table inet fault\nadd chain inet fault f {{ {hook} }}\nadd rule inet fault f {rule}")
        await asyncio.sleep(seconds)
        for node in self.cluster.nodes.values():
            node.nft.run("delete table inet fault")
