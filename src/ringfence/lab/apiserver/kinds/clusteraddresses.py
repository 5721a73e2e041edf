# SPDX-License-Identifier: Apache-2.0
"""Which ClusterIPs and node ports are taken, and the choice of new ones.

Nothing is kept here: what is taken is what the stored Services say, so a choice is as good as the store, also after a
crash, a restart or a dry run.
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Collection

from ringfence.apis.services import HEADLESS
from ringfence.lab.apiserver.api import Api
from ringfence.lab.apiserver.objects import Object, spec_of
from ringfence.model.addresses import Network

NODE_PORTS = range(30000, 32768)
_ATTEMPTS = 64
# "the first part of the range is for addresses that users choose": a dynamic choice stays clear of it while it can
_RESERVED = 256


def taken_addresses(api: Api, *, but: str = "") -> frozenset[str]:
    """Return the ClusterIPs of all Services, but for the one of this uid."""
    return frozenset(
        address
        for record in api.all("services")
        if record.object["metadata"].get("uid") != but
        for address in spec_of(record.object).get("clusterIPs") or ()
        if address != HEADLESS
    )


def taken_ports(api: Api, *, but: str = "") -> frozenset[tuple[str, int]]:
    """Return the (protocol, node port) pairs of all Services, but for the one of this uid."""
    return frozenset(
        pair
        for record in api.all("services")
        if record.object["metadata"].get("uid") != but
        for pair in node_ports(record.object)
    )


def node_ports(service: Object) -> list[tuple[str, int]]:
    """Return the (protocol, node port) pairs of a Service."""
    spec = spec_of(service)
    found = [(p.get("protocol", "TCP"), p["nodePort"]) for p in spec.get("ports") or () if p.get("nodePort")]
    if spec.get("healthCheckNodePort"):
        found.append(("TCP", spec["healthCheckNodePort"]))
    return found


def choose_address(network: Network, taken: Collection[str]) -> str | None:
    """Return a free address of a network, None if all are taken.

    Random, so that an address is not given again at once to another Service while clients still remember it.
    """
    size = network.num_addresses
    low = _RESERVED if size > 2 * _RESERVED else 1
    for _ in range(_ATTEMPTS):
        address = str(network[random.randrange(low, size - 1)])  # noqa: S311 - no secret
        if address not in taken:
            return address
    return next((a for place in range(1, size - 1) if (a := str(network[place])) not in taken), None)


def choose_port(protocol: str, taken: Collection[tuple[str, int]]) -> int | None:
    """Return a free node port, None if all are taken."""
    for _ in range(_ATTEMPTS):
        port = random.choice(NODE_PORTS)  # noqa: S311 - no secret
        if (protocol, port) not in taken:
            return port
    return next((port for port in NODE_PORTS if (protocol, port) not in taken), None)


def family_of(address: str) -> str:
    """Return the Kubernetes name of an address's family."""
    return "IPv6" if ":" in address else "IPv4"


def network_of(api: Api, family: str) -> Network | None:
    """Return the network of Service addresses of a family, None if the lab has none."""
    version = 6 if family == "IPv6" else 4
    return next((network for network in api.service_networks if network.version == version), None)


def is_inside(network: Network, address: str) -> bool:
    """Tell whether a text is an address of a network."""
    try:
        return ipaddress.ip_address(address) in network
    except ValueError:
        return False
