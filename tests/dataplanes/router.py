# SPDX-License-Identifier: Apache-2.0
"""A router namespace between others, real packets through it, and programs written down in a line.

::

    client 10.9.1.2 fd09:1::2 ──┐
                                router (10.9.N.1 fd09:N::1; the engine's table is here)
    server 10.9.2.2 fd09:2::2 ──┤
    other  10.9.3.2 fd09:3::2 ──┘
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import os
import select
import socket
import struct
import time
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ringfence.compiler.program import (
    CompiledRule,
    EndpointEntry,
    PeerSet,
    PeerSetId,
    PortSpan,
    Program,
    Ruleset,
    RulesetId,
)
from ringfence.dataplanes.base import Dataplane
from ringfence.dataplanes.ebpf.apply import EbpfDataplane
from ringfence.dataplanes.nftables.apply import NftablesDataplane
from ringfence.host import netns, process
from ringfence.host.nft import Nft
from ringfence.model.addresses import Address
from ringfence.model.cluster import PodKey
from ringfence.model.policy import ANY_PEER, Action, AnyPeer, Direction, ObjectRef, Origin
from ringfence.model.ports import ANY_TRAFFIC, PortRange, Protocol

SOON = 2.0  # what is expected to come, comes far sooner
NEVER = 0.2  # what has not come by then, does not come

PODS = ("client", "server", "other")
VERSIONS = (4, 6)


def address(who: str, version: int) -> str:
    """Return a pod's address, or ``router``'s on the client's link."""
    link, end = (PODS.index(who) + 1, 2) if who in PODS else (1, 1)
    return f"10.9.{link}.{end}" if version == 4 else f"fd09:{link}::{end}"


class Engine(Dataplane, typing.Protocol):
    """A dataplane that holds something open."""

    def close(self) -> None:
        """Give it back."""
        ...


_ENGINES: dict[str, Callable[[Nft], Engine]] = {
    "nftables": NftablesDataplane,
    "ebpf": lambda _: EbpfDataplane(),
    "ebpf at devices": lambda _: EbpfDataplane(hooks="tc-alone"),
    "ebpf on a bridge": lambda _: EbpfDataplane(hooks="tc"),
}
BRIDGED = frozenset({"ebpf on a bridge"})
"""Where the router passes frames on from port to port, and netfilter sees none of them."""


class Router:
    """The namespaces, and sockets in them."""

    def __init__(self, name: str, engine: str = "nftables") -> None:
        self.bridged = engine in BRIDGED
        self.netns = {who: f"rf-{name}-{who}" for who in ("router", *PODS)}
        for namespace in self.netns.values():
            netns.delete(namespace)
            netns.create(namespace)
            with netns.enter(namespace):  # usable at once, link-local addresses too
                for where in ("all", "default"):
                    Path("/proc/sys/net/ipv6/conf", where, "accept_dad").write_text("0")
        with netns.enter(self.netns["router"]):
            for setting in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
                Path("/proc/sys/net", setting).write_text("1")
            if self.bridged:
                process.run(["ip", "-batch", "-"], stdin=self._bridge())
                for past in Path("/proc/sys/net/bridge").glob("bridge-nf-call-*"):
                    past.write_text("0")
            process.run(["ip", "-batch", "-"], stdin="".join(map(self._link, PODS)))
            process.run(["ip", "route", "add", "unreachable", "default"])  # as nodes have one, to wherever
            process.run(["ip", "-6", "route", "add", "unreachable", "default"])
            self.nft = Nft()
            self.dataplane = _ENGINES[engine](self.nft)
        for who in PODS:
            with netns.enter(self.netns[who]):
                process.run(["ip", "-batch", "-"], stdin=self._inside(who))

    def _bridge(self) -> str:
        return (
            "link add bridge type bridge\n"
            f"addr add {address('router', 4)}/16 dev bridge\n"
            f"addr add {address('router', 6)}/16 dev bridge nodad\n"
            "link set bridge up\n"
        )

    def _link(self, who: str) -> str:
        number = PODS.index(who) + 1
        if self.bridged:
            return (
                f"link add {who} type veth peer name eth0 netns {self.netns[who]}\n"
                f"link set {who} master bridge\n"
                f"link set {who} up\n"
            )
        return (
            f"link add {who} type veth peer name eth0 netns {self.netns[who]}\n"
            f"addr add 10.9.{number}.1/24 dev {who}\n"
            f"addr add fd09:{number}::1/64 dev {who} nodad\n"
            f"link set {who} up\n"
        )

    def _inside(self, who: str) -> str:
        number = PODS.index(who) + 1
        lengths = (16, 16) if self.bridged else (24, 64)
        return (
            "link set lo up\n"
            f"addr add {address(who, 4)}/{lengths[0]} dev eth0\n"
            f"addr add {address(who, 6)}/{lengths[1]} dev eth0 nodad\n"
            "link set eth0 up\n"
            f"route add default via 10.9.{1 if self.bridged else number}.1\n"
            f"route add default via fd09:{1 if self.bridged else number}::1\n"
        )

    @property
    def nftables(self) -> NftablesDataplane:
        """The dataplane, where it is known to be this one."""
        assert isinstance(self.dataplane, NftablesDataplane)
        return self.dataplane

    def destroy(self) -> None:
        """Take the namespaces away."""
        self.dataplane.remove()
        self.dataplane.close()
        for namespace in self.netns.values():
            netns.delete(namespace)

    def ip(self, who: str, *arguments: str) -> str:
        """Run ``ip`` in a namespace."""
        with netns.enter(self.netns[who]):
            return process.run(["ip", *arguments]).stdout

    def forget(self) -> None:
        """Make the router's connection tracker forget every connection."""
        with netns.enter(self.netns["router"]), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as tracker:
            # IPCTNL_MSG_CT_DELETE without a tuple, with an acknowledgement
            tracker.send(struct.pack("=IHHIIBBH", 20, 1 << 8 | 2, 1 | 4, 0, 0, 0, 0, 0))
            assert struct.unpack_from("=i", tracker.recv(4096), 16)[0] == 0

    def opened(self, who: str, version: int, kind: int, protocol: int = 0) -> socket.socket:
        """Open a socket in a namespace."""
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        with netns.enter(self.netns[who]):
            made = socket.socket(family, kind, protocol)
        made.settimeout(SOON)
        return made

    def listen(self, who: str, version: int, port: int) -> socket.socket:
        """Open a listening TCP socket; the kernel accepts into its backlog."""
        made = self.opened(who, version, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address(who, version), port))
        made.listen(64)
        return made

    def connects(self, who: str, whom: str, version: int, port: int, *, within: float = NEVER) -> bool:
        """Tell whether a TCP connection is made."""
        made = self.opened(who, version, socket.SOCK_STREAM)
        made.settimeout(within)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with made:
            try:
                made.connect((address(whom, version), port))
            except TimeoutError:
                return False
        return True

    @contextlib.contextmanager
    def connection(self, who: str, whom: str, version: int, port: int) -> Iterator[tuple[socket.socket, socket.socket]]:
        """Open a TCP connection that has exchanged a byte: client's socket, server's socket."""
        with self.listen(whom, version, port) as listening:
            near = self.opened(who, version, socket.SOCK_STREAM)
            near.connect((address(whom, version), port))
            far, _ = listening.accept()
            far.settimeout(SOON)
        with near, far:
            for end in (near, far):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            assert passes(near, far)
            assert passes(far, near)
            yield near, far

    def datagram(self, who: str, whom: str, version: int, port: int) -> bool:
        """Tell whether a UDP datagram, each from a port of its own, arrives."""
        with self.bound(whom, version, port) as far, self.opened(who, version, socket.SOCK_DGRAM) as near:
            with contextlib.suppress(PermissionError):  # what a sender is told whose own namespace drops it
                near.sendto(b"datagram", (address(whom, version), port))
            return arrives(far)

    def bound(self, who: str, version: int, port: int) -> socket.socket:
        """Open a UDP socket on a port."""
        made = self.opened(who, version, socket.SOCK_DGRAM)
        made.bind((address(who, version), port))
        return made

    def pings(self, who: str, whom: str, version: int) -> bool:
        """Tell whether an echo request is answered."""
        protocol, request, reply = (1, 8, 0) if version == 4 else (58, 128, 129)
        mark = os.urandom(8)
        with self.opened(who, version, socket.SOCK_RAW, protocol) as raw:
            body = checksummed(struct.pack("!BBHHH", request, 0, 0, os.getpid() & 0xFFFF, 1) + mark)
            raw.sendto(body, (address(whom, version), 0))  # the kernel does the checksum of ICMPv6
            return hears(raw, lambda packet: packet[0] == reply and packet.endswith(mark))


def hears(raw: socket.socket, wanted: Callable[[bytes], bool], within: float = NEVER) -> bool:
    """Tell whether a raw socket receives a message (without IP header) that is wanted."""
    end = time.monotonic() + within
    while (left := end - time.monotonic()) > 0 and select.select([raw], [], [], left)[0]:
        packet = raw.recv(65536)
        if wanted(packet if raw.family == socket.AF_INET6 else packet[(packet[0] & 15) * 4 :]):
            return True
    return False


def arrives(far: socket.socket, within: float = NEVER) -> bool:
    """Tell whether anything can be read."""
    if not select.select([far], [], [], within)[0]:
        return False
    return bool(far.recv(65536))


def passes(near: socket.socket, far: socket.socket, within: float = NEVER) -> bool:
    """Tell whether a byte that is sent at one end of a TCP connection arrives at the other."""
    near.send(b"x")
    return arrives(far, within)


def checksummed(message: bytes) -> bytes:
    """Return an ICMPv4 message with its checksum (bytes 2 and 3) filled in."""
    padded = message + b"\0" * (len(message) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return message[:2] + struct.pack("!H", ~total & 0xFFFF) + message[4:]


def sctp(source: int, destination: int, chunk: bytes, *, tag: int = 0) -> bytes:
    """Return an SCTP packet with a correct checksum (a wrong one is INVALID to the connection tracker)."""
    header = struct.pack("!HHI", source, destination, tag)
    return header + struct.pack("<I", crc32c(header + bytes(4) + chunk)) + chunk


def init(tag: int, kind: int = 1) -> bytes:
    """Return an INIT chunk (kind 1) or INIT ACK (kind 2, without its cookie)."""
    return struct.pack("!BBHIIHHI", kind, 0, 20, tag, 65536, 1, 1, 1)


def crc32c(data: bytes) -> int:
    """Return the CRC of RFC 9260, appendix A."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@dataclass(frozen=True)
class Allow:
    """An allow rule in a line: peers by name, address or network (None: any), traffic as ``TCP/80-90`` (None: any).

    ``expression`` names the peers where the same expression covers others at another moment.
    """

    peers: tuple[str, ...] | None = None
    traffic: tuple[str, ...] | None = None
    action: Action = Action.ALLOW
    origin: str = "NetworkPolicy demo/policy"
    expression: str | None = None


@dataclass(frozen=True)
class Isolated:
    """What isolates a pod in a direction: only these rules let connections pass."""

    who: str
    direction: Direction
    rules: tuple[Allow, ...] = ()


INGRESS, EGRESS = Direction.INGRESS, Direction.EGRESS
DENY_ALL = ObjectRef("NetworkPolicy", "demo", "deny-all")


def ingress(who: str, *rules: Allow) -> Isolated:
    """Isolate a pod from whoever wants to reach it."""
    return Isolated(who, INGRESS, rules)


def egress(who: str, *rules: Allow) -> Isolated:
    """Isolate a pod from whom it wants to reach."""
    return Isolated(who, EGRESS, rules)


def make_program(*isolations: Isolated, pods: Sequence[str] = PODS) -> Program:
    """Return the program of a node that these pods run on, with both their addresses."""
    peer_sets: dict[PeerSetId, PeerSet] = {}
    rulesets: dict[tuple[str, Direction], Ruleset] = {}
    for isolation in isolations:
        rules = tuple(_rule(i, rule, isolation.direction, peer_sets) for i, rule in enumerate(isolation.rules))
        identity = RulesetId(_digest(f"{isolation.direction} {rules}"))
        policies = tuple(sorted({rule.origin.object for rule in rules})) or (DENY_ALL,)
        rulesets[isolation.who, isolation.direction] = Ruleset(identity, isolation.direction, rules, policies)

    def entry(who: str, version: int) -> EndpointEntry:
        ids = {d: rulesets[who, d].id if (who, d) in rulesets else None for d in Direction}
        place = ipaddress.ip_address(address(who, version))
        return EndpointEntry(place, PodKey("demo", who), f"uid-{who}", ids[INGRESS], ids[EGRESS])

    return Program(
        "router",
        frozenset(_addresses("router")),
        tuple(entry(who, version) for version in VERSIONS for who in pods),
        tuple(sorted({r.id: r for r in rulesets.values()}.values(), key=lambda r: r.id)),
        tuple(sorted(peer_sets.values(), key=lambda p: p.id)),
    )


def _rule(index: int, rule: Allow, direction: Direction, peer_sets: dict[PeerSetId, PeerSet]) -> CompiledRule:
    kind, name = rule.origin.split()
    origin = Origin(ObjectRef(kind, *name.split("/")), f"spec.{direction.value}[{index}]")
    traffic = (
        ANY_TRAFFIC
        if rule.traffic is None
        else tuple(sorted(map(_span, rule.traffic), key=lambda s: (s.protocol.value, s.ports)))
    )
    peers: AnyPeer | PeerSetId = ANY_PEER
    if rule.peers is not None:
        peers = PeerSetId(_digest(rule.expression or repr(rule.peers)))
        named = [a for who in rule.peers if who in PODS for a in _addresses(who)]
        rest = [peer for peer in rule.peers if peer not in PODS]
        plain = [ipaddress.ip_address(peer) for peer in rest if "/" not in peer]
        networks = tuple(ipaddress.ip_network(peer) for peer in rest if "/" in peer)
        peer_sets[peers] = PeerSet(
            peers,
            " or ".join(rule.peers),
            frozenset([*named, *plain]),
            networks,
            bool(named or plain or rule.expression),
        )
    return CompiledRule(rule.action, peers, traffic, origin)


def _addresses(who: str) -> list[Address]:
    return [ipaddress.ip_address(address(who, version)) for version in VERSIONS]


def _span(text: str) -> PortSpan:
    protocol, _, ports = text.partition("/")
    first, _, last = (ports or "0-65535").partition("-")
    return PortSpan(Protocol(protocol), PortRange(int(first), int(last or first)))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def too_big(version: int, sent: bytes, mtu: int) -> bytes:
    """Return the ICMP error that a router sends back for a packet that is too big for its next link."""
    if version == 4:
        return checksummed(struct.pack("!BBHHH", 3, 4, 0, 0, mtu) + sent)
    return struct.pack("!BBHI", 2, 0, 0, mtu) + sent


def udp_packet(version: int, source: str, destination: str, ports: tuple[int, int]) -> bytes:
    """Return the start of a UDP packet of 1400 bytes, as an ICMP error quotes it: IP header and UDP header."""
    udp = struct.pack("!HHHH", *ports, 1400, 0)
    ends = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
    if version == 4:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 1420, 1, 0x4000, 63, 17, 0) + ends
        return head[:10] + _ones_complement(head) + head[12:] + udp
    return struct.pack("!IHBB", 6 << 28, 1400, 17, 63) + ends + udp


def _ones_complement(header: bytes) -> bytes:
    return checksummed(b"\0\0\0\0" + header)[2:4]
