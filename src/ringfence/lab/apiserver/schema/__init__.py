# SPDX-License-Identifier: Apache-2.0
"""Schemas: what the kinds look like, what is wrong with an object's shape, and what OpenAPI tells clients of it.

Charter: pure functions over plain JSON. Values that are well-shaped but wrong (a port of 99999 in a policy) are the
kinds' own validation; here only shape, and for custom resources what their definition's schema says.
"""

from __future__ import annotations

from ringfence.lab.apiserver.schema.decoding import duplicate_fields
from ringfence.lab.apiserver.schema.kinds import CustomKindSchema, KindSchema, of_definition, of_kind
from ringfence.lab.apiserver.schema.nodes import Form, ListKind, Schema

__all__ = [
    "CustomKindSchema",
    "Form",
    "KindSchema",
    "ListKind",
    "Schema",
    "duplicate_fields",
    "of_definition",
    "of_kind",
]
