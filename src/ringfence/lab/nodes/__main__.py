# SPDX-License-Identifier: Apache-2.0
"""``python -m ringfence.lab.nodes --lab-dir DIR``: the kubelets of all nodes, the controllers, and kube-proxy's work.

One process of asyncio tasks, all of them clients of the API server. A task that fails is logged and started again. On
SIGTERM all pods are killed, quickly: the lab is being taken down.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from ringfence.errors import ClusterError
from ringfence.kube.client import Client
from ringfence.kube.config import ClusterAccess, load_access
from ringfence.lab.addressing import AddressPool
from ringfence.lab.config import LabConfig, LabPaths, read_config
from ringfence.lab.nodes.calls import TurnTakingClient
from ringfence.lab.nodes.events import Recorder
from ringfence.lab.nodes.gate import AgentGate, ChosenGate, Gate
from ringfence.lab.nodes.kubelet import Kubelet
from ringfence.lab.nodes.network import FabricNetwork, Network
from ringfence.lab.nodes.node import Node
from ringfence.lab.nodes.runner_client import RunnerRuntime
from ringfence.lab.nodes.runtime import Runtime
from ringfence.lab.nodes.streams import Streams, serve
from ringfence.lab.topology import NodePlan, Topology, plan_topology

_log = logging.getLogger("ringfence.lab.nodes")
_FIRST_PAUSE, _LAST_PAUSE, _LONG = 0.1, 5.0, 10.0
_VERSION_RETRY = 0.05

Work = Callable[[], Coroutine[Any, Any, None]]


async def keep(name: str, work: Work) -> None:
    """Run endless work, and run it again whenever it ends or fails."""
    pause = _FIRST_PAUSE
    loop = asyncio.get_running_loop()
    while True:
        began = loop.time()
        try:
            await work()
            _log.error("%s has ended; starting it again in %.1f s", name, pause)
        except Exception:  # noqa: BLE001 - a bug in one task must not end the lab
            _log.exception("%s has failed; starting it again in %.1f s", name, pause)
        await asyncio.sleep(pause)
        pause = _FIRST_PAUSE if loop.time() - began > _LONG else min(pause * 2, _LAST_PAUSE)


class Lab:
    """What the tasks of one lab share."""

    def __init__(self, paths: LabPaths, config: LabConfig, client: Client) -> None:
        self.paths = paths
        self.config = config
        self.client = client
        self.topology: Topology = plan_topology(config.name, config.network_plugin, config.nodes)
        self.runtime: Runtime
        if config.simulated:
            from ringfence.lab.nodes.simulated import SimulatedRuntime  # noqa: PLC0415 - only simulated labs pay for it

            self.runtime = SimulatedRuntime(paths)
        else:
            self.runtime = RunnerRuntime(paths.pods)

    def gate(self, node: str) -> Gate:
        """Return the gate of a node."""
        agent = AgentGate(self.paths.gate_socket(node), node, self.config.pod_start)
        return ChosenGate(agent, lambda: read_config(self.paths).network_policy != "none")

    def network(self, plan: NodePlan) -> Network:
        """Return the network of a node."""
        if isinstance(self.runtime, RunnerRuntime):
            return FabricNetwork(self.topology, plan.name)
        from ringfence.lab.nodes.simulated import SimulatedNetwork, SimulatedRuntime  # noqa: PLC0415 - as above

        assert isinstance(self.runtime, SimulatedRuntime)
        return SimulatedNetwork(self.runtime, str(plan.addresses[0]))

    def kubelets(self, version: str, events: Recorder) -> list[Kubelet]:
        """Return the kubelets of all nodes."""
        account = {"token": self.paths.token.read_text().strip(), "ca.crt": self.paths.ca_certificate.read_text()}
        return [
            Kubelet(
                Node(
                    name=plan.name,
                    addresses=tuple(str(address) for address in plan.addresses),
                    client=self.client,
                    runtime=self.runtime,
                    network=self.network(plan),
                    gate=self.gate(plan.name),
                    pool=AddressPool(self.config.network_plugin, plan.pod_networks),
                    events=events,
                    directory=self.paths.pods,
                    account=account,
                ),
                plan,
                version,
            )
            for plan in self.topology.nodes
        ]


async def api_version(client: Client) -> str:
    """Return the API server's version, as soon as it answers: a lab's processes start all at once."""
    while True:
        try:
            return str((await client.get("/version"))["gitVersion"])
        except ClusterError as error:
            if error.code:
                raise
            await asyncio.sleep(_VERSION_RETRY)


async def run(paths: LabPaths) -> None:
    """Run everything until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    config = read_config(paths)
    access = load_access(str(paths.kubeconfig))
    async with TurnTakingClient(access) as client:
        lab = Lab(paths, config, client)
        warming = asyncio.create_task(lab.runtime.ensure())
        events = Recorder(client)
        waiting = asyncio.create_task(api_version(client))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait((waiting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            kubelets = lab.kubelets(waiting.result(), events)
            await _run_all(lab, kubelets, events, stopping)
        warming.cancel()
        waiting.cancel()
        await asyncio.gather(warming, waiting, return_exceptions=True)
        await lab.runtime.shutdown()


async def _run_all(lab: Lab, kubelets: list[Kubelet], events: Recorder, stopping: asyncio.Task[Any]) -> None:
    streams = Streams([kubelet.workers for kubelet in kubelets], lab.paths.pods)
    works: dict[str, Work] = {
        "the door for logs and exec": lambda: serve(streams, lab.paths.kubelet_socket),
        "the event recorder": events.write,
        "the controllers": lambda: _control(lab.client.access),
        **{f"the kubelet of {kubelet.node.name}": kubelet.run for kubelet in kubelets},
    }
    if not lab.config.simulated:
        from ringfence.lab.nodes.service_proxy import follow  # noqa: PLC0415 - as above

        works["the Service proxy"] = lambda: follow(lab.client, lab.topology)
    gc.freeze()
    tasks = [asyncio.create_task(keep(name, work), name=name) for name, work in works.items()]
    await stopping
    # First the tasks, so that nothing is started again; then, by the caller, every container.
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for kubelet in kubelets:
        with contextlib.suppress(Exception):
            await kubelet.node.gate.close()


async def _control(access: ClusterAccess) -> None:
    from ringfence.lab.controllers import run_controllers  # noqa: PLC0415 - after the nodes have registered

    await run_controllers(access)


def main(words: list[str]) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m ringfence.lab.nodes")
    parser.add_argument("--lab-dir", type=Path, required=True, help="the lab's directory")
    options = parser.parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    asyncio.run(run(LabPaths(options.lab_dir)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
