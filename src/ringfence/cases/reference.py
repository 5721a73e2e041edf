# SPDX-License-Identifier: Apache-2.0
"""The oracle as an engine: computed from the whole state after each change, so no path can show in its verdicts."""

from __future__ import annotations

from collections.abc import Sequence

from ringfence.apis.manifests import cluster_from_objects
from ringfence.cases.script import Event, Objects, Probe
from ringfence.model.cluster import Cluster
from ringfence.model.policy import PolicySet
from ringfence.semantics.evaluate import evaluate


class Reference:
    """The oracle: each probe judged by the literal meaning of the policies."""

    def __init__(self) -> None:
        self._objects = Objects()
        self.cluster = Cluster()
        self.policies = PolicySet()

    def change(self, events: Sequence[Event]) -> None:
        """Take the changes in, in order."""
        self._objects.change(events)
        self.cluster, self.policies, _ = cluster_from_objects(self._objects.all())

    def verdicts(self, probes: Sequence[Probe]) -> list[bool]:
        """Tell for each probe whether it is allowed."""
        return [evaluate(probe.flow, self.cluster, self.policies).allowed for probe in probes]

    def close(self) -> None:
        """Hold nothing, give nothing back."""
