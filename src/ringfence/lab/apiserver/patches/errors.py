# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with a patch."""

from __future__ import annotations


class PatchError(Exception):
    """A patch that cannot be applied. ``code`` is the HTTP status: 400 malformed, 422 does not fit the object."""

    def __init__(self, message: str, *, code: int = 400) -> None:
        self.message = message
        self.code = code
        super().__init__(message)
