# SPDX-License-Identifier: Apache-2.0
"""What must hold of a pod's spec, alone or as the template of a workload: the rules that a user meets.

Types are checked before (``schema``); here every value has the type that the kind says. Rules that concern what the
lab has not (devices, windows options, probes of gRPC …) are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ringfence.apis import fields, meta, names
from ringfence.errors import FieldError
from ringfence.lab.apiserver.objects import Object

_ENV_NAME = re.compile(r"[ -<>-~]+")
_ENV_RULE = "a valid environment variable name must consist only of printable ASCII characters other than '='"
# field -> the values that it may have
_SPEC_CHOICES = {
    "dnsPolicy": ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
    "restartPolicy": ("Always", "Never", "OnFailure"),
    "preemptionPolicy": ("Never", "PreemptLowerPriority"),
}
_CONTAINER_CHOICES = {
    "imagePullPolicy": ("Always", "IfNotPresent", "Never"),
    "terminationMessagePolicy": ("FallbackToLogsOnError", "File"),
}
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_TOLERATION_CHOICES = {
    "operator": ("Equal", "Exists"),
    "effect": ("NoExecute", "NoSchedule", "PreferNoSchedule"),
}


def errors(spec: Object, path: str) -> list[FieldError]:
    """Return what is wrong with a pod's spec, found at ``path``."""
    found, volumes = _volume_errors(spec.get("volumes") or (), f"{path}.volumes")
    seen: set[str] = set()
    found += _containers(spec, "containers", path, volumes, seen)
    found += _containers(spec, "initContainers", path, volumes, seen)
    found += _choice_errors(spec, path, _SPEC_CHOICES)
    for field in ("terminationGracePeriodSeconds",):
        if spec.get(field, 0) < 0:
            found.append(fields.invalid(f"{path}.{field}", spec[field], "must be greater than or equal to 0"))
    found += meta.validate_labels(spec.get("nodeSelector") or {}, f"{path}.nodeSelector")
    for field in ("serviceAccountName", "nodeName"):
        if spec.get(field):
            found += fields.invalids(f"{path}.{field}", spec[field], names.is_dns1123_subdomain(spec[field]))
    for field in ("hostname", "subdomain"):
        if spec.get(field):
            found += fields.invalids(f"{path}.{field}", spec[field], names.is_dns1123_label(spec[field]))
    for index, toleration in enumerate(spec.get("tolerations") or ()):
        found += _choice_errors(toleration, f"{path}.tolerations[{index}]", _TOLERATION_CHOICES)
    return found


def _containers(spec: Object, kind: str, path: str, volumes: frozenset[str], seen: set[str]) -> list[FieldError]:
    containers = spec.get(kind) or ()
    if kind == "containers" and not containers:
        return [fields.required(f"{path}.{kind}")]
    found: list[FieldError] = []
    for index, container in enumerate(containers):
        place = f"{path}.{kind}[{index}]"
        name = container.get("name") or ""
        if not name:
            found.append(fields.required(f"{place}.name"))
        elif bad := names.is_dns1123_label(name):
            found += fields.invalids(f"{place}.name", name, bad)
        elif name in seen:
            found.append(fields.duplicate(f"{place}.name", name))
        seen.add(name)
        found += _container(container, place, host_network=bool(spec.get("hostNetwork")))
        found += _mount_errors(container, place, volumes)
    return found


def _container(container: Object, path: str, *, host_network: bool) -> list[FieldError]:
    found: list[FieldError] = []
    image = container.get("image") or ""
    if not image:
        found.append(fields.required(f"{path}.image"))
    elif image != image.strip():
        found.append(fields.invalid(f"{path}.image", image, "must not have leading or trailing whitespace"))
    found += _choice_errors(container, path, _CONTAINER_CHOICES)
    found += _port_errors(container.get("ports") or (), f"{path}.ports", host_network=host_network)
    for index, variable in enumerate(container.get("env") or ()):
        place = f"{path}.env[{index}].name"
        if not variable.get("name"):
            found.append(fields.required(place))
        elif not _ENV_NAME.fullmatch(variable["name"]):
            found.append(fields.invalid(place, variable["name"], _ENV_RULE))
    return found


def _port_errors(ports: Sequence[Object], path: str, *, host_network: bool) -> list[FieldError]:
    found: list[FieldError] = []
    seen: set[str] = set()
    for index, port in enumerate(ports):
        place = f"{path}[{index}]"
        name, number, host = port.get("name"), port.get("containerPort", 0), port.get("hostPort", 0)
        if name:
            bad = names.is_port_name(name)
            found += fields.invalids(f"{place}.name", name, bad)
            if not bad and name in seen:
                found.append(fields.duplicate(f"{place}.name", name))
            seen.add(name)
        if number == 0:
            found.append(fields.required(f"{place}.containerPort"))
        else:
            found += fields.invalids(f"{place}.containerPort", number, names.is_port_number(number))
        if host:
            found += fields.invalids(f"{place}.hostPort", host, names.is_port_number(host))
            if host_network and host != number:
                why = "must match `hostPort` when `hostNetwork` is true"
                found.append(fields.invalid(f"{place}.containerPort", number, why))
        found += _choice_errors(port, place, {"protocol": _PROTOCOLS})
    return found


def _volume_errors(volumes: Sequence[Object], path: str) -> tuple[list[FieldError], frozenset[str]]:
    found: list[FieldError] = []
    seen: set[str] = set()
    for index, volume in enumerate(volumes):
        place, name = f"{path}[{index}].name", volume.get("name") or ""
        if not name:
            found.append(fields.required(place))
        elif bad := names.is_dns1123_label(name):
            found += fields.invalids(place, name, bad)
        elif name in seen:
            found.append(fields.duplicate(place, name))
        seen.add(name)
    return found, frozenset(seen)


def _mount_errors(container: Object, path: str, volumes: frozenset[str]) -> list[FieldError]:
    found: list[FieldError] = []
    paths: set[str] = set()
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        place, name, where = f"{path}.volumeMounts[{index}]", mount.get("name") or "", mount.get("mountPath") or ""
        if not name:
            found.append(fields.required(f"{place}.name"))
        elif name not in volumes:
            found.append(FieldError(f"{place}.name", f'Not found: "{name}"', "FieldValueNotFound"))
        if not where:
            found.append(fields.required(f"{place}.mountPath"))
        elif where in paths:
            found.append(fields.invalid(f"{place}.mountPath", where, "must be unique"))
        paths.add(where)
    return found


def _choice_errors(obj: Object, path: str, choices: dict[str, tuple[str, ...]]) -> Iterable[FieldError]:
    return [
        fields.not_supported(f"{path}.{field}", obj[field], allowed)
        for field, allowed in choices.items()
        if obj.get(field) and obj[field] not in allowed
    ]
