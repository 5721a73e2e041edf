# SPDX-License-Identifier: Apache-2.0
"""The oracle as an engine: computed from the whole state after each change, so no path can show in its verdicts."""

from __future__ import annotations

from collections.abc import Sequence

from ringfence.apis.manifests import cluster_from_objects
from ringfence.cases.script import Event, Objects, Way
from ringfence.cases.withoutpackets import WithoutPackets
from ringfence.model.addresses import Address
from ringfence.model.cluster import Cluster
from ringfence.model.policy import Direction, PolicySet
from ringfence.model.settings import DEFAULTS, Settings
from ringfence.semantics.evaluate import isolating, judge_half


class Reference(WithoutPackets):
    """The oracle: each probe judged by the literal meaning of the policies."""

    def __init__(self, settings: Settings = DEFAULTS) -> None:
        super().__init__(settings)
        self._objects = Objects()
        self.cluster = Cluster()
        self.policies = PolicySet()

    def change(self, events: Sequence[Event]) -> None:
        """Take the changes in, in order."""
        self._objects.change(events)
        self.cluster, self.policies, _ = cluster_from_objects(self._objects.all())

    def passes(self, way: Way) -> bool:
        """Tell whether both halves of a connection are allowed, each as its own end sees the connection."""
        asked = ((way.outgoing, Direction.EGRESS), (way.incoming, Direction.INGRESS))
        return all(
            judge_half(flow, direction, self.cluster, self.policies, self.settings).allowed for flow, direction in asked
        )

    def isolates(self, address: Address) -> bool:
        """Tell whether some policy isolates the pod at an address."""
        pod = self.cluster.endpoint_at(address)
        return pod is not None and any(
            isolating(pod, direction, self.cluster, self.policies) for direction in Direction
        )
