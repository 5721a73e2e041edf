# SPDX-License-Identifier: Apache-2.0
"""The kubelets' client: as any other, but with few requests at a time.

Two hundred pods that start at once would open two hundred TLS connections, each of which costs both ends more than the
request it carries, and stays open afterwards. Waiting for a turn is quicker. Watches do not wait: they are for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from ringfence.kube.client import NO_PARAMS, Client
from ringfence.kube.config import ClusterAccess

AT_A_TIME = 12


class TurnTakingClient(Client):
    """A client whose single requests take turns."""

    def __init__(self, access: ClusterAccess) -> None:
        super().__init__(access)
        self._turns = asyncio.Semaphore(AT_A_TIME)

    async def get(self, path: str, params: Mapping[str, str] = NO_PARAMS) -> Any:
        """Return the decoded answer to a GET."""
        async with self._turns:
            return await super().get(path, params)

    async def create(self, path: str, obj: Mapping[str, Any], params: Mapping[str, str] = NO_PARAMS) -> Any:
        """POST an object to a collection and return what was stored."""
        async with self._turns:
            return await super().create(path, obj, params)

    async def delete(
        self, path: str, body: Mapping[str, Any] | None = None, params: Mapping[str, str] = NO_PARAMS
    ) -> Any:
        """DELETE an object."""
        async with self._turns:
            return await super().delete(path, body, params)

    async def patch(
        self,
        path: str,
        patch: Any,
        *,
        content_type: str = "application/merge-patch+json",
        params: Mapping[str, str] = NO_PARAMS,
    ) -> Any:
        """PATCH an object and return what was stored."""
        async with self._turns:
            return await super().patch(path, patch, content_type=content_type, params=params)
