# SPDX-License-Identifier: Apache-2.0
"""Nodes: their kubelets register them, status and all."""

from __future__ import annotations

from ringfence.apis import fields
from ringfence.errors import FieldError
from ringfence.lab.apiserver.api import Api
from ringfence.lab.apiserver.kinds.strategy import Strategy
from ringfence.lab.apiserver.objects import Object, spec_of


class Nodes(Strategy):
    """What a node is does not change; whether pods go there does."""

    keeps_status_on_create = True

    def errors(self, api: Api, new: Object, old: Object | None) -> list[FieldError]:  # noqa: ARG002 - as declared
        """Return what must not change: the addresses of the node's pods, once they are known."""
        before = spec_of(old or {}).get("podCIDR")
        if before and spec_of(new).get("podCIDR") != before:
            why = 'node updates may not change podCIDR except from "" to valid'
            return [fields.forbidden("spec.podCIDRs", why)]
        return []
