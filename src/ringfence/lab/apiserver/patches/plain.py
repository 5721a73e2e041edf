# SPDX-License-Identifier: Apache-2.0
"""Patches that need no schema: RFC 6902 (JSON patch) and RFC 7386 (merge patch)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import jsonpatch
import jsonpointer

from ringfence.lab.apiserver.patches.errors import PatchError

_REJECTED = "the server rejected our request due to an error in our request"


def json_patch(obj: dict[str, Any], patch: Any) -> dict[str, Any]:
    """Apply a list of JSON patch operations. All or none: a failed operation (``test`` too) raises ``PatchError``."""
    if not isinstance(patch, list) or not all(isinstance(operation, Mapping) for operation in patch):
        raise PatchError("error decoding patch: a JSON patch is a list of operations")
    try:
        patched = jsonpatch.JsonPatch(patch).apply(obj)
    except jsonpatch.InvalidJsonPatch as error:
        raise PatchError(f"error decoding patch: {error}") from error
    except jsonpatch.JsonPatchTestFailed as error:
        raise PatchError(f"{_REJECTED}: a test operation failed", code=422) from error
    except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException, TypeError) as error:
        raise PatchError(f"{_REJECTED}: {error}", code=422) from error
    if not isinstance(patched, dict):
        raise PatchError("the patch leaves no object", code=422)
    return patched


def merge_patch(obj: Mapping[str, Any], patch: Any) -> dict[str, Any]:
    """Merge: null removes, objects merge key by key, everything else (lists too) replaces.

    RFC 7386: "If the provided merge patch contains members that do not appear within the target, those members are
    added. … Null values in the merge patch are given special meaning to indicate the removal of existing values".
    """
    if not isinstance(patch, Mapping):
        raise PatchError("error decoding patch: a merge patch is an object")
    merged = _merge(obj, patch)
    assert isinstance(merged, dict)
    return merged


def _merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    merged = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge(merged.get(key), value)
    return merged
