# SPDX-License-Identifier: Apache-2.0
"""Addresses of a case's nodes and pods: as in an AKS cluster with routed pods, and the same at every run.

Node ``i`` (from 0) has ``10.224.i.4`` and ``fd00:10:224:i::4``; its pods get the next ones of the same blocks, in the
order in which the case first names them. Services get 10.0.0.10 and fd00:10::a, and so on. Nothing is given back, so an
address is used twice only if the case says so.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

FIRST_NODES = 250
_NODE_HOST = 4
_FIRST_POD = 5
_LAST_POD = 254
_FIRST_SERVICE = 10


class Addressing:
    """Hands out addresses; ``node`` indices count from 0 in the order of first appearance."""

    def __init__(self) -> None:
        self._nodes: dict[str, int] = {}
        self._used: dict[str, int] = {}
        self._services = _FIRST_SERVICE

    def node(self, name: str) -> tuple[str, ...]:
        """Return the addresses of a node, v4 first; raises ``ValueError`` for more nodes than there are blocks."""
        index = self._nodes.setdefault(name, len(self._nodes))
        if index >= FIRST_NODES:
            raise ValueError(f"more than {FIRST_NODES} nodes: give addresses")
        return _pair(index, _NODE_HOST)

    def next_pod(self, node: str) -> tuple[str, ...]:
        """Return the next free addresses on a node, v4 first; raises ``ValueError`` when its block is used up."""
        host = self._used.get(node, _FIRST_POD)
        if host > _LAST_POD:
            raise ValueError(f"more than {_LAST_POD - _FIRST_POD + 1} pods on {node}: give addresses")
        self._used[node] = host + 1
        return _pair(self._nodes[node], host)

    def next_service(self) -> tuple[str, ...]:
        """Return the next free addresses for a Service, v4 first."""
        number = self._services
        self._services += 1
        return str(IPv4Address("10.0.0.0") + number), str(IPv6Address("fd00:10::") + number)


def _pair(index: int, host: int) -> tuple[str, str]:
    v4 = IPv4Address(f"10.224.{index}.0") + host
    v6 = IPv6Address(f"fd00:10:224:{index}::") + host
    return str(v4), str(v6)
