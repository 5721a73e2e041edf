# SPDX-License-Identifier: Apache-2.0
"""What policies ask about an address: which subjects select its holder, which rules' peers cover it, which ports its
holder has. Addresses with the same answers are told apart by no policy.

Each distinct subject, and each distinct set of peers, is a bit; answers are ``int`` masks. Several policy sets may ask
together: then the answers are common to all of them, and so is the space that they make.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

from ringfence.model.addresses import Address
from ringfence.model.cluster import Cluster, Endpoint
from ringfence.model.labels import Labels
from ringfence.model.policy import BlockPeer, InNamespace, Peers, PodPeer, PolicySet, Rule, in_scope
from ringfence.model.ports import AnyTraffic, NamedPort, PortRange, Ports, Protocol
from ringfence.semantics.atoms import Atoms
from ringfence.semantics.spans import Spans

_Value = TypeVar("_Value", PodPeer, Peers)


@dataclass(frozen=True, slots=True)
class NamedNumber:
    """The number that a port name has on a pod, for a protocol; only names that some rule uses count."""

    name: str
    protocol: Protocol
    number: int


@dataclass(frozen=True, slots=True)
class Answers:
    """What is true of an address: bits of subjects and of peers, and the port names of its holder."""

    subjects: int
    peers: int
    ports: frozenset[NamedNumber]


@dataclass(slots=True)
class _Asked:
    """The bits of subjects and of peers that one pod selection stands for."""

    subjects: int = 0
    peers: int = 0


class Questions:
    """Everything that policy sets ask, numbered; and the answers for the addresses of a cluster."""

    def __init__(
        self, cluster: Cluster, policy_sets: Iterable[PolicySet], cuts: Iterable[tuple[Protocol, PortRange]] = ()
    ) -> None:
        self._cluster = cluster
        policies = [policy for policy_set in policy_sets for policy in policy_set.policies()]
        rules = [rule for policy in policies for rule in chain(policy.ingress or (), policy.egress or ())]
        self.subjects = _numbered(policy.subject for policy in policies)
        self.peers = _numbered(rule.peers for rule in rules if isinstance(rule.peers, Peers))
        matches = [m for rule in rules if isinstance(rule.traffic, Ports) for m in rule.traffic.matches]
        self._names = frozenset((m.port.name, m.protocol) for m in matches if isinstance(m.port, NamedPort))
        self._ports = {key: self._named_numbers(each) for key, each in cluster.endpoints.items()}
        numbered = ((m.protocol, m.port) for m in matches if isinstance(m.port, PortRange))
        named = (
            (port.protocol, PortRange(port.number, port.number))
            for ports in set(self._ports.values())
            for port in ports
        )
        self.spans = Spans(chain(numbered, named, cuts))
        blocks = {
            bit: [member.block for member in peers.members if isinstance(member, BlockPeer)]
            for peers, bit in self.peers.items()
        }
        self.has_blocks = any(blocks.values())
        self.atoms = {version: Atoms(version, blocks) for version in (4, 6)}
        self._local, self._wide = self._selections()
        self._asked_in: dict[str, list[tuple[PodPeer, _Asked]]] = {}
        self._of_labels: dict[tuple[str, Labels], _Asked] = {}

    def of_pod(self, endpoint: Endpoint, address: Address) -> Answers:
        """Return the answers for an address of a pod."""
        asked = self._of_identity(endpoint.key.namespace, endpoint.labels)
        covered = asked.peers | self.of_address(address)
        return Answers(asked.subjects, covered, self._ports[endpoint.key])

    def of_address(self, address: Address) -> int:
        """Return the bits of the peers that cover an address by a block."""
        return self.atoms[address.version].mask(address)

    def subject_bit(self, subject: PodPeer) -> int:
        """Return the mask of one subject."""
        return 1 << self.subjects[subject]

    def peers_bit(self, rule: Rule) -> int | None:
        """Return the mask of a rule's peers, None if the rule is for any peer."""
        return 1 << self.peers[rule.peers] if isinstance(rule.peers, Peers) else None

    def traffic(self, rule: Rule) -> tuple[int, tuple[tuple[str, Protocol], ...]]:
        """Return a rule's traffic: the spans that it matches everywhere, and the port names that it looks up."""
        if isinstance(rule.traffic, AnyTraffic):
            return self.spans.all, ()
        fixed = 0
        names: list[tuple[str, Protocol]] = []
        for match in rule.traffic.matches:
            match match.port:
                case PortRange() as ports:
                    fixed |= self.spans.of_ports(match.protocol, ports)
                case NamedPort(name):
                    names.append((name, match.protocol))
                case _:
                    fixed |= self.spans.of_protocol(match.protocol)
        return fixed, tuple(names)

    def _named_numbers(self, endpoint: Endpoint) -> frozenset[NamedNumber]:
        return frozenset(
            NamedNumber(port.name, port.protocol, port.number)
            for port in endpoint.ports
            if port.name is not None and (port.name, port.protocol) in self._names
        )

    def _selections(self) -> tuple[dict[str, dict[PodPeer, _Asked]], dict[PodPeer, _Asked]]:
        """Return what each pod selection stands for: those of one namespace by its name, and the others."""
        local: dict[str, dict[PodPeer, _Asked]] = defaultdict(lambda: defaultdict(_Asked))
        wide: dict[PodPeer, _Asked] = defaultdict(_Asked)

        def asked(selection: PodPeer) -> _Asked:
            scope = selection.scope
            return local[scope.name][selection] if isinstance(scope, InNamespace) else wide[selection]

        for subject, bit in self.subjects.items():
            asked(subject).subjects |= 1 << bit
        for selection, bit in _pod_peers(self.peers):
            asked(selection).peers |= 1 << bit
        return local, wide

    def _of_identity(self, namespace: str, labels: Labels) -> _Asked:
        found = self._of_labels.get((namespace, labels))
        if found is None:
            found = self._of_labels[namespace, labels] = _Asked()
            for selection, asked in self._in_namespace(namespace):
                if selection.pods.matches(labels):
                    found.subjects |= asked.subjects
                    found.peers |= asked.peers
        return found

    def _in_namespace(self, namespace: str) -> list[tuple[PodPeer, _Asked]]:
        found = self._asked_in.get(namespace)
        if found is None:
            wide = ((s, a) for s, a in self._wide.items() if in_scope(s.scope, namespace, self._cluster))
            found = self._asked_in[namespace] = [*self._local.get(namespace, {}).items(), *wide]
        return found


def _numbered(values: Iterable[_Value]) -> dict[_Value, int]:
    return {value: number for number, value in enumerate(dict.fromkeys(values))}


def _pod_peers(numbered: dict[Peers, int]) -> Iterator[tuple[PodPeer, int]]:
    for peers, bit in numbered.items():
        for member in peers.members:
            if isinstance(member, PodPeer):
                yield member, bit
