# SPDX-License-Identifier: Apache-2.0
"""Pods: they start pending, live on a while after their deletion was asked for, and hardly change in between."""

from __future__ import annotations

from typing import Any

from ringfence.apis import fields
from ringfence.errors import FieldError
from ringfence.lab.apiserver.api import Api
from ringfence.lab.apiserver.kinds import podspec
from ringfence.lab.apiserver.kinds.strategy import Strategy
from ringfence.lab.apiserver.objects import Object, is_terminating, metadata, name_of, namespace_of, spec_of, status_of
from ringfence.lab.apiserver.status import forbidden

_DEFAULT_ACCOUNT = "default"
_MUTABLE = ("activeDeadlineSeconds", "terminationGracePeriodSeconds", "tolerations")
_CONTAINER_LISTS = ("containers", "initContainers")
_COUNTED = ("cpu", "memory")
_UPDATE_RULE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


class Pods(Strategy):
    """The kubelet of the pod's node writes the status, and says when a deleted pod has ended (grace 0)."""

    returns_deleted = True

    def before_create(self, api: Api, new: Object) -> None:
        """Start it pending; refuse it (403) if its service account is none."""
        account = spec_of(new).get("serviceAccountName") or _DEFAULT_ACCOUNT
        # the account "default" comes a moment after its namespace, from a controller: pods need not wait for it
        if account != _DEFAULT_ACCOUNT and api.get("serviceaccounts", namespace_of(new), account) is None:
            why = (
                f'error looking up service account {namespace_of(new)}/{account}: serviceaccount "{account}" not found'
            )
            raise forbidden("", "pods", name_of(new), why)
        new["status"] = {"phase": "Pending", "qosClass": _quality(spec_of(new))}

    def errors(self, api: Api, new: Object, old: Object | None) -> list[FieldError]:  # noqa: ARG002 - as declared
        """Return what is wrong with the pod; an update may change images, tolerations (more of them) and deadlines."""
        spec = spec_of(new)
        found = podspec.errors(spec, "spec")
        if old is not None and not found and _changed(spec, spec_of(old)):
            found.append(fields.forbidden("spec", _UPDATE_RULE))
        return found

    def grace(self, obj: Object, asked: int | None) -> int:
        """Return the seconds that the pod has to end: none if it runs nowhere, or has ended already."""
        if not spec_of(obj).get("nodeName") or status_of(obj).get("phase") in ("Succeeded", "Failed"):
            return 0
        if asked is None and is_terminating(obj):
            asked = metadata(obj).get("deletionGracePeriodSeconds")
        seconds: int = spec_of(obj).get("terminationGracePeriodSeconds", 0) if asked is None else asked
        return 1 if seconds < 0 else seconds


def _changed(new: Object, old: Object) -> bool:
    """Tell whether an update changes what of a spec must not change."""
    kept = old.get("tolerations") or []
    if any(toleration not in (new.get("tolerations") or []) for toleration in kept):
        return True
    return _fixed(new) != _fixed(old)


def _fixed(spec: Object) -> Object:
    fixed = {key: value for key, value in spec.items() if key not in _MUTABLE}
    for kind in _CONTAINER_LISTS:
        fixed[kind] = [{**container, "image": ""} for container in spec.get(kind) or ()]
    return fixed


def _quality(spec: Object) -> str:
    """Return the quality of service class: how much of what the containers may use is promised to them."""
    containers = [c.get("resources") or {} for kind in _CONTAINER_LISTS for c in spec.get(kind) or ()]
    promises = [_counted(r.get("requests")) for r in containers]
    limits = [_counted(r.get("limits")) for r in containers]
    if not any(promises) and not any(limits):
        return "BestEffort"
    guaranteed = promises == limits and all(set(limit) == set(_COUNTED) for limit in limits)
    return "Guaranteed" if guaranteed else "Burstable"


def _counted(resources: Any) -> Object:
    return {name: value for name, value in (resources or {}).items() if name in _COUNTED}
