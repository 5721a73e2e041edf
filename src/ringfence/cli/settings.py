# SPDX-License-Identifier: Apache-2.0
"""The options that say what an operator chose: the agent takes them, a lab hands them to its agents, and explain wants
to be told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--node-probes",
        type=click.Choice(["allow", "deny"]),
        default="allow",
        show_default=True,
        help="Whether the node's own addresses (kubelet probes) reach its pods whatever the policy.",
    ),
    click.option(
        "--own-node-egress",
        type=click.Choice(["policy", "allow"]),
        default="policy",
        show_default=True,
        help="Whether egress policy decides if a pod reaches its own node, or it always does.",
    ),
    click.option(
        "--established-connections",
        type=click.Choice(["cut", "keep"]),
        default="cut",
        show_default=True,
        help="What becomes of an open connection that policy would no longer allow.",
    ),
    click.option(
        "--pod-start",
        type=click.Choice(["closed", "open"]),
        default="closed",
        show_default=True,
        help="Whether a new pod's traffic waits at the gate until its policy is in force, or starts at once.",
    ),
)

ebpf_hook_option = click.option(
    "--ebpf-hook",
    type=click.Choice(["auto", "netfilter", "tc", "tc-alone"]),
    default="auto",
    show_default=True,
    help="Where the programs of the ebpf dataplane stand: docs/dataplanes/ebpf.md.",
)


def meaning_options(command: Command) -> Command:
    """Give a command the options on which the verdict of a new connection hangs."""
    for option in reversed(_OPTIONS[:2]):
        command = option(command)
    return command


def settings_options(command: Command) -> Command:
    """Give a command the options."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
