# SPDX-License-Identifier: Apache-2.0
"""Program in, flattened program out (``compiler.flat`` says what that is). Remembers nothing.

``compiler.flat_incremental`` arrives at equal ones by changing one that it keeps.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from ringfence.compiler.compile_peers import digest
from ringfence.compiler.flat import NO_ATOM, AtomId, FlatProgram, NamedRule, Pair, PodIdentity, Profile, RuleId, View
from ringfence.compiler.flat_profiles import RulesetProfiles
from ringfence.compiler.longest_prefix import LongestPrefix
from ringfence.compiler.program import EndpointEntry, PeerSet, PeerSetId, Program, Ruleset
from ringfence.errors import Unsupported
from ringfence.model.addresses import Address, Network, contains, network_order
from ringfence.model.policy import Action

Covering = tuple[PeerSetId, ...]
"""The peer sets that cover an address, sorted."""


def flatten(program: Program, dataplane: str) -> FlatProgram:
    """Flatten a program for a dataplane of that name; raises ``Unsupported`` where a rule passes a flow on."""
    refuse_passes(program.rulesets, dataplane)
    around = _covered_blocks(program.peer_sets)
    lookup = LongestPrefix(around)
    covered = {network: covering for network, covering in around.items() if lookup.above(network) != covering}
    blocks = {network: atom_id(covering) for network, covering in covered.items()}
    views, coverings = _views(program, lookup)
    atoms = {atom_id(covering): covering for covering in {*coverings, *covered.values()} if covering}
    pairs: dict[Pair, Profile] = {}
    rules: dict[RuleId, NamedRule] = {}
    for ruleset in program.rulesets:
        profiles = RulesetProfiles(ruleset)
        pairs.update(pairs_of(ruleset, profiles, atoms))
        rules.update(profiles.named)
    return FlatProgram(
        node=program.node,
        settings=program.settings,
        views=views,
        blocks=blocks,
        atoms=atoms,
        pairs={pair: profile.id for pair, profile in pairs.items()},
        profiles={profile.id: profile for profile in pairs.values()},
        rules=rules,
    )


def refuse_passes(rulesets: Iterable[Ruleset], dataplane: str) -> None:
    """Raise ``Unsupported`` with every rule that leaves a flow to the next tier: a ruleset is the last word here."""
    passes = {rule.origin for ruleset in rulesets for rule in ruleset.rules if rule.action is Action.PASS}
    if passes:
        raise Unsupported(dataplane, [f"{origin} passes to the next tier" for origin in sorted(passes)])


def atom_id(covering: Covering) -> AtomId:
    """Return the name of the atom of the addresses that exactly these peer sets cover."""
    return AtomId(digest(("atom", covering))) if covering else NO_ATOM


def union(one: Covering, other: Covering) -> Covering:
    """Return what covers an address that both are known to cover."""
    if not one or not other:
        return one or other
    return tuple(sorted({*one, *other}))


def view(entry: EndpointEntry | None, atom: AtomId, *, own_node: bool) -> View:
    """Return what is known of an address: ``entry`` is a local pod's."""
    if entry is None:
        return View(None, None, None, atom, own_node)
    return View(entry.ingress, entry.egress, PodIdentity(entry.pod, entry.uid), atom, own_node)


def pairs_of(
    ruleset: Ruleset, profiles: RulesetProfiles, atoms: Mapping[AtomId, Covering]
) -> Iterator[tuple[Pair, Profile]]:
    """Yield a ruleset's profile for no atom, and for each that it decides otherwise."""
    usual = profiles.profile(())
    yield (ruleset.id, NO_ATOM), usual
    for atom, covering in atoms.items():
        if not profiles.peer_sets.isdisjoint(covering):
            profile = profiles.profile(covering)
            if profile.id != usual.id:
                yield (ruleset.id, atom), profile


def _covered_blocks(peer_sets: Iterable[PeerSet]) -> dict[Network, Covering]:
    """Return all networks of peer sets, each with the sets that cover all of it."""
    own: dict[Network, set[PeerSetId]] = defaultdict(set)
    for peer_set in peer_sets:
        for network in peer_set.networks:
            own[network].add(peer_set.id)
    covered: dict[Network, Covering] = {}
    around: list[Network] = []  # the networks that contain the present one, from the largest down
    for network in sorted(own, key=network_order):
        while around and not contains(around[-1], network.network_address):
            around.pop()
        covered[network] = union(covered[around[-1]] if around else (), tuple(sorted(own[network])))
        around.append(network)
    return covered


def _views(program: Program, blocks: LongestPrefix[Covering]) -> tuple[dict[Address, View], set[Covering]]:
    """Return the views of the addresses of which more is known than blocks tell, and what covers them."""
    direct: dict[Address, Covering] = defaultdict(tuple)
    for peer_set in sorted(program.peer_sets, key=lambda each: each.id):
        for address in peer_set.addresses:
            direct[address] += (peer_set.id,)
    entries = {entry.address: entry for entry in program.endpoints}
    views, coverings = {}, set()
    for address in {*direct, *entries, *program.node_addresses}:
        entry, own_node = entries.get(address), address in program.node_addresses
        around = blocks.find(address) or ()
        covering = union(direct.get(address, ()), around)
        if entry is not None or own_node or covering != around:
            views[address] = view(entry, atom_id(covering), own_node=own_node)
            coverings.add(covering)
    return views, coverings
