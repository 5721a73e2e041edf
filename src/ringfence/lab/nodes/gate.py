# SPDX-License-Identifier: Apache-2.0
"""The agent's gate: whether a pod's traffic may start on its node. The agent is asked; nothing is guessed.

In doubt, closed: no answer is a no. Where pods are to start open (``lab up --pod-start open``), no answer is a yes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import aiohttp
import msgspec

from ringfence.lab.config import PodStart

_PATIENCE = 3.0  # seconds that the agent may take for one answer; asked again until it says yes
_READY_PATIENCE = 1.0  # seconds after which an agent that does not say that it is ready is not


class _Answer(msgspec.Struct):
    open: bool = False
    reason: str = ""


class Gate(Protocol):
    """What lets a pod's traffic start."""

    async def closed(self, namespace: str, name: str, uid: str, addresses: tuple[str, ...]) -> str:
        """Wait a while for the pod's policy; return why it is still closed, or nothing once it is open."""

    async def unready(self) -> str:
        """Return why the node's agent is not ready, or nothing."""

    async def close(self) -> None:
        """Release what asking needs."""


class OpenGate:
    """The gate of a lab without policy engine: always open."""

    async def closed(self, namespace: str, name: str, uid: str, addresses: tuple[str, ...]) -> str:  # noqa: ARG002 - the protocol's
        """Return nothing: there is no policy to wait for."""
        return ""

    async def unready(self) -> str:
        """Return nothing: there is no agent to wait for."""
        return ""

    async def close(self) -> None:
        """Do nothing."""


class AgentGate:
    """The gate that a node's agent keeps."""

    def __init__(self, path: Path, node: str, start: PodStart = "closed") -> None:
        self._path = path
        self._node = node
        self._start = start
        self._session: aiohttp.ClientSession | None = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.UnixConnector(str(self._path), limit=0)
            timeout = aiohttp.ClientTimeout(total=_PATIENCE + 2)
            self._session = aiohttp.ClientSession("http://agent", connector=connector, timeout=timeout)
        return self._session

    async def closed(self, namespace: str, name: str, uid: str, addresses: tuple[str, ...]) -> str:
        """Wait a while for the pod's policy; return why it is still closed, or nothing once it is open."""
        params = [("uid", uid), ("timeout", f"{_PATIENCE:g}"), *(("address", address) for address in addresses)]
        try:
            async with self._open().get(f"/v1/pods/{namespace}/{name}", params=params) as response:
                answer = msgspec.json.decode(await response.read(), type=_Answer)
                opened = response.status == 200 and answer.open
                return "" if opened else answer.reason or f"the agent answered {response.status}"
        except (aiohttp.ClientError, TimeoutError, OSError, msgspec.DecodeError):
            if self._start == "open":
                return ""
            await asyncio.sleep(0.2)  # it is being started; asking a missing socket again costs nothing
            return f"the policy agent of node {self._node} does not answer"

    async def unready(self) -> str:
        """Return why the node's agent is not ready, or nothing."""
        try:
            async with asyncio.timeout(_READY_PATIENCE), self._open().get("/readyz") as response:
                text = (await response.text()).strip()
                return "" if response.status == 200 else text or f"it answered {response.status}"
        except (aiohttp.ClientError, TimeoutError, OSError):
            return "it does not answer"

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


class ChosenGate:
    """The gate that a node has now: ``lab update`` may give the lab a policy engine, and take it away."""

    def __init__(self, agent: AgentGate, enforced: Callable[[], bool]) -> None:
        self._agent = agent
        self._open = OpenGate()
        self._enforced = enforced

    def _now(self) -> Gate:
        return self._agent if self._enforced() else self._open

    async def closed(self, namespace: str, name: str, uid: str, addresses: tuple[str, ...]) -> str:
        """Wait a while for the pod's policy; return why it is still closed, or nothing once it is open."""
        return await self._now().closed(namespace, name, uid, addresses)

    async def unready(self) -> str:
        """Return why the node's agent is not ready, or nothing."""
        return await self._now().unready()

    async def close(self) -> None:
        """Close the connections."""
        await self._agent.close()
