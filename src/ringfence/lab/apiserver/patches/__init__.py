# SPDX-License-Identifier: Apache-2.0
"""The three kinds of patch that change an object without owning it: JSON patch, merge patch, strategic merge patch.

Pure: each returns a new object and leaves its arguments alone; ``PatchError`` says what is wrong with the patch.
Server-side apply is no patch in this sense: see ``applying``.
"""

from __future__ import annotations

from ringfence.lab.apiserver.patches.errors import PatchError
from ringfence.lab.apiserver.patches.plain import json_patch, merge_patch
from ringfence.lab.apiserver.patches.strategic import strategic_merge

__all__ = ["PatchError", "json_patch", "merge_patch", "strategic_merge"]
