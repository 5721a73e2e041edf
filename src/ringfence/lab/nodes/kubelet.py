# SPDX-License-Identifier: Apache-2.0
"""One node: says that it is there and how it is, and gives every pod that is bound to it a worker.

Everything it knows of pods comes from watching ``spec.nodeName``; what becomes of one pod is ``worker``'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ringfence.errors import ClusterError
from ringfence.kube.reflector import Listed, Removed, Upserted, reflect
from ringfence.lab.nodes import node_object
from ringfence.lab.nodes.containers import Adopted
from ringfence.lab.nodes.node import Node, PodId, pod_id
from ringfence.lab.nodes.runtime import Exit
from ringfence.lab.nodes.status import timestamp
from ringfence.lab.nodes.worker import Worker
from ringfence.lab.topology import NodePlan

Json = Mapping[str, Any]

_log = logging.getLogger("ringfence.lab.nodes")
_READY_POLL = 0.05  # while the agent is coming up, because a lab waits for it
_STEADY_POLL = 1.0
_HEARTBEAT = 60.0
_LEASE_SECONDS = 40
_LEASE_RENEWAL = 10.0
_RETRY = 1.0


class Kubelet:
    """The kubelet of one node; ``workers`` are its pods'."""

    def __init__(self, node: Node, plan: NodePlan, version: str) -> None:
        self.node = node
        self.workers: dict[PodId, Worker] = {}
        self._plan = plan
        self._version = version
        self._tasks: set[asyncio.Task[None]] = set()
        self._adopted: dict[str, dict[str, Adopted]] = {}

    async def run(self) -> None:
        """Register the node, and follow its pods for ever."""
        await self._register()
        await self._adopt()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._report_health())
            tasks.create_task(self._renew_lease())
            tasks.create_task(self._follow_pods())

    # -- the node

    async def _register(self) -> None:
        node = node_object.node(self._plan, self._version)
        while True:
            try:
                await self.node.client.create("/api/v1/nodes", node)
            except ClusterError as error:
                if error.code == 409:
                    patch = {"metadata": {"labels": node["metadata"]["labels"]}, "spec": node["spec"]}
                    await self.node.client.patch(f"/api/v1/nodes/{self.node.name}", patch)
                    return
                _log.warning("registering node %s: %s; trying again in %.0f s", self.node.name, error, _RETRY)
                await asyncio.sleep(_RETRY)
            else:
                return

    async def _report_health(self) -> None:
        """Write the node's status when the agent's readiness changes, and once a minute."""
        last, written, since = None, float("-inf"), timestamp(time.time())
        while True:
            problem = await self.node.gate.unready()
            now, passed = time.time(), time.monotonic()
            if problem != last or passed - written > _HEARTBEAT:
                if (not problem) != (not last) or last is None:
                    since = timestamp(now)
                status = node_object.status(self._plan, self._version, problem, now=timestamp(now), since=since)
                with contextlib.suppress(ClusterError):
                    await self.node.client.patch(f"/api/v1/nodes/{self.node.name}/status", {"status": status})
                    last, written = problem, passed
            await asyncio.sleep(_READY_POLL if problem else _STEADY_POLL)

    async def _renew_lease(self) -> None:
        collection = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        name = self.node.name
        while True:
            now = time.time()
            stamp = f"{timestamp(now)[:-1]}.{int(now % 1 * 1e6):06d}Z"
            spec = {"holderIdentity": name, "leaseDurationSeconds": _LEASE_SECONDS, "renewTime": stamp}
            try:
                await self.node.client.patch(f"{collection}/{name}", {"spec": spec})
            except ClusterError as error:
                if error.code == 404:
                    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}}
                    with contextlib.suppress(ClusterError):
                        await self.node.client.create(collection, {**lease, "spec": spec})
            await asyncio.sleep(_LEASE_RENEWAL)

    # -- its pods

    async def _adopt(self) -> None:
        """Find the containers that an earlier kubelet of this node started and that still are there."""
        for container in await self.node.runtime.adopt():
            about = container["about"]
            if about.get("node") != self.node.name:
                continue
            known = self._adopted.setdefault(about["uid"], {})
            exit_ = Exit(**container["exit"]) if container["exit"] else None
            found = Adopted(container["id"], container["pid"], container["started"], about["attempt"], exit_, about)
            before = known.get(about["container"])
            if before is None or before.attempt < found.attempt:
                known[about["container"]] = found

    async def _follow_pods(self) -> None:
        params = {"fieldSelector": f"spec.nodeName={self.node.name}"}
        async for change in reflect(self.node.client, "/api/v1/pods", msgspec.json.decode, params=params):
            match change:
                case Listed(items=items):
                    self._listed(list(items.values()))
                case Upserted(object=pod):
                    self._upserted(pod)
                case Removed(object=pod):
                    self._removed(pod_id(pod))

    def _listed(self, pods: Sequence[Json]) -> None:
        present = {pod_id(pod) for pod in pods}
        for gone in self.workers.keys() - present:
            self._removed(gone)
        for pod in pods:
            # Before any new pod asks for an address.
            held = [entry["ip"] for entry in pod.get("status", {}).get("podIPs") or ()]
            if not pod["spec"].get("hostNetwork") and pod_id(pod) not in self.workers:
                self.node.pool.hold([ipaddress.ip_address(address) for address in held])
        for pod in pods:
            self._upserted(pod)
        uids = {pod.uid for pod in present}
        for uid in self._adopted.keys() - uids:
            self._start_task(self._end_orphan(self._adopted[uid]))
        self._adopted.clear()

    def _upserted(self, pod: Json) -> None:
        name = pod_id(pod)
        worker = self.workers.get(name)
        if worker is not None:
            worker.update(pod)
            return
        for other in self.workers:
            if (other.namespace, other.name) == (name.namespace, name.name):
                self.workers[other].forget()  # deleted and made anew before we looked
        worker = Worker(self.node, pod, self._adopted.get(name.uid, {}))
        self.workers[name] = worker
        self._start_task(self._work(worker))

    def _removed(self, name: PodId) -> None:
        worker = self.workers.get(name)
        if worker is not None:
            worker.forget()

    async def _work(self, worker: Worker) -> None:
        try:
            await worker.run()
        finally:
            self.workers.pop(worker.id, None)

    def _start_task(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("node %s: %r", self.node.name, task.exception(), exc_info=task.exception())

    async def _end_orphan(self, containers: Mapping[str, Adopted]) -> None:
        """End the containers of a pod that was deleted while no kubelet looked."""
        for container in containers.values():
            about = container.about
            await self.node.runtime.kill(container.id)
            await self.node.runtime.remove(container.id)
            await self.node.network.remove(PodId(about["namespace"], about["name"], about["uid"]), about["addresses"])
