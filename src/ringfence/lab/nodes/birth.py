# SPDX-License-Identifier: Apache-2.0
"""From fork to exec: what a new process of a container does to itself before it becomes the container's program.

Runs in the forked child only. Whatever fails is told to the runner over a pipe that closes by itself when the program
starts, and the child ends.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import stat
import struct
import sys
import termios
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from ringfence.lab.images import AGNHOST
from ringfence.lab.images.agnhost import __main__ as agnhost
from ringfence.lab.nodes import kernel
from ringfence.lab.nodes.rootfs import Template, Volume, enter_root

# What a container may do unless its securityContext says otherwise: the set that container runtimes give.
_CAPABILITIES = {
    "CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "FSETID": 4, "KILL": 5, "SETGID": 6, "SETUID": 7, "SETPCAP": 8,
    "NET_BIND_SERVICE": 10, "NET_RAW": 13, "SYS_CHROOT": 18, "MKNOD": 27, "AUDIT_WRITE": 29, "SETFCAP": 31,
}  # fmt: skip
_MORE_CAPABILITIES = {
    "DAC_READ_SEARCH": 2, "LINUX_IMMUTABLE": 9, "NET_BROADCAST": 11, "NET_ADMIN": 12, "IPC_LOCK": 14, "IPC_OWNER": 15,
    "SYS_MODULE": 16, "SYS_RAWIO": 17, "SYS_PTRACE": 19, "SYS_PACCT": 20, "SYS_ADMIN": 21, "SYS_BOOT": 22,
    "SYS_NICE": 23, "SYS_RESOURCE": 24, "SYS_TIME": 25, "SYS_TTY_CONFIG": 26, "LEASE": 28, "AUDIT_CONTROL": 30,
    "MAC_OVERRIDE": 32, "MAC_ADMIN": 33, "SYSLOG": 34, "WAKE_ALARM": 35, "BLOCK_SUSPEND": 36, "AUDIT_READ": 37,
    "PERFMON": 38, "BPF": 39, "CHECKPOINT_RESTORE": 40,
}  # fmt: skip
_NUMBERS = _CAPABILITIES | _MORE_CAPABILITIES


class Stdio(NamedTuple):
    """The child's three descriptors; for a terminal all three are its slave end."""

    stdin: int
    stdout: int
    stderr: int
    tty: bool


def set_size(terminal: int, width: int, height: int) -> None:
    """Tell a terminal its size in characters."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


def begin(
    request: Mapping[str, Any], template: Template, network: int, stdio: Stdio, report: int, title: kernel.Title
) -> NoReturn:
    """Become the first process of a new container; the caller is alone in a new process namespace already."""
    _guarded(report, lambda: _enter_new(request, template, network), request, stdio, title)


def join(request: Mapping[str, Any], container: int, stdio: Stdio, report: int, title: kernel.Title) -> NoReturn:
    """Become a further process of the container whose first process is ``container`` (a pidfd)."""
    flags = kernel.CLONE_NEWNS | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWNET
    _guarded(report, lambda: kernel.setns(container, flags), request, stdio, title)


def _guarded(
    report: int, enter: Callable[[], None], request: Mapping[str, Any], stdio: Stdio, title: kernel.Title
) -> NoReturn:
    try:
        enter()
        _take_stdio(stdio)
        _set_privileges(request)
        _run(request, title)
    except BaseException as error:  # noqa: BLE001 - this process has nobody else to tell
        os.write(report, _sentence(error).encode()[:4096])
    os._exit(128)


def _sentence(error: BaseException) -> str:
    if not isinstance(error, OSError) or not error.strerror:
        return str(error) or type(error).__name__
    # Only the path inside the container means something to whoever reads this.
    return f"{error.strerror}: {str(error.filename).removeprefix('/.new')}" if error.filename else error.strerror


def _enter_new(request: Mapping[str, Any], template: Template, network: int) -> None:
    if network >= 0:
        kernel.setns(network, kernel.CLONE_NEWNET)
    kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC)
    volumes = [Volume(*volume) for volume in request["volumes"]]
    enter_root(template, request["files"], volumes, privileged=request["privileged"])
    socket.sethostname(request["hostname"])


def _take_stdio(stdio: Stdio) -> None:
    os.setsid()
    for target, source in enumerate((stdio.stdin, stdio.stdout, stdio.stderr)):
        os.dup2(source, target)
    if stdio.tty:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _set_privileges(request: Mapping[str, Any]) -> None:
    kept = _capabilities(request)
    kernel.drop_bounding(kept)
    os.setgroups(request["groups"])
    os.setgid(request["gid"])
    os.setuid(request["uid"])  # another user than root keeps no capabilities by that
    if request["uid"] == 0:
        kernel.keep_capabilities(kept)
    # A change of credentials has reset it. Without the runner nobody would reap, log or stop the process.
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)


def _capabilities(request: Mapping[str, Any]) -> frozenset[int]:
    if request["privileged"] or "ALL" in request["add"]:
        return frozenset(_NUMBERS.values())
    kept = set(_CAPABILITIES.values()) if "ALL" not in request["drop"] else set()
    kept -= {_NUMBERS[name] for name in request["drop"] if name in _NUMBERS}
    return frozenset(kept | {_NUMBERS[name] for name in request["add"] if name in _NUMBERS})


def _run(request: Mapping[str, Any], title: kernel.Title) -> None:
    """Become the program; returns only by an exception."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o022)
    directory = request["cwd"] or "/"
    try:
        os.chdir(directory)
    except OSError as error:
        raise OSError(error.errno, f"chdir to cwd ({directory!r}): {os.strerror(error.errno or 0)}".lower()) from None
    environment: dict[str, str] = request["env"]
    command: Sequence[str] = request["argv"]
    if command[0] == AGNHOST:
        _become_agnhost(command, environment, title)
    os.execve(_find(command[0], environment.get("PATH", "")), list(command), environment)


def _become_agnhost(command: Sequence[str], environment: Mapping[str, str], title: kernel.Title) -> NoReturn:
    """Run agnhost in this very process: it is loaded already, where starting an interpreter takes 40 ms of a processor.

    What exec would have done is done here: another environment and command line, and no descriptor but the three.
    """
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # as Python starts
    os.environ.clear()
    os.environ.update(environment)
    title.write(command)
    os.closerange(3, 1 << 20)  # the report, too: the program runs
    try:
        code = agnhost.main(command[1:])
    except BaseException:  # noqa: BLE001 - as an interpreter ends
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _find(program: str, path: str) -> str:
    """Return the file to run; raises ``OSError`` in the words of a container runtime."""
    candidates = [program] if "/" in program else [f"{folder or '.'}/{program}" for folder in path.split(":")]
    for candidate in candidates:
        try:
            status = os.stat(candidate)  # noqa: PTH116 - a string, as everything that exec takes
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode) and os.access(candidate, os.X_OK):
            return candidate
        if "/" in program:
            raise OSError(errno.EACCES, f'exec: "{program}": permission denied')
    if "/" in program:
        raise OSError(errno.ENOENT, f'exec: "{program}": stat {program}: no such file or directory')
    raise OSError(errno.ENOENT, f'exec: "{program}": executable file not found in $PATH')
