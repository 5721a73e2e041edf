# SPDX-License-Identifier: Apache-2.0
"""Cuts a batch of events into parts that are put in force one after the other. Pure.

A dataplane changes cheaply where only the cluster or only the policies change; where both do, it may have to build
everything anew. So policies are not taken up together with what they select, as far as every stop on the way is a
state that the API server really had: a flow must never meet old policies under new labels if the policies had changed
first. Which came first the resourceVersions say: pods, namespaces, nodes and network policies are counted by one
store. Where they are no numbers, the order in which we heard of things is kept, as if each had come alone.

The end of the last part is the end of the batch, whatever the cut. Gates open only there.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from ringfence.agent.reconcile import Event, Kind
from ringfence.kube.changes import Listed

MOST_PARTS = 4
"""A batch that changes sides more often is put in force in one: many small steps cost more than a great one."""


@dataclass(frozen=True, slots=True)
class Heard:
    """An event, and when we heard of it (the event loop's clock)."""

    at: float
    event: Event


def parts(heard: Sequence[Heard]) -> tuple[tuple[Heard, ...], ...]:
    """Return events in parts that change policies or the cluster, never both; one part if that cannot be.

    A relist says nothing of the order in which things happened, so a batch with one stays whole.
    """
    versions = [_version(each) for each in heard]
    if None in versions:
        return (tuple(heard),)
    cut = [tuple(run) for _, run in itertools.groupby(_in_order(heard, versions), _of_policies)]
    return tuple(cut) if len(cut) <= MOST_PARTS else (tuple(heard),)


def _version(heard: Heard) -> str | None:
    change = heard.event.change
    return None if isinstance(change, Listed) else change.version


def _of_policies(heard: Heard) -> bool:
    return heard.event.kind is Kind.POLICIES


def _in_order(heard: Sequence[Heard], versions: Sequence[str | None]) -> Sequence[Heard]:
    numbers = [int(version) for version in versions if version is not None and version.isdecimal()]
    if len(numbers) < len(heard):
        return heard
    return [each for _, each in sorted(zip(numbers, heard, strict=True), key=lambda pair: pair[0])]
