# SPDX-License-Identifier: Apache-2.0
"""Runs the machine's own tools, to completion, and says whose fault a failure is.

A missing tool is ``HostLacks`` with the Debian package that brings it; a refusal is ``HostRefused`` with the argument
list, what the tool was fed, and what it answered. Never a shell. A tool runs in the network namespace of the calling
thread: wrap the call in ``netns.enter`` to run it elsewhere. Long-lived processes are their owners' own business.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from ringfence.errors import HostLacks, HostRefused

# tool -> the Debian package that brings it
PACKAGES: Mapping[str, str] = {
    "conntrack": "conntrack",
    "ip": "iproute2",
    "modprobe": "kmod",
    "nft": "nftables",
    "sysctl": "procps",
    "tc": "iproute2",
}


@dataclass(frozen=True, slots=True)
class Completed:
    """What a tool that ran to its end left: its exit code and both outputs, decoded (broken bytes replaced)."""

    argv: tuple[str, ...]
    code: int
    stdout: str
    stderr: str


def remedy_for(tool: str) -> str:
    """Return how to get a tool on a Debian machine."""
    return f"install it: apt-get install {PACKAGES.get(tool, tool)}"


def run(
    argv: Sequence[str],
    *,
    stdin: str = "",
    timeout: float = 60.0,
    env: Mapping[str, str] | None = None,
    accept: Container[int] = (0,),
) -> Completed:
    """Run a tool to its end.

    ``timeout`` is in seconds; the tool is killed then. Raises ``HostLacks`` if there is no such tool, ``HostRefused``
    if its exit code is not one of ``accept`` or if it took too long.
    """
    command = shlex.join(argv)
    asked = f"{command}\n{stdin}" if stdin else command
    try:
        done = subprocess.run(argv, input=stdin.encode(), capture_output=True, timeout=timeout, env=env, check=False)
    except FileNotFoundError:
        raise HostLacks(f"there is no {argv[0]} on this machine", remedy=remedy_for(argv[0])) from None
    except OSError as error:
        raise HostRefused(f"{argv[0]} could not be started", asked=asked, answered=str(error)) from error
    except subprocess.TimeoutExpired as error:
        answered = (error.stderr or b"").decode(errors="replace").strip()
        raise HostRefused(f"{command} took longer than {timeout:g} s", asked=asked, answered=answered) from error
    completed = Completed(
        tuple(argv), done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    )
    if completed.code not in accept:
        answered = completed.stderr.strip() or completed.stdout.strip()
        raise HostRefused(f"{command} failed with exit code {completed.code}", asked=asked, answered=answered)
    return completed
