# SPDX-License-Identifier: Apache-2.0
"""Peers as sets: which sets a rule has to ask, what they are called, and which addresses are in them. Pure.

Pods of a peer expression are a hash set that is named after the *expression*: all rules with the same one share it, and
it keeps its name while pods come and go. Blocks are an interval set that is named after the *rule* (its origin): it
keeps its name while somebody edits the list of blocks. Very many blocks are hash sets, one for each prefix length: the
kernel walks through a whole interval set for one block more.

Which sets there are depends on the expressions alone, never on whom they cover at the moment: so a pod that comes
changes the elements of a set and nothing else.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple, TypeAlias

from ringfence.compiler.expressions import collapse
from ringfence.compiler.program import CompiledRule, PeerSet, PeerSetId
from ringfence.dataplanes.nftables import spelling
from ringfence.dataplanes.nftables.elements import Element, merged_spans
from ringfence.dataplanes.nftables.layout import TableBuilder, plain
from ringfence.model.addresses import Address, Network
from ringfence.model.persistent import PersistentSet
from ringfence.model.policy import AnyPeer, Direction
from ringfence.model.ports import Protocol


@dataclass(frozen=True, slots=True)
class Family:
    """What differs between IPv4 and IPv6: nft's words, and the family's ICMP."""

    version: int
    word: str
    key: str
    icmp: Protocol

    @property
    def client(self) -> str:
        """Who opened the connection that a packet belongs to."""
        return f"ct original {self.word} saddr"

    @property
    def server(self) -> str:
        """Who answers on it, after DNAT."""
        return f"ct reply {self.word} saddr"

    @property
    def last(self) -> int:
        """The highest address."""
        return (1 << (32 if self.version == 4 else 128)) - 1

    def masked(self, end: str, length: int) -> str:
        """Return how nft asks for the first bits of an end's address, as many as a prefix length says."""
        width = 32 if self.version == 4 else 128
        if length == width:
            return end
        mask = ((1 << length) - 1) << (width - length)
        return f"{end} & {IPv4Address(mask) if self.version == 4 else IPv6Address(mask)}"

    def peer(self, direction: Direction) -> str:
        """Whom a rule of a direction asks about: the other end of the pod that it protects."""
        return self.server if direction is Direction.EGRESS else self.client


MANY_BLOCKS = 1024  # for one block more among 10,000 an interval set costs the kernel 0.25 to 1.5 ms, a hash set 0.03

FAMILIES = (Family(4, "ip", "ipv4_addr", Protocol.ICMP), Family(6, "ip6", "ipv6_addr", Protocol.ICMPV6))


class Asked(NamedTuple):
    """A rule's peers, and which rule asks for them. Plain texts: these are compared and sorted by the thousand."""

    peers: PeerSetId
    kind: str
    namespace: str
    name: str
    path: str


def asked_of(rule: CompiledRule) -> Asked:
    """Return what a rule asks for; it must name its peers."""
    assert not isinstance(rule.peers, AnyPeer)
    source = rule.origin.object
    return Asked(rule.peers, source.kind, source.namespace, source.name, rule.origin.path)


@dataclass(frozen=True, slots=True)
class PodSet:
    """A set of the pods of one or several peer expressions."""

    version: int
    peers: tuple[PeerSetId, ...]

    @property
    def name(self) -> str:
        """The set's name: the expression's own digest where there is one."""
        digest = self.peers[0] if len(self.peers) == 1 else spelling.digest(self.peers)
        return f"peers{self.version}-{digest}"


@dataclass(frozen=True, slots=True)
class BlockSet:
    """A set of the blocks of one or several rules."""

    version: int
    asked: tuple[Asked, ...]

    @property
    def name(self) -> str:
        """The set's name."""
        return f"blocks{self.version}-{_digest(self.asked)}"


@dataclass(frozen=True, slots=True)
class PrefixSet:
    """Those of the blocks of one or several rules that have one prefix length, by their first addresses."""

    version: int
    asked: tuple[Asked, ...]
    length: int

    @property
    def name(self) -> str:
        """The set's name; ``prefix_of`` reads the length from it."""
        return f"blocks{self.version}-{_digest(self.asked)}-{self.length}"


def prefix_of(name: str) -> int | None:
    """Return the prefix length that all elements of a set have, None if it is no such set."""
    found = _PREFIX_SET.fullmatch(plain(name)[0])
    return int(found[1]) if found else None


_PREFIX_SET = re.compile(r"blocks[46]-[0-9a-f]{16}-(\d+)")


def _digest(asked: Iterable[Asked]) -> str:
    return spelling.digest("/".join(rule) for rule in sorted({each[1:] for each in asked}))


Wanted: TypeAlias = PodSet | BlockSet | PrefixSet
Members: TypeAlias = AbstractSet[Element]
Made: TypeAlias = tuple[tuple[PeerSet, ...], Members]
"""A set's members, and the peer sets that they are of."""


class PeerBook:
    """The peer sets of one program. ``known`` has the members of sets as they were made before, and of what.

    What was made of the same objects (by identity: a compiler keeps what did not change) is not made again.
    """

    def __init__(self, peer_sets: Iterable[PeerSet], known: Mapping[str, Made]) -> None:
        self.made: dict[str, Made] = {}
        self._peer_sets = {peer_set.id: peer_set for peer_set in peer_sets}
        self._known = known
        self._spans: dict[tuple[PeerSetId, int], tuple[tuple[int, int], ...]] = {}
        self._by_length: dict[tuple[tuple[Asked, ...], int], Mapping[int, Members]] = {}

    def covers_everything(self, peers: AnyPeer | PeerSetId, family: Family) -> bool:
        """Tell whether peers are any at all: said so, or blocks that leave nothing out."""
        return isinstance(peers, AnyPeer) or self._blocks(peers, family) == ((0, family.last),)

    def wanted(self, asked: tuple[Asked, ...], family: Family) -> Iterator[Wanted]:
        """Return the sets that hold everyone whom some rules ask for; none where it can be nobody."""
        pods = {a.peers for a in asked if self._peer_sets[a.peers].selects}
        if pods:
            yield PodSet(family.version, tuple(sorted(pods)))
        blocks = {a for a in asked if self._blocks(a.peers, family)}
        if not blocks:
            return
        by_rule = tuple(sorted(blocks))
        if sum(len(self._blocks(a.peers, family)) for a in by_rule) <= MANY_BLOCKS:
            yield BlockSet(family.version, by_rule)
        else:
            yield from (PrefixSet(family.version, by_rule, length) for length in sorted(self._lengths(by_rule, family)))

    def make(self, wanted: Wanted, build: TableBuilder) -> None:
        """Make a set, with its members at this moment."""
        family = FAMILIES[wanted.version == 6]
        interval = isinstance(wanted, BlockSet)
        build.set_by_meaning(wanted.name, family.key, self._members(wanted, family), interval=interval)

    def _members(self, wanted: Wanted, family: Family) -> Members:
        ids = wanted.peers if isinstance(wanted, PodSet) else tuple(asked.peers for asked in wanted.asked)
        sources = tuple(self._peer_sets[peers] for peers in ids)
        found = self._known.get(wanted.name)
        if found is None or len(found[0]) != len(sources) or not all(map(operator.is_, found[0], sources)):
            match wanted:
                case PodSet():
                    members = _pods(sources, family, found)
                case BlockSet():
                    members = merged_spans(span for peers in ids for span in self._blocks(peers, family))
                case PrefixSet(_, asked, length):
                    members = self._lengths(asked, family).get(length, frozenset())
            found = sources, members
        self.made[wanted.name] = found
        return found[1]

    def _lengths(self, asked: tuple[Asked, ...], family: Family) -> Mapping[int, Members]:
        """Return the first addresses of blocks by prefix length."""
        key = asked, family.version
        if key not in self._by_length:
            each = [self._peer_sets[a.peers].networks for a in asked]
            networks = each[0] if len(each) == 1 else collapse(network for some in each for network in some)
            found: dict[int, set[Element]] = {}
            for network in networks:
                if network.version == family.version:
                    found.setdefault(network.prefixlen, set()).add(network.network_address)
            self._by_length[key] = {length: frozenset(some) for length, some in found.items()}
        return self._by_length[key]

    def _blocks(self, peers: PeerSetId, family: Family) -> tuple[tuple[int, int], ...]:
        key = peers, family.version
        if key not in self._spans:
            networks = (n for n in self._peer_sets[peers].networks if n.version == family.version)
            self._spans[key] = tuple(spelling.merged(map(_ends, networks)))
        return self._spans[key]


def _pods(sources: tuple[PeerSet, ...], family: Family, known: Made | None) -> Members:
    """Return the addresses of a family in any of some peer sets: from what they were before, if that is known."""
    before, members = ((), None) if known is None else known
    if len(before) != len(sources) or not isinstance(members, PersistentSet):
        return PersistentSet(_of_version(family, *(each.addresses for each in sources)))
    come: set[Address] = set()
    gone: set[Address] = set()
    for old, new in zip(before, sources, strict=True):
        if old is not new:
            come |= _of_version(family, new.addresses - old.addresses)
            gone |= _of_version(family, old.addresses - new.addresses)
    return members.exchanged((a for a in gone if not any(a in each.addresses for each in sources)), come)


def _of_version(family: Family, *parts: Iterable[Address]) -> set[Address]:
    return {address for part in parts for address in part if address.version == family.version}


def _ends(network: Network) -> tuple[int, int]:
    first = int(network.network_address)
    return first, first + (1 << (network.max_prefixlen - network.prefixlen)) - 1
