# SPDX-License-Identifier: Apache-2.0
"""Objects that something broke. Two laws, of SEMANTICS 37, each checked on every cell:

* **What is left.** A broken policy means exactly what the same policy means without its broken rules: each is replaced
  by one that is valid and matches nothing; a broken podSelector selects by what is right in it and allows nothing;
  broken policyTypes are both, and the rules of a direction that is not named for certain match nothing.
* **Never wider.** If all that was changed in a valid policy is complained of, whatever is allowed now was allowed
  before: alone, and beside other policies.

``mended`` is written from these words alone, and knows nothing of how lowering does it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import msgspec
from hypothesis import strategies as st

from ringfence.agent.reconcile import Event, Kind, State, Step, Unreadable, decode, reconcile
from ringfence.apis.cidrs import CidrForm
from ringfence.apis.fields import within
from ringfence.apis.manifests import cluster_from_objects
from ringfence.apis.networkpolicy import lower, validate
from ringfence.errors import FieldError
from ringfence.kube.changes import Upserted
from ringfence.model.flow import Flow
from ringfence.model.policy import Policy
from ringfence.semantics.evaluate import evaluate
from tests.fuzz.agents import KINDS, listed, objects_of
from tests.fuzz.agreement import Disagreement, compare
from tests.fuzz.cells import cells
from tests.fuzz.manifests import Manifest
from tests.fuzz.worlds import NODES, World

Path: TypeAlias = tuple[str | int, ...]

NOBODY = {"podSelector": {"matchExpressions": [{"key": "x", "operator": op} for op in ("Exists", "DoesNotExist")]}}
NOTHING: list[Any] = [True, 7.5, "?", "-bad-", "10.0.0.0/33", "", {"?": 1}, [True], [[]], -1, 70000, "x" * 300]
ANYTHING: list[Any] = [*NOTHING, None, {}, [], 0, 80, "x", "10.1.2.3/8", [None], [{}], 10**30, 1e300, {"": {}}]
ANYTHING += ["é😀", "\0", "a\nb", "*" * 70000, [[[[[[[[[[]]]]]]]]]], {"a": {"b": {"c": {"d": {}}}}}]

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def places(value: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the path of every value within a value."""
    inner: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    for step, part in inner:
        yield (*path, step)
        yield from places(part, (*path, step))


def replaced(value: Any, path: Path, by: Any) -> Any:
    """Return a value with the part at a path replaced."""
    if not path:
        return copy.deepcopy(by)
    changed = copy.copy(value)
    changed[path[0]] = replaced(value[path[0]], path[1:], by)
    return changed


def written(path: Path) -> str:
    """Return a path as complaints write it."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


@st.composite
def mutated(draw: st.DrawFn, obj: Any, values: Sequence[Any], *, below: str = "") -> tuple[Any, list[Path]]:
    """Draw an object with one to three of its parts (of those below a field) replaced; return where."""
    done: list[Path] = []
    for _ in range(draw(st.sampled_from((1, 1, 2, 3)))):
        among = [path for path in places(obj) if not below or path[0] == below]
        if not among:
            break
        path = draw(st.sampled_from(among))
        value = (
            draw(json_values) if values is ANYTHING and draw(st.integers(0, 3)) == 3 else draw(st.sampled_from(values))
        )
        obj = replaced(obj, path, value)
        done.append(path)
    return obj, done


@st.composite
def rubbish(draw: st.DrawFn, world: World) -> tuple[Kind, Any]:
    """Draw a kind, and an object of a world's with parts replaced, or anything at all, for one of it."""
    kind = draw(st.sampled_from(Kind))
    whole = [obj for obj in world.objects if KINDS[obj["kind"]] is kind]
    if not whole or draw(st.integers(0, 4)) == 0:
        return kind, draw(json_values)
    obj, _ = draw(mutated(draw(st.sampled_from(whole)), ANYTHING))
    return kind, obj


def mended(manifest: Manifest) -> Manifest:
    """Return the valid policy that is left of a policy with a broken spec."""
    errors = [error.path for error in validate(manifest, cidrs=CidrForm.LEGACY)]
    spec = manifest.get("spec")
    if not isinstance(spec, dict):
        # Whom it meant cannot be told: everybody, in both directions, may have been.
        return {**manifest, "spec": {"policyTypes": ["Ingress", "Egress"]} if spec is not None else {}}
    selector = _is_broken("spec.podSelector", errors)
    types = _is_broken("spec.policyTypes", errors)
    left: dict[str, Any] = {
        "podSelector": _right_part(spec.get("podSelector"), errors) if selector else spec.get("podSelector")
    }
    named = _directions(spec, errors)
    left["policyTypes"] = ["Ingress", "Egress"] if types else named
    for direction, side in (("ingress", "from"), ("egress", "to")):
        sure = direction.capitalize() in named and not selector
        rules = spec.get(direction)
        if isinstance(rules, list):
            left[direction] = [
                {}
                if rule is None and not _is_broken(f"spec.{direction}[{index}]", errors) and sure
                else {side: [NOBODY]}
                if not sure or _is_broken(f"spec.{direction}[{index}]", errors)
                else rule
                for index, rule in enumerate(rules)
            ]
    return {**manifest, "spec": left}


def _is_broken(path: str, errors: Iterable[str]) -> bool:
    return any(within(error, path) for error in errors)


def _directions(spec: dict[str, Any], errors: list[str]) -> list[str]:
    """Return the directions that are named, or that are named when nothing is said (SEMANTICS 1)."""
    types = spec.get("policyTypes")
    said = [each for each in types if each in ("Ingress", "Egress")] if isinstance(types, list) else []
    if types is not None and types != []:
        return said  # nothing, if it cannot be read: what was said there is not what is meant by saying nothing
    return ["Ingress", "Egress"] if spec.get("egress") or _is_broken("spec.egress", errors) else ["Ingress"]


def _right_part(selector: Any, errors: list[str]) -> dict[str, Any]:
    if not isinstance(selector, dict):
        return {}
    labels = selector.get("matchLabels")
    terms = selector.get("matchExpressions")
    return {
        "matchLabels": {k: v for k, v in labels.items() if _is_label(k, v)} if isinstance(labels, dict) else {},
        "matchExpressions": [
            term
            for index, term in enumerate(terms if isinstance(terms, list) else [])
            if not _is_broken(f"spec.podSelector.matchExpressions[{index}]", errors)
        ],
    }


def _is_label(key: str, value: Any) -> bool:
    policy = {"metadata": {"name": "p", "namespace": "n"}, "spec": {"podSelector": {"matchLabels": {key: value}}}}
    return not validate(policy)


def allowed(world: World, policies: Sequence[Manifest], flows: Iterable[Flow]) -> frozenset[Flow]:
    """Return the flows that the oracle allows under policies, in a world."""
    cluster, meaning = replace(world, policies=tuple(policies)).meaning
    return frozenset(flow for flow in flows if evaluate(flow, cluster, meaning, world.settings).allowed)


def flows_of(world: World, *others: Sequence[Manifest]) -> list[Flow]:
    """Return the cells of a world's cluster with its policies and others."""
    cluster, _ = world.meaning
    sets = [cluster_from_objects(policies).policies for policies in (world.policies, *others)]
    return list(cells(cluster, *sets))


def check_left_over(world: World, number: int, broken: Manifest) -> int:
    """Hold a world with a broken policy against the same with what is left of it; engines agree on the former."""
    valid = mended(broken)
    if problems := [e for e in validate(valid, cidrs=CidrForm.LEGACY) if e.path.startswith("spec")]:
        raise Disagreement(f"what is left of a policy is valid: {problems[0]}", [broken])
    policies = [*world.policies[:number], broken, *world.policies[number + 1 :]]
    instead = [*world.policies[:number], valid, *world.policies[number + 1 :]]
    flows = flows_of(world, policies, instead)
    got, expected = allowed(world, policies, flows), allowed(world, instead, flows)
    if got != expected:
        flow = min(got ^ expected, key=str)
        what = f"{flow} is {'allowed' if flow in got else 'denied'}, not so by what is left of the policy"
        raise Disagreement(what, [replace(world, policies=tuple(policies))])
    return len(flows) + compare(replace(world, policies=tuple(policies)))


def check_never_wider(world: World, number: int, broken: Manifest, where: Sequence[Path]) -> int:
    """Hold what is allowed with a broken policy against what was before, if all that was changed is complained of."""
    errors = validate(broken, cidrs=CidrForm.LEGACY)
    if not all(_is_complained_of(written(path), errors) for path in where):
        return 0
    policies = [*world.policies[:number], broken, *world.policies[number + 1 :]]
    compared = 0
    for before, after in ((world.policies, policies), ([world.policies[number]], [broken])):
        flows = flows_of(world, before, after)
        more = allowed(world, after, flows) - allowed(world, before, flows)
        if more:
            what = f"a policy that broke at {', '.join(map(written, where))} allows {min(more, key=str)}"
            raise Disagreement(what, [replace(world, policies=tuple(before)), replace(world, policies=tuple(after))])
        compared += len(flows)
    return compared


def _is_complained_of(path: str, errors: Iterable[FieldError]) -> bool:
    return any(within(error.path, path) or within(path, error.path) for error in errors)


def check_readable(world: World, objects: Sequence[tuple[Kind, Any]]) -> int:
    """Let agents that know a world hear of objects that may be anything, each for itself: they go on, with the program
    that they had if they cannot read it; what is wrong is told once. Returns how many objects were tried.
    """
    known = [listed(kind, found) for kind, found in objects_of(world).items()]
    before = [reconcile(State(node, settings=world.settings), known) for node in NODES]
    for kind, obj in objects:
        told = decode(kind, msgspec.json.encode(obj))
        for step in before:
            _check_heard(step, Event(kind, Upserted(_key(obj), told)), world, unreadable=isinstance(told, Unreadable))
        if kind is Kind.POLICIES:
            assert isinstance(lower(obj).policy, Policy)
    return len(objects)


def _check_heard(before: Step, event: Event, world: World, *, unreadable: bool) -> None:
    after = reconcile(before.state, [event])
    again = reconcile(after.state, [event])
    if unreadable and after.program != before.program:
        raise Disagreement("an object that cannot be read changes the program", [world])
    if again.program != after.program or again.problems != after.problems:
        raise Disagreement("the same object, told again, changes something", [world])
    if len(set(after.problems)) != len(after.problems):
        raise Disagreement("a problem is told twice", [world])
    if unreadable and len(set(after.problems) - set(before.problems)) != 1:
        raise Disagreement("an object that cannot be read is no problem, or more than one", [world])


def _key(obj: Any) -> str:
    meta = obj.get("metadata") if isinstance(obj, dict) else None
    name, namespace = (meta.get("name"), meta.get("namespace")) if isinstance(meta, dict) else (None, None)
    return f"{namespace}/{name}" if isinstance(namespace, str) and namespace else str(name)
