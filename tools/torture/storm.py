# SPDX-License-Identifier: Apache-2.0
"""Changes the cluster in a loop: policies, labels, pods. Each change is told to the history before it is sent.

After a few changes, a fence: then the history learns what every node enforces for certain. So at any moment a few
changes are on their way, not hundreds, and most verdicts have exactly one right answer.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from random import Random
from typing import Any, Protocol

from ringfence.kube.client import Client
from ringfence.lab import fabric
from ringfence.lab.topology import PodPlan
from tools.torture import worlds
from tools.torture.cluster import Cluster
from tools.torture.fence import Fences
from tools.torture.history import History, Stream
from tools.torture.messages import Place
from tools.torture.worlds import Object, Slot

_GATE_PATIENCE = 60.0
_JSON_PATCH = "application/json-patch+json"


class Target(Protocol):
    """The hammer, as far as pods that come and go concern it."""

    def add(self, place: Place) -> None:
        """Hammer a place."""
        ...

    async def drop(self, name: str) -> None:
        """Return when a place is left alone."""
        ...


class Storm:
    """The cluster's objects, and random changes to them."""

    def __init__(
        self, cluster: Cluster, client: Client, history: History, target: Target, *, random: Random, slots: list[Slot]
    ) -> None:
        self._cluster = cluster
        self._client = client
        self._history = history
        self._target = target
        self._random = random
        self._fences = Fences(cluster, client)
        self._slots = slots
        self._holders: dict[str, tuple[Object, PodPlan]] = {}  # by slot
        self._serial = 0
        self._unproven: set[Stream] = set(Stream)
        self._addresses = [a for slot in slots for a in slot.addresses]
        self._addresses += [a for outsider in worlds.OUTSIDERS for a in outsider.addresses]
        self.changes: Counter[str] = Counter()
        self.log: list[tuple[float, str]] = []
        self.commit_seconds: list[float] = []

    async def build(self) -> None:
        """Make the first objects, and prove them in force. The agents must have been started."""
        await self._fences.build()
        for name in worlds.NAMESPACES:
            body = worlds.namespace(self._random, name)
            self._send(Stream.NAMESPACES, name, body, f"create namespace {name}")
            await self._client.create("/api/v1/namespaces", body)
        for slot in self._slots:
            await self._fill(slot)
        for name in worlds.NAMESPACES:
            for _ in range(3):
                await self._add_policy(name)
        await self.prove()
        self.changes.clear()

    async def change(self) -> None:
        """Make one change."""
        kinds = ((self._edit_policy, 8), (self._add_or_delete_policy, 5), (self._label_pod, 5))
        rare = ((self._label_namespace, 2), (self._replace_pod, 3))
        works = [work for work, weight in (*kinds, *rare) for _ in range(weight)]
        await self._random.choice(works)()

    async def prove(self) -> None:
        """Wait until all changes so far are in force on every node."""
        version, streams = self._history.current, sorted(self._unproven)
        self._unproven.clear()
        began = time.monotonic()
        proofs = await self._fences.prove(streams)
        for proof in proofs:
            self._history.prove(proof.node, version, at=proof.at)
        self.commit_seconds.append(time.monotonic() - began)

    def note(self, what: str) -> None:
        """Write into the log of what was done when."""
        self.log.append((time.monotonic(), what))

    def close(self) -> None:
        """Close all sockets."""
        self._fences.close()

    def _send(self, stream: Stream, key: str, obj: Object | None, what: str) -> None:
        """Tell the history what a stream is about to have under a name; None: nothing."""
        objects = self._history.latest(stream)
        if obj is None:
            del objects[key]
        else:
            objects[key] = obj
        self.note(what)
        self._history.send(stream, objects, at=time.monotonic())
        self._unproven.add(stream)

    async def _edit_policy(self) -> None:
        key = self._some_policy()
        if key is None:
            return
        before = self._history.latest(Stream.POLICIES)[key]
        after = worlds.edit(self._random, dict(before), self._addresses)
        self._send(Stream.POLICIES, key, after, f"edit policy {key}")
        patch = [{"op": "replace", "path": "/spec", "value": after["spec"]}]
        await self._client.patch(_policy_path(key), patch, content_type=_JSON_PATCH)
        self.changes["policies edited"] += 1
        self._count_blocks(after)

    async def _add_or_delete_policy(self) -> None:
        space = self._random.choice(worlds.NAMESPACES)
        count = sum(key.startswith(f"{space}/") for key in self._history.latest(Stream.POLICIES))
        if count >= worlds.MOST_POLICIES or (count > 1 and self._random.random() < 0.45):
            await self._delete_policy()
        else:
            await self._add_policy(space)

    async def _add_policy(self, space: str) -> None:
        self._serial += 1
        name = f"p{self._serial}"
        body = worlds.policy(self._random, name=name, space=space, addresses=self._addresses)
        self._send(Stream.POLICIES, f"{space}/{name}", body, f"add policy {space}/{name}")
        await self._client.create(f"/apis/networking.k8s.io/v1/namespaces/{space}/networkpolicies", body)
        self.changes["policies added"] += 1
        self._count_blocks(body)

    async def _delete_policy(self) -> None:
        key = self._some_policy()
        if key is None:
            return
        self._send(Stream.POLICIES, key, None, f"delete policy {key}")
        await self._client.delete(_policy_path(key))
        self.changes["policies deleted"] += 1

    def _some_policy(self) -> str | None:
        found = sorted(self._history.latest(Stream.POLICIES))
        return self._random.choice(found) if found else None

    def _count_blocks(self, policy: Object) -> None:
        blocks = sum(
            "ipBlock" in peer
            for kind, peers in (("ingress", "from"), ("egress", "to"))
            for rule in policy["spec"].get(kind, ())
            for peer in rule.get(peers, ())
        )
        if blocks >= 300:
            self.changes["of them with 300 ipBlocks or more"] += 1

    async def _label_pod(self) -> None:
        slot = self._random.choice(self._slots)
        pod, plan = self._holders[slot.name]
        meta = {**pod["metadata"], "labels": worlds.pod_labels(self._random)}
        after = {**pod, "metadata": meta}
        key = _key(pod)
        self._send(Stream.PODS, key, after, f"label pod {key} {meta['labels']}")
        await self._client.patch(_pod_path(key), {"metadata": {"labels": meta["labels"]}})
        self._holders[slot.name] = after, plan
        self.changes["pods labelled"] += 1

    async def _label_namespace(self) -> None:
        name = self._random.choice(worlds.NAMESPACES)
        body = worlds.namespace(self._random, name)
        labels = body["metadata"]["labels"]
        self._send(Stream.NAMESPACES, name, body, f"label namespace {name} {labels}")
        await self._client.patch(f"/api/v1/namespaces/{name}", {"metadata": {"labels": labels}})
        self.changes["namespaces labelled"] += 1

    async def _replace_pod(self) -> None:
        """End a slot's pod, by deletion or by completion, and start another with its addresses."""
        slot = self._random.choice(self._slots)
        pod, plan = self._holders.pop(slot.name)
        key = _key(pod)
        await self._target.drop(slot.name)
        await asyncio.to_thread(fabric.remove_pod, self._cluster.topology, plan)
        completed = self._random.random() < 0.5
        if completed:
            after = {**pod, "status": {**pod["status"], "phase": "Succeeded"}}
            self._send(Stream.PODS, key, after, f"complete pod {key}")
            await self._client.patch(f"{_pod_path(key)}/status", {"status": {"phase": "Succeeded"}})
        else:
            await self._delete_pod(key)
        await self._fill(slot)
        if completed:
            await self._delete_pod(key)
        self.changes["pods replaced, address used again"] += 1

    async def _delete_pod(self, key: str) -> None:
        self._send(Stream.PODS, key, None, f"delete pod {key}")
        await self._client.delete(_pod_path(key), {"gracePeriodSeconds": 0})

    async def _fill(self, slot: Slot) -> None:
        """Start a pod in a slot, as a kubelet does: its traffic starts when the agent's gate opens."""
        self._serial += 1
        body = worlds.pod(self._random, slot, self._serial)
        space = body["metadata"]["namespace"]
        # Without an address it means nothing to policy yet: no change of the history's.
        pod = await self._client.create(f"/api/v1/namespaces/{space}/pods", body)
        key = _key(pod)
        status = {
            "phase": "Running",
            "podIP": slot.addresses[0],
            "podIPs": [{"ip": address} for address in slot.addresses],
        }
        pod = {**pod, "kind": "Pod", "status": status}
        self._send(Stream.PODS, key, pod, f"pod {key} gets {', '.join(slot.addresses)}; {pod['metadata']['labels']}")
        version = self._history.current.pods
        await self._client.patch(f"{_pod_path(key)}/status", {"status": status})
        plan = self._cluster.plan(pod, slot.addresses)
        await asyncio.to_thread(fabric.add_pod, self._cluster.topology, plan)
        await self._gate(slot, pod)
        for address in slot.addresses:
            self._history.born(address, version, at=time.monotonic())
        await asyncio.to_thread(fabric.open_pod, self._cluster.topology, plan)
        self._holders[slot.name] = pod, plan
        self._target.add(Place(slot.name, plan.netns, slot.addresses))

    async def _gate(self, slot: Slot, pod: Mapping[str, Any]) -> None:
        gate, meta = self._cluster.nodes[slot.node].gate, pod["metadata"]
        deadline = time.monotonic() + _GATE_PATIENCE
        while why := await gate.closed(meta["namespace"], meta["name"], meta["uid"], slot.addresses):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the gate of {_key(pod)} stayed closed for {_GATE_PATIENCE:.0f} s: {why}")


def _key(obj: Mapping[str, Any]) -> str:
    return f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"


def _pod_path(key: str) -> str:
    space, _, name = key.partition("/")
    return f"/api/v1/namespaces/{space}/pods/{name}"


def _policy_path(key: str) -> str:
    space, _, name = key.partition("/")
    return f"/apis/networking.k8s.io/v1/namespaces/{space}/networkpolicies/{name}"
