# SPDX-License-Identifier: Apache-2.0
"""Hears from the kernel of every commit to an nftables table, whoever made it.

The kernel sends each change of nftables to a multicast group, once its transaction is in force. Only the name of the
table is read here: what changed, and whether it matters, is found by looking. What comes too fast to be kept is lost,
and counts as a change.
"""

from __future__ import annotations

import errno
import os
import socket
import weakref

from ringfence.errors import HostLacks, HostRefused
from ringfence.host.netlink import attributes, messages

# linux/netlink.h, linux/netfilter/nfnetlink.h
_NETLINK_NETFILTER = 12
_GROUP_NFTABLES = 7
_SUBSYSTEM_NFTABLES = 10
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_NFGENMSG = 4
_NEW_GENERATION = 15  # ends a transaction; its attributes are no table's
_MOST = 1 << 16

# linux/netfilter.h: nf_tables' families, by the names that nft gives them
FAMILIES = {"inet": 1, "ip": 2, "arp": 3, "netdev": 5, "bridge": 7, "ip6": 10}


class TableWatch:
    """Watches one table in the network namespace that the constructing thread is in.

    Raises ``HostLacks`` without the privilege or the kernel's help.
    """

    def __init__(self, family: str, table: str) -> None:
        self._family = FAMILIES[family]
        self._table = table.encode() + b"\0"
        try:
            made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
        except OSError as error:
            raise HostLacks(
                f"this kernel has no netfilter netlink ({error.strerror})", remedy="modprobe nf_tables"
            ) from None
        made.setblocking(False)
        try:
            made.bind((0, 0))
            made.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_NFTABLES)
        except OSError as error:
            made.close()
            if error.errno == errno.EPERM:
                raise HostLacks("watching nftables needs CAP_NET_ADMIN", remedy="run this as root") from None
            raise HostRefused(
                "nftables cannot be watched", asked="NFNLGRP_NFTABLES", answered=error.strerror or ""
            ) from None
        self._descriptor = made.detach()
        self._release = weakref.finalize(self, os.close, self._descriptor)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when something was committed."""
        return self._descriptor

    def touched(self) -> bool:
        """Read everything that came, and tell whether any of it was about the table; never waits."""
        touched = False
        while True:
            try:
                datagram = os.read(self._descriptor, _MOST)
            except BlockingIOError:
                return touched
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                touched = True  # more than the socket could keep: perhaps about our table
            else:
                touched = touched or self._about_ours(datagram)

    def close(self) -> None:
        """Stop watching."""
        self._release()

    def _about_ours(self, datagram: bytes) -> bool:
        return any(
            kind >> 8 == _SUBSYSTEM_NFTABLES and kind & 0xFF != _NEW_GENERATION and self._names_ours(content)
            for kind, _, content in messages(datagram)
        )

    def _names_ours(self, content: bytes) -> bool:
        """Tell whether an object is of the table: the first attribute of each kind of object names its table."""
        if not content or content[0] != self._family:
            return False
        return next((value for kind, value in attributes(content[_NFGENMSG:]) if kind == 1), None) == self._table
