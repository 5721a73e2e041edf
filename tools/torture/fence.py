# SPDX-License-Identifier: Apache-2.0
"""Proves by packets that a node enforces everything that was sent before: nobody is asked, the kernel answers.

A fence is a further change on each stream, after those in question: the policies', of a port in a policy; the pods'
and the namespaces', of a label. On each node stands a pod to which only that change opens a way. Streams keep their
order, so when a datagram gets through, the node's agent has taken up all that was sent before.

It may still be writing: an engine may need several transactions for what it took up, and the fence's may be the first.
So a second fence follows, sent when the first was seen. An agent commits one program after the other; a datagram
through the second proves that the first's was committed whole, if the same agent had committed something when the
second was sent, and lived until the datagram.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from ringfence.host import netns
from ringfence.kube.client import Client
from ringfence.lab import fabric
from tools.torture.cluster import Cluster
from tools.torture.history import Stream
from tools.torture.worlds import OUTSIDERS, Object

SPACE, LABELLED = "fence", "fence-labelled"
GENERATIONS = 16  # labels and ports are used again after so many fences
PATIENCE = 45.0
_FIRST_PORT = {Stream.PODS: 30_000, Stream.NAMESPACES: 31_000, Stream.POLICIES: 32_000}
_LOOK = 0.004
_POLICIES = f"/apis/networking.k8s.io/v1/namespaces/{SPACE}/networkpolicies"
_JSON_PATCH = "application/json-patch+json"


@dataclass(frozen=True, slots=True)
class Proof:
    """A node was seen behind both fences: the time of the second datagram."""

    node: str
    at: float


class FenceLost(Exception):
    """A change was not in force after a long time."""


class Fences:
    """The pods, policies and sockets that fences need."""

    def __init__(self, cluster: Cluster, client: Client) -> None:
        self._cluster = cluster
        self._client = client
        self._generation = 0
        self._ports: dict[str, dict[Stream, socket.socket]] = {}  # by node: sockets bound to the awaited port
        self._addresses: dict[str, str] = {}  # the fence pod's, by node
        self._netns: dict[str, str] = {}
        self._knockers: dict[Stream, str] = {}

    async def build(self) -> None:
        """Make namespaces, pods and policies; the pods' way to be in force is not waited for."""
        for name in (SPACE, LABELLED):
            await self._client.create("/api/v1/namespaces", {"metadata": {"name": name, "labels": {"gen": "none"}}})
        for policy in _policies(OUTSIDERS[0].addresses[0]):
            await self._client.create(_POLICIES, policy)
        first, *_ = self._cluster.nodes
        for number, (node, blocks) in enumerate(self._cluster.blocks().items()):
            place = _host(blocks[0], 10)
            self._netns[node] = await self._pod(SPACE, f"fence-{number}", node, place, {"app": "fence"})
            self._addresses[node] = place
        blocks = self._cluster.blocks()[first]
        self._knockers = {
            Stream.PODS: await self._pod(SPACE, "knocker", first, _host(blocks[0], 11), {"gen": "none"}),
            Stream.NAMESPACES: await self._pod(LABELLED, "knocker", first, _host(blocks[0], 12), {}),
            Stream.POLICIES: self._cluster.outsiders()[0].netns,
        }

    async def _pod(self, space: str, name: str, node: str, address: str, labels: Mapping[str, str]) -> str:
        body: Object = {
            "metadata": {"name": name, "labels": dict(labels)},
            "spec": {"nodeName": node, "containers": [{"name": "main", "image": "agnhost:2.33"}]},
        }
        pod = await self._client.create(f"/api/v1/namespaces/{space}/pods", body)
        status = {"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}}
        await self._client.patch(f"/api/v1/namespaces/{space}/pods/{name}/status", status)
        plan = self._cluster.plan(pod, [address])
        fabric.add_pod(self._cluster.topology, plan)
        fabric.open_pod(self._cluster.topology, plan)
        return plan.netns

    async def prove(self, streams: Sequence[Stream]) -> list[Proof]:
        """Wait until every node was seen to enforce what was sent on these streams before the call."""
        wanted = set(self._cluster.nodes)
        proofs: dict[str, Proof] = {}
        await self._raise(streams)
        await asyncio.gather(*map(self._seen, wanted))
        while wanted:
            before = await self._standing(wanted)
            await self._raise(streams)
            names = sorted(wanted)
            for name, at in zip(names, await asyncio.gather(*map(self._seen, names)), strict=True):
                if before[name] == self._cluster.nodes[name].starts:
                    proofs[name] = Proof(name, at)
            wanted -= proofs.keys()
        return list(proofs.values())

    async def _standing(self, names: AbstractSet[str]) -> dict[str, int]:
        """Return which of its agent's lives each node is in; -1 while that has committed nothing."""
        ready = {name: not await self._cluster.nodes[name].gate.unready() for name in names}
        return {name: self._cluster.nodes[name].starts if ready[name] else -1 for name in names}

    async def _raise(self, streams: Sequence[Stream]) -> None:
        """Send a fence on each stream, and listen for what gets through it."""
        self._generation += 1
        number = self._generation % GENERATIONS
        for node, address in self._addresses.items():
            self._close(node)
            with netns.enter(self._netns[node]):
                self._ports[node] = {stream: _bound(address, _FIRST_PORT[stream] + number) for stream in streams}
        for stream in streams:
            match stream:
                case Stream.PODS:
                    await self._label(f"/api/v1/namespaces/{SPACE}/pods/knocker", number)
                case Stream.NAMESPACES:
                    await self._label(f"/api/v1/namespaces/{LABELLED}", number)
                case Stream.POLICIES:
                    path = "/spec/ingress/0/ports/0/port"
                    patch = [{"op": "replace", "path": path, "value": _FIRST_PORT[stream] + number}]
                    await self._client.patch(f"{_POLICIES}/ports", patch, content_type=_JSON_PATCH)

    async def _label(self, path: str, number: int) -> None:
        await self._client.patch(path, {"metadata": {"labels": {"gen": f"g{number}"}}})

    async def _seen(self, name: str) -> float:
        """Knock until a datagram of each stream got through to a node's pod; returns when the last one did."""
        waiting = dict(self._ports[name])
        deadline = time.monotonic() + PATIENCE
        knocking = {}
        for stream in waiting:
            with netns.enter(self._knockers[stream]):
                knocking[stream] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        at = 0.0
        try:
            while waiting:
                for stream, receiver in list(waiting.items()):
                    try:
                        knocking[stream].sendto(b"knock", receiver.getsockname())
                        receiver.recv(16)
                    except OSError:
                        continue
                    at = time.monotonic()
                    del waiting[stream]
                if waiting:
                    await asyncio.sleep(_LOOK)
                    if time.monotonic() > deadline:
                        lost = ", ".join(stream.name.lower() for stream in waiting)
                        raise FenceLost(f"{name} does not enforce what was sent on: {lost}; {PATIENCE:.0f} s")
        finally:
            for knocker in knocking.values():
                knocker.close()
        return at

    def _close(self, node: str) -> None:
        for each in self._ports.pop(node, {}).values():
            each.close()

    def close(self) -> None:
        """Close all sockets."""
        for node in list(self._ports):
            self._close(node)


def _bound(address: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    made.bind((address, port))
    return made


def _host(block: str, number: int) -> str:
    head, _, _ = block.rpartition(".")
    return f"{head}.{number}"


def _policies(outsider: str) -> list[Object]:
    """Return the policies of the fence pods: one with the port that changes, one that a label opens ports of."""

    def policy(name: str, ingress: list[Object]) -> Object:
        spec = {"podSelector": {"matchLabels": {"app": "fence"}}, "ingress": ingress}
        return {"metadata": {"name": name, "namespace": SPACE}, "spec": spec}

    def udp(stream: Stream, number: int) -> list[Object]:
        return [{"protocol": "UDP", "port": _FIRST_PORT[stream] + number}]

    labelled = []
    for number in range(GENERATIONS):
        selector = {"matchLabels": {"gen": f"g{number}"}}
        labelled += [
            {"from": [{"podSelector": selector}], "ports": udp(Stream.PODS, number)},
            {"from": [{"namespaceSelector": selector}], "ports": udp(Stream.NAMESPACES, number)},
        ]
    ports = [{"from": [{"ipBlock": {"cidr": f"{outsider}/32"}}], "ports": udp(Stream.POLICIES, GENERATIONS)}]
    return [policy("ports", ports), policy("labels", labelled)]
