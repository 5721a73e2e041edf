# SPDX-License-Identifier: Apache-2.0
"""The ``ringfence`` command: finds the sub-command's file, and turns errors into one sentence and an exit code.

Exit codes: 0 allowed or clean, 1 a finding (denied, differs, a failed step), 2 a usage or runtime error, 3
undecidable: what would have to be known is said.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from ringfence import __version__
from ringfence.errors import InvalidObject, RingfenceError

# name -> (module, help line); the module has a click command called ``command``
COMMANDS: dict[str, tuple[str, str]] = {
    "agent": ("ringfence.cli.agent", "Enforce network policies on this node."),
    "demo": ("ringfence.cli.demo", "Run the walk-through: two pods, a policy, a time-out, a label, a connection."),
    "diff": ("ringfence.cli.diff", "Say which connections a change of policies gains and loses."),
    "doctor": ("ringfence.cli.doctor", "Say what this machine can run, what it lacks, and the remedy."),
    "explain": ("ringfence.cli.explain", "Say why a connection is allowed or denied, and by which policy."),
    "lab": ("ringfence.cli.lab", "A cluster on this machine: pods are network namespaces, kubectl works."),
    "lint": ("ringfence.cli.lint", "Find what is wrong with policies, and what is probably not meant."),
    "reachability": ("ringfence.cli.reachability", "Say who reaches whom: a table, a list, a graph or a page."),
    "test": ("ringfence.cli.test", "Run cases: who may reach whom, decided by an engine of your choice."),
    "validate": ("ringfence.cli.validate", "Say what the API server would refuse, with file, line and column."),
    "verdicts": ("ringfence.cli.verdicts", "Answer the probes of a case with an engine of your choice."),
}


class LazyGroup(click.Group):
    """A group that imports a command's module only when the command is run or asked for its own help."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of all commands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - same
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(COMMANDS[cmd_name][0]).command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - same
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in sorted(COMMANDS)])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ringfence")
def ringfence() -> None:
    """Kubernetes network policies: enforce them, explain them, try them.

    \b
    Examples:
      ringfence demo                                   see a policy at work, with real packets
      ringfence lab up                                 a cluster on this machine
      ringfence explain --from demo/client --to demo/server --port 80
    """


def run(args: Sequence[str] | None = None, **extra: Any) -> int:
    """Run a command line and return its exit code; errors go to stderr as one sentence."""
    try:
        result = ringfence.main(args=args, prog_name="ringfence", standalone_mode=False, **extra)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return 2
    except click.Abort:
        return 130
    except InvalidObject as error:
        # One complaint a line, each beginning with its place, as editors and compilers have it.
        print(error, file=sys.stderr)
        return error.exit_code
    except RingfenceError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    return result if isinstance(result, int) else 0


def main() -> NoReturn:
    """Run the process's own command line: the entry point."""
    sys.exit(run())
