# SPDX-License-Identifier: Apache-2.0
"""The flattened space: every flow of a cluster sorted into finitely many cells, under one or several policy sets.

    both = space(cluster, old, new)
    for cell in both.cells():
        assert evaluate(cell.flow, cluster, old).allowed == engine_says(cell.flow)

A *cell* is the class of the source, the class of the destination, how the two are related, and a span of traffic. Two
flows of one cell get the same verdict from ``evaluate`` under each of the policy sets, so that comparing two engines
on ``cell.flow`` of every cell compares them on every flow there is. ``locate`` finds the cell of a flow.

An address *class* holds addresses that no policy tells apart (``questions``): of pods, of nodes, or of nobody. The
classes of the last kind are *atoms*: pieces of the address space that the blocks of the policies cut. What a pair of
addresses has to do with each other beyond that (same pod, own node) is the cell's *relation*; kept apart from the
classes, so that five thousand nodes do not make five thousand classes.

Flows that no pod sends or receives are nobody's business and have no cell.
"""

from __future__ import annotations

import enum
import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import product

from ringfence.model.addresses import Address, address_order
from ringfence.model.cluster import Cluster
from ringfence.model.flow import Flow
from ringfence.model.policy import PolicySet
from ringfence.model.ports import PortRange, Protocol
from ringfence.semantics.atoms import NumberRange
from ringfence.semantics.questions import Answers, Questions
from ringfence.semantics.relations import Members, Relation, Relations
from ringfence.semantics.spans import Span

_ECHO = {4: Protocol.ICMP, 6: Protocol.ICMPV6}


class Holder(enum.Enum):
    """Who holds the addresses of a class."""

    POD = "pod"
    NODE = "node"
    NOBODY = "nobody"


@dataclass(frozen=True, slots=True, eq=False)
class AddressClass:
    """Addresses of one family that no policy tells apart.

    ``members`` are all of them, sorted, if pods or nodes hold them; of an atom, one of them, and ``ranges`` (of
    numbers) are where all of them lie, together with addresses of pods and nodes that are in other classes.
    """

    number: int
    version: int
    holder: Holder
    answers: Answers
    members: Members
    ranges: tuple[NumberRange, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Pair:
    """A cell without its traffic: two classes, a relation, and two addresses that have it."""

    source: AddressClass
    destination: AddressClass
    relation: Relation
    example: tuple[Address, Address]


@dataclass(frozen=True, slots=True)
class Cell:
    """Flows that get one verdict; ``flow`` is one of them."""

    pair: Pair
    span: Span
    flow: Flow


class Space:
    """The classes of a cluster and the spans of traffic under some policy sets; made by ``space``."""

    def __init__(
        self, cluster: Cluster, policy_sets: Iterable[PolicySet], cuts: Iterable[tuple[Protocol, PortRange]]
    ) -> None:
        self.cluster = cluster
        self.questions = Questions(cluster, policy_sets, cuts)
        self.spans = self.questions.spans
        self.relations = Relations(cluster)
        self._by_address: dict[Address, AddressClass] = {}
        self._atoms: dict[tuple[int, int], AddressClass] = {}
        held = self._held()
        self.classes: tuple[AddressClass, ...] = held + self._outside(len(held))

    def cells(self) -> Iterator[Cell]:
        """Yield every cell that some flow is in; ICMP in IPv4 and ICMPv6 in IPv6 only."""
        for pair in self.pairs():
            for span in self.spans.members:
                if span.ports is not None or span.protocol is _ECHO[pair.source.version]:
                    yield Cell(pair, span, Flow(*pair.example, span.protocol, span.port))

    def pairs(self) -> Iterator[Pair]:
        """Yield every pair of classes with every relation that some of their addresses have."""
        for source, destination in product(self.classes, repeat=2):
            if source.version == destination.version and Holder.POD in (source.holder, destination.holder):
                for relation, example in self.relations.between(source.members, destination.members).items():
                    yield Pair(source, destination, relation, example)

    def locate(self, flow: Flow) -> Cell:
        """Return the cell that a flow is in, with that flow as its example."""
        pair = Pair(
            self.class_of(flow.source),
            self.class_of(flow.destination),
            self.relations.of(flow.source, flow.destination),
            (flow.source, flow.destination),
        )
        return Cell(pair, self.spans.members[self.spans.number(flow.protocol, flow.port)], flow)

    def class_of(self, address: Address) -> AddressClass:
        """Return the class of an address."""
        held = self._by_address.get(address)
        return held if held is not None else self._atoms[address.version, self.questions.of_address(address)]

    def _held(self) -> tuple[AddressClass, ...]:
        """Return the classes of the addresses that pods and nodes hold."""
        members: dict[tuple[int, Holder, Answers], list[Address]] = defaultdict(list)
        for endpoint in self.cluster.endpoints.values():
            if not endpoint.host_network:
                for address in self.cluster.addresses_of(endpoint):
                    answers = self.questions.of_pod(endpoint, address)
                    members[address.version, Holder.POD, answers].append(address)
        for address in self.relations.node_names:
            if self.cluster.endpoint_at(address) is None:
                answers = Answers(0, self.questions.of_address(address), frozenset())
                members[address.version, Holder.NODE, answers].append(address)
        # Ordered by the least address, so that the order in which pods were learned leaves no trace.
        ordered = sorted(
            ((tuple(sorted(found, key=address_order)), key) for key, found in members.items()),
            key=lambda each: address_order(each[0][0]),
        )
        made = tuple(
            AddressClass(number, *key, self.relations.members(addresses))
            for number, (addresses, key) in enumerate(ordered)
        )
        self._by_address = {address: each for each in made for address in each.members.addresses}
        return made

    def _outside(self, first: int) -> tuple[AddressClass, ...]:
        """Return the atoms that hold an address of nobody."""
        found: list[AddressClass] = []
        for version, atoms in self.questions.atoms.items():
            for mask, ranges in atoms.members().items():
                example = self._nobodys(version, ranges)
                if example is not None:
                    answers = Answers(0, mask, frozenset())
                    number, members = first + len(found), self.relations.members((example,))
                    atom = AddressClass(number, version, Holder.NOBODY, answers, members, ranges)
                    self._atoms[version, mask] = atom
                    found.append(atom)
        return tuple(found)

    def _nobodys(self, version: int, ranges: tuple[NumberRange, ...]) -> Address | None:
        """Return an address of the ranges that nobody holds, None if there is none; an ordinary one where there is."""
        odd: Address | None = None
        kind = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
        for first, last in ranges:
            for start in (first, *(each for each in _ORDINARY[version] if first < each <= last)):
                for number in range(start, last + 1):
                    address = kind(number)
                    if address not in self._by_address:
                        if not _is_odd(address):
                            return address
                        odd = odd or address
                        break
        return odd


# Where addresses of everyday hosts begin, beyond what is reserved: documentation blocks of both families.
_ORDINARY = {
    4: (int(ipaddress.IPv4Address("1.0.0.1")), int(ipaddress.IPv4Address("198.51.100.1"))),
    6: (int(ipaddress.IPv6Address("2001:db8::1")),),
}


def _is_odd(address: Address) -> bool:
    """Tell whether an address is one that no host could have."""
    return address.is_unspecified or address.is_loopback or address.is_multicast or address.is_link_local


def space(cluster: Cluster, *policy_sets: PolicySet, cuts: Iterable[tuple[Protocol, PortRange]] = ()) -> Space:
    """Return the flattened space of a cluster under policy sets: all of them agree within each of its cells.

    ``cuts`` are ports that shall be told apart though no rule does.
    """
    return Space(cluster, policy_sets, cuts)
