# SPDX-License-Identifier: Apache-2.0
"""``ringfence doctor``: what this machine can run, what it lacks, and the remedy for each lack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ringfence.dataplanes.base import Probe
    from ringfence.host.fact import Fact

_WORDS = {True: "yes", False: "no", None: "could not tell"}


@click.command()
@click.option("--output", "-o", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(output: str) -> int:
    """Say what this machine can run, what it lacks, and the remedy for each lack.

    The exit code is 0 if an engine that filters packets can run, 1 otherwise; of several, labs and agents take the
    first in the list by default. Nothing is changed: what has to be tried is tried in a network namespace of its own
    that is gone afterwards. The eBPF program is kept if it had to be compiled.

    \b
    Examples:
      ringfence doctor
      sudo ringfence doctor                            labs with packets need root
      ringfence doctor -o json
    """
    from ringfence.dataplanes.base import Answer
    from ringfence.dataplanes.ebpf.probe import compiled
    from ringfence.dataplanes.registry import ENGINES
    from ringfence.host import facts

    found = [*facts.gather(), compiled()]
    probes = {name: engine.probe() for name, engine in ENGINES.items()}
    filtering = [name for name, engine in ENGINES.items() if engine.filters]
    default = next((name for name in filtering if probes[name].answer is Answer.YES), None)
    if output == "json":
        import json

        click.echo(json.dumps(_as_json(found, probes, default=default), indent=2))
    else:
        click.echo("\n".join(_as_text(found, probes, default=default)))
    return 1 if default is None else 0


def _as_json(found: Sequence[Fact], probes: Mapping[str, Probe], *, default: str | None) -> dict[str, Any]:
    return {
        "ready": default is not None,
        "defaultEngine": default,
        "engines": [
            {
                "name": name,
                "answer": probe.answer.value,
                "reason": probe.reason,
                "remedy": _remedy(probe),
                "hook": None if probe.hook is None else {"name": probe.hook.name, "reason": probe.hook.reason},
            }
            for name, probe in probes.items()
        ],
        "facts": [
            {
                "name": fact.name,
                "answer": _WORDS[fact.there],
                "detail": fact.detail,
                "wantedFor": fact.wanted_for,
                "remedy": fact.remedy if fact.there is False else "",
            }
            for fact in found
        ],
    }


def _as_text(found: Sequence[Fact], probes: Mapping[str, Probe], *, default: str | None) -> list[str]:
    lines = ["This machine"]
    for fact in found:
        lines += _entry(fact.name, _WORDS[fact.there], fact.detail, "" if fact.there is not False else fact.remedy)
        if fact.there is not True:
            lines.append(f"{'':24}wanted for {fact.wanted_for}")
    lines += ["", "Engines"]
    for name, probe in probes.items():
        lines += _entry(name, probe.answer.value, probe.reason, _remedy(probe))
        if probe.hook is not None:
            lines.append(f"{'':24}hook {probe.hook.name}: {probe.hook.reason}")
    lines.append("")
    if default is not None:
        lines.append(f"Ready: labs run with real packets, enforced by {default}.")
    else:
        lines.append("Not ready: no engine that filters packets can run here.")
        lines.append("Simulated labs, without packets, do: ringfence lab up --network-policy memory")
    return lines


def _entry(name: str, answer: str, detail: str, remedy: str) -> list[str]:
    lines = [f"  {name:<20}  {answer:<3}  {detail}"]
    if remedy:
        lines.append(f"{'':24}remedy: {remedy}")
    return lines


def _remedy(probe: Probe) -> str:
    from ringfence.dataplanes.base import Answer

    return probe.remedy if probe.answer is not Answer.YES else ""
