# SPDX-License-Identifier: Apache-2.0
"""The examples in the documents print what the documents say."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from ringfence.cli.main import run

DOCS = Path(__file__).parents[2] / "docs"
_FILE = re.compile(r"[Ss]ave (?:this|these|it)[^`]*`([^`]+)`[^`]*```yaml\n(.*?)```", re.DOTALL)
_RUN = re.compile(r"```\n((?:\$ ringfence .*?)?)```", re.DOTALL)


def _commands(text: str) -> list[tuple[str, str]]:
    """Return every command line of a document with what it is said to print."""
    found = []
    for block in _RUN.findall(text):
        for each in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = each.partition("\n")
            found.append((command, output))
    return found


@pytest.mark.parametrize("name", ["reachability.md", "diff.md"])
def test_each_example_prints_what_the_document_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files are saved as told, and each command is run among them."""
    text = (DOCS / name).read_text()
    for file, content in _FILE.findall(text):
        (tmp_path / file).write_text(content)
    monkeypatch.chdir(tmp_path)
    commands = _commands(text)
    assert len(commands) >= 3

    for command, expected in commands:
        run(shlex.split(command)[1:])
        assert capsys.readouterr().out.rstrip() == expected.rstrip(), command
