# SPDX-License-Identifier: Apache-2.0
"""The part of an object that the server owns for every kind: identity, revision, generation, and where it lives."""

from __future__ import annotations

import random
import uuid

from ringfence.apis import meta as rules
from ringfence.errors import FieldError
from ringfence.lab.apiserver.api import Api
from ringfence.lab.apiserver.objects import Object, is_terminating, metadata
from ringfence.lab.apiserver.requests import Target
from ringfence.lab.apiserver.resources import Resource
from ringfence.lab.apiserver.status import bad_request, conflict, forbidden, not_found

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # what generated names end with: no vowels, so no words
_SUFFIX_LENGTH = 5
_LONGEST_PREFIX = 63 - _SUFFIX_LENGTH
_SERVER_OWNED = ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation")
_KEPT = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")


def place(target: Target, obj: Object) -> None:
    """Put an object where the path says: fills in namespace and name; raises ``Failure`` 400 if it says otherwise."""
    meta = obj["metadata"] = dict(metadata(obj))
    namespace = meta.get("namespace") or ""
    if not target.resource.namespaced:
        if namespace:
            raise bad_request("namespace field should not be set on a cluster-scoped object")
        meta.pop("namespace", None)
    else:
        if namespace and namespace != target.namespace:
            raise bad_request(
                f"the namespace of the provided object does not match the namespace sent on the request: "
                f'"{namespace}" vs "{target.namespace}"'
            )
        meta["namespace"] = target.namespace
    if target.name:
        if meta.get("name") and meta["name"] != target.name:
            raise bad_request(
                f"the name of the object ({meta['name']}) does not match the name on the URL ({target.name})"
            )
        meta["name"] = target.name


def admit(api: Api, target: Target, name: str) -> None:
    """Refuse new objects in namespaces that do not exist (404) or are going away (403)."""
    resource = target.resource
    if not resource.namespaced:
        return
    namespace = api.get("namespaces", "", target.namespace)
    if namespace is None:
        raise not_found("", "namespaces", target.namespace)
    if is_terminating(namespace):
        why = f"unable to create new content in namespace {target.namespace} because it is being terminated"
        cause = {
            "reason": "NamespaceTerminating",
            "message": f"namespace {target.namespace} is being terminated",
            "field": "metadata.namespace",
        }
        raise forbidden(resource.group, resource.plural, name, why, cause=cause)


def begin(api: Api, resource: Resource, obj: Object) -> None:
    """Give a new object its identity; raises ``Failure`` 400 if it claims to be stored already."""
    meta = obj["metadata"]
    if meta.pop("resourceVersion", "") not in ("", "0"):
        raise bad_request("resourceVersion should not be set on objects to be created")
    for field in _SERVER_OWNED:
        meta.pop(field, None)
    if not meta.get("name") and meta.get("generateName"):
        meta["name"] = generated_name(meta["generateName"])
    meta["uid"] = str(uuid.uuid4())
    meta["creationTimestamp"] = api.now()
    if resource.spec_fields is not None:
        meta["generation"] = 1


def generated_name(prefix: str) -> str:
    """Return the prefix, shortened if need be, with five random characters."""
    return prefix[:_LONGEST_PREFIX] + "".join(random.choices(_ALPHABET, k=_SUFFIX_LENGTH))  # noqa: S311 - no secret


def carry_over(target: Target, new: Object, old: Object) -> None:
    """Give an update the identity of the object that it changes; raises ``Failure`` 409 if it means another.

    Whoever sends a resourceVersion or a uid changes that very object, or none.
    """
    resource = target.resource
    meta, kept = new["metadata"], old["metadata"]
    refusal = None
    if meta.get("resourceVersion", "") not in ("", "0", kept["resourceVersion"]):
        refusal = conflict(resource.group, resource.plural, target.name)
    elif meta.get("uid", kept["uid"]) != kept["uid"]:
        why = f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {kept['uid']}"
        refusal = conflict(resource.group, resource.plural, target.name, why)
    if refusal is not None:
        raise refusal
    meta["resourceVersion"] = kept["resourceVersion"]
    meta.pop("selfLink", None)
    for field in _KEPT:
        if field in kept:
            meta[field] = kept[field]
        else:
            meta.pop(field, None)
    for field in ("generateName",):
        if field in kept:
            meta.setdefault(field, kept[field])


def bump_generation(resource: Resource, new: Object, old: Object) -> None:
    """Count changes of what the kind's controllers act on."""
    if resource.spec_fields is None or "generation" not in old["metadata"]:
        return
    if _acted_on(resource, new) != _acted_on(resource, old):
        new["metadata"]["generation"] = old["metadata"]["generation"] + 1


def _acted_on(resource: Resource, obj: Object) -> object:
    if resource.spec_fields:
        return obj.get(resource.spec_fields)
    return {key: value for key, value in obj.items() if key not in ("metadata", "status")}


def errors(resource: Resource, new: Object, old: Object | None) -> list[FieldError]:
    """Return what is wrong with an object's metadata."""
    if old is not None:
        return rules.validate_object_meta_update(new["metadata"], old["metadata"])
    kind = "" if resource.custom else resource.kind
    rule = rules.NAME_RULES.get(kind, rules.is_dns1123_subdomain)
    return rules.validate_object_meta(new["metadata"], namespaced=resource.namespaced, name_rule=rule)
