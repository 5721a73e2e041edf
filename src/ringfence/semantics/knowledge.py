# SPDX-License-Identifier: Apache-2.0
"""What is not known of a world, as values: so that nothing made up ever decides an explanation.

Files hold pods that have no address yet, namespaces without their labels, addresses that may be anybody's; a cluster
may hold an object that is broken. ``Knowledge`` says which, and ``Unknown`` is one fact that a verdict would rest on.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ringfence.apis.fields import within
from ringfence.apis.workloads import Owner
from ringfence.errors import FieldError
from ringfence.model.addresses import Address
from ringfence.model.cluster import PodKey
from ringfence.model.policy import ObjectRef


class Gap(enum.Enum):
    """What kind of fact is missing; the value is how JSON spells it."""

    ADDRESS = "address"
    FAMILIES = "addressFamilies"
    NAMESPACE_LABELS = "namespaceLabels"
    HOLDER = "addressHolder"
    NODE = "node"
    BACKENDS = "serviceBackends"
    BROKEN_RULE = "brokenRule"


@dataclass(frozen=True, slots=True)
class Unknown:
    """One fact that would have to be known. ``remedy`` says how it could be."""

    gap: Gap
    fact: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.fact}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What is not known of a cluster, and a little that its model does not hold.

    ``stand_ins`` are addresses that were made up, with the pods that they stand for; among them, ``on_host`` are those
    of hostNetwork pods, with their node's name ("" if that is unknown too). ``families`` are the address families that
    pods of the cluster have, none where that is not known. ``labelless`` namespaces are known by name
    only. ``strangers`` are addresses that may be those of pods or nodes that nobody told of (never of the pod at the
    other end). ``unplaced`` pods have no node yet. ``broken`` are the stored policies that are invalid, with what is
    wrong. ``owners`` are the workloads whose template has to change for a pod's labels to stay changed.
    """

    stand_ins: Mapping[Address, PodKey] = field(default_factory=dict)
    on_host: Mapping[Address, str] = field(default_factory=dict)
    families: frozenset[int] = frozenset()
    labelless: frozenset[str] = frozenset()
    strangers: frozenset[Address] = frozenset()
    unplaced: frozenset[PodKey] = frozenset()
    broken: Mapping[ObjectRef, tuple[FieldError, ...]] = field(default_factory=dict)
    owners: Mapping[PodKey, Owner] = field(default_factory=dict)

    def broken_at(self, ref: ObjectRef, *paths: str) -> tuple[FieldError, ...]:
        """Return what is wrong with a policy at or below paths, or with all of it."""
        return tuple(
            error
            for error in self.broken.get(ref, ())
            if error.path in ("", "spec") or any(within(error.path, path) for path in paths)
        )


EVERYTHING_KNOWN = Knowledge()


def address_of(pod: object, why: str) -> Unknown:
    """Miss the address of a pod."""
    remedy = "give the pod's status.podIPs, or ask the cluster when it runs"
    return Unknown(Gap.ADDRESS, f"the address of {pod} ({why})", remedy)


def holder_of(address: Address, why: str) -> Unknown:
    """Miss whose address one is."""
    remedy = f"name the pod instead, write outside/{address} if it is outside of the cluster, or give the Nodes"
    return Unknown(Gap.HOLDER, f"whether {address} is a pod's or a node's, and whose ({why})", remedy)


def labels_of(namespace: str, why: str) -> Unknown:
    """Miss the labels of a namespace."""
    return Unknown(Gap.NAMESPACE_LABELS, f"the labels of namespace {namespace} ({why})", "give the Namespace object")


def node_of(pod: object, why: str) -> Unknown:
    """Miss where a pod runs."""
    return Unknown(Gap.NODE, f"the node of {pod} ({why})", "give the pod's spec.nodeName, and the Node with addresses")


def meaning_of(ref: ObjectRef, path: str, errors: Iterable[FieldError]) -> Unknown:
    """Miss what a broken part of a policy was meant to say."""
    wrong = "; ".join(map(str, errors))
    remedy = f"mend it: until then ringfence lets {path} match nothing, and keeps pods isolated"
    return Unknown(Gap.BROKEN_RULE, f"what {ref} means by {path}, which is invalid: {wrong}", remedy)
