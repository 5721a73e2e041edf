# SPDX-License-Identifier: Apache-2.0
"""Containers for tests: what to start, and a whole conversation with a process as one value."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringfence.lab.nodes import wire
from ringfence.lab.nodes.podspec import PATH
from ringfence.lab.nodes.runtime import Container, Process, Session


def process(*argv: str, **more: Any) -> Process:
    """Return a process of this command line, with the PATH that pods have."""
    return Process(argv, {"PATH": PATH, **more.pop("env", {})}, **more)


def container(name: str, what: Process, network: Path | None = None, **more: Any) -> Container:
    """Return a container whose log is ``logs/NAME.log``."""
    about = {"addresses": [], "node": "node"} | more.pop("about", {})
    return Container(name, what, name, f"logs/{name}.log", network, about=about, **more)


@dataclass(frozen=True)
class Said:
    """All that a process said, and its exit code."""

    out: str
    err: str
    code: int


async def listen(session: Session) -> Said:
    """Listen to the end."""
    text = {wire.STDOUT: b"", wire.STDERR: b""}
    async with asyncio.timeout(20):
        while (frame := await session.receive()) is not None:
            if frame.kind == wire.EXIT:
                await session.close()
                return Said(text[wire.STDOUT].decode(), text[wire.STDERR].decode(), frame.json()["code"])
            text[frame.kind] += frame.payload
    raise AssertionError(f"the session ended without an exit code, after {text}")


async def hear(session: Session, wanted: str) -> str:
    """Listen until something was said."""
    text = ""
    async with asyncio.timeout(20):
        while wanted not in text:
            frame = await session.receive()
            assert frame is not None, text
            assert frame.kind == wire.STDOUT, (text, frame)
            text += frame.payload.decode()
    return text


async def until(condition: Callable[[], bool], what: str) -> None:
    """Poll until a condition holds."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what others do rings no bell
            await asyncio.sleep(0.01)
    assert condition(), what


def log_text(directory: Path, name: str) -> str:
    """Return a log without its times: stream, tag, text."""
    lines = (directory / "logs" / f"{name}.log").read_text().splitlines()
    return "\n".join(line.split(" ", 1)[1] for line in lines)


def proc(pid: int, name: str) -> bytes:
    """Return a file of /proc about a process; nothing if the process is gone."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
