# SPDX-License-Identifier: Apache-2.0
"""Who owns which field of an object: server-side apply, and the bookkeeping of every other write.

The rules are those of structured-merge-diff and apimachinery's field manager; nothing like it exists for Python. Pure:
objects in, objects out, the time as an argument. ``metadata.managedFields`` is real: what kubectl and controllers read
there is what the rules are computed from.
"""

from __future__ import annotations

from ringfence.lab.apiserver.applying.errors import ApplyConflict, ApplyInvalid
from ringfence.lab.apiserver.applying.managers import only_times_differ
from ringfence.lab.apiserver.applying.server_side import apply
from ringfence.lab.apiserver.applying.updates import track_update

__all__ = ["ApplyConflict", "ApplyInvalid", "apply", "only_times_differ", "track_update"]
