# SPDX-License-Identifier: Apache-2.0
"""Two nodes in a row, and any packet through both: a whole cluster's verdicts by one pair of kernels' tables.

::

    left ──── n1 ──── n2 ──── right

What a node judges of a flow depends on its addresses alone, and a flow passes if every node that holds an end lets it
pass. So the pods need no namespaces: first packets of their flows are put on the wire at one end, as raw bytes, cross
both nodes' tables, and are read at the other end, or on the node if they are for the node itself. What a node sends
to pods starts on the node. Some 20,000 verdicts a second, and any cluster at all without building anything.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import IPv4Address, ip_address
from pathlib import Path

from ringfence.dataplanes.base import Dataplane, Held
from ringfence.dataplanes.nftables.apply import NftablesDataplane
from ringfence.host import netns, process
from ringfence.host.nft import Nft
from ringfence.model.addresses import Address
from ringfence.model.cluster import Cluster
from ringfence.model.flow import Flow
from ringfence.model.ports import Protocol
from tests.fuzz.packets import first_packet, number_in, number_of
from tests.fuzz.worlds import NODE_ADDRESSES, NODES

MakeDataplane = Callable[[Nft], Dataplane]
Spot = str

ENDS = ("left", "right")
_ORDER = ("left", *NODES, "right")
SCRATCH = "scratch"  # a namespace without links, where a program can be put in force for the first time
_ALL_PACKETS = 3
_RECEIVE_BUFFER_FORCE = 33
_SOL_PACKET, _STATISTICS, _IGNORE_OUTGOING = 263, 6, 23  # linux/if_packet.h
_BUFFER = 1 << 25
_RAW = (Protocol.TCP, Protocol.UDP, Protocol.SCTP)
_HOST_OF = {ip_address(a): node for node, addresses in NODE_ADDRESSES.items() for a in addresses}
# Nobody's addresses: a packet between them passes whatever the policies, and so tells that all before it have passed.
_NOBODY = (IPv4Address("198.51.100.1"), IPv4Address("198.51.100.2"))
_PATIENCE = 10.0
_BURST = 64
_FIRST_NUMBER = 1 << 20  # smaller ones are for whoever makes packets of their own


class WireBroken(RuntimeError):
    """A packet that no policy concerns did not arrive: the test bed fails, not what it tests."""


def on_the_wire(flow: Flow, cluster: Cluster) -> bool:
    """Tell whether packets of a flow can cross a router at all, and tell us anything.

    The wire's nodes have all their addresses all the time. One that the cluster does not know of is left alone: the
    node takes packets for it as its own, and whether it is then "the own node" to policy nobody has said.
    """
    nodes_own = [address in _HOST_OF for address in (flow.source, flow.destination)]
    known = all(cluster.node_at(a) is not None for a in (flow.source, flow.destination) if a in _HOST_OF)
    return known and not all(nodes_own) and _forwardable(flow.source) and _forwardable(flow.destination)


def _forwardable(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return 1 <= int(address) >> 24 < 224 and not address.is_loopback and not address.is_link_local
    return int(address) >> 120 != 0 and not address.is_multicast and not address.is_link_local


class Wire:
    """The namespaces, the nodes' dataplanes and the sockets; to be closed."""

    def __init__(self, name: str, make_dataplane: MakeDataplane = NftablesDataplane) -> None:
        self._make_dataplane = make_dataplane
        self.netns = {each: f"rf-fuzz-{name}-{each}" for each in (*_ORDER, SCRATCH)}
        self._numbers = itertools.count(_FIRST_NUMBER)
        self._sockets: list[socket.socket] = []
        self._senders: dict[Spot, Callable[[bytes, Address], None]] = {}
        self._receivers: dict[socket.socket, int] = {}  # socket -> protocol without IP header, 0 for whole packets
        self.nft: dict[str, Nft] = {}
        self.dataplanes: dict[str, Dataplane] = {}
        try:
            _build(self.netns)
            for node in (*NODES, SCRATCH):
                with netns.enter(self.netns[node]):
                    self.nft[node] = Nft()
            self._open_sockets()
        except BaseException:
            self.close()
            raise
        self.dataplanes |= {node: self._made_on(node) for node in (*NODES, SCRATCH)}

    def close(self) -> None:
        """Take everything away."""
        for each in self._sockets:
            each.close()
        for dataplane in self.dataplanes.values():
            dataplane.remove()  # what an engine holds of a namespace would outlive it
            _give_back(dataplane)
        for nft in self.nft.values():
            nft.close()
        for name in self.netns.values():
            netns.delete(name)

    def restart(self, node: str) -> None:
        """Put a fresh dataplane in a node's place, as a new agent would: the kernel keeps what it has."""
        _give_back(self.dataplanes[node])
        self.dataplanes[node] = self._made_on(node)

    def fresh(self) -> Dataplane:
        """Return a dataplane of the scratch namespace, where nothing is in force."""
        self.restart(SCRATCH)
        self.dataplanes[SCRATCH].remove()
        return self.dataplanes[SCRATCH]

    def _made_on(self, where: str) -> Dataplane:
        with netns.enter(self.netns[where]):
            return self._make_dataplane(self.nft[where])

    def ask(self, flows: Sequence[Flow], cluster: Cluster) -> list[bool]:
        """Send a first packet of each flow, every one a new connection; tell which arrive."""
        self.forget()
        numbers = [next(self._numbers) for _ in flows]
        plan: dict[Spot, list[tuple[bytes, Address]]] = {}
        for number, flow in zip(numbers, flows, strict=True):
            packet = first_packet(flow, source_port=1024 + number % 60000, number=number)
            plan.setdefault(starting_point(flow, cluster), []).append((packet, flow.destination))
        heard = {number for spot, packets in plan.items() for number in self._send(spot, packets)}
        return [number in heard for number in numbers]

    def sender(self, spot: Spot) -> Callable[[bytes, Address], None]:
        """Return what puts a packet for an address on the wire."""
        return self._senders[spot]

    def settle(self, spot: Spot) -> list[int]:
        """Wait until all that was sent from a spot has arrived, or will not; return the numbers of what did."""
        target = _NOBODY[1] if spot != "right" else ip_address(NODE_ADDRESSES[NODES[0]][0])
        number = next(self._numbers)
        probe = Flow(_NOBODY[0], target, Protocol.UDP, 9)
        self._senders[spot](first_packet(probe, source_port=1024 + number % 60000, number=number), target)
        deadline = time.monotonic() + _PATIENCE
        heard = list(self.arrivals())
        while number not in heard:
            if time.monotonic() > deadline:
                raise WireBroken(f"a packet of nobody's, sent from {spot}, did not arrive")
            select.select(list(self._receivers), [], [], 0.05)
            heard += self.arrivals()
        return heard

    def _send(self, spot: Spot, packets: Iterable[tuple[bytes, Address]]) -> list[int]:
        send = self._senders[spot]
        heard: list[int] = []
        for count, (packet, destination) in enumerate(packets):
            send(packet, destination)
            if count % _BURST == _BURST - 1:
                heard += self.arrivals()
        return heard + self.settle(spot)

    def arrivals(self) -> Iterator[int]:
        """Yield the numbers of the first packets that have arrived."""
        for receiver, protocol in self._receivers.items():
            with contextlib.suppress(BlockingIOError):
                while True:
                    packet = receiver.recv(256)
                    number = number_in(protocol, packet) if protocol else number_of(packet)
                    if number is not None:
                        yield number

    def lost(self) -> int:
        """Return how many packets the reading end had no room for since the last call."""
        return sum(
            struct.unpack("=II", receiver.getsockopt(_SOL_PACKET, _STATISTICS, 8))[1]
            for receiver in self._receivers
            if receiver.family == socket.AF_PACKET
        )

    def forget(self) -> None:
        """Make both nodes' connection trackers forget every connection."""
        for node in NODES:
            with netns.enter(self.netns[node]), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as tracker:
                # IPCTNL_MSG_CT_DELETE without a tuple, with an acknowledgement
                tracker.send(struct.pack("=IHHIIBBH", 20, 1 << 8 | 2, 1 | 4, 0, 0, 0, 0, 0))
                assert struct.unpack_from("=i", tracker.recv(4096), 16)[0] == 0

    def _open_sockets(self) -> None:
        for end in ENDS:
            self._senders[end] = self._link_sender(end)
        receiver = self._opened("right", socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        receiver.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
        receiver.bind(("eth0", _ALL_PACKETS))
        self._receivers[receiver] = 0
        for node in NODES:
            self._senders[node] = self._node_sender(node)
            for family, icmp in ((socket.AF_INET, Protocol.ICMP), (socket.AF_INET6, Protocol.ICMPV6)):
                for protocol in (*_RAW, icmp):
                    raw = self._opened(node, family, socket.SOCK_RAW, protocol.number)
                    self._receivers[raw] = protocol.number if family == socket.AF_INET6 else 0

    def _opened(self, where: str, family: int, kind: int, protocol: int) -> socket.socket:
        with netns.enter(self.netns[where]):
            made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        with contextlib.suppress(PermissionError):
            made.setsockopt(socket.SOL_SOCKET, _RECEIVE_BUFFER_FORCE, _BUFFER)
        self._sockets.append(made)
        return made

    def _link_sender(self, end: str) -> Callable[[bytes, Address], None]:
        link = self._opened(end, socket.AF_PACKET, socket.SOCK_RAW, 0)
        link.bind(("eth0", 0))
        ends = _mac(_ORDER.index(end), _neighbour(end)) + _mac(_neighbour(end), _ORDER.index(end))
        ethernet = {4: _frame_head(ends, 0x0800), 6: _frame_head(ends, 0x86DD)}

        def send(packet: bytes, destination: Address) -> None:
            link.send(ethernet[destination.version] + packet)

        return send

    def _node_sender(self, node: str) -> Callable[[bytes, Address], None]:
        v4 = self._opened(node, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        v6 = self._opened(node, socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)

        def send(packet: bytes, destination: Address) -> None:
            with contextlib.suppress(PermissionError):  # what a rule of the node's own output drops
                (v4 if destination.version == 4 else v6).sendto(packet, (str(destination), 0))

        return send


def _give_back(dataplane: Dataplane) -> None:
    """Let go of what an engine holds open in this process; the kernel keeps what it has."""
    if isinstance(dataplane, Held) and not isinstance(dataplane, NftablesDataplane):  # whose handle is the wire's own
        dataplane.close()


def starting_point(flow: Flow, cluster: Cluster) -> Spot:
    """Return where a flow's first packet enters, so that it meets every node that judges it."""
    host = _HOST_OF.get(flow.destination)
    if host is not None:  # it ends there: everybody else comes before
        return "right" if host == NODES[0] else "left"
    holder = cluster.endpoint_at(flow.destination)
    node = cluster.nodes.get(holder.node) if holder is not None else None
    if node is not None and flow.source in node.addresses:
        return node.name  # what a node sends to a pod of its own does not cross it
    return "left"


def _neighbour(end: str) -> int:
    return 1 if end == "left" else len(_ORDER) - 2


def _mac(whose: int, towards: int) -> bytes:
    """Return the link address of the interface that ``whose`` has towards another."""
    return bytes((2, 0xF0, 0, 0, whose, towards))


def _text(mac: bytes) -> str:
    return ":".join(f"{byte:02x}" for byte in mac)


def _frame_head(ends: bytes, kind: int) -> bytes:
    receiver, sender = ends[6:], ends[:6]
    return receiver + sender + struct.pack("!H", kind)


def _build(names: dict[str, str]) -> None:
    for name in names.values():
        netns.delete(name)
        netns.create(name)
    for each, name in names.items():
        with netns.enter(name):
            for where in ("all", "default"):
                for path, value in _settings(each).items():
                    Path("/proc/sys/net", path.format(where)).write_text(value)
            if each in NODES:
                Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    for index, each in enumerate(_ORDER[:-1]):
        with netns.enter(names[each]):
            process.run(["ip", "-batch", "-"], stdin=_link(index, names))
    with netns.enter(names["right"]):
        process.run(["ip", "link", "set", "eth0", "up"])
    for index, node in enumerate(_ORDER[1:-1], start=1):
        with netns.enter(names[node]):
            process.run(["ip", "-batch", "-"], stdin=_routes(index))


def _settings(who: str) -> dict[str, str]:
    if who in ENDS:
        return {"ipv6/conf/{}/disable_ipv6": "1"}
    return {
        "ipv4/conf/{}/rp_filter": "0",
        "ipv4/conf/{}/accept_local": "1",
        "ipv4/conf/{}/send_redirects": "0",
        "ipv6/conf/{}/accept_dad": "0",
        "ipv6/conf/{}/forwarding": "1",
    }


def _device(whose: int, towards: int) -> str:
    return "eth0" if _ORDER[whose] in ENDS else _ORDER[towards]


def _link(index: int, names: dict[str, str]) -> str:
    near, far = _device(index, index + 1), _device(index + 1, index)
    other = names[_ORDER[index + 1]]
    return (
        f"link add {near} address {_text(_mac(index, index + 1))} type veth peer name {far}"
        f" address {_text(_mac(index + 1, index))} netns {other}\n"
        f"link set {near} up\n"
        f"link set lo up\n"
    )


def _routes(index: int) -> str:
    """Everything goes on to the right, but for what the nodes on the left have themselves."""
    node = _ORDER[index]
    lines = ["link set lo up", *(f"link set {_device(index, towards)} up" for towards in (index - 1, index + 1))]
    for towards in (index - 1, index + 1):
        device = _device(index, towards)
        for gateway in ("169.254.0.1", "fe80::1"):
            mac = _text(_mac(towards, index))
            lines.append(f"neigh replace {gateway} lladdr {mac} nud permanent dev {device}")
    lines += [f"addr add {address} dev lo" for address in NODE_ADDRESSES[node]]
    right = _device(index, index + 1)
    lines += [
        f"route add default via 169.254.0.1 dev {right} onlink",
        f"route add ::/0 via fe80::1 dev {right} onlink",
    ]
    for other in NODES[: NODES.index(node)]:
        for address in NODE_ADDRESSES[other]:
            gateway = "169.254.0.1" if "." in address else "fe80::1"
            lines.append(f"route add {address} via {gateway} dev {_device(index, index - 1)} onlink")
    return "".join(f"{line}\n" for line in lines)


@contextlib.contextmanager
def wire(make_dataplane: MakeDataplane = NftablesDataplane) -> Iterator[Wire]:
    """Open a wire of this process's own."""
    made = Wire(f"{os.getpid()}-{next(_SERIAL)}", make_dataplane)
    try:
        yield made
    finally:
        made.close()


_SERIAL = itertools.count()
