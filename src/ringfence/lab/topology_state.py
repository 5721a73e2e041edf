# SPDX-License-Identifier: Apache-2.0
"""What the kernel of each of a lab's namespaces must hold: settings, addresses, neighbours and routes, as values.

Derived from a ``Topology`` and nothing else; ``fabric`` writes it. Every neighbour on a routed link is static: the
kernel's neighbour tables have one size for all namespaces of the machine, and static entries do not count. Only where
a topology ``discovers`` are IPv6 neighbours of pods, and their gateways, found as on any link.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from ringfence.lab.topology import BRIDGE, UPLINK, ExternalPlan, NodePlan, PodPlan, Topology
from ringfence.model.addresses import Address, Network

# Azure CNI's transparent mode: every host end has this hardware address, every pod this gateway, and nobody owns it.
GATEWAYS: tuple[Address, ...] = (ipaddress.ip_address("169.254.1.1"), ipaddress.ip_address("fe80::1234:5678:9abc"))
GATEWAY_MAC = "aa:aa:aa:aa:aa:aa"
# The next hop by which the fabric names a node for what lies behind it, whatever addresses the node has, or none.
_BEHIND: tuple[Address, ...] = (ipaddress.ip_address("169.254.1.2"), ipaddress.ip_address("fe80::1234:5678:9abd"))
_ANYWHERE: tuple[Network, ...] = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))

Settings = tuple[tuple[str, str], ...]
_Value = TypeVar("_Value", Address, Network)

_EVERYWHERE: Settings = (
    # New addresses work at once: no duplicate address detection, which would take a second or two.
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    # Nobody in a lab advertises routes, and packets of autoconfiguration would only confuse who looks at packets.
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv6/conf/default/router_solicitations", "0"),
    ("net/ipv6/conf/default/accept_redirects", "0"),
    # Any address can be anywhere, so packets of it may come from anywhere.
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv4/conf/all/accept_redirects", "0"),
    ("net/ipv4/conf/default/accept_redirects", "0"),
    # A refusal that is sometimes rate-limited away looks like a denial.
    ("net/ipv4/icmp_ratelimit", "0"),
    ("net/ipv6/icmp/ratelimit", "0"),
)
_ROUTER: Settings = (
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
    ("net/ipv6/conf/all/forwarding", "1"),
)
# "Packets ... traversing the bridge are sent to iptables for processing" (kernel, ip-sysctl): what kubenet needs for
# policy between pods of one node. The switch exists once per namespace, and only the node's is touched.
_BRIDGING: Settings = (
    ("net/bridge/bridge-nf-call-iptables", "1"),
    ("net/bridge/bridge-nf-call-ip6tables", "1"),
)
# What container runtimes set: any user may serve port 80, and ping.
_POD: Settings = (
    ("net/ipv4/ip_unprivileged_port_start", "0"),
    ("net/ipv4/ping_group_range", "0 2147483647"),
)


class RouteKind(enum.Enum):
    """What a route does with a packet: send it on, refuse it with an ICMP error, or lose it without a word."""

    UNICAST = "unicast"
    UNREACHABLE = "unreachable"
    BLACKHOLE = "blackhole"


@dataclass(frozen=True, slots=True)
class Route:
    """A route of the main table. ``device`` and ``gateway`` are set for unicast only; no gateway means on the link."""

    destination: Network
    device: str | None = None
    gateway: Address | None = None
    kind: RouteKind = RouteKind.UNICAST

    def __str__(self) -> str:
        kind = "" if self.kind is RouteKind.UNICAST else f"{self.kind.value} "
        via = "" if self.gateway is None else f" via {self.gateway}"
        return f"{kind}{self.destination}{via}" + ("" if self.device is None else f" dev {self.device}")


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A static neighbour entry."""

    address: Address
    mac: str
    device: str

    def __str__(self) -> str:
        return f"{self.address} lladdr {self.mac} dev {self.device}"


@dataclass(frozen=True, slots=True)
class Held:
    """An address of an interface, with the length of the prefix that is on the link."""

    address: Address
    length: int
    device: str

    def __str__(self) -> str:
        return f"{self.address}/{self.length} dev {self.device}"


@dataclass(frozen=True, slots=True)
class State:
    """What one namespace's kernel holds, in the order in which it can be written. Links are there and up before it.

    ``settings`` are paths under ``/proc/sys`` and their values; they come first of all, before any link is made.
    """

    settings: Settings = ()
    addresses: tuple[Held, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    routes: tuple[Route, ...] = ()

    def __str__(self) -> str:
        lines = [f"sysctl {path.replace('/', '.')}={value}" for path, value in self.settings]
        lines += [f"address {held}" for held in self.addresses]
        lines += [f"neighbour {neighbour}" for neighbour in self.neighbours]
        lines += [f"route {route}" for route in self.routes]
        return "\n".join(lines)


def fabric_state(topology: Topology) -> State:
    """Return what the fabric holds before any node is there. Nothing leads out: what is unknown is refused."""
    return State(
        settings=(*_EVERYWHERE, *_ROUTER),
        addresses=tuple(Held(address, address.max_prefixlen, "lo") for address in topology.apiserver_addresses),
        routes=(
            *(Route(network, kind=RouteKind.UNREACHABLE) for network in _ANYWHERE),
            # A Service that does not exist: silence, as in a cloud's network.
            *(Route(network, kind=RouteKind.BLACKHOLE) for network in topology.service_networks),
        ),
    )


def fabric_link_state(node: NodePlan) -> State:
    """Return what the fabric holds for one node."""
    device = node.fabric_interface
    return State(
        neighbours=tuple(Neighbour(hop, node.mac, device) for hop in _BEHIND),
        routes=tuple(
            Route(network, device, _of_family(_BEHIND, network.version))
            for network in (*map(host_network, node.addresses), *node.pod_networks)
        ),
    )


def fabric_pod_state(pod: PodPlan) -> State:
    """Return what the fabric holds for one pod: routes, if its addresses lie in no block of its node."""
    return State(
        routes=tuple(
            Route(host_network(address), pod.node.fabric_interface, _of_family(_BEHIND, address.version))
            for address in pod.addresses
            if block_of(pod.node, address) is None
        )
    )


def node_state(topology: Topology, node: NodePlan) -> State:
    """Return what a node holds before it has pods. An address of its block that no pod has is met with silence."""
    settings, addresses, silent = (*_EVERYWHERE, *_ROUTER), list(_on_uplink(node.addresses)), node.pod_networks
    if topology.plugin == "kubenet":
        settings, silent = (*settings, *_BRIDGING), ()
        addresses += [Held(network[1], network.prefixlen, BRIDGE) for network in node.pod_networks]
        # Neighbour solicitations come from it; the kernel would make it too, but only once a port is up.
        addresses.append(Held(_link_local(node.bridge_mac), 64, BRIDGE))
        if topology.discovers:
            addresses.append(_gateway(BRIDGE))
    return State(
        settings,
        tuple(addresses),
        _gateway_neighbours(),
        (
            *_default_routes(versions=(4, 6)),  # also without an address: its pods may have any
            *(Route(network, kind=RouteKind.BLACKHOLE) for network in silent),
        ),
    )


def pod_state(topology: Topology, pod: PodPlan) -> State:
    """Return what a pod's own namespace holds."""
    settings = (*_EVERYWHERE, *_POD)
    blocks = {address: block_of(pod.node, address) for address in pod.addresses}
    bridged = {a: block for a, block in blocks.items() if block is not None and topology.plugin == "kubenet"}
    routed = tuple(address for address in pod.addresses if address not in bridged)
    gateway_mac = pod.node.bridge_mac if topology.plugin == "kubenet" else GATEWAY_MAC
    return State(
        settings,
        tuple(Held(a, bridged[a].prefixlen if a in bridged else a.max_prefixlen, UPLINK) for a in pod.addresses),
        _static(topology, _gateway_neighbours(gateway_mac) if routed else ()),
        (
            *_default_routes(versions=sorted({address.version for address in routed})),
            *(Route(_of_family(_ANYWHERE, b.version), UPLINK, b[1]) for b in dict.fromkeys(bridged.values())),
        ),
    )


def opening(topology: Topology, pod: PodPlan) -> State:
    """Return what a node holds for a pod while the pod's gate is open."""
    held: tuple[Held, ...] = ()
    if topology.plugin == "azure":
        device, addresses = pod.host_interface, pod.addresses
        held = (_gateway(device),) if topology.discovers else ()
    else:
        device, addresses = BRIDGE, tuple(a for a in pod.addresses if block_of(pod.node, a) is None)
    state = _to(device, addresses, pod.mac)
    return replace(state, addresses=held, neighbours=_static(topology, state.neighbours))


def learnt(topology: Topology, pod: PodPlan) -> tuple[Neighbour, ...]:
    """Return what a node may have discovered of a pod: another pod with its addresses must not be taken for it."""
    device = pod.host_interface if topology.plugin == "azure" else BRIDGE
    return tuple(Neighbour(a, pod.mac, device) for a in pod.addresses if topology.discovers and a.version == 6)


def external_state(external: ExternalPlan) -> State:
    """Return what an external host's own namespace holds."""
    return State(
        (*_EVERYWHERE, *_POD),
        tuple(_on_uplink(external.addresses)),
        _gateway_neighbours(),
        tuple(_default_routes(versions=sorted({address.version for address in external.addresses}))),
    )


def fabric_external_state(external: ExternalPlan) -> State:
    """Return what the fabric holds for an external host."""
    return _to(external.fabric_interface, external.addresses, external.mac)


def host_network(address: Address) -> Network:
    """Return the network of just one address."""
    return ipaddress.ip_network((address, address.max_prefixlen))


def block_of(node: NodePlan, address: Address) -> Network | None:
    """Return the node's block that an address lies in, or None."""
    return next((n for n in node.pod_networks if n.version == address.version and address in n), None)


def _to(device: str, addresses: Sequence[Address], mac: str) -> State:
    return State(
        neighbours=tuple(Neighbour(address, mac, device) for address in addresses),
        routes=tuple(Route(host_network(address), device) for address in addresses),
    )


def _on_uplink(addresses: Sequence[Address]) -> Iterator[Held]:
    return (Held(address, address.max_prefixlen, UPLINK) for address in addresses)


def _gateway(device: str) -> Held:
    """Return what makes a device answer for the gateway that pods discover."""
    return Held(_of_family(GATEWAYS, 6), 64, device)


def _static(topology: Topology, neighbours: tuple[Neighbour, ...]) -> tuple[Neighbour, ...]:
    """Return the neighbours that have static entries."""
    return tuple(n for n in neighbours if not (topology.discovers and n.address.version == 6))


def _gateway_neighbours(mac: str = GATEWAY_MAC) -> tuple[Neighbour, ...]:
    return tuple(Neighbour(gateway, mac, UPLINK) for gateway in GATEWAYS)


def _default_routes(*, versions: Sequence[int]) -> Iterator[Route]:
    for version in versions:
        gateway = _of_family(GATEWAYS, version)
        if version == 4:  # an IPv6 gateway is on the link by being link-local
            yield Route(host_network(gateway), UPLINK)
        yield Route(_of_family(_ANYWHERE, version), UPLINK, gateway)


def _link_local(mac: str) -> Address:
    """Return the link-local address that goes with a hardware address (RFC 4291, appendix A: modified EUI-64)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    identifier = bytes([octets[0] ^ 0x02]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + identifier)


def _of_family(values: Sequence[_Value], version: int) -> _Value:
    return next(value for value in values if value.version == version)
