# SPDX-License-Identifier: Apache-2.0
"""Why an object cannot be applied."""

from __future__ import annotations

from collections.abc import Sequence


class ApplyConflict(Exception):
    """Other managers own fields that the applied object would change; ``str()`` is kube-apiserver's message.

    ``conflicts`` are (manager, field), the manager as messages show it: ``"kubectl-client-side-apply" using v1``.
    """

    def __init__(self, conflicts: Sequence[tuple[str, str]]) -> None:
        self.conflicts = tuple(conflicts)
        super().__init__(_message(self.conflicts))


class ApplyInvalid(Exception):
    """The applied object does not fit its schema, or says what nobody may apply. ``code`` is the HTTP status."""

    def __init__(self, message: str, *, code: int = 500) -> None:
        self.message = message
        self.code = code
        super().__init__(message)


def _message(conflicts: Sequence[tuple[str, str]]) -> str:
    if len(conflicts) == 1:
        manager, field = conflicts[0]
        return f"Apply failed with 1 conflict: conflict with {manager}: {field}"
    fields: dict[str, list[str]] = {}
    for manager, field in conflicts:
        fields.setdefault(manager, []).append(field)
    lines = [
        line
        for manager in sorted(fields)
        for line in (f"conflicts with {manager}:", *(f"- {f}" for f in fields[manager]))
    ]
    return f"Apply failed with {len(conflicts)} conflicts: " + "\n".join(lines)
