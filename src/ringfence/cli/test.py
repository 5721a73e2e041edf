# SPDX-License-Identifier: Apache-2.0
"""``ringfence test``: cases run on an engine, and what came out other than expected, for people and for CI systems.

What a case is ``cases.format`` says, what came of it ``cases.outcome``. Here is which cases, on what, and in which
form.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from ringfence.cli.colour import colour
from ringfence.cli.settings import ebpf_hook_option

if TYPE_CHECKING:
    from ringfence.cases.outcome import MakeEngine, Outcome
    from ringfence.lab.config import NetworkPlugin

_MOST_JOBS = 8


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("paths", nargs=-1, required=True, metavar="FILE|DIR...")
@click.option("-R", "--recursive", is_flag=True, help="Read directories below those that are given too.")
@click.option("-k", "expression", metavar="EXPR", help='Only cases whose name matches: "port and not (named or udp)".')
@click.option(
    "--dataplane",
    type=click.Choice(["reference", "interpreted", "memory", "nftables", "ebpf"]),
    default="reference",
    show_default=True,
    help="Who answers: the oracle, compiled programs, or real packets that an engine in the kernel lets pass.",
)
@click.option(
    "--network-plugin",
    type=click.Choice(["azure", "kubenet"]),
    default="azure",
    show_default=True,
    help="How pods are wired where packets are sent: routed, or on a bridge.",
)
@ebpf_hook_option
@click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json", "junit", "tap"]),
    default="text",
    show_default=True,
    help="Format of the report.",
)
@click.option("--fail-fast", is_flag=True, help="Begin no other case once one has not passed.")
@click.option("-j", "--jobs", type=click.IntRange(1, 64), help="Cases at a time.  [default: by the number of cores]")
def command(
    paths: tuple[str, ...],
    recursive: bool,
    expression: str | None,
    dataplane: str,
    network_plugin: str,
    ebpf_hook: str,
    output: str,
    fail_fast: bool,
    jobs: int | None,
) -> int:
    """Run cases: a cluster, steps that change it, and after each step who may reach whom (docs/cases.md).

    On nftables every case gets nodes and pods of its own, as network namespaces, and real packets decide (needs root).
    What differs is printed as a table of expected against seen, with the policy that decides or the rule that came
    nearest. Exit code: 0 all passed, 1 some differ, 2 usage, or a case that is none.

    \b
    Examples:
      ringfence test policies/cases/
      ringfence test policies/cases/ --dataplane nftables
      ringfence test web.yaml db.yaml -k "deny and not dns" --fail-fast
      ringfence test cases/ -R --dataplane nftables -o junit > results.xml
    """
    from ringfence.cases.selection import case_files, select

    files = select(case_files(paths, recursive=recursive), expression)
    make_engine = _engine_maker(dataplane, network_plugin, ebpf_hook)
    jobs = jobs or _jobs(dataplane)
    outcomes = _outcomes(files, make_engine, fail_fast=fail_fast, jobs=min(jobs, len(files)))
    return _exit_code(_write(outcomes, output, dataplane=dataplane, count=len(files)))


def _engine_maker(dataplane: str, plugin: str, ebpf_hook: str) -> MakeEngine:
    """Return what makes a new engine; raises ``HostLacks`` if this machine cannot run it."""
    from ringfence.cases import engines

    if dataplane in engines.NAMES:
        return partial(engines.engine, dataplane)
    from ringfence.errors import HostLacks
    from ringfence.lab.casebed import require, with_packets

    try:
        require(dataplane)
    except HostLacks as lack:
        other = "or ask an engine that sends no packets: --dataplane reference"
        raise HostLacks(lack.what, remedy=f"{lack.remedy}, {other}") from None
    return partial(with_packets, dataplane, cast("NetworkPlugin", plugin), ebpf_hook=ebpf_hook)


def _jobs(dataplane: str) -> int:
    """Return how many cases to run at a time: those that send packets mostly wait."""
    from ringfence.cases import engines

    cores = os.cpu_count() or 1
    return min(cores if dataplane in engines.NAMES else 2 * cores, _MOST_JOBS)


def _outcomes(files: list[Path], make_engine: MakeEngine, *, fail_fast: bool, jobs: int) -> Iterator[Outcome]:
    from ringfence.cases.outcome import Status, not_run, run_case
    from ringfence.cases.pool import run_all
    from ringfence.cli.progress import Steps

    outcomes = run_all(files, partial(run_case, make_engine=make_engine), jobs=jobs)
    with Steps("cases") as steps:
        for done, outcome in enumerate(outcomes, 1):
            steps.hide()
            yield outcome
            if fail_fast and outcome.status is not Status.PASSED:
                outcomes.close()
                yield from map(not_run, files[done:])
                return
            steps.show(f"{done} of {len(files)}")


def _write(outcomes: Iterator[Outcome], output: str, *, dataplane: str, count: int) -> list[Outcome]:
    """Write a report: as outcomes come where the form allows it, else at the end."""
    from ringfence.cases.reports import document, junit, tap, text

    began = time.monotonic()
    taken: list[Outcome] = []
    if output == "tap":
        click.echo(tap.start(count), nl=False)
    for outcome in outcomes:
        taken.append(outcome)
        if output == "tap":
            click.echo(tap.line(len(taken), outcome), nl=False)
        elif output == "text":
            _print(outcome)
    seconds = time.monotonic() - began
    if output == "text":
        line = text.summary(taken, dataplane=dataplane, seconds=seconds)
        click.secho(line, bold=True, fg="green" if _exit_code(taken) == 0 else "red", color=colour())
        return taken
    for complaint in text.complaints(taken):
        click.echo(complaint, err=True)
    if output in ("json", "junit"):
        render = document.render if output == "json" else junit.render
        click.echo(render(taken, dataplane=dataplane, seconds=seconds), nl=False)
    return taken


def _print(outcome: Outcome) -> None:
    from ringfence.cases.outcome import Status
    from ringfence.cases.reports import text

    passed = outcome.status is Status.PASSED
    click.secho(text.headline(outcome), fg=None if passed else "red", color=colour())
    for line in text.details(outcome):
        click.echo(line)


def _exit_code(outcomes: list[Outcome]) -> int:
    from ringfence.cases.outcome import Status

    found = {outcome.status for outcome in outcomes}
    return 2 if Status.BROKEN in found else int(Status.DIFFERS in found)
