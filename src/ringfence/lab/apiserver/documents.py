# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI documents, made when first asked for and kept as bytes until the set of kinds changes."""

from __future__ import annotations

from ringfence.lab.apiserver import openapi
from ringfence.lab.apiserver.objects import encode
from ringfence.lab.apiserver.registry import Registry


class Documents:
    """What ``/openapi/v3`` and the paths below it answer."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._generation = registry.generation
        self._made: dict[str, bytes] = {}

    def find(self, path: str) -> bytes | None:
        """Return a document by its path below ``/openapi/v3`` (``apis/apps/v1``; empty for the index), None if none."""
        if self._generation != self._registry.generation:
            self._made.clear()
            self._generation = self._registry.generation
        if path not in self._made:
            made = self._make(path)
            if made is None:
                return None
            self._made[path] = made
        return self._made[path]

    def _make(self, path: str) -> bytes | None:
        registry = self._registry
        match path.split("/"):
            case [""]:
                every = [(g, v, registry.resources(g, v)) for g, v in registry.group_versions()]
                return encode(openapi.index(every))
            case ["api", version]:
                group = ""
            case ["apis", group, version]:
                pass
            case _:
                return None
        resources = registry.resources(group, version)
        return encode(openapi.document(group, version, resources)) if resources else None
