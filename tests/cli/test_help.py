# SPDX-License-Identifier: Apache-2.0
"""The command line says what it can do, and the documents name every command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from ringfence.cli.main import COMMANDS, ringfence

README = Path(__file__).parents[2] / "README.md"


def _commands() -> list[tuple[str, ...]]:
    """Return every command and sub-command, as words."""
    found: list[tuple[str, ...]] = []
    context = click.Context(ringfence)
    for name in COMMANDS:
        found.append((name,))
        command = ringfence.get_command(context, name)
        if isinstance(command, click.Group):
            found += [(name, sub) for sub in command.commands]
    return found


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_each_command_teaches_by_examples(name: str) -> None:
    """The help of a command shows command lines that can be copied."""
    command = ringfence.get_command(click.Context(ringfence), name)
    assert command is not None

    text = command.get_help(click.Context(command, info_name=name))
    assert "Examples:" in text
    assert f"ringfence {name}" in text


@pytest.mark.parametrize("words", _commands(), ids=" ".join)
def test_the_readme_names_each_command(words: tuple[str, ...]) -> None:
    """Nobody has to find a command by chance."""
    text = README.read_text()

    assert f"ringfence {words[0]}" in text
    assert words[-1] in text


def test_a_command_that_does_not_exist_is_a_usage_error() -> None:
    """Exit code 2, and the name that was typed."""
    done = subprocess.run([sys.executable, "-m", "ringfence", "fly"], capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert "'fly'" in done.stderr


def test_help_imports_no_command() -> None:
    """What makes commands slow to start is imported when they run, not to list them."""
    script = "import sys; from ringfence.cli.main import run; run(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert not {"aiohttp", "yaml", "msgspec", "cryptography", "pyroute2"} & set(done.stderr.split())
