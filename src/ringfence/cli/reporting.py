# SPDX-License-Identifier: Apache-2.0
"""Findings of files and clusters, for the two commands that report them: their places, their order, their formats."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from ringfence.cli.colour import colour

if TYPE_CHECKING:
    from ringfence.apis.manifests import Loaded, Manifest
    from ringfence.errors import InvalidObject
    from ringfence.semantics.lint.findings import Finding
    from ringfence.semantics.lint.rules import LintRule

_COLOURS = {"error": "red", "warning": "yellow", "info": "cyan"}


def readable(loaded: Loaded) -> None:
    """Stop with exit code 2 if a path could not be read at all, or if there was nothing to read."""
    from ringfence.errors import UnreadablePath, UsageError

    missing = [problem for problem in loaded.problems if isinstance(problem, UnreadablePath)]
    for problem in missing:
        click.echo(str(problem), err=True)
    if missing:
        raise click.exceptions.Exit(2)
    if not loaded.manifests and not loaded.problems:
        raise UsageError(
            "no objects in the files given: directories are read for *.yaml, *.yml and *.json, below only with -R"
        )


def placed(findings: Iterable[Finding], manifests: Sequence[Manifest]) -> list[Finding]:
    """Return findings about objects of files with file, line and column."""
    from ringfence.errors import FieldError
    from ringfence.semantics.lint.findings import Place

    def place(finding: Finding) -> Finding:
        manifest = manifests[finding.number]
        spot = manifest.located(FieldError(finding.path, "", ""))
        return replace(finding, place=Place(manifest.file, spot.line or 1, spot.column or 1))

    return [place(finding) if finding.number >= 0 else finding for finding in findings]


def of_files(problems: Iterable[InvalidObject]) -> list[Finding]:
    """Return what is wrong with files themselves as findings."""
    from ringfence.semantics.lint.findings import unreadable

    return [finding for problem in problems for finding in unreadable(problem)]


def in_order(findings: Sequence[Finding]) -> list[Finding]:
    """Return findings file by file and line by line; those without a file by namespace and name."""
    files = {finding.place.file: 0 for finding in findings if finding.place}
    order = {file: number for number, file in enumerate(sorted(files))}

    def key(finding: Finding) -> tuple[object, ...]:
        place = finding.place
        at = (order[place.file], place.line, place.column) if place else (-1, 0, 0)
        return (*at, finding.object if not place else "", finding.path, finding.rule.name)

    return sorted(findings, key=key)


def show(findings: Sequence[Finding], output: str, kind: str, *, rules: Iterable[LintRule], policies: int) -> None:
    """Print findings for programs."""
    from ringfence.semantics.lint import sarif, summary

    whole = sarif.log(findings, rules) if output == "sarif" else summary.document(findings, kind, policies=policies)
    click.echo(json.dumps(whole, indent=2, ensure_ascii=False))


def show_text(findings: Sequence[Finding], subject: str) -> None:
    """Print findings for people, each with its reason and remedy, and how many there are."""
    from ringfence.semantics.lint import summary

    for finding in findings:
        click.secho(summary.headline(finding), fg=_COLOURS[finding.severity.word], color=colour())
        for line in summary.reasons(finding):
            click.echo(f"    {line}")
    click.echo(summary.counted(findings, subject))
