# SPDX-License-Identifier: Apache-2.0
"""A pod's network, as the kubelet asks for it: made closed, opened when the gate says so, closed, removed.

The work is ``lab.fabric``'s, done in threads; this says for which pod and where. Simulated labs have no network.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from ringfence.errors import RingfenceError
from ringfence.host import netns
from ringfence.lab import fabric
from ringfence.lab.topology import PodPlan, Topology, plan_pod


class PodName(Protocol):
    """What names a pod for ever."""

    @property
    def namespace(self) -> str:
        """Its namespace."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def uid(self) -> str:
        """Its UID: a pod of the same name that comes later is another."""


class Network(Protocol):
    """The network of one node's pods."""

    async def add(self, pod: PodName, addresses: Sequence[str]) -> None:
        """Make a pod's network, closed; what an earlier attempt left of it is replaced. Raises ``RingfenceError``."""

    async def open(self, pod: PodName, addresses: Sequence[str]) -> None:
        """Let packets flow. Raises ``RingfenceError``."""

    async def remove(self, pod: PodName, addresses: Sequence[str]) -> None:
        """Close and remove a pod's network; nothing left is nothing to do."""

    def path(self, pod: PodName, addresses: Sequence[str]) -> Path | None:
        """Return the file of the pod's network namespace, None where there are none."""

    def node_path(self) -> Path | None:
        """Return the file of the node's own network namespace, None where there are none."""

    async def tcp(self, host: str, port: int) -> None:
        """Connect from the node, and close: the kubelet's probes come from there. Raises ``OSError``."""

    async def http(self, host: str, port: int, request: bytes, *, secure: bool) -> bytes:
        """Send a request from the node and return the answer's first line; raises ``OSError``."""


async def _to_the_end(work: Callable[[Topology, PodPlan], None], topology: Topology, plan: PodPlan) -> None:
    """Run work in a thread. A thread cannot be cancelled: who is, waits for its end, so nothing undoes beside it."""
    running = asyncio.ensure_future(asyncio.to_thread(work, topology, plan))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        with contextlib.suppress(RingfenceError, OSError):
            await running
        raise


class FabricNetwork:
    """The network of one node of a lab with namespaces."""

    def __init__(self, topology: Topology, node: str) -> None:
        self._topology = topology
        self._node = topology.node(node)

    def _plan(self, pod: PodName, addresses: Sequence[str]) -> PodPlan:
        parsed = [ipaddress.ip_address(address) for address in addresses]
        return plan_pod(self._topology, self._node.name, pod.namespace, pod.name, pod.uid, parsed)

    async def add(self, pod: PodName, addresses: Sequence[str]) -> None:
        """Make a pod's network, closed; what an earlier attempt left of it is replaced."""
        plan = self._plan(pod, addresses)
        if netns.exists(plan.netns):
            await _to_the_end(fabric.remove_pod, self._topology, plan)
        await _to_the_end(fabric.add_pod, self._topology, plan)

    async def open(self, pod: PodName, addresses: Sequence[str]) -> None:
        """Let packets flow."""
        await _to_the_end(fabric.open_pod, self._topology, self._plan(pod, addresses))

    async def remove(self, pod: PodName, addresses: Sequence[str]) -> None:
        """Close and remove a pod's network."""
        plan = self._plan(pod, addresses)
        with contextlib.suppress(RingfenceError):  # half made, or half gone already
            await _to_the_end(fabric.close_pod, self._topology, plan)
        await _to_the_end(fabric.remove_pod, self._topology, plan)

    def path(self, pod: PodName, addresses: Sequence[str]) -> Path | None:
        """Return the file of the pod's network namespace."""
        return netns.path(self._plan(pod, addresses).netns)

    def node_path(self) -> Path | None:
        """Return the file of the node's own network namespace."""
        return netns.path(self._node.netns)

    async def tcp(self, host: str, port: int) -> None:
        """Connect from the node, and close."""
        (await self._connect(host, port)).close()

    async def http(self, host: str, port: int, request: bytes, *, secure: bool) -> bytes:
        """Send a request from the node and return the answer's first line."""
        sock = await self._connect(host, port)
        # A kubelet does not verify certificates either: "the kubelet skips certificate verification".
        tls = ssl._create_unverified_context() if secure else None  # noqa: S323, SLF001 - see above
        reader, writer = await asyncio.open_connection(sock=sock, ssl=tls, server_hostname=host if secure else None)
        try:
            writer.write(request)
            return await reader.readline()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _connect(self, host: str, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with netns.enter(self._node.netns):
            sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, (host, port))
        except BaseException:
            sock.close()
            raise
        return sock
