# SPDX-License-Identifier: Apache-2.0
"""Program in, flattened program out (``compiler.flat`` says what that is). Remembers nothing.

``compiler.flat_incremental`` arrives at equal ones by changing one that it keeps.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet

from ringfence.compiler.flat import (
    NO_ATOM,
    AtomId,
    Covering,
    FlatProgram,
    Pair,
    PartId,
    PodIdentity,
    Profile,
    View,
)
from ringfence.compiler.flat_atoms import atom_id, union
from ringfence.compiler.flat_parts import Cutter, Part
from ringfence.compiler.flat_profiles import Painter, RulesetProfiles
from ringfence.compiler.longest_prefix import LongestPrefix
from ringfence.compiler.program import EndpointEntry, PeerSetId, Program, Ruleset
from ringfence.errors import Unsupported
from ringfence.model.addresses import Address, Network, contains, network_order
from ringfence.model.policy import Action


def flatten(program: Program, dataplane: str) -> FlatProgram:
    """Flatten a program for a dataplane of that name; raises ``Unsupported`` where a rule passes a flow on."""
    refuse_passes(program.rulesets, dataplane)
    cutter = Cutter()
    parts = {peer_set.id: cutter.parts(peer_set) for peer_set in program.peer_sets}
    around = _covered_blocks(part for each in parts.values() for part in each)
    lookup = LongestPrefix(around)
    covered = {network: covering for network, covering in around.items() if lookup.above(network) != covering}
    blocks = {network: atom_id(covering) for network, covering in covered.items()}
    views, coverings = _views(program, lookup)
    atoms = {atom_id(covering): covering for covering in {*coverings, *covered.values()} if covering}
    sets = _peer_sets(atoms, parts)
    pairs: dict[Pair, Profile] = {}
    painter = Painter()
    for ruleset in program.rulesets:
        pairs.update(_pairs(ruleset, RulesetProfiles(ruleset, painter), sets))
    return FlatProgram(
        node=program.node,
        settings=program.settings,
        views=views,
        blocks=blocks,
        atoms=atoms,
        pairs={pair: profile.id for pair, profile in pairs.items()},
        profiles={profile.id: profile for profile in pairs.values()},
        rules=painter.named,
    )


def refuse_passes(rulesets: Iterable[Ruleset], dataplane: str) -> None:
    """Raise ``Unsupported`` with every rule that leaves a flow to the next tier: a ruleset is the last word here."""
    passes = {rule.origin for ruleset in rulesets for rule in ruleset.rules if rule.action is Action.PASS}
    if passes:
        raise Unsupported(dataplane, [f"{origin} passes to the next tier" for origin in sorted(passes)])


def view(entry: EndpointEntry | None, atom: AtomId, *, own_node: bool) -> View:
    """Return what is known of an address: ``entry`` is a local pod's."""
    if entry is None:
        return View(None, None, None, atom, own_node)
    return View(entry.ingress, entry.egress, PodIdentity(entry.pod, entry.uid), atom, own_node)


def _pairs(
    ruleset: Ruleset, profiles: RulesetProfiles, atoms: Mapping[AtomId, AbstractSet[PeerSetId]]
) -> Iterator[tuple[Pair, Profile]]:
    """Yield a ruleset's profile for no atom, and for each that it decides otherwise."""
    usual = profiles.profile(())
    yield (ruleset.id, NO_ATOM), usual
    for atom, peer_sets in atoms.items():
        profile = profiles.profile(peer_sets)
        if profile.id != usual.id:
            yield (ruleset.id, atom), profile


def _peer_sets(
    atoms: Mapping[AtomId, Covering], parts: Mapping[PeerSetId, tuple[Part, ...]]
) -> dict[AtomId, set[PeerSetId]]:
    """Return the peer sets that cover each atom."""
    owners: dict[PartId, set[PeerSetId]] = defaultdict(set)
    for peer_set, its in parts.items():
        for part in its:
            owners[part.id].add(peer_set)
    return {atom: {owner for part in covering for owner in owners[part]} for atom, covering in atoms.items()}


def _covered_blocks(parts: Iterable[Part]) -> dict[Network, Covering]:
    """Return all networks of parts, each with the parts that cover all of it."""
    own: dict[Network, set[PartId]] = defaultdict(set)
    for part in parts:
        for network in part.networks:
            own[network].add(part.id)
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
            direct[address] += (PartId(peer_set.id),)
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
