# SPDX-License-Identifier: Apache-2.0
"""Events: in the namespace of what they are about."""

from __future__ import annotations

from ringfence.apis import fields
from ringfence.errors import FieldError
from ringfence.lab.apiserver.api import Api
from ringfence.lab.apiserver.kinds.strategy import Strategy
from ringfence.lab.apiserver.objects import Object, namespace_of

_WITHOUT_NAMESPACE = ("default", "kube-system")
"""Where events about cluster-wide objects, such as nodes, are."""


class Events(Strategy):
    """Objects of either API arrive here in the version of the request."""

    def errors(self, api: Api, new: Object, old: Object | None) -> list[FieldError]:  # noqa: ARG002 - as declared
        """Return whether the event is in another namespace than its object."""
        field = "regarding" if "regarding" in new else "involvedObject"
        namespace = (new.get(field) or {}).get("namespace") or ""
        if namespace_of(new) in ((namespace,) if namespace else _WITHOUT_NAMESPACE):
            return []
        return [fields.invalid(f"{field}.namespace", namespace, "does not match event.namespace")]
