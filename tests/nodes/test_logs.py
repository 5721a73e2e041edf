# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ringfence.lab.nodes import wire
from ringfence.lab.nodes.logs import Wanted, read, seconds
from ringfence.lab.nodes.processes import Log
from tests.nodes.conversations import until

OLD = "2026-01-01T00:00:00.000000001Z stdout F old\n"


def size(path: Path) -> int:
    """Return a file's size."""
    return path.stat().st_size


async def text_of(path: Path, wanted: Wanted) -> str:
    """Return all that is shown of a log."""
    return b"".join([piece async for piece in read(path, wanted, lambda: True)]).decode()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return a log with an old line, whole lines, a line in three parts, and one that is not finished."""
    path = tmp_path / "0.log"
    path.write_text(OLD)
    log = Log(path)
    log.write(wire.STDOUT, b"one\ntwo\nth")
    log.write(wire.STDOUT, b"re")
    log.write(wire.STDOUT, b"e\n")
    log.write(wire.STDERR, b"prompt# ")
    log.close()
    return path


async def test_lines_come_out_as_they_went_in(log: Path) -> None:
    """Parts of a line are joined; an unfinished line ends without a newline."""
    assert await text_of(log, Wanted()) == "old\none\ntwo\nthree\nprompt# "


@pytest.mark.parametrize(
    ("tail", "shown"), [(0, ""), (1, "prompt# "), (2, "three\nprompt# "), (3, "two\nthree\nprompt# ")]
)
async def test_tail_counts_lines_not_entries(log: Path, tail: int, shown: str) -> None:
    """A line that was printed in three parts is one line."""
    assert await text_of(log, Wanted(tail=tail)) == shown


async def test_times_stand_before_each_line_once(log: Path) -> None:
    """Not before the parts of a line."""
    lines = (await text_of(log, Wanted(timestamps=True))).splitlines()

    assert [line.split(" ", 1)[1] for line in lines] == ["old", "one", "two", "three", "prompt# "]
    assert lines[0].startswith("2026-01-01T00:00:00.000000001Z ")


async def test_since_and_limit_leave_out_what_is_too_old_and_too_much(log: Path) -> None:
    """``sinceTime`` and ``limitBytes``."""
    assert await text_of(log, Wanted(since=seconds("2026-01-01T00:00:01Z"))) == "one\ntwo\nthree\nprompt# "
    assert await text_of(log, Wanted(limit=6)) == "old\non"


async def test_following_sees_what_is_written_later_also_after_the_file_was_put_aside(tmp_path: Path) -> None:
    """Until the container has ended, and then to the last byte."""
    path, over = tmp_path / "0.log", asyncio.Event()
    log = Log(path)
    log.write(wire.STDOUT, b"early\n")
    heard: list[str] = []

    async def follow() -> None:
        async for piece in read(path, Wanted(follow=True), over.is_set):
            heard.append(piece.decode())  # noqa: PERF401 - one by one, because others look meanwhile

    following = asyncio.create_task(follow())
    async with asyncio.timeout(20):
        await until(lambda: "early" in "".join(heard), "the first line is heard")
        log.write(wire.STDOUT, b"x" * (6 << 20) + b"\n")
        log.write(wire.STDOUT, b"x" * (6 << 20) + b"\n")
        log.write(wire.STDOUT, b"late\n")
        await until(lambda: "late" in "".join(heard), "the new file is heard")
        log.write(wire.STDOUT, b"last")
        over.set()
        await following
    log.close()

    assert size(tmp_path / "0.log.1") > 6 << 20
    assert "".join(heard).replace("x", "") == "early\n\n\nlate\nlast"
