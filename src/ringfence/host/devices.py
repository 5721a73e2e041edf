# SPDX-License-Identifier: Apache-2.0
"""The network devices of a namespace: which there are now, and word of every change, over rtnetlink(7).

The kernel has told of a device before anybody can use it. So who was told of nothing since the last list has the
whole list.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import weakref
from dataclasses import dataclass

from ringfence.errors import HostRefused
from ringfence.host.netlink import HEADER, attributes, messages

# linux/rtnetlink.h, linux/netlink.h
_GROUP_LINK = 1
_NEW_LINK, _GET_LINK = 16, 18
_REQUEST, _DUMP = 0x1, 0x300
_ERROR, _DONE = 2, 3
_INTERRUPTED = 0x10  # NLM_F_DUMP_INTR: something changed meanwhile
_IFINFOMSG = 16
_EXTENSION_MASK, _WITHOUT_STATISTICS = 29, 8  # linux/if_link.h, IFLA_EXT_MASK; RTEXT_FILTER_SKIP_STATS
_NAME, _MASTER, _LINKINFO, _KIND = 3, 10, 18, 1
_LOOPBACK = 0x8  # linux/if.h, IFF_LOOPBACK
_MOST = 1 << 16


@dataclass(frozen=True, slots=True)
class Device:
    """A network device. ``kind`` is what ``ip -d link`` calls it ("veth", "bridge"), empty for hardware.

    ``master`` is the index of the bridge (or the like) that it is a port of, 0 if of none.
    """

    index: int
    name: str
    kind: str
    loopback: bool
    master: int


class Devices:
    """The devices of the network namespace that the constructing thread is in."""

    def __init__(self) -> None:
        self._route = _socket(0)
        self._news = _socket(_GROUP_LINK)
        self._news.setblocking(False)
        self._releases = [weakref.finalize(self, each.close) for each in (self._route, self._news)]

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when a device comes, changes or goes."""
        return self._news.fileno()

    def touched(self) -> bool:
        """Read all the news, and tell whether there were any; never waits."""
        touched = False
        while True:
            try:
                self._news.recv(_MOST)
            except BlockingIOError:
                return touched
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # more than the socket could keep
                    raise
            touched = True

    def listing(self) -> list[Device]:
        """Return all devices."""
        for _ in range(8):
            found = self._dump()
            if found is not None:
                return found
        raise HostRefused("the devices change all the time", asked="RTM_GETLINK", answered="interrupted")

    def close(self) -> None:
        """Give the sockets back."""
        for release in self._releases:
            release()

    def _dump(self) -> list[Device] | None:
        body = bytes(_IFINFOMSG) + struct.pack("=HHI", 8, _EXTENSION_MASK, _WITHOUT_STATISTICS)
        self._route.send(struct.pack("=IHHII", HEADER + len(body), _GET_LINK, _REQUEST | _DUMP, 1, 0) + body)
        found: list[Device] = []
        whole = True
        while True:
            for kind, flags, message in messages(self._route.recv(_MOST)):
                whole = whole and not flags & _INTERRUPTED
                if kind == _DONE:
                    return found if whole else None
                if kind == _ERROR:
                    number = -struct.unpack_from("=i", message)[0]
                    raise HostRefused("the devices cannot be listed", asked="RTM_GETLINK", answered=os.strerror(number))
                if kind == _NEW_LINK:
                    found.append(_device(message))


def _device(message: bytes) -> Device:
    index, flags = struct.unpack_from("=4xiI", message)
    said = dict(attributes(message[_IFINFOMSG:]))
    info = dict(attributes(said.get(_LINKINFO, b"")))
    master = struct.unpack("=I", said[_MASTER])[0] if _MASTER in said else 0
    return Device(index, _text(said[_NAME]), _text(info.get(_KIND, b"")), bool(flags & _LOOPBACK), master)


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


def _socket(groups: int) -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    made.settimeout(60)
    made.bind((0, groups))
    return made
