# SPDX-License-Identifier: Apache-2.0
"""One step of an agent, as a pure function: what is known and what changed, to what is known and what to enforce.

The law: the program depends on the objects that there are, never on the order in which their events came, how they
were batched, or how often they were told. Pods are kept by uid, because the events of two pods that bear one name
after each other may come in any order (SEMANTICS 29); who holds a name and an address ``build_cluster`` decides.

Knows no clock, no API server and no kernel: ``agent.loop`` feeds it and carries its results.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import msgspec

from ringfence.agent.workshop import Workshop
from ringfence.apis.core import (
    NamespaceObject,
    NodeObject,
    Pod,
    decode_namespace,
    decode_node,
    decode_pod,
)
from ringfence.apis.networkpolicy import Lowered, lower
from ringfence.compiler.program import Program
from ringfence.kube.changes import Change, Listed, Removed, Upserted
from ringfence.model.persistent import PersistentMap
from ringfence.model.policy import ObjectRef, Policy
from ringfence.model.settings import DEFAULTS, Settings


class Kind(enum.Enum):
    """What an agent follows; the value is the collection's path."""

    NAMESPACES = "/api/v1/namespaces"
    NODES = "/api/v1/nodes"
    PODS = "/api/v1/pods"
    POLICIES = "/apis/networking.k8s.io/v1/networkpolicies"


@dataclass(frozen=True, slots=True)
class StoredPolicy:
    """A NetworkPolicy as it came, lowered once. ``version`` is its resourceVersion."""

    uid: str
    lowered: Lowered
    version: str = ""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An object that does not have the shape of its kind: what we knew of it before stays."""

    complaint: str


Known: TypeAlias = NamespaceObject | NodeObject | Pod | StoredPolicy
Told: TypeAlias = Known | Unreadable


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a reflector told of one collection."""

    kind: Kind
    change: Change[Told]


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """Something wrong with a stored object, that a person should know of (SEMANTICS 37)."""

    object: ObjectRef
    uid: str
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


Objects: TypeAlias = Mapping[str, Any]
_KINDS = {
    Kind.NAMESPACES: "Namespace",
    Kind.NODES: "Node",
    Kind.PODS: "Pod",
    Kind.POLICIES: "NetworkPolicy",
}


@dataclass(frozen=True, slots=True)
class State:
    """What a node's agent knows.

    ``objects`` has an entry for each kind that was listed: by key, pods by uid. ``unreadable`` are objects that could
    not be decoded, by kind and key. ``program`` is what these objects mean for the node, None until every kind was
    listed: nothing may be written before. ``workshop`` made it, when it was ``workshop_at``.
    """

    node: str
    objects: Mapping[Kind, Objects] = field(default_factory=dict)
    unreadable: Mapping[tuple[Kind, str], str] = field(default_factory=dict)
    program: Program | None = None
    settings: Settings = DEFAULTS
    workshop: Workshop | None = field(default=None, compare=False, repr=False)
    workshop_at: int = field(default=0, compare=False, repr=False)

    @property
    def complete(self) -> bool:
        """Tell whether every kind was listed."""
        return len(self.objects) == len(Kind)


@dataclass(frozen=True, slots=True)
class Step:
    """What a step came to: the new state, the program to enforce (None: nothing yet), every problem that there is."""

    state: State
    program: Program | None
    problems: tuple[Problem, ...]


def decode(kind: Kind, raw: bytes) -> Told:
    """Read an object of a kind from its JSON; never raises for an object, whatever its shape."""
    try:
        match kind:
            case Kind.NAMESPACES:
                return decode_namespace(raw)
            case Kind.NODES:
                return decode_node(raw)
            case Kind.PODS:
                return decode_pod(raw)
            case Kind.POLICIES:
                return _stored(msgspec.json.decode(raw))
    except (msgspec.DecodeError, RecursionError) as error:
        return Unreadable(str(error))


def _stored(obj: Any) -> StoredPolicy | Unreadable:
    match obj:
        case {"metadata": {**meta}}:
            return StoredPolicy(str(meta.get("uid", "")), lower(obj), str(meta.get("resourceVersion", "")))
        case _:
            return Unreadable("a NetworkPolicy is an object with metadata")


def reconcile(state: State, events: Sequence[Event]) -> Step:
    """Take events up and return what they lead to. Compiles only if they changed anything that matters."""
    draft = _Draft(state)
    for event in events:
        draft.take(event)
    after = draft.done()
    if not after.complete:
        return Step(after, None, ())
    if after.program is None:
        after = _made(after, draft)
    return Step(after, after.program, _problems(after))


def why_not_in_force(
    state: State | None, namespace: str, name: str, uid: str, addresses: Sequence[str] = ()
) -> str | None:
    """Return why a pod's policy is not in force under a *committed* state, None if it is.

    In force means: the program in the kernel was compiled from a state that had this very pod, with an address, its
    namespace, and each of ``addresses``: those that the pod is about to use. A hostNetwork pod is no subject of policy
    (SEMANTICS 25): being known is enough.
    """
    if state is None or state.program is None:
        return "the agent has committed nothing yet"
    if namespace not in state.objects[Kind.NAMESPACES]:
        return f"the agent has not seen the namespace {namespace}"
    pod = state.objects[Kind.PODS].get(uid)
    if pod is None or (pod.metadata.namespace, pod.metadata.name) != (namespace, name):
        return f"the agent has not seen the pod {namespace}/{name} with uid {uid}"
    if pod.spec.nodeName != state.node:
        return f"the pod {namespace}/{name} is not on node {state.node}"
    if pod.spec.hostNetwork:
        return None
    covered = {str(entry.address) for entry in state.program.endpoints if entry.uid == uid}
    if covered and (lacking := sorted(set(addresses) - covered)):
        return f"the agent has not seen {', '.join(lacking)} of the pod {namespace}/{name}"
    if covered:
        return None
    return f"the agent has seen no address of the pod {namespace}/{name}, or it has ended"


def local_pods(program: Program) -> frozenset[str]:
    """Return the uids of the pods that a program protects."""
    return frozenset(entry.uid for entry in program.endpoints)


class _Draft:
    """A state being written. What the old one holds is shared, and stays as it is."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._changed: dict[Kind, PersistentMap[str, Any]] = {}
        self._touched: dict[Kind, set[str]] = {}  # of kinds that were not listed anew
        self._unreadable = dict(state.unreadable)

    def take(self, event: Event) -> None:
        kind = event.kind
        match event.change:
            case Listed(items):
                self._replace(kind, items)
            case Upserted(key, told):
                if isinstance(told, Unreadable):
                    self._unreadable[kind, key] = told.complaint
                    return
                self._unreadable.pop((kind, key), None)
                identity, known = _identity(key, told), self._known(kind)
                if known.get(identity) != told:
                    self._change(kind, identity, known.with_item(identity, told))
            case Removed(key, told):
                self._unreadable.pop((kind, key), None)
                for identity in self._meant(kind, key, told):
                    self._change(kind, identity, self._known(kind).without(identity))

    def done(self) -> State:
        """Return the state written; what it meant is gone where objects changed."""
        if not self._changed:
            return replace(self._state, unreadable=self._unreadable)
        return replace(
            self._state,
            objects={**self._state.objects, **self._changed},
            unreadable=self._unreadable,
            program=None,
        )

    def changes(self, kind: Kind) -> dict[str, tuple[Any, Any]]:
        """Return what has changed of a kind: by identity, what was known before and what is known now."""
        if kind not in self._changed:
            return {}
        old, new = self._state.objects.get(kind, {}), self._changed[kind]
        identities = self._touched[kind] if kind in self._touched else old.keys() | new.keys()
        pairs = ((identity, old.get(identity), new.get(identity)) for identity in identities)
        return {identity: (before, after) for identity, before, after in pairs if before is not after}

    def _replace(self, kind: Kind, items: Mapping[str, Told]) -> None:
        known = self._known(kind)
        listed: dict[str, Any] = {}
        self._unreadable = {place: why for place, why in self._unreadable.items() if place[0] is not kind}
        for key, told in items.items():
            if isinstance(told, Unreadable):
                self._unreadable[kind, key] = told.complaint
                listed |= {identity: known[identity] for identity in self._meant(kind, key, told)}
            else:
                identity = _identity(key, told)
                before = known.get(identity)
                listed[identity] = before if before == told else told
        same = len(listed) == len(known) and all(known.get(each) is obj for each, obj in listed.items())
        if kind not in self._state.objects or not same:
            self._changed[kind] = PersistentMap(listed)
            self._touched.pop(kind, None)

    def _meant(self, kind: Kind, key: str, told: Told) -> list[str]:
        """Return which known objects an object is: not another one that took over its name."""
        known = self._known(kind)
        if isinstance(told, Unreadable):
            return [each for each, obj in known.items() if _key(each, obj) == key]
        identity = _identity(key, told)
        return [identity] if identity in known and _uid(known[identity]) == _uid(told) else []

    def _known(self, kind: Kind) -> PersistentMap[str, Any]:
        if kind in self._changed:
            return self._changed[kind]
        known = self._state.objects.get(kind, {})
        return known if isinstance(known, PersistentMap) else PersistentMap(known)

    def _change(self, kind: Kind, identity: str, objects: PersistentMap[str, Any]) -> None:
        if kind not in self._changed:
            self._touched[kind] = set()
        if kind in self._touched:
            self._touched[kind].add(identity)
        self._changed[kind] = objects


def _identity(key: str, told: Known) -> str:
    return told.metadata.uid or key if isinstance(told, Pod) else key


def _uid(obj: Known) -> str:
    return obj.uid if isinstance(obj, StoredPolicy) else obj.metadata.uid


def _key(identity: str, obj: Known) -> str:
    return f"{obj.metadata.namespace}/{obj.metadata.name}" if isinstance(obj, Pod) else identity


def _made(state: State, draft: _Draft) -> State:
    """Return a state with its program: changed from the last one, where there is one to go on from."""
    workshop = state.workshop
    if workshop is None or workshop.at != state.workshop_at:
        workshop = _workshop(state)
    else:
        pods = {identity: now for identity, (_, now) in draft.changes(Kind.PODS).items()}
        policies = [(_lowered(old), _lowered(new)) for old, new in draft.changes(Kind.POLICIES).values()]
        namespaces = {name: now for name, (_, now) in draft.changes(Kind.NAMESPACES).items()}
        workshop.change(pods, policies, namespaces, state.objects[Kind.NODES].get(state.node))
    return replace(state, program=workshop.program, workshop=workshop, workshop_at=workshop.at)


def _lowered(stored: StoredPolicy | None) -> Policy | None:
    return None if stored is None else stored.lowered.policy


def _workshop(state: State) -> Workshop:
    policies: Iterable[StoredPolicy] = state.objects[Kind.POLICIES].values()
    return Workshop(
        state.node,
        state.settings,
        namespaces=state.objects[Kind.NAMESPACES].values(),
        nodes=state.objects[Kind.NODES],
        pods=state.objects[Kind.PODS],
        policies=[each.lowered.policy for each in policies],
    )


def _problems(state: State) -> tuple[Problem, ...]:
    policies: Iterable[StoredPolicy] = state.objects[Kind.POLICIES].values()
    wrong = [
        Problem(each.lowered.policy.ref, each.uid, error.path, error.message)
        for each in policies
        for error in each.lowered.problems
    ]
    for (kind, key), complaint in state.unreadable.items():
        namespace, _, name = key.rpartition("/")
        wrong.append(Problem(ObjectRef(_KINDS[kind], namespace, name), "", "", complaint))
    return tuple(sorted(wrong))
