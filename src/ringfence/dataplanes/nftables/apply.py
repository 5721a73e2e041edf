# SPDX-License-Identifier: Apache-2.0
"""Puts programs in force in the kernel: renders, compares with what is there, plans, commits. Keeps base's contract.

What a program looks like in nft's language ``render`` decides, what is done in which order ``plan``. Here is only
when to look at the kernel (at the start, and after anybody else's commit), under which names to render, and what a
failure leaves: whatever was in force before.
"""

from __future__ import annotations

from collections.abc import Iterable

from ringfence.compiler.program import Program
from ringfence.dataplanes.base import Applied
from ringfence.dataplanes.nftables.changes import Plan, Transaction
from ringfence.dataplanes.nftables.encoding import encode
from ringfence.dataplanes.nftables.layout import FAMILY, TABLE, Names, Table, plain
from ringfence.dataplanes.nftables.observe import Observed, observe
from ringfence.dataplanes.nftables.plan import in_force, make_plan
from ringfence.dataplanes.nftables.render import Memory, render
from ringfence.errors import HostRefused
from ringfence.host.nft import Nft
from ringfence.host.quiesce import Quiet


class NftablesDataplane:
    """The nftables engine of one network namespace: the one that ``nft`` was made in, by default the caller's.

    Not for several threads at once. Raises ``HostLacks`` if this machine cannot run it.
    """

    name = "nftables"

    def __init__(self, nft: Nft | None = None) -> None:
        self._nft = nft if nft is not None else Nft()
        self._program: Program | None = None  # the last that was put in force whole
        self._table: Table | None = None  # what it became
        self._names: Names | None = None  # under these names
        self._generation: int | None = None  # at which the kernel was last seen to hold it
        self._memory = Memory()
        self._quiet = Quiet()

    def plan(self, program: Program) -> Plan:
        """Return what ``apply`` would do now, without doing it."""
        return self._plan(self._observe(), program)[0]

    def apply(self, program: Program) -> Applied:
        """Put a program in force, whole; without a transaction if it is already.

        Raises ``Unsupported``, ``HostRefused`` or ``HostLacks``; each flow then has a verdict that the old program or
        this one gives it, and the next ``apply`` looks at the kernel anew.
        """
        if program == self._program and self._undisturbed():
            return Applied(transactions=0)
        before = self._nft.generation()
        observed = self._observe()
        repaired = self._table is not None and not _holds(observed, self._table)
        plan, table, names = self._plan(observed, program)
        self._generation = None
        taken = [self._commit(transaction) for transaction in plan.transactions]
        self._program, self._table, self._names = program, table, names
        # Every commit counts one. More of them than were ours: somebody may have touched the table meanwhile, and the
        # next look decides. One of ours that was refused must not make up for somebody else's.
        after = self._nft.generation()
        if all(taken) and after == before + len(taken):
            self._generation = after
        return Applied(len(plan.transactions), added=plan.added, deleted=plan.deleted, repaired=repaired)

    def drifted(self) -> bool:
        """Tell whether the kernel no longer holds what the last ``apply`` wrote (False before the first).

        Costs 20 µs while nobody has committed anything to this namespace's nftables, else one listing of the table.
        """
        if self._table is None or self._undisturbed():
            return False
        before = self._nft.generation()
        if not _holds(observe(self._nft), self._table):
            return True
        self._generation = before
        return False

    def remove(self) -> None:
        """Delete the table, if there is one: from then on every packet passes."""
        self._program = self._table = self._names = self._generation = None
        self._nft.run(f"add table {FAMILY} {TABLE}\ndelete table {FAMILY} {TABLE}\n")

    def close(self) -> None:
        """Give the handle on nftables back. What was applied stays in force."""
        self._nft.close()

    def _commit(self, transaction: Transaction) -> bool:
        """Commit, and tell whether the kernel took it."""
        # No packet may meet two transactions that move its verdict: not within one apply, and not of two.
        if transaction.moves:
            self._quiet.wait()
        if transaction.changes:
            self._nft.change_elements(map(encode, transaction.changes))
        elif transaction.purpose == "delete":
            # What it would have tidied away is out of force already. If somebody holds on to it, the table differs
            # from what we wrote: ``drifted`` says so, and the next ``apply`` tries again.
            try:
                self._nft.run(transaction.text)
            except HostRefused:
                return False
        else:
            self._nft.run(transaction.text)
        if transaction.moves:
            self._quiet.begin()
        return True

    def _undisturbed(self) -> bool:
        return self._generation is not None and self._generation == self._nft.generation()

    def _observe(self) -> Observed:
        if self._table is not None and self._undisturbed():
            return Observed(present=True, table=self._table, known=True)
        return observe(self._nft)

    def _plan(self, observed: Observed, program: Program) -> tuple[Plan, Table, Names]:
        # What may not change under its name, because somebody bent it or because packets would meet a mix, is made
        # once more under another: each round takes new names for all that was in the way.
        names = in_force(observed.table) if self._names is None else self._names
        while True:
            table = render(program, names, self._memory)
            plan = make_plan(observed, table, names)
            if isinstance(plan, Plan):
                return plan, table, names
            names = _renamed(names, plan.stale, observed.table, bent=bool(plan.bent))


def _renamed(names: Names, stale: Iterable[str], there: Table, *, bent: bool) -> Names:
    """Return names under which the stale sets and maps are not there yet; if something is bent, nothing is."""
    present = {plain(name)[0] for name in (*there.sets, *there.maps)}
    bases = present if bent else {plain(name)[0] for name in stale}
    # The versions of what is gone are forgotten: whoever comes again begins at the first.
    kept = {base: version for base, version in names.versions.items() if base in present}
    return Names(names.salt + bent, {**kept, **{base: _free(base, names, there) for base in bases}})


def _free(base: str, names: Names, there: Table) -> int:
    version = names.versions.get(base, 0)
    while (
        f"{base}.{version}" in there.sets or f"{base}.{version}" in there.maps or version <= names.versions.get(base, 0)
    ):
        version += 1
    return version


def _holds(observed: Observed, table: Table) -> bool:
    return observed == Observed(present=True, table=table)
