# SPDX-License-Identifier: Apache-2.0
"""Server-side apply: a manager states all fields that it cares for; the server merges, prunes and guards owners.

1. The applied object is merged into the live one.
2. What the manager applied last time and no longer does goes, unless somebody else owns it.
3. What changed and belongs to another manager is a conflict; ``force`` takes it over.
4. The manager now owns exactly what it applied. Fields with the same value in two applied objects have two owners.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ringfence.lab.apiserver.applying import managers as managing
from ringfence.lab.apiserver.applying.checking import misfits
from ringfence.lab.apiserver.applying.errors import ApplyConflict, ApplyInvalid
from ringfence.lab.apiserver.applying.managers import Manager, Owned
from ringfence.lab.apiserver.applying.merging import merged, without, without_nulls
from ringfence.lab.apiserver.applying.paths import FieldSet, in_order, shown
from ringfence.lab.apiserver.applying.typed import compare, fields_of, with_named_fields
from ringfence.lab.apiserver.applying.updates import closed, ownable, owned_changes
from ringfence.lab.apiserver.schema.decoding import prune
from ringfence.lab.apiserver.schema.nodes import Schema

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def apply(
    live: Mapping[str, Any] | None,
    applied: Mapping[str, Any],
    *,
    manager: str,
    force: bool,
    schema: Schema | None,
    now: str,
    subresource: str = "",
) -> dict[str, Any]:
    """Return the live object (None: there is none yet) with an object applied to it by a manager.

    Raises ``ApplyInvalid`` if the applied object does not fit its schema and ``ApplyConflict`` if another manager owns
    what it changes and ``force`` is not set. An apply that changes nothing returns the live object as it is.
    """
    config = _checked(live, applied, schema, subresource)
    before: Mapping[str, Any] = _identity(config) if live is None else live
    me = Manager.applier(manager, subresource)
    known = managing.read(before)
    last = known[me].fields if me in known else frozenset()
    stated = fields_of(schema, config)
    mine = ownable(stated)
    others = {who: owned for who, owned in known.items() if who != me}
    combined = merged(schema, before, config)
    gone = _abandoned(schema, combined, last=last, owned=stated.union(*(o.fields for o in others.values())))
    changes = owned_changes(schema, before, without(schema, combined, gone), subresource)
    conflicts = {who: owned.fields & changes.taken for who, owned in others.items() if owned.fields & changes.taken}
    if conflicts and not force and not _was_client_side(manager, before, conflicts, schema):
        raise ApplyConflict(
            [(str(who), shown(path)) for who in sorted(conflicts, key=str) for path in in_order(conflicts[who])]
        )
    lost = {who: conflicts.get(who, frozenset()) | changes.removed for who in others}
    after = {who: owned.less(lost[who]) for who, owned in others.items()}
    result = without(schema, combined, gone, keep_emptied=False)
    if schema and schema.is_built_in:
        result = prune(schema, result)
    version = str(applied.get("apiVersion", ""))
    unchanged = me in known and known[me].fields == mine and known[me].api_version == version
    if unchanged and live is not None and _content(result) == _content(live):
        return dict(live)
    after[me] = Owned(mine, version, now)
    return managing.written(_with_last_applied(result, before, applied, manager), after)


def _checked(
    live: Mapping[str, Any] | None, applied: Mapping[str, Any], schema: Schema | None, subresource: str
) -> dict[str, Any]:
    """Return what of the applied object counts, or raise ``ApplyInvalid``."""
    if (applied.get("metadata") or {}).get("managedFields"):
        raise ApplyInvalid("metadata.managedFields must be nil", code=400)
    if schema is not None:
        problems = misfits(schema, applied)
        if problems:
            listed = problems[0] if len(problems) == 1 else "errors:" + "".join(f"\n  {text}" for text in problems)
            raise ApplyInvalid(f"failed to create typed patch object ({_named(applied, live)}): {listed}")
    config: dict[str, Any] = without_nulls(applied)
    shut = {root[0].removeprefix("f:") for root in closed(schema, subresource)} - {"apiVersion", "kind"}
    return {key: value for key, value in config.items() if key not in shut}


def _named(applied: Mapping[str, Any], live: Mapping[str, Any] | None) -> str:
    metadata = applied.get("metadata") or (live or {}).get("metadata") or {}
    group, _, version = str(applied.get("apiVersion", "")).rpartition("/")
    where = f"{metadata.get('namespace') or ''}/{metadata.get('name') or ''}"
    return f"{where}; {group}/{version}, Kind={applied.get('kind')}"


def _identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the object that is there before the first apply: a name and nothing else."""
    metadata = config.get("metadata") or {}
    names = {key: metadata[key] for key in ("name", "namespace") if key in metadata}
    return {"apiVersion": config.get("apiVersion"), "kind": config.get("kind"), "metadata": names}


def _abandoned(schema: Schema | None, combined: dict[str, Any], *, last: FieldSet, owned: FieldSet) -> FieldSet:
    """Return what was applied last time and is nobody's any more. What hangs below a removed item goes with it."""
    if not last:
        return last
    was = with_named_fields(schema, last)
    everything = with_named_fields(schema, fields_of(schema, combined))
    left = with_named_fields(schema, fields_of(schema, without(schema, combined, was)))
    return (everything - left - with_named_fields(schema, owned)) & was


def _was_client_side(
    manager: str, live: Mapping[str, Any], conflicts: Mapping[Manager, FieldSet], schema: Schema | None
) -> bool:
    """Tell whether all conflicts are with what client-side ``kubectl apply`` last applied, and nobody changed since."""
    if manager != "kubectl":
        return False
    text = ((live.get("metadata") or {}).get("annotations") or {}).get(LAST_APPLIED)
    try:
        before = json.loads(text) if text else {}
        changes = compare(schema, before, live)
        allowed = fields_of(schema, before) - changes.taken - changes.removed
    except ValueError:
        return False
    return all(allowed >= fields for fields in conflicts.values())


def _with_last_applied(
    result: dict[str, Any], live: Mapping[str, Any], applied: Mapping[str, Any], manager: str
) -> dict[str, Any]:
    """Keep kubectl's annotation true, where the object has it, so that client-side apply can take over again."""
    metadata = result.get("metadata") or {}
    annotations = metadata.get("annotations") or {}
    if manager != "kubectl" or LAST_APPLIED not in ((live.get("metadata") or {}).get("annotations") or {}):
        return result
    text = json.dumps(without_nulls(applied), separators=(",", ":"), ensure_ascii=False) + "\n"
    return {**result, "metadata": {**metadata, "annotations": {**annotations, LAST_APPLIED: text}}}


def _content(obj: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {key: value for key, value in (obj.get("metadata") or {}).items() if key != "managedFields"}
    return {**obj, "metadata": metadata}
