# SPDX-License-Identifier: Apache-2.0
"""What engines have put in force in a lab's nodes: looked at, and taken away, by the names of the nodes' namespaces."""

from __future__ import annotations

from ringfence.dataplanes.registry import ENGINES
from ringfence.host import netns


def in_force(namespace: str) -> frozenset[str]:
    """Return the names of the engines that have something in force in a namespace."""
    with netns.enter(namespace):
        return frozenset(engine.name for engine in ENGINES.values() if engine.present())


def take_away(namespace: str) -> None:
    """Take away what engines have put in force in a namespace: from then on every packet passes."""
    with netns.enter(namespace):
        for engine in ENGINES.values():
            if engine.present():
                engine.remove()


def forget(namespace: str) -> None:
    """Take away what would outlive a namespace that is about to be deleted."""
    for engine in ENGINES.values():
        engine.forget(netns.path(namespace))
