# SPDX-License-Identifier: Apache-2.0
"""From a pod's JSON to what its containers run as. Pure; what the lab cannot give is refused with a sentence.

Leaves out on purpose what changes nothing about a pod's traffic: resource limits, SELinux, seccomp, devices. Volumes
are ``emptyDir``, ``configMap``, ``downwardAPI``-less ``projected`` tokens (the service account's) and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ringfence.lab.images import command_line
from ringfence.lab.nodes.runtime import Process

Json = Mapping[str, Any]

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
API_SERVER_SERVICE = "10.0.0.1"

_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_][-\w.]*)\)")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")


class Unusable(Exception):
    """A container's configuration cannot be used (``CreateContainerConfigError``); ``str()`` says what is wrong."""


class Placed(NamedTuple):
    """Where a pod is: what its environment may ask for."""

    node: str
    addresses: tuple[str, ...]
    host_addresses: tuple[str, ...]


ConfigMaps = Mapping[str, Mapping[str, str]]
"""Name to data of the config maps of the pod's namespace that its containers refer to."""


def config_maps(pod: Json) -> set[str]:
    """Return the names of the config maps that a pod's containers and volumes refer to."""
    found = {volume["configMap"]["name"] for volume in pod["spec"].get("volumes", ()) if volume.get("configMap")}
    for container in [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]:
        for source in container.get("envFrom", ()):
            found.add(source.get("configMapRef", {}).get("name", ""))
        for variable in container.get("env", ()):
            found.add(variable.get("valueFrom", {}).get("configMapKeyRef", {}).get("name", ""))
    return found - {""}


def environment(pod: Json, container: Json, placed: Placed, maps: ConfigMaps) -> dict[str, str]:
    """Return a container's environment; raises ``Unusable``.

    "Variable references $(VAR_NAME) are expanded using the previously defined environment variables in the container
    and any service environment variables. If a variable cannot be resolved, the reference in the input string will be
    unchanged. Double $$ are reduced to a single $."
    """
    found = {
        "PATH": PATH,
        "HOSTNAME": hostname(pod),
        "HOME": "/root",
        "KUBERNETES_SERVICE_HOST": API_SERVER_SERVICE,
        "KUBERNETES_SERVICE_PORT": "443",
        "KUBERNETES_SERVICE_PORT_HTTPS": "443",
        "KUBERNETES_PORT": f"tcp://{API_SERVER_SERVICE}:443",
    }
    if container.get("tty"):
        found["TERM"] = "xterm"
    for source in container.get("envFrom", ()):
        found |= _all_of(source, maps)
    for variable in container.get("env", ()):
        value = variable.get("value", "")
        if variable.get("valueFrom"):
            given = _value_from(pod, variable["name"], variable["valueFrom"], placed, maps)
            if given is None:
                continue
            found[variable["name"]] = given
        else:
            found[variable["name"]] = expand(value, found)
    return found


def expand(text: str, values: Mapping[str, str]) -> str:
    """Replace ``$(NAME)`` where NAME is known, and ``$$`` by ``$``."""

    def replace(match: re.Match[str]) -> str:
        return "$" if match[1] is None else values.get(match[1], match[0])

    return _REFERENCE.sub(replace, text)


def _all_of(source: Json, maps: ConfigMaps) -> dict[str, str]:
    reference = source.get("configMapRef")
    if reference is None:
        raise Unusable("the lab has no secrets; use a configMapRef")
    if reference["name"] not in maps and not reference.get("optional"):
        raise Unusable(f'configmap "{reference["name"]}" not found')
    return {source.get("prefix", "") + key: value for key, value in maps.get(reference["name"], {}).items()}


def _value_from(pod: Json, name: str, source: Json, placed: Placed, maps: ConfigMaps) -> str | None:
    if "fieldRef" in source:
        return _field(pod, source["fieldRef"]["fieldPath"], placed)
    if "configMapKeyRef" in source:
        reference = source["configMapKeyRef"]
        value = maps.get(reference["name"], {}).get(reference["key"])
        if value is None and not reference.get("optional"):
            raise Unusable(f"couldn't find key {reference['key']} in ConfigMap {reference['name']}")
        return value
    raise Unusable(f"the lab cannot take environment variable {name} from {', '.join(source)}")


def _field(pod: Json, path: str, placed: Placed) -> str:
    metadata, spec = pod["metadata"], pod["spec"]
    subscript = _SUBSCRIPT.fullmatch(path)
    if subscript:
        return str(metadata.get(subscript[1], {}).get(subscript[2], ""))
    fields: dict[str, Callable[[], str]] = {
        "metadata.name": lambda: metadata["name"],
        "metadata.namespace": lambda: metadata["namespace"],
        "metadata.uid": lambda: metadata["uid"],
        "spec.nodeName": lambda: placed.node,
        "spec.serviceAccountName": lambda: spec.get("serviceAccountName", "default"),
        "status.podIP": lambda: next(iter(placed.addresses), ""),
        "status.podIPs": lambda: ",".join(placed.addresses),
        "status.hostIP": lambda: next(iter(placed.host_addresses), ""),
        "status.hostIPs": lambda: ",".join(placed.host_addresses),
    }
    if path not in fields:
        raise Unusable(f"the lab cannot take an environment variable from the field {path}")
    return fields[path]()


def hostname(pod: Json) -> str:
    """Return what a pod calls itself: "If not specified, the pod's hostname will be set to a system-defined value"."""
    return str(pod["spec"].get("hostname") or pod["metadata"]["name"])[:63].rstrip("-.")


def process(pod: Json, container: Json, env: Mapping[str, str]) -> Process:
    """Return what a container's first process runs as; raises ``images.ImageMissing`` and ``Unusable``."""
    security = {**(pod["spec"].get("securityContext") or {}), **(container.get("securityContext") or {})}
    capabilities = security.get("capabilities") or {}
    uid = security.get("runAsUser", 0)
    if security.get("runAsNonRoot") and uid == 0:
        raise Unusable("container has runAsNonRoot and image will run as root")
    return Process(
        argv=command_line(
            container.get("image", ""),
            [expand(word, env) for word in container.get("command") or ()],
            [expand(word, env) for word in container.get("args") or ()],
        ),
        env=env,
        cwd=container.get("workingDir", ""),
        tty=bool(container.get("tty")),
        stdin=bool(container.get("stdin")),
        once=bool(container.get("stdinOnce")),
        uid=uid,
        gid=security.get("runAsGroup", 0),
        groups=tuple(security.get("supplementalGroups") or ()),
        add=tuple(name.removeprefix("CAP_") for name in capabilities.get("add") or ()),
        drop=tuple(name.removeprefix("CAP_") for name in capabilities.get("drop") or ()),
        privileged=bool(security.get("privileged")),
    )


class Mounts(NamedTuple):
    """What a container finds mounted: directories below the lab's directory of pods, and files with their text."""

    volumes: Sequence[tuple[str, str, bool]]
    files: Mapping[str, str]


def mounts(pod: Json, container: Json, directory: str, maps: ConfigMaps) -> Mounts:
    """Return a container's volumes; raises ``Unusable`` for kinds that the lab does not have.

    ``directory`` is the pod's own, relative to the lab's directory of pods.
    """
    volumes: list[tuple[str, str, bool]] = []
    files: dict[str, str] = {}
    known = {volume["name"]: volume for volume in pod["spec"].get("volumes", ())}
    for mount in container.get("volumeMounts", ()):
        volume = known[mount["name"]]
        target = mount["mountPath"].rstrip("/") or "/"
        if "emptyDir" in volume:
            source = f"{directory}/volumes/{volume['name']}"
            volumes.append((f"{source}/{mount['subPath']}" if mount.get("subPath") else source, target,
                            bool(mount.get("readOnly"))))  # fmt: skip
        elif "configMap" in volume:
            files |= _config_files(volume["configMap"], target, mount.get("subPath", ""), maps)
        elif target != SERVICE_ACCOUNT:
            kind = ", ".join(sorted(volume.keys() - {"name"}))
            raise Unusable(f'the lab has no volumes of the kind {kind} (volume "{volume["name"]}"); use emptyDir')
    return Mounts(volumes, files)


def _config_files(source: Json, target: str, only: str, maps: ConfigMaps) -> dict[str, str]:
    data = maps.get(source["name"])
    if data is None:
        if source.get("optional"):
            return {}
        raise Unusable(f'configmap "{source["name"]}" not found')
    paths = {item["key"]: item["path"] for item in source.get("items") or ()} or {key: key for key in data}
    named = {path: data[key] for key, path in paths.items() if key in data}
    if only:
        return {target: named[only]} if only in named else {}
    return {f"{target}/{path}": text for path, text in named.items()}


def pod_files(pod: Json, placed: Placed, account: Mapping[str, str]) -> dict[str, str]:
    """Return the files that every container of a pod has: names, and the service account's (name to text)."""
    name = hostname(pod)
    lines = ["# Made by the lab's kubelet.", "127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
    lines += [f"{address}\t{name}" for address in placed.addresses]
    for alias in pod["spec"].get("hostAliases") or ():
        lines.append("\t".join([alias["ip"], *alias.get("hostnames", ())]))
    files = {
        "/etc/hosts": "\n".join(lines) + "\n",
        "/etc/hostname": f"{name}\n",
        # No name server: the C library asks 127.0.0.1, where nobody answers, and fails at once.
        "/etc/resolv.conf": "# The lab has no DNS: names are looked up in /etc/hosts only.\n"
        "options timeout:1 attempts:1\n",
    }
    if pod["spec"].get("automountServiceAccountToken", True):
        # The container's /var/run is a link to /run, made after this.
        folder = SERVICE_ACCOUNT.removeprefix("/var")
        files |= {f"{folder}/{key}": text for key, text in account.items()}
        files[f"{folder}/namespace"] = pod["metadata"]["namespace"]
    return files
