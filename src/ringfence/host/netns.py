# SPDX-License-Identifier: Apache-2.0
"""Network namespaces: make, enter, name and delete them, in this process and in well under a millisecond.

A namespace's name is a file in ``/run/netns`` on which the namespace is bind-mounted, as iproute2 does it, so that
``ip netns exec NAME`` works on ours. Which namespaces there should be, and what is in them, others decide.

The network namespace belongs to a *thread*. ``enter`` moves the calling thread and moves it back; nothing may be
awaited inside. A socket, and a process that is started, stay in the namespace that their thread was in.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from ringfence.errors import HostLacks, HostRefused

T = TypeVar("T")

DIRECTORY = Path("/run/netns")

_CLONE_NEWNET = 0x40000000
_MS_BIND = 0x1000
_MS_REC = 0x4000
_MS_SHARED = 1 << 20
_MNT_DETACH = 2
_OWN = "/proc/thread-self/ns/net"

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_void_p)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_libc.setns.argtypes = (ctypes.c_int, ctypes.c_int)
_libc.unshare.argtypes = (ctypes.c_int,)

_directory_lock = threading.Lock()


def path(name: str) -> Path:
    """Return the file that stands for the namespace of a name, whether or not there is one."""
    return DIRECTORY / name


def exists(name: str) -> bool:
    """Tell whether there is a namespace of this name (an empty file that a killed ``create`` left is none)."""
    try:
        return path(name).stat().st_dev != DIRECTORY.stat().st_dev
    except FileNotFoundError:
        return False


def listing(prefix: str = "") -> list[str]:
    """Return the names of all namespaces that start with a prefix, sorted; half-made ones included."""
    with suppress(FileNotFoundError):
        return sorted(entry.name for entry in DIRECTORY.iterdir() if entry.name.startswith(prefix))
    return []


def create(name: str) -> None:
    """Make an empty namespace (its loopback is down) and give it a name.

    Raises ``HostRefused`` if the name is taken, ``HostLacks`` without the privilege.
    """
    target = path(name)
    with _directory_lock:
        _share_directory()
    try:
        target.touch(mode=0o444, exist_ok=False)
    except FileExistsError:
        if exists(name):
            raise HostRefused(
                f"there is a network namespace {name} already", asked=f"create {name}", answered=""
            ) from None

    def make() -> None:
        _call("unshare", _CLONE_NEWNET)
        _call("mount", _OWN.encode(), bytes(target), b"none", _MS_BIND, None)

    try:
        _in_own_thread(make)
    except BaseException:
        with suppress(OSError):
            target.unlink()
        raise


def delete(name: str) -> None:
    """Take a namespace's name away; it ends when its last process and socket do. No such namespace: nothing to do."""
    target = bytes(path(name))
    if _libc.umount2(target, _MNT_DETACH) != 0 and ctypes.get_errno() not in (errno.EINVAL, errno.ENOENT):
        raise _refusal("umount2", ctypes.get_errno())
    with suppress(FileNotFoundError):
        path(name).unlink()


@contextmanager
def enter(name_or_path: str | Path) -> Iterator[None]:
    """Move the calling thread into a namespace, and back at the end. Costs about 10 µs; nothing may be awaited inside.

    Takes a name, or the path of a namespace file (anything with a slash: ``/proc/4711/ns/net``). Raises
    ``HostRefused`` if there is no such namespace, ``HostLacks`` without the privilege.
    """
    target = path(name_or_path) if isinstance(name_or_path, str) and "/" not in name_or_path else name_or_path
    try:
        inside = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise HostRefused(
            f"there is no network namespace {name_or_path}", asked=f"open {target}", answered=error.strerror or ""
        ) from error
    try:
        with entered(inside):
            yield
    finally:
        os.close(inside)


@contextmanager
def entered(inside: int) -> Iterator[None]:
    """Like ``enter``, for the open file descriptor of a namespace (which stays open)."""
    outside = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _call("setns", inside, _CLONE_NEWNET)
        try:
            yield
        finally:
            _call("setns", outside, _CLONE_NEWNET)
    finally:
        os.close(outside)


def in_fresh(work: Callable[[], T]) -> T:
    """Run something in an unnamed, empty namespace that ends with it; returns or raises what it does.

    It runs in a thread of its own. Raises ``HostLacks`` without the privilege.
    """
    results: list[T] = []

    def body() -> None:
        _call("unshare", _CLONE_NEWNET)
        results.append(work())

    _in_own_thread(body)
    return results[0]


def open_own() -> int:
    """Return a file descriptor of the calling thread's own namespace; the caller closes it."""
    return os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)


def _share_directory() -> None:
    # As iproute2 does: without a shared mount, other mount namespaces would keep a deleted namespace alive.
    DIRECTORY.mkdir(mode=0o755, exist_ok=True)
    directory = bytes(DIRECTORY)
    if _libc.mount(b"", directory, b"none", _MS_SHARED | _MS_REC, None) == 0:
        return
    if ctypes.get_errno() != errno.EINVAL:
        raise _refusal("mount", ctypes.get_errno())
    _call("mount", directory, directory, b"none", _MS_BIND | _MS_REC, None)
    _call("mount", b"", directory, b"none", _MS_SHARED | _MS_REC, None)


def _in_own_thread(work: Callable[[], None]) -> None:
    failure: list[BaseException] = []

    def body() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - carried over to the calling thread
            failure.append(error)

    thread = threading.Thread(target=body, name="netns")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]


def _call(function: str, *arguments: object) -> None:
    if getattr(_libc, function)(*arguments) != 0:
        raise _refusal(function, ctypes.get_errno())


def _refusal(function: str, number: int) -> HostLacks | HostRefused:
    if number == errno.EPERM:
        return HostLacks("network namespaces need CAP_SYS_ADMIN", remedy="run this as root")
    return HostRefused(f"{function} was refused", asked=function, answered=os.strerror(number))
