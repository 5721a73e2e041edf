# SPDX-License-Identifier: Apache-2.0
"""Lists: all at one revision, whole or in pages, selected by labels and fields."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any

import msgspec

from ringfence.lab.apiserver import selectors
from ringfence.lab.apiserver.api import Api
from ringfence.lab.apiserver.objects import Object, encode
from ringfence.lab.apiserver.requests import ListOptions, Target
from ringfence.lab.apiserver.selectors import Selection
from ringfence.lab.apiserver.status import Failure, bad_request, expired, too_large
from ringfence.lab.apiserver.store import Expired, Record

_TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)
_NEWEST = -1  # a token's revision: go on with what there is now


@dataclass(frozen=True, slots=True)
class Page:
    """Records, and the metadata of the list that they make."""

    records: list[Record]
    metadata: Object


class _Token(msgspec.Struct):
    """Where a paged list goes on: after ``start`` ("namespace/name"), at revision ``rv``."""

    rv: int
    start: str
    v: str = "meta.k8s.io/v1"

    def text(self) -> str:
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).decode().rstrip("=")


def select(target: Target, options: ListOptions) -> Selection:
    """Return the selection that a list or watch asks for; a name in the path is part of it."""
    fields = options.fields
    if target.name:
        fields = ",".join(filter(None, [f"metadata.name={target.name}", fields]))
    return selectors.parse(options.labels, fields, selectable=target.resource.selectable)


def list_page(api: Api, target: Target, options: ListOptions) -> Page:
    """Return a list, or the page of it that is asked for; raises ``Failure`` 400, 410 or 504."""
    selection = select(target, options)
    token = _token(options.continuation) if options.continuation else None
    revision, records = _records(api, target, options, token)
    found = [r for r in records if selection.everything or selection.matches(target.resource.is_shown(r.object))]
    if token:
        after = tuple(token.start.split("/", 1))
        found = [r for r in found if (r.key.namespace, r.key.name) > after]
    metadata: Object = {"resourceVersion": str(revision)}
    if options.limit and len(found) > options.limit:
        rest = len(found) - options.limit
        found = found[: options.limit]
        metadata["continue"] = _Token(revision, f"{found[-1].key.namespace}/{found[-1].key.name}").text()
        if selection.everything:
            metadata["remainingItemCount"] = rest
    return Page(found, metadata)


def _records(api: Api, target: Target, options: ListOptions, token: _Token | None) -> tuple[int, list[Record]]:
    """Return the records of a namespace, or of all, sorted, and the revision at which they are so."""
    store, storage = api.store, target.resource.storage
    revision = _asked(api, options, token)
    if revision == store.revision:
        return revision, store.records(storage, target.namespace)
    try:
        snapshot = store.snapshot(storage, revision)
    except Expired:
        if token is None:
            raise expired("The resourceVersion for the provided list is too old.") from None
        fresh = _Token(_NEWEST, token.start).text()
        failure = expired(_TOO_OLD)
        failure.status["metadata"] = {"continue": fresh}
        raise failure from None
    records = [r for r in snapshot.values() if not target.namespace or r.key.namespace == target.namespace]
    return revision, sorted(records, key=lambda record: record.key)


def _asked(api: Api, options: ListOptions, token: _Token | None) -> int:
    current = api.store.revision
    if token is not None:
        if options.revision not in ("", "0"):
            raise bad_request("specifying resource version is not allowed when using continue")
        return current if token.rv == _NEWEST else token.rv
    revision = parse_revision(options.revision)
    if not revision:
        return current
    if revision > current:
        raise too_large(revision, current)
    exact = options.revision_match == "Exact" or (options.limit and not options.revision_match)
    return revision if exact else current


def parse_revision(text: str) -> int:
    """Return a resourceVersion as a number, 0 if there is none; raises ``Failure`` 400."""
    if not text:
        return 0
    if not text.isdigit():
        raise bad_request(f"invalid resource version {_quoted(text)}")
    return int(text)


def _token(text: str) -> _Token:
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return msgspec.json.decode(raw, type=_Token)
    except (binascii.Error, msgspec.DecodeError, ValueError):
        raise _bad_token() from None


def _bad_token() -> Failure:
    return bad_request("continue key is not valid: the token was not made by this server")


def _quoted(value: Any) -> str:
    return encode(value).decode()
