# SPDX-License-Identifier: Apache-2.0
"""A flow: the first packet of a connection, after Service translation, as policy judges it."""

from __future__ import annotations

from dataclasses import dataclass

from ringfence.model.addresses import Address
from ringfence.model.ports import LAST_PORT, Protocol


@dataclass(frozen=True, slots=True)
class Flow:
    """Source and destination address, protocol, and destination port (None exactly for protocols without ports)."""

    source: Address
    destination: Address
    protocol: Protocol
    port: int | None = None

    def __post_init__(self) -> None:
        if self.source.version != self.destination.version:
            raise ValueError(f"a flow stays in one address family: {self.source} to {self.destination}")
        if self.protocol.has_ports != (self.port is not None):
            raise ValueError(f"{self.protocol.value} with port {self.port}")
        if self.port is not None and not 0 <= self.port <= LAST_PORT:
            raise ValueError(f"no port: {self.port}")

    def __str__(self) -> str:
        port = "" if self.port is None else f"/{self.port}"
        return f"{self.source} -> {self.destination} {self.protocol.value}{port}"
