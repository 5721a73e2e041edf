# SPDX-License-Identifier: Apache-2.0
"""What a pod is called, what it needs of its node, and a bell: the small things that a pod's parts share."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringfence.kube.client import Client
from ringfence.lab.addressing import AddressPool
from ringfence.lab.nodes.events import Recorder
from ringfence.lab.nodes.gate import Gate
from ringfence.lab.nodes.network import Network
from ringfence.lab.nodes.runtime import Runtime

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Node:
    """What a pod needs of its node, and of the lab."""

    name: str
    addresses: tuple[str, ...]
    client: Client
    runtime: Runtime
    network: Network
    gate: Gate
    pool: AddressPool
    events: Recorder
    directory: Path
    """``LabPaths.pods``: logs and volumes."""
    account: Mapping[str, str]
    """The service account's files: ``token``, ``ca.crt``."""


@dataclass(frozen=True, slots=True)
class PodId:
    """What names a pod for ever."""

    namespace: str
    name: str
    uid: str

    @property
    def path(self) -> str:
        """The pod at the API server."""
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"

    @property
    def directory(self) -> str:
        """The pod's directory of logs and volumes."""
        return f"{self.namespace}_{self.name}_{self.uid}"


def pod_id(pod: Json) -> PodId:
    """Return a pod's names."""
    metadata = pod["metadata"]
    return PodId(metadata["namespace"], metadata["name"], metadata["uid"])


class Bell:
    """Wakes whoever waits, each time it rings."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Wake everybody who waits now."""
        self._rung.set()
        self._rung = asyncio.Event()

    async def wait(self) -> None:
        """Wait for the next ring."""
        await self._rung.wait()
