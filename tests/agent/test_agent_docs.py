# SPDX-License-Identifier: Apache-2.0
"""docs/agent.md names every option, every metric and every ground, and none that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from ringfence.agent.metrics import Metrics
from ringfence.agent.podgate import Ground
from ringfence.cli.agent import command
from ringfence.cli.lab import command as lab
from ringfence.cli.settings import settings_options
from ringfence.dataplanes.verdicts import Reason

DOCUMENT = (Path(__file__).parents[2] / "docs" / "agent.md").read_text()
OPTIONS = [option for each in command.params for option in each.opts if option.startswith("--")]
METRICS = sorted(
    metric.name + ("_total" if metric.type == "counter" else "")
    for metric in Metrics("memory", "n1").registry.collect()
    if metric.name.startswith("ringfence_")
)


@pytest.mark.parametrize("name", [*OPTIONS, *METRICS, *(ground.value for ground in Ground), *(r.value for r in Reason)])
def test_document_names_everything(name: str) -> None:
    """An option, a metric, a ground or a reason that nobody can read about does not exist."""
    assert re.search(rf"`[^`]*{re.escape(name)}\b", DOCUMENT)


def test_document_names_nothing_else() -> None:
    """Every metric and every option that it speaks of is there."""
    assert set(re.findall(r"ringfence_[a-z_]+", DOCUMENT)) == set(METRICS)
    up = lab.commands["up"].params
    known = {*OPTIONS, *(option for each in up for option in each.opts)}
    assert set(re.findall(r"(?<![-\w])--[a-z][a-z-]+", DOCUMENT)) <= known


def test_lab_takes_the_same_settings_as_the_agent() -> None:
    """What an operator may choose can be tried in a lab."""

    @settings_options
    @click.command()
    def only(**_: str) -> None:
        """Take the settings."""

    settings = {option for each in only.params for option in each.opts}
    assert settings <= set(OPTIONS)
    assert settings <= {option for each in lab.commands["up"].params for option in each.opts}
    for option in settings:
        assert option in DOCUMENT
