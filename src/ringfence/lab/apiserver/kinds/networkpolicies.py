# SPDX-License-Identifier: Apache-2.0
"""NetworkPolicies: judged by the very validator that the engine uses (``apis.networkpolicy``)."""

from __future__ import annotations

from ringfence.apis.networkpolicy import validate
from ringfence.errors import FieldError
from ringfence.lab.apiserver.api import Api
from ringfence.lab.apiserver.kinds.strategy import Strategy
from ringfence.lab.apiserver.objects import Object


class NetworkPolicies(Strategy):
    """Nothing to fill in beyond defaults; everything to check."""

    def errors(self, api: Api, new: Object, old: Object | None) -> list[FieldError]:  # noqa: ARG002 - as declared
        """Return every complaint about the policy; an update may keep CIDRs in forms that are no longer accepted."""
        return validate(new, old=old)
