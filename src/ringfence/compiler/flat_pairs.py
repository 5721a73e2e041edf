# SPDX-License-Identifier: Apache-2.0
"""The pairs of rulesets and atoms, and the profiles and rules that they need: kept up as either come and go.

A ruleset that comes meets only the atoms of the peer sets that it asks for, an atom only the rulesets that ask for one
of its own: neither ever meets all of the others.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping
from typing import TypeVar

from ringfence.compiler.flat import NO_ATOM, AtomId, Covering, NamedRule, Pair, PartId, Profile, ProfileId, RuleId
from ringfence.compiler.flat_change import Changing
from ringfence.compiler.flat_parts import Part
from ringfence.compiler.flat_profiles import Painter, RulesetProfiles
from ringfence.compiler.program import PeerSetId, Ruleset, RulesetId

LEAST_FORGOTTEN = 1000
"""So many profiles that are in no use are remembered before it is worth while to forget them."""

T = TypeVar("T", bound=Hashable)
K = TypeVar("K", bound=Hashable)
Owners = Mapping[PartId, set[PeerSetId]]
"""The peer sets that each part is a part of."""
PartsOf = Mapping[PeerSetId, tuple[Part, ...]]
"""The parts of each peer set."""


class KeptPairs:
    """Rulesets and atoms in use, and what follows from them."""

    def __init__(self) -> None:
        self._painter = Painter()
        self._profiles: dict[RulesetId, RulesetProfiles] = {}
        self._atoms: dict[AtomId, Covering] = {NO_ATOM: ()}
        self._askers: dict[PeerSetId, set[RulesetId]] = defaultdict(set)
        self._of_part: dict[PartId, set[AtomId]] = defaultdict(set)
        self._uses: Counter[ProfileId] = Counter()
        self._rule_uses: Counter[RuleId] = Counter()
        self.pairs: Changing[Pair, ProfileId] = Changing()
        self.profiles: Changing[ProfileId, Profile] = Changing()
        self.rules: Changing[RuleId, NamedRule] = Changing()

    def drop_rulesets(self, rulesets: Iterable[RulesetId], parts: PartsOf) -> None:
        """Let rulesets go, as long as it is known of which parts their peer sets are."""
        for ruleset in rulesets:
            profiles = self._profiles.pop(ruleset)
            for atom in self._met(profiles, parts):
                self._drop(ruleset, atom)
            for peer_set in profiles.peer_sets:
                _discard(self._askers, peer_set, ruleset)

    def change_atoms(self, atoms: Mapping[AtomId, Covering | None], owners: Owners) -> None:
        """Let atoms go (None) and others come, for the rulesets that stay; ``owners`` as they are now."""
        gone = [atom for atom, covering in atoms.items() if covering is None]
        for atom in gone:
            covering = self._atoms.pop(atom)
            for ruleset in self._asking(_sets(covering, owners)):
                self._drop(ruleset, atom)
            for part in covering:
                _discard(self._of_part, part, atom)
        for atom, come in atoms.items():
            if come is not None:
                self._atoms[atom] = come
                for part in come:
                    self._of_part[part].add(atom)
                sets = _sets(come, owners)
                for ruleset in self._asking(sets):
                    self._put(ruleset, atom, sets)

    def add_rulesets(self, rulesets: Iterable[Ruleset], parts: PartsOf, owners: Owners) -> None:
        """Let rulesets come."""
        for ruleset in rulesets:
            profiles = self._profiles[ruleset.id] = RulesetProfiles(ruleset, self._painter)
            for peer_set in profiles.peer_sets:
                self._askers[peer_set].add(ruleset.id)
            for atom in self._met(profiles, parts):
                self._put(ruleset.id, atom, _sets(self._atoms[atom], owners))
        if self._painter.size > LEAST_FORGOTTEN + 4 * len(self.pairs.now):
            self._painter.forget()

    def _met(self, profiles: RulesetProfiles, parts: PartsOf) -> set[AtomId]:
        """Return the atoms that share a peer set with a ruleset, and NO_ATOM."""
        asked = (part.id for peer_set in profiles.peer_sets for part in parts[peer_set])
        return {NO_ATOM}.union(*(self._of_part.get(part, ()) for part in asked))

    def _asking(self, peer_sets: Iterable[PeerSetId]) -> set[RulesetId]:
        return set().union(*(self._askers.get(peer_set, ()) for peer_set in peer_sets))

    def _put(self, ruleset: RulesetId, atom: AtomId, peer_sets: Iterable[PeerSetId]) -> None:
        profiles = self._profiles[ruleset]
        profile = profiles.profile(peer_sets)
        if atom != NO_ATOM and profile.id == profiles.profile(()).id:
            return
        self.pairs.put((ruleset, atom), profile.id)
        self._uses[profile.id] += 1
        if self._uses[profile.id] == 1:
            self.profiles.put(profile.id, profile)
            for rule in profile.rules():
                self._rule_uses[rule] += 1
                self.rules.put(rule, self._painter.named[rule])

    def _drop(self, ruleset: RulesetId, atom: AtomId) -> None:
        profile_id = self.pairs.now.get((ruleset, atom))
        if profile_id is None:
            return
        self.pairs.drop((ruleset, atom))
        self._uses[profile_id] -= 1
        if not self._uses[profile_id]:
            del self._uses[profile_id]
            for rule in self.profiles.now[profile_id].rules():
                self._rule_uses[rule] -= 1
                if not self._rule_uses[rule]:
                    del self._rule_uses[rule]
                    self.rules.drop(rule)
            self.profiles.drop(profile_id)


def _sets(covering: Covering, owners: Owners) -> set[PeerSetId]:
    """Return the peer sets whose parts cover an atom."""
    return set().union(*(owners.get(part, ()) for part in covering))


def _discard(index: dict[K, set[T]], key: K, member: T) -> None:
    index[key].discard(member)
    if not index[key]:
        del index[key]
