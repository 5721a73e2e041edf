# SPDX-License-Identifier: Apache-2.0
"""What kube-apiserver fills in when a field of a built-in kind is not set.

Only what depends on the object alone (k8s.io/kubernetes/pkg/apis/*/v1/defaults.go, and the admission plugins that are
on everywhere: ServiceAccount's name, Priority, DefaultTolerationSeconds). What depends on the cluster (addresses and
ports of Services, names from generateName) is the kinds' own. Objects are expected well-typed: types are checked first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ringfence.lab.apiserver import objects

Object = dict[str, Any]

_POD_SPEC: Object = {
    "restartPolicy": "Always",
    "terminationGracePeriodSeconds": 30,
    "dnsPolicy": "ClusterFirst",
    "securityContext": {},
    "schedulerName": "default-scheduler",
}
_POD_ALONE: Object = {
    "serviceAccountName": "default",
    "enableServiceLinks": True,
    "priority": 0,
    "preemptionPolicy": "PreemptLowerPriority",
}
_CONTAINER: Object = {
    "resources": {},
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
}
_PROBE: Object = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
_DEPLOYMENT: Object = {"replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600}
_ROLLING: Object = {"maxUnavailable": "25%", "maxSurge": "25%"}
_TAINTS_TOLERATED = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
_TOLERATION_SECONDS = 300
_FILE_MODE = 0o644
_MODED_VOLUMES = ("secret", "configMap", "downwardAPI", "projected")
_CLIENT_IP_SECONDS = 10800


def apply_defaults(obj: Object) -> Object:
    """Return the object with its kind's defaults; custom kinds come back as they are (their schema has them)."""
    default = _KINDS.get((obj.get("apiVersion", ""), obj.get("kind", "")))
    if default is None:
        return obj
    filled = objects.copy(obj)
    default(filled)
    return filled


def _fill(obj: Object, values: Object) -> None:
    for key, value in values.items():
        if obj.get(key) is None:
            obj[key] = value.copy() if isinstance(value, dict) else value


def _each(obj: Object, *names: str) -> Iterable[Object]:
    """Yield the objects in some lists of an object."""
    for name in names:
        for item in obj.get(name) or ():
            if isinstance(item, dict):
                yield item


def _part(obj: Object, name: str) -> Object:
    """Return a field that is an object, made if it is not there."""
    if not isinstance(obj.get(name), dict):
        obj[name] = {}
    part: Object = obj[name]
    return part


def _pod(pod: Object) -> None:
    spec = _part(pod, "spec")
    _pod_spec(spec)
    if spec.get("serviceAccount") and not spec.get("serviceAccountName"):
        spec["serviceAccountName"] = spec["serviceAccount"]
    _fill(spec, _POD_ALONE)
    spec["serviceAccount"] = spec["serviceAccountName"]
    for container in _each(spec, "initContainers", "containers"):
        resources = _part(container, "resources")
        limits = resources.get("limits") or {}
        if limits:
            resources["requests"] = {**limits, **(resources.get("requests") or {})}
    _tolerate(spec)


def _tolerate(spec: Object) -> None:
    """Let the pod stay for five minutes on a node that is away, unless it says itself for how long."""
    tolerations = spec.get("tolerations") or []
    for taint in _TAINTS_TOLERATED:
        known = any(
            toleration.get("key") in (taint, None, "") and toleration.get("effect") in ("NoExecute", None, "")
            for toleration in tolerations
        )
        if not known:
            toleration = {"key": taint, "operator": "Exists", "effect": "NoExecute"}
            tolerations.append({**toleration, "tolerationSeconds": _TOLERATION_SECONDS})
    spec["tolerations"] = tolerations


def _pod_spec(spec: Object) -> None:
    _fill(spec, _POD_SPEC)
    host_network = bool(spec.get("hostNetwork"))
    for container in _each(spec, "initContainers", "containers", "ephemeralContainers"):
        _container(container, host_network=host_network)
    for volume in _each(spec, "volumes"):
        _volume(volume)


def _container(container: Object, *, host_network: bool) -> None:
    _fill(container, {"imagePullPolicy": _pull_policy(container.get("image") or ""), **_CONTAINER})
    for port in _each(container, "ports"):
        _fill(port, {"protocol": "TCP"})
        if host_network and not port.get("hostPort") and port.get("containerPort"):
            port["hostPort"] = port["containerPort"]
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if isinstance(container.get(name), dict):
            _fill(container[name], _PROBE)
            _http_get(container[name])
    for hook in (container.get("lifecycle") or {}).values():
        if isinstance(hook, dict):
            _http_get(hook)
    for variable in _each(container, "env"):
        reference = (variable.get("valueFrom") or {}).get("fieldRef")
        if isinstance(reference, dict):
            _fill(reference, {"apiVersion": "v1"})


def _pull_policy(image: str) -> str:
    """Return Always for images that may change under their name: those of no tag, or of the tag ``latest``."""
    if "@" in image:
        return "IfNotPresent"
    tag = image.rsplit("/", 1)[-1].partition(":")[2]
    return "Always" if tag in ("", "latest") else "IfNotPresent"


def _http_get(handler: Object) -> None:
    if isinstance(handler.get("httpGet"), dict):
        _fill(handler["httpGet"], {"path": "/", "scheme": "HTTP"})


def _volume(volume: Object) -> None:
    if volume.keys() <= {"name"}:
        volume["emptyDir"] = {}
    for name in _MODED_VOLUMES:
        if isinstance(volume.get(name), dict):
            _fill(volume[name], {"defaultMode": _FILE_MODE})
    if isinstance(volume.get("hostPath"), dict):
        _fill(volume["hostPath"], {"type": ""})


def _template(workload: Object) -> None:
    template = _part(_part(workload, "spec"), "template")
    _part(template, "metadata")
    _pod_spec(_part(template, "spec"))


def _deployment(deployment: Object) -> None:
    spec = _part(deployment, "spec")
    _fill(spec, _DEPLOYMENT)
    strategy = _part(spec, "strategy")
    _fill(strategy, {"type": "RollingUpdate"})
    if strategy["type"] == "RollingUpdate":
        _fill(_part(strategy, "rollingUpdate"), _ROLLING)
    _template(deployment)


def _replica_set(replica_set: Object) -> None:
    _fill(_part(replica_set, "spec"), {"replicas": 1})
    _template(replica_set)


def _service(service: Object) -> None:
    spec = _part(service, "spec")
    _fill(spec, {"type": "ClusterIP", "sessionAffinity": "None"})
    if spec["sessionAffinity"] == "ClientIP":
        _fill(_part(_part(spec, "sessionAffinityConfig"), "clientIP"), {"timeoutSeconds": _CLIENT_IP_SECONDS})
    for port in _each(spec, "ports"):
        _fill(port, {"protocol": "TCP"})
        if port.get("targetPort") in (None, 0, "") and "port" in port:
            port["targetPort"] = port["port"]
    if spec["type"] != "ExternalName":
        _fill(spec, {"internalTrafficPolicy": "Cluster"})
    if spec["type"] in ("NodePort", "LoadBalancer"):
        _fill(spec, {"externalTrafficPolicy": "Cluster"})
    if spec["type"] == "LoadBalancer":
        _fill(spec, {"allocateLoadBalancerNodePorts": True})
    _part(_part(service, "status"), "loadBalancer")


def _network_policy(policy: Object) -> None:
    spec = _part(policy, "spec")
    _part(spec, "podSelector")
    for rule in _each(spec, "ingress", "egress"):
        for port in _each(rule, "ports"):
            _fill(port, {"protocol": "TCP"})
    if not spec.get("policyTypes"):
        # "If no policyTypes are specified … Ingress will always be set and Egress will be set if the NetworkPolicy has
        # any egress rules."
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]


def _namespace(namespace: Object) -> None:
    name = objects.name_of(namespace)
    if name:
        labels = _part(_part(namespace, "metadata"), "labels")
        labels["kubernetes.io/metadata.name"] = name


def _endpoint_slice(endpoints: Object) -> None:
    for port in _each(endpoints, "ports"):
        _fill(port, {"name": "", "protocol": "TCP"})


def _endpoints(endpoints: Object) -> None:
    for subset in _each(endpoints, "subsets"):
        for port in _each(subset, "ports"):
            _fill(port, {"protocol": "TCP"})


def _secret(secret: Object) -> None:
    _fill(secret, {"type": "Opaque"})


def _definition(definition: Object) -> None:
    spec = _part(definition, "spec")
    names = _part(spec, "names")
    kind = names.get("kind") or ""
    if kind:
        _fill(names, {"singular": kind.lower(), "listKind": f"{kind}List"})
    _fill(_part(spec, "conversion"), {"strategy": "None"})


_KINDS: dict[tuple[str, str], Callable[[Object], None]] = {
    ("v1", "Endpoints"): _endpoints,
    ("v1", "Namespace"): _namespace,
    ("v1", "Pod"): _pod,
    ("v1", "Secret"): _secret,
    ("v1", "Service"): _service,
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"): _definition,
    ("apps/v1", "Deployment"): _deployment,
    ("apps/v1", "ReplicaSet"): _replica_set,
    ("discovery.k8s.io/v1", "EndpointSlice"): _endpoint_slice,
    ("networking.k8s.io/v1", "NetworkPolicy"): _network_policy,
}
