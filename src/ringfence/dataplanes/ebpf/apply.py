# SPDX-License-Identifier: Apache-2.0
"""Puts programs in force in the kernel: flattens, compares with what is there, commits. Keeps base's contract.

A commit writes what nobody reads yet, and then one number: each packet meets the whole old program or the whole new
one. Before the next commit writes to the seats that were read until then, the packets that began before must be done
with; that wait is begun right after the commit and is mostly over by then.

What does not fit into the tables, or was made by another version of the C program, is built anew beside what is in
force. While both stand there a packet passes only if both let it, and then the old one goes.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace

from ringfence.compiler.flat import FlatProgram, PodIdentity, Profile, ProfileId
from ringfence.compiler.flat_change import FlatChange
from ringfence.compiler.flat_incremental import KeptFlat
from ringfence.compiler.program import Program
from ringfence.dataplanes.base import Applied, Hook
from ringfence.dataplanes.ebpf.changes import render_change
from ringfence.dataplanes.ebpf.decode import decode
from ringfence.dataplanes.ebpf.events import Reporting
from ringfence.dataplanes.ebpf.hooks import AUTO, REASONS
from ringfence.dataplanes.ebpf.instance import COUNTERS, EVENTS, Instance
from ringfence.dataplanes.ebpf.layout import REPORT_ALLOWS, pack_id
from ringfence.dataplanes.ebpf.place import Place
from ringfence.dataplanes.ebpf.render import NODE, PODS, pod_entry, render
from ringfence.dataplanes.ebpf.store import Commit, Delta, Store, sizes_for
from ringfence.dataplanes.verdicts import VerdictEvent, VerdictKind
from ringfence.host.quiesce import Quiet

MUCH_UNUSED = 4096
"""So many entries that no program needs are taken out at once, and not when there is nothing else to do."""


class EbpfDataplane:
    """The eBPF engine of one network namespace, by default the caller's.

    Not for several threads at once. Raises ``HostLacks`` if this machine cannot run it.
    """

    name = "ebpf"

    def __init__(self, place: Place | None = None, *, hooks: str = AUTO) -> None:
        self._place = place if place is not None else Place(hooks=hooks)
        self._instance: Instance | None = None
        self._store: Store | None = None  # what its tables hold; None while that is not known
        self._flat: KeptFlat | None = None
        self._follows = False  # whether the tables hold what ``_flat`` says
        self._profiles: dict[ProfileId, Profile] = {}  # all of ``_flat``, and those that it has let go meanwhile
        self._alone = False  # whether no other instance is known to be in force
        self._program: Program | None = None  # the last that was put in force whole
        self._quiet = Quiet()
        self._lock = threading.Lock()
        self._reporting = Reporting()
        self._extra = 0  # settings of ``rf_now`` that are not the program's

    @property
    def hook(self) -> Hook:
        """Where the programs stand."""
        hooks = self._place.hooks
        return Hook(hooks.value, REASONS[hooks])

    def apply(self, program: Program) -> Applied:
        """Put a program in force, whole; without a commit if it is already.

        Raises ``Unsupported``, ``HostRefused`` or ``HostLacks``; the old program then stays, and the next ``apply``
        finds by itself what is there.
        """
        with self._lock:
            return self._apply(program)

    def _apply(self, program: Program) -> Applied:
        if self._instance is not None and self._place.news():
            self._see_devices(self._instance)
        if program == self._program and self._store is not None and self._follows:
            return Applied(transactions=0)
        if self._flat is None or self._flat.flat.node != program.node:
            self._flat, self._follows = KeptFlat(program.node, self.name), False
        change = self._flat.change(program)
        followed, self._follows = self._follows, False
        delta = self._rendered(change, self._flat.flat)
        repaired = self._program is not None and self._store is None
        applied = self._converge(delta if followed else None, self._flat.flat)
        self._program, self._follows = program, True
        self._stand_alone()
        if repaired and self._instance is not None and self._store is not None:
            # What somebody else has added is no harmless remainder of ours.
            self._tidy(self._instance, self._store)
        return replace(applied, repaired=repaired)

    def drifted(self) -> bool:
        """Tell whether the kernel no longer holds what the last ``apply`` wrote (False before the first).

        Also the moment to take out what no program needs any more.
        """
        with self._lock:
            return self._drifted()

    def _drifted(self) -> bool:
        if self._program is None or self._store is None or self._instance is None:
            return False
        lost = self._instance.devices.cover()
        if lost or not self._place.whole(self._instance) or not self._instance.holds(self._store):
            self._store = None
            return True
        self._forget_pods(self._program, self._store)
        self._tidy(self._instance, self._store)
        return False

    def fileno(self) -> int:
        """Return the descriptor that is readable while there are events (``verdicts.Reports``)."""
        return self._reporting.fileno()

    def read(self) -> list[VerdictEvent]:
        """Return the events that there are."""
        return self._reporting.read()

    def verdict_counts(self) -> Mapping[VerdictKind, int]:
        """Return how often each kind of verdict was given."""
        return self._reporting.counts()

    def report_allows(self, wanted: bool) -> None:  # noqa: FBT001 - as ``Reports`` has it
        """Report allowed connections as well, or no more."""
        with self._lock:
            self._extra = REPORT_ALLOWS if wanted else 0
            if self._instance is not None and self._store is not None:
                self._write(self._instance, self._store, Delta(self._store.word & 255 & ~REPORT_ALLOWS, {}, {}, {}))

    def observe(self) -> FlatProgram | None:
        """Return the flattened program that the kernel holds, None if there is none of ours."""
        found = self._place.adopt()
        if found is None:
            return None
        try:
            return decode(found.read())
        finally:
            found.close()

    def remove(self) -> None:
        """Take everything of ours out of the kernel: from then on every packet passes."""
        with self._lock:
            self._take(None)
            self._program, self._follows = None, False
            self._place.clear()

    def close(self) -> None:
        """Give back what this process holds. What is pinned stays in force."""
        with self._lock:
            self._take(None)
            self._program, self._follows = None, False
            self._reporting.close()
            self._place.close()

    def _rendered(self, change: FlatChange, flat: FlatProgram) -> Delta:
        come = {profile_id: profile for profile_id, profile in change.profiles.items() if profile is not None}
        self._profiles.update(come)
        delta = render_change(change, flat, self._profiles)
        for profile_id in change.profiles.keys() - come.keys():
            del self._profiles[profile_id]
        return delta

    def _converge(self, delta: Delta | None, flat: FlatProgram) -> Applied:
        """Commit a change, or where that is not known, whatever differs from what is there."""
        if self._store is None:
            self._look()
            delta = None
        if self._instance is None or self._store is None:
            return self._build(flat)
        if delta is None:
            delta = self._store.difference(render(flat))
        if self._store.shortage(delta) or self._store.garbage > MUCH_UNUSED:
            self._tidy(self._instance, self._store)
        if self._store.shortage(delta):
            return self._build(flat)
        return self._write(self._instance, self._store, delta)

    def _look(self) -> None:
        """Find out what is there. An instance that somebody took off its hooks, or in whose tables nothing can be
        changed by itself, is put aside, and built anew.
        """
        self._take(self._place.adopt())
        self._quiet.begin()  # whoever wrote it may have done so a moment ago
        if self._instance is not None:
            self._place.track_connections()
            store = self._instance.read()
            self._store = store if store.sound and self._place.whole(self._instance) else None
            if self._store is not None:
                self._see_devices(self._instance)

    def _see_devices(self, instance: Instance) -> None:
        """Give new devices their programs: pods are behind them, or will be. Perhaps others are needed now."""
        with self._looking_again_if_refused():
            instance.devices.cover()
        if not self._place.suits(instance):
            self._store = None

    def _write(self, instance: Instance, store: Store, delta: Delta) -> Applied:
        with self._looking_again_if_refused():
            commit = self._planned(store, delta)
            if commit.empty:
                return Applied(transactions=0)
            self._quiet.wait()
            instance.write(commit)
            self._quiet.begin()
        return _applied(commit, delta)

    def _planned(self, store: Store, delta: Delta) -> Commit:
        return store.plan(replace(delta, settings=delta.settings | self._extra))

    @contextlib.contextmanager
    def _looking_again_if_refused(self) -> Iterator[None]:
        """Give the mirror up if something is refused half-way: the next ``apply`` then looks at the kernel anew."""
        try:
            yield
        except BaseException:
            self._store = None
            raise

    def _build(self, flat: FlatProgram) -> Applied:
        """Build a new instance for a program, beside the one that is in force."""
        image = render(flat)
        made = self._place.make(sizes_for(image))
        try:
            store = made.read()
            delta = store.difference(image)
            commit = self._planned(store, delta)
            made.write(commit)
            self._place.put_in_force(made)
        except BaseException:
            made.destroy()
            raise
        self._take(made)
        self._store = store
        self._quiet.begin()
        return _applied(commit, delta)

    def _take(self, instance: Instance | None) -> None:
        """Let go of the instance that was held, for another one or for none."""
        if instance is None:
            self._reporting.leave()
        else:
            self._reporting.follow(instance.maps[EVENTS], instance.maps[COUNTERS])
        if self._instance is not None:
            self._instance.close()
        self._instance, self._store, self._alone = instance, None, False

    def _stand_alone(self) -> None:
        """Take away what else is in force here: earlier instances, which this one has taken the place of."""
        if not self._alone and self._instance is not None:
            self._place.leave_only(self._instance)
            self._alone = True

    def _forget_pods(self, program: Program, store: Store) -> None:
        pods = {PodIdentity(entry.pod, entry.uid) for entry in program.endpoints}
        store.keep_only(PODS, {pack_id(NODE), *(pod_entry(pod)[0] for pod in pods)})

    def _tidy(self, instance: Instance, store: Store) -> None:
        """Delete what no program needs. What is deleted may be reused at once, so nothing is written for a while."""
        if store.garbage:
            self._quiet.wait()
            with self._looking_again_if_refused():
                instance.delete(store.reap(), store.word)
            self._quiet.begin()


def _applied(commit: Commit, delta: Delta) -> Applied:
    added = sum(map(len, commit.entries.values()))
    deleted = sum(len(list(keys)) for keys in delta.unused.values())
    return Applied(transactions=1, added=added, deleted=deleted)
