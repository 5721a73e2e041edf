# SPDX-License-Identifier: Apache-2.0
"""nftables through libnftables, in this process: text in, text or JSON out, one commit per call.

One call of ``run`` is one kernel transaction: all of it happens or nothing. What to write, and in how many steps, is
decided elsewhere. In process it costs about 0.1 ms where a started ``nft`` costs 4 ms.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import os
import socket
import struct
import threading
import weakref
from collections.abc import Iterable
from typing import Any, Self

import msgspec

from ringfence.errors import HostLacks, HostRefused
from ringfence.host import netns
from ringfence.host.nft_elements import ElementChange, check_answers, encode_batch

LIBRARY = "libnftables.so.1"
_NO_NFTABLES = "load the module: modprobe nf_tables (CONFIG_NF_TABLES)"
REMEDY = "install it: apt-get install libnftables1"

# nftables/libnftables.h, enum nft_output_flags
_HANDLE = 1 << 3
_JSON = 1 << 4
_NUMERIC_PROTOCOL = 1 << 7
_NUMERIC_PRIORITY = 1 << 8
_TERSE = 1 << 11
# Protocols as numbers, since their names depend on the machine's /etc/protocols; symbols as nft's own words.
_OBJECTS = _JSON | _HANDLE | _NUMERIC_PROTOCOL | _NUMERIC_PRIORITY

# linux/netfilter/nfnetlink.h, nf_tables.h: subsystem 10, NFT_MSG_NEWGEN and NFT_MSG_GETGEN
_NETLINK_NETFILTER = 12
_NEW_GENERATION = 10 << 8 | 15
_GET_GENERATION = struct.pack("=IHHIIBBH", 20, 10 << 8 | 16, 1, 0, 0, 0, 0, 0)
_SEND_BUFFER = 256 << 20  # a transaction is one message to the kernel; 100,000 elements are 5 MB
_SO_SNDBUFFORCE = 32  # asm-generic/socket.h
_ANSWER_SECONDS = 60


class Nft:
    """A handle on the nftables of one network namespace: the one that the constructing thread was in.

    It stays with that namespace wherever it is used from, and may be used by several threads (one at a time). Raises
    ``HostLacks`` if libnftables is missing, or at the first use without the privilege.
    """

    def __init__(self) -> None:
        self._library = load_library()
        self._lock = threading.Lock()
        self._netlink = _netlink_socket()  # first: without this kind of socket libnftables would end the process
        self._namespace = netns.open_own()
        context = self._library.nft_ctx_new(0)
        if not context:
            os.close(self._netlink)
            os.close(self._namespace)
            raise HostRefused("libnftables could not be set up", asked="nft_ctx_new", answered="")
        self._context = context
        self._release = weakref.finalize(self, _release, self._library, context, self._namespace, self._netlink)
        self._library.nft_ctx_buffer_output(context)
        self._library.nft_ctx_buffer_error(context)

    def run(self, text: str) -> str:
        """Commit a transaction written in nft's language, or list something; returns what nft printed.

        Raises ``HostRefused`` with the text and nft's answer; nothing of the text is in force then.
        """
        return self._run(text, 0)

    def listing(self, what: str, *, terse: bool = False) -> str:
        """Return a listing as text: ``listing("table inet ringfence")``. ``terse`` leaves set elements out."""
        return self._run(f"list {what}", _TERSE if terse else 0)

    def objects(self, what: str, *, terse: bool = False) -> list[dict[str, Any]]:
        """Return a listing decoded from nft's JSON, handles included: libnftables-json(5), without the outer object."""
        answer = self._run(f"list {what}", _OBJECTS | (_TERSE if terse else 0))
        decoded = msgspec.json.decode(answer)["nftables"]
        assert isinstance(decoded, list)
        return decoded

    def has_table(self, family: str, name: str) -> bool:
        """Tell whether there is a table of this name."""
        return any(each["table"]["name"] == name for each in self.objects(f"tables {family}") if "table" in each)

    def generation(self) -> int:
        """Return the namespace's generation number, which each commit of anybody counts up by one. About 20 µs.

        While it stays, nothing that nftables holds has changed.
        """
        with self._lock:
            self._check_open()
            os.write(self._netlink, _GET_GENERATION)
            answer = os.read(self._netlink, 4096)
        kind = struct.unpack_from("=H", answer, 4)[0]
        if kind != _NEW_GENERATION:
            code = -struct.unpack_from("=i", answer, 16)[0]
            raise HostRefused("nftables refused to tell its generation", asked="GETGEN", answered=os.strerror(code))
        # nlmsghdr 16, nfgenmsg 4, then the first attribute's header 4: NFTA_GEN_ID, big endian
        return int(struct.unpack_from(">I", answer, 24)[0])

    def change_elements(self, changes: Iterable[ElementChange]) -> None:
        """Commit changes of elements, all in one transaction. About 10 µs, and 1 to 2 µs for each element.

        Raises ``HostRefused``; nothing of it is in force then.
        """
        batch, last = encode_batch(changes)
        if not last:
            return
        with self._lock:
            self._check_open()
            try:
                os.write(self._netlink, batch)
                while not check_answers(os.read(self._netlink, 65536), last):
                    pass
            except OSError as error:
                raise HostRefused(
                    "nftables did not take elements", asked=f"{last} messages", answered=error.strerror or ""
                ) from None
            finally:
                self._drain()

    def _drain(self) -> None:
        """Read what is left of the answers to a refused transaction."""
        with socket.socket(fileno=os.dup(self._netlink)) as left:
            while True:
                try:
                    left.recv(65536, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    return

    def close(self) -> None:
        """Give the handle back; using it afterwards is an error. What it wrote stays in the kernel."""
        with self._lock:
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if not self._release.alive:
            raise ValueError("this Nft is closed")

    def _run(self, text: str, flags: int) -> str:
        # libnftables opens its socket anew when a dump was interrupted by another writer, and would then do so in the
        # namespace of whatever thread is calling: so every call is made from within the right one.
        with self._lock:
            self._check_open()
            with netns.entered(self._namespace):
                self._library.nft_ctx_output_set_flags(self._context, flags)
                failed = self._library.nft_run_cmd_from_buffer(self._context, text.encode()) != 0
                output = (self._library.nft_ctx_get_output_buffer(self._context) or b"").decode(errors="replace")
                errors = (self._library.nft_ctx_get_error_buffer(self._context) or b"").decode(errors="replace")
        if not failed:
            return output
        if "Operation not permitted" in errors:
            raise HostLacks("nftables needs CAP_NET_ADMIN", remedy="run this as root")
        if "Protocol not supported" in errors:
            raise HostLacks("this kernel has no nftables", remedy=_NO_NFTABLES)
        raise HostRefused("nftables refused", asked=text, answered=errors.strip())


def _netlink_socket() -> int:
    try:
        made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    except OSError as error:
        raise HostLacks(f"this kernel has no netfilter netlink ({error.strerror})", remedy=_NO_NFTABLES) from None
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("=qq", _ANSWER_SECONDS, 0))
    with contextlib.suppress(PermissionError):  # without the privilege the first use says so
        made.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SEND_BUFFER)
    return made.detach()


def _release(library: ctypes.CDLL, context: int, *descriptors: int) -> None:
    library.nft_ctx_free(context)
    for descriptor in descriptors:
        os.close(descriptor)


def load_library() -> ctypes.CDLL:
    """Return libnftables with its signatures declared; raises ``HostLacks`` if this machine has none."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        raise HostLacks(f"there is no {LIBRARY} on this machine", remedy=REMEDY) from None
    context, text = ctypes.c_void_p, ctypes.c_char_p
    library.nft_ctx_new.restype = context
    library.nft_ctx_new.argtypes = (ctypes.c_uint32,)
    library.nft_ctx_free.argtypes = (context,)
    library.nft_ctx_free.restype = None
    library.nft_ctx_output_set_flags.argtypes = (context, ctypes.c_uint)
    library.nft_ctx_output_set_flags.restype = None
    for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error"):
        getattr(library, name).argtypes = (context,)
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).argtypes = (context,)
        getattr(library, name).restype = text
    library.nft_run_cmd_from_buffer.argtypes = (context, text)
    library.nft_run_cmd_from_buffer.restype = ctypes.c_int
    return library
