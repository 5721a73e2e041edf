# SPDX-License-Identifier: Apache-2.0
"""Delete: at once, after a grace period, or when the last finalizer is gone.

The server marks, and removes what nothing holds. Emptying namespaces and collecting dependents is done by controllers,
which are asked through finalizers (``orphan``, ``foregroundDeletion``, a namespace's ``kubernetes``).
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ringfence.apis import fields
from ringfence.lab.apiserver import status
from ringfence.lab.apiserver.api import Api
from ringfence.lab.apiserver.kinds.registered import strategy_of
from ringfence.lab.apiserver.objects import Object, copy, is_terminating, timestamp
from ringfence.lab.apiserver.requests import Target
from ringfence.lab.apiserver.store import Record
from ringfence.lab.apiserver.writing import existing

ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"
_POLICIES = ("Orphan", "Background", "Foreground")


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """How to delete. ``policy`` is what becomes of the dependents: None leaves it as the object's finalizers say."""

    grace: int | None = None
    policy: str | None = None
    uid: str = ""
    revision: str = ""
    dry_run: bool = False


def delete_options(body: Any, query: Mapping[str, str]) -> DeleteOptions:
    """Read DeleteOptions from the body, or from the query; raises ``Failure`` 400 or 422."""
    if body is not None and not isinstance(body, dict):
        raise status.bad_request("the body of a delete is a DeleteOptions object")
    said: dict[str, Any] = body or {}
    grace = said.get("gracePeriodSeconds", query.get("gracePeriodSeconds"))
    policy = said.get("propagationPolicy") or query.get("propagationPolicy") or None
    orphans = said.get("orphanDependents", query.get("orphanDependents"))
    if orphans is not None and policy is None:
        policy = "Orphan" if str(orphans).lower() == "true" else "Background"
    if policy is not None and policy not in _POLICIES:
        errors = [fields.not_supported("propagationPolicy", policy, (*_POLICIES, "nil"))]
        raise status.invalid("meta.k8s.io", "DeleteOptions", "", errors)
    conditions = said.get("preconditions") or {}
    try:
        seconds = None if grace in (None, "") else int(grace)
    except (TypeError, ValueError):
        raise status.bad_request(f'gracePeriodSeconds "{grace}" is no number') from None
    return DeleteOptions(
        grace=seconds,
        policy=policy,
        uid=conditions.get("uid") or "",
        revision=conditions.get("resourceVersion") or "",
        dry_run=bool(said.get("dryRun") or query.get("dryRun")),
    )


def delete(api: Api, target: Target, options: DeleteOptions) -> Object:
    """Delete an object; returns it, as long as something holds it, or a Status. Raises ``Failure`` 404, 403, 409."""
    record = existing(api, target)
    resource, strategy = target.resource, strategy_of(target.resource)
    _check(target, record, options)
    new = copy(record.object)
    if not is_terminating(new):
        strategy.before_deletion(api, new)
    _set_finalizers(new, options.policy)
    grace = strategy.grace(record.object, options.grace)
    held = bool(new["metadata"].get("finalizers")) or strategy.holds(new)
    if not held and grace == 0:
        if not options.dry_run:
            gone = api.store.remove(record.key, new)
            strategy.removed(api, gone.object)
        if strategy.returns_deleted:
            return resource.is_shown(new)
        uid = new["metadata"]["uid"]
        return status.success(group=resource.group, plural=resource.plural, name=target.name, uid=uid)
    _mark(api, new, grace)
    if new != record.object and not options.dry_run:
        new = api.store.put(record.key, new).object
        strategy.written(api, new)
    return resource.is_shown(new)


def _mark(api: Api, new: Object, grace: int) -> None:
    """Say when the object is to end. A second request may bring the end nearer, never further away."""
    meta = new["metadata"]
    if is_terminating(new) and meta.get("deletionGracePeriodSeconds", 0) <= grace:
        return
    if not is_terminating(new) and "generation" in meta:
        meta["generation"] += 1
    meta["deletionTimestamp"] = timestamp(api.clock() + datetime.timedelta(seconds=grace))
    if new["kind"] != "Namespace":  # theirs ends when it is empty, whenever that is
        meta["deletionGracePeriodSeconds"] = grace


def _check(target: Target, record: Record, options: DeleteOptions) -> None:
    meta, resource = record.object["metadata"], target.resource
    for name, asked, found in (
        ("UID", options.uid, meta["uid"]),
        ("ResourceVersion", options.revision, meta["resourceVersion"]),
    ):
        if asked and asked != found:
            why = f"Precondition failed: {name} in precondition: {asked}, {name} in object meta: {found}"
            raise status.conflict(resource.group, resource.plural, target.name, why)


def _set_finalizers(new: Object, policy: str | None) -> None:
    """Ask the garbage collector for what the policy says of the dependents."""
    if policy is None:
        return
    kept = [name for name in new["metadata"].get("finalizers") or () if name not in (ORPHAN, FOREGROUND)]
    asked = {"Orphan": [ORPHAN], "Foreground": [FOREGROUND]}.get(policy, [])
    if kept or asked:
        new["metadata"]["finalizers"] = [*kept, *asked]
    else:
        new["metadata"].pop("finalizers", None)


def delete_all(api: Api, target: Target, records: list[Record], options: DeleteOptions) -> None:
    """Delete each of these objects; those that are gone already do not matter."""
    for record in records:
        one = Target(target.resource, record.key.namespace, record.key.name)
        try:
            delete(api, one, options)
        except status.Failure as failure:
            if failure.code != 404:
                raise
