# SPDX-License-Identifier: Apache-2.0
"""Tables of deployments and replica sets."""

from __future__ import annotations

from ringfence.lab.apiserver.objects import Object, dig, name_of, spec_of, status_of
from ringfence.lab.apiserver.printing.durations import age
from ringfence.lab.apiserver.printing.layout import AGE, NAME, Cells, Column, Layout, Now, number, wide
from ringfence.lab.apiserver.printing.selectors import selector


def _deployment(obj: Object, now: Now) -> Cells:
    status = status_of(obj)
    return [
        name_of(obj),
        f"{status.get('readyReplicas') or 0}/{spec_of(obj).get('replicas') or 0}",
        status.get("updatedReplicas") or 0,
        status.get("availableReplicas") or 0,
        age(obj, now),
        *_template(obj),
    ]


def _replica_set(obj: Object, now: Now) -> Cells:
    status = status_of(obj)
    return [
        name_of(obj),
        spec_of(obj).get("replicas") or 0,
        status.get("replicas") or 0,
        status.get("readyReplicas") or 0,
        age(obj, now),
        *_template(obj),
    ]


def _template(obj: Object) -> Cells:
    containers = dig(obj, "spec.template.spec.containers") or ()
    return [
        ",".join(c.get("name", "") for c in containers),
        ",".join(c.get("image", "") for c in containers),
        selector(spec_of(obj).get("selector")),
    ]


_TEMPLATE = (wide("Containers"), wide("Images"), wide("Selector"))

DEPLOYMENTS = Layout((NAME, Column("Ready"), Column("Up-to-date"), Column("Available"), AGE, *_TEMPLATE), _deployment)
REPLICA_SETS = Layout((NAME, number("Desired"), number("Current"), number("Ready"), AGE, *_TEMPLATE), _replica_set)
