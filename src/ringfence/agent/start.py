# SPDX-License-Identifier: Apache-2.0
"""Puts an agent together and runs it until a signal: which engine, which sockets, which log.

Nothing is undone at the end, whatever the end is: the rules stay in the kernel while no agent runs, and the next one
takes them over.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from dataclasses import dataclass
from pathlib import Path

from ringfence.agent.enforcer import EngineFailed
from ringfence.agent.gate import Answers, serving_address, serving_socket
from ringfence.agent.logs import Log
from ringfence.agent.loop import Agent, Touched
from ringfence.agent.metrics import Metrics
from ringfence.agent.podgate import PodGate, PodStart
from ringfence.agent.policies import PolicyReader
from ringfence.agent.standing import Standing
from ringfence.dataplanes.base import Dataplane, Hooked
from ringfence.dataplanes.memory.apply import MemoryDataplane
from ringfence.dataplanes.registry import AUTO, ENGINES, Choice, Engine, builder, choose, require
from ringfence.dataplanes.verdicts import Reports
from ringfence.errors import HostLacks, HostRefused, ProgramRefused, RingfenceError, UsageError
from ringfence.kube.client import Client
from ringfence.kube.config import ClusterAccess
from ringfence.model.settings import DEFAULTS, Settings


@dataclass(frozen=True, slots=True)
class Options:
    """What an agent is told at its start."""

    node: str
    dataplane: str = AUTO
    ebpf_hook: str = AUTO
    gate_socket: Path | None = None
    metrics_address: str | None = None
    meaning: Settings = DEFAULTS
    pod_start: PodStart = PodStart.CLOSED
    drift_seconds: float = 5.0
    log_allows: bool = False


def choose_engine(name: str, ebpf_hook: str = AUTO) -> Choice:
    """Return the engine; ``auto`` takes only one that filters packets, for an agent that filters none protects nobody.

    Raises ``HostLacks`` if the named one cannot run here, ``UsageError`` if none can.
    """
    choice = choose(name, {each.name: each for each in ENGINES.values() if each.filters})
    if name != AUTO:
        require(name, ebpf_hook=ebpf_hook)
    return choice


async def serve(access: ClusterAccess, options: Options, log: Log) -> None:
    """Run an agent until SIGTERM or SIGINT; raises ``RingfenceError`` if it cannot start."""
    choice = choose_engine(options.dataplane, options.ebpf_hook)
    stop = _stop_on_signals()
    while True:
        try:
            await _serve(access, options, log, choice=choice, stop=stop)
        except EngineFailed as failed:
            choice = instead_of(choice, failed.why)
        else:
            return


def instead_of(failed: Choice, why: RingfenceError) -> Choice:
    """Return the next best engine where the chosen one, of several, cannot do its work; raises ``why`` if none can."""
    try:
        return choose(AUTO, {each.name: each for each in failed.rest}, (f"not {failed.name}: {why}",))
    except UsageError:
        raise why from None


async def _serve(access: ClusterAccess, options: Options, log: Log, *, choice: Choice, stop: asyncio.Event) -> None:
    dataplane = _built(choice, options.ebpf_hook)
    where = {"hook": dataplane.hook.name, "hook_reason": dataplane.hook.reason} if isinstance(dataplane, Hooked) else {}
    log.info("dataplane chosen", dataplane=choice.name, reason=choice.reason, **where)
    if not choice.engine.filters:
        log.warning("this dataplane filters no packets; it only answers what it would do", dataplane=choice.name)
    if isinstance(dataplane, Reports):
        dataplane.report_allows(options.log_allows)
    elif options.log_allows:
        log.warning("--log-allows has no effect: this dataplane tells of no verdict", dataplane=choice.name)
    standing, metrics = Standing(), Metrics(choice.name, options.node)
    judge = dataplane.judge if isinstance(dataplane, MemoryDataplane) else None
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(Client(access))
        agent = Agent(
            options.node,
            client,
            dataplane,
            standing=standing,
            metrics=metrics,
            log=log,
            settings=options.meaning,
            drift_seconds=options.drift_seconds,
            touched=_touched(choice, log, stack),
            predecessors=_predecessors(choice),
            fatal=_fatal(choice),
        )
        reader = PolicyReader(client)
        stack.push_async_callback(reader.close)
        pods = PodGate(standing, reader, metrics=metrics, start=options.pod_start, behind=agent.follow_anew)
        answers = Answers(standing, pods, metrics, judge)
        if options.gate_socket is not None:
            await stack.enter_async_context(serving_socket(answers.gate(), options.gate_socket))
        if options.metrics_address is not None:
            await stack.enter_async_context(serving_address(answers.health(), options.metrics_address))
        log.info("started", node=options.node, server=access.server)
        await agent.run(stop)
        log.info("stopped; what is enforced stays in force", node=options.node)


def _built(choice: Choice, ebpf_hook: str) -> Dataplane:
    try:
        return builder(choice.engine, ebpf_hook=ebpf_hook)()
    except (HostLacks, HostRefused) as error:
        raise EngineFailed(error) from error


def _predecessors(choice: Choice) -> tuple[Engine, ...]:
    """Return the engines that may have left something in force: whoever filters nothing takes no other's place."""
    others = (each for each in ENGINES.values() if each.filters and each.name != choice.name)
    return tuple(others) if choice.engine.filters else ()


def _fatal(choice: Choice) -> tuple[type[RingfenceError], ...]:
    """Return what an engine is given up for. With another one to take, anything that the machine refuses; without, what
    does not pass by itself.
    """
    return (HostLacks, HostRefused) if choice.rest else (HostLacks, ProgramRefused)


def _touched(choice: Choice, log: Log, stack: contextlib.ExitStack | contextlib.AsyncExitStack) -> Touched | None:
    """Return what tells of others' changes to our rules at once; without it they are found by looking."""
    if choice.engine.touched is None:
        return None
    try:
        touched = choice.engine.touched()
    except (HostLacks, HostRefused) as error:
        log.warning("others' changes to our rules are found only by looking", error=str(error))
        return None
    stack.callback(touched.close)
    return touched


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
