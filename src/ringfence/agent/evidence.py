# SPDX-License-Identifier: Apache-2.0
"""Whether what is in force is as new as a pod: the proof that the gate waits for (SEMANTICS 30). Pure.

A watch never says that it is late. A pod could be known, and committed, while the watch of policies stands still: it
would start under older policies. So the policies of its namespace are listed once more *after* the pod was heard of:
whatever was stored when the pod was made is in that list. What is in force is compared with it, object by object.

Equal is as new. What differs may be newer than the list: that is told by resourceVersions of one kind of object, which
may be compared as numbers (KEP-5504). Where they are no numbers, only equal counts, and the list is asked for again.

Whatever kind of policy may isolate a pod belongs to the evidence: one that is followed and not listed here is a hole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ringfence.agent.reconcile import StoredPolicy, Told
from ringfence.compiler.program import Program
from ringfence.model.addresses import Address


@dataclass(frozen=True, slots=True)
class Evidence:
    """The policies of a namespace as they were stored at one moment, by key, and that moment's resourceVersion."""

    namespace: str
    version: str
    policies: Mapping[str, Told]

    def could_select(self, labels: Mapping[str, str] | None) -> bool:
        """Tell whether any of the policies could select a pod of the namespace; None: we do not know its labels.

        A policy that cannot be read could select anything.
        """
        if labels is None:
            return bool(self.policies)
        return any(
            not isinstance(each, StoredPolicy) or each.lowered.policy.subject.pods.matches(labels)
            for each in self.policies.values()
        )


@dataclass(frozen=True, slots=True)
class Held:
    """What an agent holds of one namespace's policies; ``unreadable`` are keys of those that it could not decode."""

    policies: Mapping[str, StoredPolicy]
    unreadable: frozenset[str] = frozenset()


def why_older(held: Held, evidence: Evidence) -> str | None:
    """Return why what is held is not proven to be as new as the evidence, None if it is."""
    for key, told in evidence.policies.items():
        if not isinstance(told, StoredPolicy):
            if key not in held.unreadable:
                return f"the agent has not seen the network policy {key}, which it cannot read"
            continue
        mine = held.policies.get(key)
        if mine is None:
            return f"the network policy {key} is not in force yet"
        if mine != told and not _newer(mine.version, than=told.version):
            return f"the network policy {key} is in force in another version"
    for key, mine in held.policies.items():
        if key not in evidence.policies and not _newer(mine.version, than=evidence.version):
            return f"the network policy {key} is in force and was deleted"
    return None


def _newer(version: str, *, than: str) -> bool:
    return version.isdecimal() and than.isdecimal() and int(version) > int(than)


def still_anothers(program: Program, uid: str, addresses: Iterable[Address]) -> frozenset[Address]:
    """Return which of a pod's addresses still mean somebody else to a program: as a subject or as a peer.

    An address goes from pod to pod. Whom policy lets its last holder talk to is no business of the next one.
    """
    wanted = frozenset(addresses)
    entries = {entry.address: entry.uid for entry in program.endpoints if entry.address in wanted}
    rest = wanted - entries.keys()
    peers = {address for peer_set in program.peer_sets for address in rest if address in peer_set.addresses}
    return frozenset(address for address, holder in entries.items() if holder != uid) | peers
