# SPDX-License-Identifier: Apache-2.0
"""Namespaces: they are named in a label, go away in two steps, and some of them never do."""

from __future__ import annotations

from ringfence.lab.apiserver.api import Api
from ringfence.lab.apiserver.kinds.strategy import Strategy
from ringfence.lab.apiserver.objects import Object, name_of, spec_of
from ringfence.lab.apiserver.status import forbidden

NAME_LABEL = "kubernetes.io/metadata.name"
FINALIZER = "kubernetes"
IMMORTAL = frozenset({"default", "kube-system", "kube-public"})


class Namespaces(Strategy):
    """The namespace controller empties a terminating namespace and then takes ``kubernetes`` from its finalizers."""

    def before_create(self, api: Api, new: Object) -> None:  # noqa: ARG002 - as declared
        """Name it in its labels, keep it until its content is gone, and declare it active."""
        new["spec"] = {"finalizers": [FINALIZER]}
        new["status"] = {"phase": "Active"}
        _label(new)

    def before_update(self, api: Api, new: Object, old: Object) -> None:  # noqa: ARG002 - as declared
        """Keep the spec: only ``/finalize`` changes it."""
        new["spec"] = {**spec_of(old)}
        _label(new)

    def holds(self, obj: Object) -> bool:
        """Tell whether the namespace controller has not finished with it."""
        return bool(spec_of(obj).get("finalizers"))

    def before_deletion(self, api: Api, new: Object) -> None:  # noqa: ARG002 - as declared
        """Declare it terminating; refuse for the namespaces that a cluster cannot be without."""
        if name_of(new) in IMMORTAL:
            raise forbidden("", "namespaces", name_of(new), "this namespace may not be deleted")
        new["status"] = {**(new.get("status") or {}), "phase": "Terminating"}


def _label(obj: Object) -> None:
    meta = obj["metadata"]
    meta["labels"] = {**(meta.get("labels") or {}), NAME_LABEL: name_of(obj)}
