# SPDX-License-Identifier: Apache-2.0
"""kube-proxy's loop for all nodes: follows Services and EndpointSlices, and has every node's table follow them.

What a table says is ``lab.proxy``'s. Both collections are known before the first table is written, and what changes
together is written together.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from ringfence.errors import RingfenceError
from ringfence.kube.client import Client
from ringfence.kube.reflector import Listed, Removed, Upserted, reflect
from ringfence.lab.proxy import ServiceProxy
from ringfence.lab.topology import Topology

_log = logging.getLogger("ringfence.lab.nodes")
_PATHS = {"services": "/api/v1/services", "slices": "/apis/discovery.k8s.io/v1/endpointslices"}
_GATHER = 0.02  # seconds in which changes are put together: a Service and its slices come one after the other
_RETRY = 1.0

Objects = dict[str, Mapping[str, Any]]


async def follow(client: Client, topology: Topology) -> None:
    """Keep the nodes' tables as the API server's Services say, for ever."""
    proxies = [ServiceProxy(node.netns, node.name) for node in topology.nodes]
    try:
        await _Follower(client, proxies).run()
    finally:
        for proxy in proxies:
            proxy.close()


class _Follower:
    def __init__(self, client: Client, proxies: list[ServiceProxy]) -> None:
        self._client = client
        self._proxies = proxies
        self._known: dict[str, Objects] = {}
        self._changed = asyncio.Event()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for kind, path in _PATHS.items():
                tasks.create_task(self._reflect(kind, path))
            tasks.create_task(self._write())

    async def _reflect(self, kind: str, path: str) -> None:
        async for change in reflect(self._client, path, msgspec.json.decode):
            match change:
                case Listed(items=items):
                    self._known[kind] = dict(items)
                case Upserted(key=key, object=value):
                    self._known[kind][key] = value
                case Removed(key=key):
                    self._known[kind].pop(key, None)
            self._changed.set()

    async def _write(self) -> None:
        while True:
            await self._changed.wait()
            await asyncio.sleep(_GATHER)
            self._changed.clear()
            if len(self._known) < len(_PATHS):
                continue
            services, slices = (list(self._known[kind].values()) for kind in _PATHS)
            try:
                for proxy in self._proxies:
                    await asyncio.to_thread(proxy.apply, services, slices)
            except RingfenceError as error:
                _log.error("Services: %s; trying again in %.0f s", error, _RETRY)
                self._changed.set()
                await asyncio.sleep(_RETRY)
