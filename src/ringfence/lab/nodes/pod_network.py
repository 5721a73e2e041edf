# SPDX-License-Identifier: Apache-2.0
"""A pod's network from its addresses to its end: made closed, opened by the agent's gate, given back.

The one place that opens a network, so the one place to look for how a packet could pass too early: ``open`` asks the
gate until it says yes, and there is no other way.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ringfence.errors import RingfenceError
from ringfence.lab.nodes.node import Node, PodId

_RETRY = 1.0


class Tell(Protocol):
    """Records an event about the pod."""

    def __call__(self, reason: str, message: str, *, warning: bool = False) -> None:
        """Record it."""


class PodNetwork:
    """The network of one pod. ``addresses`` is empty until there is one; ``host`` pods have their node's.

    What fails is told as an event and tried again.
    """

    def __init__(self, node: Node, pod: PodId, tell: Tell, *, host: bool) -> None:
        self.addresses: tuple[str, ...] = ()
        self.host = host
        self._given_back = False
        self._node = node
        self._pod = pod
        self._tell = tell

    async def set_up(self, known: Sequence[str], *, adopted: bool) -> None:
        """Make the network, closed; or take over that of a pod whose containers run, with its ``known`` addresses."""
        if self.host:
            self.addresses = self._node.addresses
        elif adopted and known:
            self.addresses = tuple(known)
        else:
            await self._take_back(known)  # half made by a kubelet that was killed
            while not self.addresses:
                await self._try()

    async def _try(self) -> None:
        addresses: tuple[str, ...] = ()
        try:
            addresses = tuple(str(address) for address in self._node.pool.allocate())
            await self._node.network.add(self._pod, addresses)
        except (RingfenceError, OSError) as error:
            await self._take_back(addresses)
            self._tell("FailedCreatePodSandBox", f"Failed to create pod sandbox: {error}", warning=True)
            await asyncio.sleep(_RETRY)
        except asyncio.CancelledError:
            await self._take_back(addresses)
            raise
        else:
            self.addresses = addresses

    async def open(self) -> None:
        """Wait until policy for the pod is in force, and open its network. Policy does not judge hostNetwork pods."""
        if self.host:
            return
        pod = self._pod
        while reason := await self._node.gate.closed(pod.namespace, pod.name, pod.uid, self.addresses):
            self._tell("FailedCreatePodSandBox", f"waiting for network policy: {reason}", warning=True)
        while True:
            try:
                await self._node.network.open(self._pod, self.addresses)
            except (RingfenceError, OSError) as error:
                self._tell("FailedCreatePodSandBox", f"Failed to open the pod's network: {error}", warning=True)
                await asyncio.sleep(_RETRY)
            else:
                return

    def path(self) -> Path | None:
        """Return the file of the network namespace that the pod's containers live in, None where there are none."""
        network = self._node.network
        return network.node_path() if self.host else network.path(self._pod, self.addresses)

    async def give_back(self) -> None:
        """Remove the network and release its addresses, once; ``addresses`` stay, for the pod's status."""
        if not self.host and not self._given_back:
            self._given_back = True
            await self._take_back(self.addresses)

    async def _take_back(self, addresses: Sequence[str]) -> None:
        if addresses:
            try:
                with contextlib.suppress(RingfenceError, OSError):
                    await self._node.network.remove(self._pod, addresses)
            finally:  # also for who is cancelled meanwhile: the removal is finished then
                self._node.pool.release([ipaddress.ip_address(address) for address in addresses])
