# SPDX-License-Identifier: Apache-2.0
"""One run: cluster, hammer, storm and judge put together, from the first pod to the outcome."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from random import Random

from ringfence.errors import RingfenceError
from tools.torture import hammer, worlds
from tools.torture.cluster import Cluster, complaints
from tools.torture.fence import FenceLost
from tools.torture.history import History
from tools.torture.judge import Judge
from tools.torture.messages import RENEWED, Add, Batch, Command, Drop, Dropped, Place, Renew, Report, Stop, Stopped
from tools.torture.misfortune import Fault, Misfortune
from tools.torture.report import Outcome
from tools.torture.storm import Storm

_STOP_SECONDS = 30.0

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is told. Intervals are means, in seconds; 0: never."""

    seconds: float
    seed: int
    nodes: int = 2
    pods: int = 5  # on each node
    rate: float = 800.0  # new connections a second
    kept: int = 40  # open connections
    kill_every: float = 4.0
    outage_every: float = 15.0
    tamper_every: float = 12.0
    dataplane: str = "nftables"
    switch_every: float = 0.0  # from one dataplane to the other
    fault: Fault = Fault.NONE


class HammerProcess:
    """The hammer in its process, and the threads that hear what it tells."""

    def __init__(self, options: Options) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._connection, theirs = spawn.Pipe()
        arguments = {"seed": options.seed, "rate": options.rate, "kept": options.kept}
        self._process = spawn.Process(target=hammer.run, args=(theirs,), kwargs=arguments, daemon=True)
        self._process.start()
        theirs.close()
        self._loop = asyncio.get_running_loop()
        self._dropped: dict[str, asyncio.Future[None]] = {}
        self.batches: queue.Queue[Batch] = queue.Queue()
        self.stopped = asyncio.Event()
        self._reader = threading.Thread(target=self._read, args=(self._connection,), daemon=True)
        self._reader.start()

    def add(self, place: Place) -> None:
        """Hammer a place."""
        self._tell(Add(place))

    async def drop(self, name: str) -> None:
        """Return when a place is left alone."""
        dropped = self._dropped[name] = self._loop.create_future()
        self._tell(Drop(name))
        await asyncio.wait_for(dropped, _STOP_SECONDS)

    async def renew(self) -> None:
        """Return when all open UDP flows are given up for others."""
        renewed = self._dropped[RENEWED] = self._loop.create_future()
        self._tell(Renew())
        await asyncio.wait_for(renewed, _STOP_SECONDS)

    async def stop(self) -> None:
        """Let it come to an end."""
        self._tell(Stop())
        await asyncio.wait_for(self.stopped.wait(), _STOP_SECONDS)

    def close(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.join()
        self._reader.join()
        self._connection.close()

    def _tell(self, command: Command) -> None:
        self._connection.send(command)

    def _read(self, connection: Connection) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                report: Report = connection.recv()
                match report:
                    case Batch():
                        self.batches.put(report)
                    case Dropped(name):
                        self._loop.call_soon_threadsafe(self._dropped[name].set_result, None)
                    case Stopped():
                        self._loop.call_soon_threadsafe(self.stopped.set)


class Bench:
    """The judge at work beside everything else, in a thread of its own."""

    def __init__(self, judge: Judge, batches: queue.Queue[Batch]) -> None:
        self._judge = judge
        self._batches = batches
        self.horizon = 0.0
        self.last: Batch | None = None
        self.lag = 0.0
        self.failure: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Judge everything that is left, and raise what went wrong."""
        self._stop.set()
        self._thread.join()
        if self.failure is not None:
            raise self.failure

    def _work(self) -> None:
        try:
            while not self._stop.is_set():
                self._take(0.1)
                self._judge.settle(self.horizon, at_most=500)
            while not self._batches.empty():
                self._take(0)
            self._judge.settle(float("inf"))
        except BaseException as error:  # noqa: BLE001 - carried over to the main thread
            self.failure = error

    def _take(self, seconds: float) -> None:
        with contextlib.suppress(queue.Empty):
            batch = self._batches.get(timeout=seconds) if seconds else self._batches.get_nowait()
            self.last = batch
            self.lag = max(self.lag, batch.lag)
            self._judge.take(batch.observations)


async def torture(options: Options, progress: Progress = lambda _: None) -> Outcome:
    """Run, and return what was counted."""
    random = Random(options.seed)
    with Cluster(options.nodes, options.dataplane) as cluster:
        async with cluster.client() as client:
            progress("API server and agents")
            await cluster.start_api(client)
            await cluster.register_nodes(client)
            for node in cluster.nodes.values():
                node.start()
            slots = worlds.make_slots(cluster.blocks(), options.pods)
            homes: dict[str, str | None] = {address: slot.node for slot in slots for address in slot.addresses}
            homes |= {address: None for outsider in worlds.OUTSIDERS for address in outsider.addresses}
            history = History(homes)
            hammering = HammerProcess(options)
            storm = Storm(cluster, client, history, hammering, random=random, slots=slots)
            misfortune = Misfortune(cluster, client, storm, hammering.renew, Random(options.seed + 1))
            judge = Judge(
                history,
                homes,
                misfortune.windows,
                storm.log,
                lambda: {node.name: node.rules.text() for node in cluster.nodes.values()},
            )
            bench = Bench(judge, hammering.batches)
            try:
                for outsider in cluster.outsiders():
                    hammering.add(outsider)
                began = time.monotonic()
                stalled = await _storm(options, storm, misfortune, bench, progress)
                seconds = time.monotonic() - began
                await hammering.stop()
                progress("judging what is left")
                await asyncio.to_thread(bench.finish)
            finally:
                hammering.close()
                storm.close()
                for node in cluster.nodes.values():
                    await node.gate.close()
            logs = cluster.last_words()
            errors = [line for name, lines in logs.items() if name.startswith("agent-") for line in complaints(lines)]
            last = bench.last
            return Outcome(
                seconds=seconds,
                seed=options.seed,
                nodes=options.nodes,
                tallies=judge.tallies,
                tampered_wrong=judge.tampered_wrong,
                changes=storm.changes,
                events=misfortune.events,
                commit_seconds=storm.commit_seconds,
                repair_seconds=misfortune.repair_seconds,
                late_repairs=misfortune.unrepaired,
                agents_ended=sum(node.died() for node in cluster.nodes.values()),
                open_connections=last.open_connections if last else 0,
                lag=bench.lag,
                unclear=last.unclear if last else 0,
                late=last.late if last else 0,
                discarded=last.discarded if last else 0,
                agent_errors=errors,
                stalled=stalled,
                evidence=judge.evidence,
                logs={**logs, "storm": [f"{at:.3f} {what}" for at, what in storm.log]},
            )


async def _storm(options: Options, storm: Storm, misfortune: Misfortune, bench: Bench, progress: Progress) -> str:
    """Change and break things until the time is up; returns what never came into force, if something did not."""
    try:
        progress("pods and policies")
        await storm.build()
        killing = asyncio.create_task(_killing(misfortune, options.kill_every))
        deadline = time.monotonic() + options.seconds
        due = dict(_timetable(options, time.monotonic()))
        rounds = 0
        try:
            while time.monotonic() < deadline:
                await _round(options, storm, misfortune, due)
                bench.horizon = time.monotonic() - 0.001
                await storm.prove()
                rounds += 1
                progress(
                    f"{deadline - time.monotonic():.0f} s left, {rounds} rounds, {sum(storm.changes.values())} changes"
                )
        finally:
            killing.cancel()
            await asyncio.gather(killing, return_exceptions=True)
        await storm.prove()
    except (FenceLost, TimeoutError, RingfenceError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


async def _killing(misfortune: Misfortune, every: float) -> None:
    if every:
        await misfortune.keep_killing(every)


def _timetable(options: Options, now: float) -> Iterator[tuple[str, float]]:
    often = {"outage": options.outage_every, "tamper": options.tamper_every, "switch": options.switch_every}
    for name, every in often.items():
        yield name, now + 0.6 * every if every else float("inf")
    yield "fault", now + 1.0 if options.fault is not Fault.NONE else float("inf")


async def _round(options: Options, storm: Storm, misfortune: Misfortune, due: dict[str, float]) -> None:
    now = time.monotonic()
    if now > due["tamper"]:
        due["tamper"] = now + options.tamper_every
        await misfortune.tamper()
    if now > due["switch"]:
        due["switch"] = now + options.switch_every
        await misfortune.switch_engine()
    if now > due["outage"]:
        due["outage"] = now + options.outage_every
        await misfortune.lose_api_server()
    if now > due["fault"]:
        due["fault"] = now + 1.0
        await misfortune.fault(options.fault)
    for _ in range(misfortune.random.choice((1, 2, 3, 5))):
        await storm.change()
