# SPDX-License-Identifier: Apache-2.0
"""The schemas of the built-in kinds: read from the package when first needed, a few milliseconds."""

from __future__ import annotations

import functools
import gzip
import importlib.resources
from typing import Any

import msgspec

Gvk = tuple[str, str, str]


@functools.cache
def definitions() -> dict[str, Any]:
    """Return the OpenAPI v3 components of the built-in kinds by name. Shared: not to be changed."""
    packed = importlib.resources.files("ringfence.lab.apiserver").joinpath("data", "definitions.json.gz").read_bytes()
    made: dict[str, Any] = msgspec.json.decode(gzip.decompress(packed))
    return made


@functools.cache
def kinds() -> dict[Gvk, str]:
    """Return the component name of each (group, version, kind)."""
    return {
        (gvk["group"], gvk["version"], gvk["kind"]): name
        for name, component in definitions().items()
        for gvk in component.get("x-kubernetes-group-version-kind", ())
    }
