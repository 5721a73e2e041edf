# SPDX-License-Identifier: Apache-2.0
"""``/agnhost COMMAND``: finds the command's module, and turns its errors into agnhost's messages and exit codes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from .flags import WrongUsage, describe

VERSION = "2.33"
COMMANDS = ("connect", "netexec", "pause", "porter", "serve-hostname")


def _module(command: str) -> Any:
    return import_module(f".{command.replace('-', '_')}", __package__)


def load() -> None:
    """Import every command, for a process that will not find them later."""
    for name in COMMANDS:
        _module(name)


def _usage(command: str) -> str:
    if not command:
        lines = [f"  {name:<16} {_module(name).ABOUT}" for name in COMMANDS]
        text = "\n".join(lines)
        return f"Usage:\n  agnhost [command]\n\nAvailable Commands:\n{text}\n\nThis is the lab's built-in agnhost.\n"
    module = _module(command)
    flags = describe(module.FLAGS)
    return f"Usage:\n  agnhost {module.USE} [flags]\n\nFlags:\n{flags}\n"


def main(words: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    command, rest = (words[0], words[1:]) if words else ("help", [])
    if command in ("--version", "-v"):
        sys.stdout.write(f"agnhost version {VERSION}\n")
        return 0
    if command in ("help", "--help", "-h"):
        command, rest = (rest[0] if rest else ""), ["--help"]
    if command and command not in COMMANDS:
        known = ", ".join(COMMANDS)
        sys.stderr.write(f'Error: unknown command "{command}" for "agnhost"; the lab\'s agnhost knows: {known}\n')
        return 1
    if not command or "--help" in rest or "-h" in rest:
        about = f"{_module(command).ABOUT}\n\n" if command else ""
        sys.stdout.write(about + _usage(command))
        return 0
    from .listening import Fatal, log  # noqa: PLC0415 - not needed to print help

    try:
        code = _module(command).main(rest)
    except WrongUsage as error:
        sys.stderr.write(f"Error: {error}\n{_usage(command)}")
        return 1
    except Fatal as error:
        log(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    assert isinstance(code, int)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
