# SPDX-License-Identifier: Apache-2.0
"""What every write and read needs at hand: the store, the kinds that are served, the networks, and the time."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field

from ringfence.lab.apiserver.objects import Object, timestamp
from ringfence.lab.apiserver.registry import Registry
from ringfence.lab.apiserver.store import Key, Record, Store
from ringfence.model.addresses import Network

SERVICE_NETWORKS: tuple[Network, ...] = (
    ipaddress.IPv4Network("10.0.0.0/16"),
    ipaddress.IPv6Network("fd00:10:0::/112"),
)
"""Where ClusterIPs come from: AKS's own choice for IPv4."""


def utc_now() -> datetime.datetime:
    """Return the time, aware of its zone."""
    return datetime.datetime.now(datetime.UTC)


@dataclass(slots=True)
class Api:
    """The server without HTTP."""

    store: Store
    registry: Registry = field(default_factory=Registry)
    service_networks: tuple[Network, ...] = SERVICE_NETWORKS
    clock: Callable[[], datetime.datetime] = utc_now

    def now(self) -> str:
        """Return the time as a meta/v1 Time."""
        return timestamp(self.clock())

    def get(self, storage: str, namespace: str, name: str) -> Object | None:
        """Return a kept object, for reading, None if there is none."""
        record = self.store.get(Key(storage, namespace, name))
        return record.object if record else None

    def all(self, storage: str, namespace: str = "") -> list[Record]:
        """Return the records of a kind."""
        return self.store.records(storage, namespace)
