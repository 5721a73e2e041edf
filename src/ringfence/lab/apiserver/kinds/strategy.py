# SPDX-License-Identifier: Apache-2.0
"""What a kind decides about writes to its objects; most decide little.

The order of a write: shape and defaults (``writing``), then ``before_create`` or ``before_update`` fill in what the
server owns, then ``errors`` judges the result. Strategies read the ``Api`` and change nothing but the new object.
"""

from __future__ import annotations

from ringfence.errors import FieldError
from ringfence.lab.apiserver.api import Api
from ringfence.lab.apiserver.objects import Object


class Strategy:
    """The strategy of a kind with nothing special."""

    keeps_status_on_create = False
    """Whether a create may bring a status (nodes register with theirs)."""

    needs_revision = False
    """Whether an update must say which resourceVersion it changes."""

    returns_deleted = False
    """Whether an immediate deletion answers with the object rather than with a Status."""

    def before_create(self, api: Api, new: Object) -> None:
        """Fill in what the server owns; raises ``Failure`` where an admission rule forbids the object."""

    def before_update(self, api: Api, new: Object, old: Object) -> None:
        """Restore or fill in what a client cannot change."""

    def errors(self, api: Api, new: Object, old: Object | None) -> list[FieldError]:  # noqa: ARG002 - for kinds with rules
        """Return the broken rules of an object beside those of its metadata; ``old`` is None on creation."""
        return []

    def status_errors(self, api: Api, new: Object, old: Object) -> list[FieldError]:  # noqa: ARG002 - same
        """Return the broken rules of a write to ``/status``."""
        return []

    def grace(self, obj: Object, asked: int | None) -> int:  # noqa: ARG002 - pods have some
        """Return how many seconds the object may live on after its deletion was asked for."""
        return 0

    def holds(self, obj: Object) -> bool:  # noqa: ARG002 - namespaces do
        """Tell whether an object that is being deleted must stay although it has no finalizer in its metadata."""
        return False

    def before_deletion(self, api: Api, new: Object) -> None:
        """Change what marks the object as being deleted, or raise ``Failure`` if it may not be."""

    def written(self, api: Api, obj: Object) -> None:
        """Take note that the object is in the store."""

    def removed(self, api: Api, obj: Object) -> None:
        """Take note that the object is gone."""
