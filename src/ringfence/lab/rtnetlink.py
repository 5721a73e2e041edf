# SPDX-License-Identifier: Apache-2.0
"""A small encoder of rtnetlink (rtnetlink(7)): the few requests that a lab needs, many in one system call.

Functions build requests, ``RouteSocket`` sends them; what should be there is ``topology_state``'s to say. Why not a
library: docs/decisions/0004-lab-network.md.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from ringfence.errors import HostLacks, HostRefused
from ringfence.model.addresses import Address, Network

LOOPBACK = 1  # lo's index in every namespace

# linux/rtnetlink.h: message types
_NEWLINK, _DELLINK, _GETLINK, _SETLINK, _NEWADDR = 16, 17, 18, 19, 20
_NEWROUTE, _DELROUTE, _GETROUTE, _NEWNEIGH, _DELNEIGH = 24, 25, 26, 28, 29
# linux/netlink.h: flags and answers
_REQUEST, _ACK, _REPLACE, _EXCL, _CREATE, _ACK_TLVS = 0x1, 0x4, 0x100, 0x200, 0x400, 0x200
_ERROR, _CAP_ACK, _EXT_ACK, _MESSAGE, _NESTED = 2, 10, 11, 1, 0x8000
_SOL_NETLINK = 270
# linux/if_link.h
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MASTER, _IFLA_PROTINFO, _IFLA_LINKINFO, _IFLA_AF_SPEC = 1, 3, 10, 12, 18, 26
_IFLA_OPERSTATE, _OPERSTATE_UP = 16, 6
_IFLA_NET_NS_FD, _INFO_KIND, _INFO_DATA, _VETH_PEER, _BRPORT_HAIRPIN, _INET_CONF, _PROXY_ARP = 28, 1, 2, 1, 4, 1, 3
_IFF_UP = 1
# linux/if_addr.h, linux/neighbour.h, linux/rtnetlink.h
_IFA_ADDRESS, _IFA_LOCAL, _IFA_F_NODAD = 1, 2, 0x02
_NDA_DST, _NDA_LLADDR, _NUD_PERMANENT = 1, 2, 0x80
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _TABLE_MAIN, _RTPROT_STATIC = 1, 4, 5, 254, 4
_SCOPE_UNIVERSE, _SCOPE_LINK, _NOWHERE, _ONLINK = 0, 253, 255, 4
UNICAST, _LOCAL, BLACKHOLE, UNREACHABLE = 1, 2, 6, 7

_AT_ONCE = 64  # requests in one system call: their answers must fit the socket's receive buffer


@dataclass(frozen=True, slots=True)
class Request:
    """One request: its type, flags and encoded body, and in words what it asks for. ``forgives`` are error numbers
    that mean that nothing had to be done.
    """

    kind: int
    flags: int
    body: bytes
    text: str
    forgives: frozenset[int] = frozenset()

    def encoded(self, sequence: int) -> bytes:
        """Return the request as bytes, with its sequence number."""
        return struct.pack("=IHHII", 16 + len(self.body), self.kind, self.flags | _REQUEST | _ACK, sequence, 0) + (
            self.body
        )


def new_veth(name: str, *, index: int, mac: str, peer: str, peer_mac: str, peer_netns: int) -> Request:
    """Make a pair of links: this end here with a chosen index, the peer in the namespace of a file descriptor.

    Both ends are down.
    """
    other = _link(0) + _name(peer) + _attribute(_IFLA_ADDRESS, _mac(peer_mac))
    other += _attribute(_IFLA_NET_NS_FD, struct.pack("=I", peer_netns))
    return Request(
        _NEWLINK,
        _CREATE | _EXCL,
        _link(index)
        + _name(name)
        + _attribute(_IFLA_ADDRESS, _mac(mac))
        + _kind("veth", _attribute(_VETH_PEER | _NESTED, other)),
        f"link add {name} type veth peer {peer}",
    )


def new_bridge(name: str, *, mac: str) -> Request:
    """Make a bridge with an address of its own, so that it does not change with its ports'."""
    body = _link(0) + _name(name) + _attribute(_IFLA_ADDRESS, _mac(mac)) + _kind("bridge", b"")
    return Request(_NEWLINK, _CREATE | _EXCL, body, f"link add {name} type bridge")


def link_up(index: int, *, master: int = 0, proxy_arp: bool = False) -> Request:
    """Set a link up; put it into a bridge, or let it answer ARP for others, in the same step."""
    body = _link(index, flags=_IFF_UP, change=_IFF_UP)
    if master:
        body += _attribute(_IFLA_MASTER, struct.pack("=I", master))
    if proxy_arp:
        setting = _attribute(_PROXY_ARP, struct.pack("=I", 1))
        inet = _attribute(socket.AF_INET | _NESTED, _attribute(_INET_CONF | _NESTED, setting))
        body += _attribute(_IFLA_AF_SPEC | _NESTED, inet)
    return Request(_SETLINK, 0, body, f"link set {index} up")


def link_down(index: int) -> Request:
    """Set a link down: nothing passes, and its routes and neighbours go."""
    return Request(_SETLINK, 0, _link(index, flags=0, change=_IFF_UP), f"link set {index} down")


def rename(index: int, name: str) -> Request:
    """Give a link that is down another name."""
    return Request(_SETLINK, 0, _link(index) + _name(name), f"link set {index} name {name}")


def hairpin(index: int) -> Request:
    """Let a bridge send frames back out of the port that they came from: a pod that reaches itself by its Service."""
    info = _attribute(_IFLA_PROTINFO | _NESTED, _attribute(_BRPORT_HAIRPIN, b"\1"))
    return Request(_SETLINK, 0, _link(index, family=socket.AF_BRIDGE) + info, f"bridge link set {index} hairpin on")


def link_delete(index: int) -> Request:
    """Delete a link, and of a pair the other end too."""
    return Request(_DELLINK, 0, _link(index), f"link delete {index}", frozenset({errno.ENODEV}))


def new_address(index: int, address: Address, length: int) -> Request:
    """Give a link an address that works at once (no duplicate address detection)."""
    body = struct.pack("=BBBBi", _family(address), length, _IFA_F_NODAD, 0, index)
    body += _attribute(_IFA_LOCAL, address.packed) + _attribute(_IFA_ADDRESS, address.packed)
    return Request(_NEWADDR, _CREATE | _EXCL, body, f"address add {address}/{length} dev {index}")


def new_neighbour(index: int, address: Address, mac: str) -> Request:
    """Set a static neighbour entry, in place of whatever is there."""
    text = f"neighbour replace {address} lladdr {mac} dev {index}"
    return Request(_NEWNEIGH, _CREATE | _REPLACE, _neighbour(index, address, mac), text)


def neighbour_delete(index: int, address: Address, mac: str) -> Request:
    """Delete a neighbour entry, if it is there."""
    text = f"neighbour delete {address} dev {index}"
    return Request(_DELNEIGH, 0, _neighbour(index, address, mac), text, frozenset({errno.ENOENT, errno.ENODEV}))


def new_route(destination: Network, *, index: int = 0, gateway: Address | None = None, kind: int = UNICAST) -> Request:
    """Set a route of the main table, in place of the one to the same destination. The gateway need not be local."""
    body = _route(destination, index, gateway, kind)
    return Request(_NEWROUTE, _CREATE | _REPLACE, body, f"route replace {destination} dev {index}")


def route_delete(destination: Network, *, index: int, gateway: Address | None = None) -> Request:
    """Delete a route by a link, if it is there."""
    body = _route(destination, index, gateway, UNICAST)
    return Request(
        _DELROUTE, 0, body, f"route delete {destination} dev {index}", frozenset({errno.ESRCH, errno.ENODEV})
    )


class RouteSocket:
    """A socket on the network of the namespace that the constructing thread is in; it stays with that namespace."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, requests: Sequence[Request]) -> None:
        """Have the kernel do requests, in order. Raises ``HostRefused`` for the first that fails; what follows it in
        the sequence may be done nevertheless.
        """
        for start in range(0, len(requests), _AT_ONCE):
            batch = requests[start : start + _AT_ONCE]
            self._socket.send(b"".join(request.encoded(number) for number, request in enumerate(batch)))
            failures = self._answers(len(batch))
            for number, request in enumerate(batch):
                failed, said = failures.get(number, (0, ""))
                if failed == errno.EPERM:
                    raise HostLacks("changing a network needs CAP_NET_ADMIN", remedy="run this as root")
                if failed and failed not in request.forgives:
                    answer = f"{os.strerror(failed)}: {said}" if said else os.strerror(failed)
                    raise HostRefused(f"the kernel refused to {request.text}", asked=request.text, answered=answer)

    def carries(self, index: int) -> bool:
        """Tell whether a link sends packets yet. The kernel gets round to that a moment after the other end came up,
        and loses what is sent until then; to ask hurries it (since Linux 6.9).
        """
        answer = self._get(_GETLINK, _NEWLINK, _link(index))
        at = 16 + 16  # header, ifinfomsg
        while at + 4 <= len(answer):
            length, kind = struct.unpack_from("=HH", answer, at)
            if kind == _IFLA_OPERSTATE:
                return answer[at + 4] == _OPERSTATE_UP
            at += (length + 3) & ~3
        return False

    def delivers(self, address: Address, index: int = 0) -> bool:
        """Tell whether packets to an address are taken as one's own yet. For an IPv6 address the kernel sees to that a
        moment after it was added, and drops them until then. A link-local address is asked for on one link, ``index``.
        """
        head = struct.pack("=BBBBBBBBI", _family(address), address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
        on_link = _attribute(_RTA_OIF, struct.pack("=I", index)) if index else b""
        answer = self._get(_GETROUTE, _NEWROUTE, head + _attribute(_RTA_DST, address.packed) + on_link)
        return len(answer) > 16 + 7 and answer[16 + 7] == _LOCAL  # header, rtm_type

    def _get(self, asked: int, wanted: int, body: bytes) -> bytes:
        """Return the kernel's one answer to a question, or nothing if it is an error."""
        self._socket.send(struct.pack("=IHHII", 16 + len(body), asked, _REQUEST, 0, 0) + body)
        answer = self._socket.recv(65536)
        return answer if struct.unpack_from("=H", answer, 4)[0] == wanted else b""

    def _answers(self, wanted: int) -> dict[int, tuple[int, str]]:
        failures: dict[int, tuple[int, str]] = {}
        while wanted:
            data = self._socket.recv(65536)
            at = 0
            while at < len(data):
                length, kind, flags, sequence, _, number = struct.unpack_from("=IHHIIi", data, at)
                if kind == _ERROR:
                    wanted -= 1
                    if number:
                        failures[sequence] = -number, _said(data[at : at + length], flags)
                at += (length + 3) & ~3
        return failures


def _said(answer: bytes, flags: int) -> str:
    at = 16 + 4 + 16  # header, error number, header of the request
    while flags & _ACK_TLVS and at + 4 <= len(answer):
        length, kind = struct.unpack_from("=HH", answer, at)
        if kind == _MESSAGE:
            return answer[at + 4 : at + length].rstrip(b"\0").decode(errors="replace")
        at += (length + 3) & ~3
    return ""


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _name(name: str) -> bytes:
    return _attribute(_IFLA_IFNAME, name.encode() + b"\0")


def _mac(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _family(address: Address | Network) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def _link(index: int, *, family: int = socket.AF_UNSPEC, flags: int = 0, change: int = 0) -> bytes:
    return struct.pack("=BxHiII", family, 0, index, flags, change)


def _kind(kind: str, data: bytes) -> bytes:
    info = _attribute(_INFO_KIND, kind.encode())
    if data:
        info += _attribute(_INFO_DATA | _NESTED, data)
    return _attribute(_IFLA_LINKINFO | _NESTED, info)


def _neighbour(index: int, address: Address, mac: str) -> bytes:
    head = struct.pack("=BxxxiHBB", _family(address), index, _NUD_PERMANENT, 0, 0)
    return head + _attribute(_NDA_DST, address.packed) + _attribute(_NDA_LLADDR, _mac(mac))


def _route(destination: Network, index: int, gateway: Address | None, kind: int) -> bytes:
    scope = _SCOPE_UNIVERSE if gateway is not None or kind != UNICAST else _SCOPE_LINK
    flags = _ONLINK if gateway is not None else 0
    family = _family(destination)
    body = struct.pack(
        "=BBBBBBBBI", family, destination.prefixlen, 0, 0, _TABLE_MAIN, _RTPROT_STATIC, scope, kind, flags
    )
    body += _attribute(_RTA_DST, destination.network_address.packed)
    if index:
        body += _attribute(_RTA_OIF, struct.pack("=I", index))
    if gateway is not None:
        body += _attribute(_RTA_GATEWAY, gateway.packed)
    return body
