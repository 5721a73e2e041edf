# SPDX-License-Identifier: Apache-2.0
"""Why a flow is allowed or denied, as a value: what a person debugging needs, in the order in which they need it.

What each half and each policy comes to is ``judge``'s; this puts the two halves of a connection together and notes
what is easily overlooked about its ends; ``report`` renders the value to text and JSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ringfence.model.addresses import Address
from ringfence.model.cluster import Cluster, Endpoint, Node, PodKey
from ringfence.model.flow import Flow
from ringfence.model.policy import Direction, PolicySet
from ringfence.model.settings import DEFAULTS, Settings
from ringfence.semantics.evaluate import Reason
from ringfence.semantics.findings import JudgedHalf, Outcome, both
from ringfence.semantics.judge import judge
from ringfence.semantics.knowledge import EVERYTHING_KNOWN, Knowledge


@dataclass(frozen=True, slots=True)
class End:
    """One end of a flow: its address, and who holds it: a pod, a node, both None for the world outside.

    ``address`` is None where a pod has none yet; ``pod`` names it then too, where it is hostNetwork.
    ``host_network`` names the hostNetwork pods behind a node's address: their traffic is the node's (SEMANTICS 25).
    """

    address: Address | None
    endpoint: Endpoint | None
    node: Node | None
    pod: PodKey | None
    host_network: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.pod is not None:
            return str(self.pod)
        return str(self.address) if self.node is None else f"{self.address} (node {self.node.name})"


@dataclass(frozen=True, slots=True)
class Explanation:
    """A verdict with its reasons. ``notes`` are sentences on what is easily overlooked about these two ends.

    ``flow`` is what arrives at the destination; ``leaving`` what left the source, which is another one where a node
    port is translated in between (SEMANTICS 31, 32).
    """

    flow: Flow
    leaving: Flow
    source: End
    destination: End
    egress: JudgedHalf
    ingress: JudgedHalf
    notes: tuple[str, ...] = ()

    @property
    def outcome(self) -> Outcome:
        """What becomes of the flow."""
        return both((self.egress.outcome, self.ingress.outcome))

    @property
    def allowed(self) -> bool | None:
        """Tell whether the flow passes; None if that is not known."""
        return {Outcome.ALLOWED: True, Outcome.DENIED: False, Outcome.UNDECIDABLE: None}[self.outcome]


def explain(
    flow: Flow,
    cluster: Cluster,
    policies: PolicySet,
    *,
    known: Knowledge = EVERYTHING_KNOWN,
    leaving: Flow | None = None,
    settings: Settings = DEFAULTS,
) -> Explanation:
    """Judge a flow and say why; ``leaving`` is how it leaves its source, if a node translates it on its way."""
    left = flow if leaving is None else leaving
    source, arriving_from = _end(left.source, cluster, known), _end(flow.source, cluster, known)
    destination = _end(flow.destination, cluster, known)
    egress = judge(left, Direction.EGRESS, cluster, policies, known, settings=settings)
    ingress = judge(flow, Direction.INGRESS, cluster, policies, known, settings=settings)
    notes = dict.fromkeys(_notes(egress, ingress, (source, arriving_from, destination)))
    return Explanation(flow, left, source, destination, egress, ingress, tuple(notes))


def _end(address: Address, cluster: Cluster, known: Knowledge) -> End:
    endpoint, node = cluster.endpoint_at(address), cluster.node_at(address)
    behind = sorted(str(e.key) for e in cluster.endpoints.values() if e.host_network and address in e.addresses)
    stood_for = known.stand_ins.get(address)
    pod = endpoint.key if endpoint is not None else stood_for
    shown = None if stood_for is not None else address
    return End(shown, endpoint, node, pod, tuple(behind) if pod is None else ())


def _notes(egress: JudgedHalf, ingress: JudgedHalf, ends: tuple[End, End, End]) -> Iterator[str]:
    _, arriving_from, destination = ends
    for end in ends:
        if end.host_network:
            yield (
                f"{end.address} is also {', '.join(end.host_network)} (hostNetwork): policies see the node's address, "
                "and do not isolate such pods"
            )
        elif end.pod is not None and end.endpoint is None:
            yield f"{end.pod} is hostNetwork: policies see its node's address, and do not isolate it"
    if arriving_from.node is not None and arriving_from.endpoint is None and ingress.reason is not Reason.OWN_NODE:
        yield (
            f"{arriving_from.address} is a node's address: so is the source of connections through a NodePort or "
            "LoadBalancer Service with externalTrafficPolicy: Cluster, whoever the client is"
        )
    subject = egress.subject
    own_node = subject is not None and destination.node is not None and destination.node.name == subject.node
    if subject is not None and own_node and egress.reason is not Reason.TO_OWN_NODE:
        yield f"{destination.address} is {subject.key}'s own node: egress policies apply to it like to any address"
