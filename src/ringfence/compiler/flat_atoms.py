# SPDX-License-Identifier: Apache-2.0
"""Atoms by what covers them; and those that are in use, counted, so that the last user takes an atom along."""

from __future__ import annotations

from ringfence.compiler.compile_peers import digest
from ringfence.compiler.flat import NO_ATOM, AtomId, Covering, View
from ringfence.compiler.flat_change import Changing


def atom_id(covering: Covering) -> AtomId:
    """Return the name of the atom of the addresses that exactly these parts cover."""
    return AtomId(digest(("atom", covering))) if covering else NO_ATOM


def union(one: Covering, other: Covering) -> Covering:
    """Return what covers an address that both are known to cover."""
    if not one or not other:
        return one or other
    return tuple(sorted({*one, *other}))


class Atoms:
    """The atoms that views and blocks name. NO_ATOM is always there, and not one of them."""

    def __init__(self) -> None:
        self._ids: dict[Covering, AtomId] = {(): NO_ATOM}
        self._coverings: dict[AtomId, Covering] = {NO_ATOM: ()}
        self._uses: dict[AtomId, int] = {NO_ATOM: 1}
        self._bare: dict[AtomId, View] = {}
        self._looked_at: set[AtomId] = set()
        self.atoms: Changing[AtomId, Covering] = Changing()

    def id(self, covering: Covering) -> AtomId:
        """Return the atom of a covering; it is forgotten by ``settle`` unless it is in use then."""
        found = self._ids.get(covering)
        if found is None:
            found = self._ids[covering] = atom_id(covering)
            self._coverings[found] = covering
            self._uses[found] = 0
            self._looked_at.add(found)
        return found

    def bare(self, atom: AtomId) -> View:
        """Return the view of an address of which only its atom is known: for all of them the same object."""
        found = self._bare.get(atom)
        if found is None:
            found = self._bare[atom] = View(None, None, None, atom, own_node=False)
        return found

    def use(self, atom: AtomId) -> None:
        """Count a view or a block that names an atom."""
        self._uses[atom] += 1

    def release(self, atom: AtomId) -> None:
        """Count one less."""
        self._uses[atom] -= 1
        self._looked_at.add(atom)

    def settle(self) -> None:
        """Take in what is in use now."""
        for atom in self._looked_at - {NO_ATOM}:
            if self._uses[atom]:
                self.atoms.put(atom, self._coverings[atom])
                continue
            del self._ids[self._coverings.pop(atom)], self._uses[atom]
            self._bare.pop(atom, None)
            self.atoms.drop(atom)
        self._looked_at.clear()
