# SPDX-License-Identifier: Apache-2.0
"""``docs/tutorial.md``, typed line by line in a shell: everything prints what the page says.

A block of ``console`` holds commands (``$ …``) and what they print; ``…`` stands for what differs each time. A block of
``yaml`` is saved under the name that the sentence before it gives ("Save this as `NAME`").
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
_BLOCK = re.compile(r"^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r"[Ss]ave (?:it|this) as `([^`]+)`")
# What asks for a state that is just coming about may be asked again, as a person would.
_AGAIN = ("kubectl exec", "kubectl get", "ringfence explain")
_PATIENCE = 15.0


@dataclass(frozen=True)
class Typed:
    """A command, and what the page says that it prints."""

    line: str
    prints: str


@dataclass(frozen=True)
class Saved:
    """A file, and what the page says is in it."""

    name: str
    text: str


def steps(page: str) -> Iterator[Typed | Saved]:
    """Yield what a reader of the page does, in order."""
    for block in _BLOCK.finditer(page):
        match block["kind"]:
            case "console":
                for typed in re.split(r"^\$ ", block["text"], flags=re.MULTILINE)[1:]:
                    line, _, prints = typed.partition("\n")
                    if line.endswith("<< 'EOF'"):
                        # What is typed goes on to the line that ends it.
                        more, end, prints = prints.partition("EOF\n")
                        line = f"{line}\n{more}{end}".rstrip("\n")
                    yield Typed(line, prints.rstrip("\n"))
            case "yaml":
                names = _NAME.findall(page, 0, block.start())
                yield Saved(names[-1], block["text"])
            case kind:
                raise AssertionError(f"nobody knows what to do with a block of {kind}")


class Shell:
    """A shell that keeps its variables from one command to the next."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            ["bash", "--norc"],
            cwd=directory,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def type(self, line: str) -> str:
        """Type a line and return what it prints; ``$?`` is the line's own in the next one."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n_code=$?; echo; echo '-- done --'; (exit $_code)\n")
        self._process.stdin.flush()
        printed: list[str] = []
        for text in self._process.stdout:
            if text == "-- done --\n":
                break
            printed.append(text)
        return "".join(printed).rstrip("\n")

    def close(self) -> None:
        """End the shell."""
        self._process.communicate()


def as_said(expected: str, printed: str) -> bool:
    """Tell whether output is what the page says, where that says it."""
    pattern = ".*".join(map(re.escape, expected.split("…")))
    return re.fullmatch(pattern, printed) is not None


@pytest.mark.kernel
@pytest.mark.lab
def test_everything_that_the_tutorial_says_happens(tmp_path: Path) -> None:
    """With the reader's own kubeconfig and an empty directory; what a step prints is compared as a whole."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    home = tmp_path / "home"
    home.mkdir()
    labs = {"RINGFENCE_HOME": f"{os.environ['RINGFENCE_HOME']}/tutorial"}
    Path(labs["RINGFENCE_HOME"]).mkdir()
    directory = tmp_path / "here"
    directory.mkdir()
    environment = {**os.environ, **labs, "PATH": programs, "HOME": str(home), "KUBECONFIG": str(home / "config")}
    shell = Shell(directory, environment)
    try:
        for step in steps(PAGE.read_text(encoding="utf-8")):
            match step:
                case Saved():
                    (directory / step.name).parent.mkdir(exist_ok=True)
                    (directory / step.name).write_text(step.text)
                case Typed():
                    _take(shell, step)
    finally:
        shell.type("ringfence lab down")
        shell.close()


def _take(shell: Shell, step: Typed) -> None:
    deadline = time.monotonic() + _PATIENCE
    printed = shell.type(step.line)
    while not as_said(step.prints, printed) and step.line.startswith(_AGAIN) and time.monotonic() < deadline:
        printed = shell.type(step.line)
    assert as_said(step.prints, printed), f"$ {step.line}\n{printed}\n\nThe page says:\n{step.prints}"


def test_what_the_page_says_is_compared_with_care() -> None:
    """``…`` stands for a part of one line, nothing else is let through."""
    assert as_said("a … c\nd", "a b c\nd")
    assert not as_said("a … c", "a b\nb c")
    assert not as_said("", "x")
    assert not as_said("a.c", "abc")
