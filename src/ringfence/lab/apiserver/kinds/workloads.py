# SPDX-License-Identifier: Apache-2.0
"""Deployments and replica sets: a selector, and a template that it must match."""

from __future__ import annotations

from ringfence.apis import fields, meta
from ringfence.errors import FieldError
from ringfence.lab.apiserver.api import Api
from ringfence.lab.apiserver.kinds import podspec
from ringfence.lab.apiserver.kinds.gowords import labels, selector
from ringfence.lab.apiserver.kinds.strategy import Strategy
from ringfence.lab.apiserver.objects import Object, labels_of, spec_of

_MISMATCH = "`selector` does not match template `labels`"
_COUNTS = ("replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds")
_STRATEGIES = ("Recreate", "RollingUpdate")


class Workloads(Strategy):
    """The controller of the kind makes what the spec asks for, and writes the status."""

    def errors(self, api: Api, new: Object, old: Object | None) -> list[FieldError]:  # noqa: ARG002 - as declared
        """Return what is wrong with the counts, the selector and the template; the selector never changes."""
        spec = spec_of(new)
        found = [
            fields.invalid(f"spec.{field}", spec[field], "must be greater than or equal to 0")
            for field in _COUNTS
            if spec.get(field, 0) < 0
        ]
        found += _selector_errors(spec)
        kind = (spec.get("strategy") or {}).get("type")
        if kind and kind not in _STRATEGIES:
            found.append(fields.not_supported("spec.strategy.type", kind, _STRATEGIES))
        if old is not None and spec.get("selector") != spec_of(old).get("selector"):
            why = f"Invalid value: {selector(spec.get('selector') or {})}: field is immutable"
            found.append(FieldError("spec.selector", why, fields.INVALID))
        return found


def _selector_errors(spec: Object) -> list[FieldError]:
    template = spec.get("template") or {}
    wanted = spec.get("selector")
    found: list[FieldError] = []
    if wanted is None:
        found.append(fields.required("spec.selector"))
    elif not wanted:
        why = f"Invalid value: {selector({})}: empty selector is invalid for deployment"
        found.append(FieldError("spec.selector", why, fields.INVALID))
    else:
        found += meta.validate_label_selector(wanted, "spec.selector")
        if not found and not matches(wanted, labels_of(template)):
            why = f"Invalid value: {labels(labels_of(template))}: {_MISMATCH}"
            found.append(FieldError("spec.template.metadata.labels", why, fields.INVALID))
    found += meta.validate_labels(labels_of(template), "spec.template.labels")
    pod = template.get("spec") or {}
    found += podspec.errors(pod, "spec.template.spec")
    if pod.get("restartPolicy", "Always") != "Always":
        found.append(fields.not_supported("spec.template.spec.restartPolicy", pod["restartPolicy"], ("Always",)))
    return found


def matches(wanted: Object, found: dict[str, str]) -> bool:
    """Tell whether labels match a meta/v1 LabelSelector that is valid."""
    for key, value in (wanted.get("matchLabels") or {}).items():
        if found.get(key) != value:
            return False
    for expression in wanted.get("matchExpressions") or ():
        key, values = expression["key"], expression.get("values") or ()
        match expression["operator"]:
            case "In":
                fits = key in found and found[key] in values
            case "NotIn":
                fits = key not in found or found[key] not in values
            case "Exists":
                fits = key in found
            case _:
                fits = key not in found
        if not fits:
            return False
    return True
