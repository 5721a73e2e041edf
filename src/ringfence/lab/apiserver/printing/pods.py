# SPDX-License-Identifier: Apache-2.0
"""Pods in a table: the STATUS and RESTARTS that people read, made from phase, reasons and container states."""

from __future__ import annotations

from typing import Any

from ringfence.lab.apiserver.objects import Object, is_terminating, moment_of, name_of, spec_of, status_of
from ringfence.lab.apiserver.printing.durations import age, human
from ringfence.lab.apiserver.printing.layout import AGE, NAME, NONE, Cells, Column, Layout, Now, wide


def _cells(pod: Object, now: Now) -> Cells:
    spec, status = spec_of(pod), status_of(pod)
    sidecars = _sidecars(spec)
    started = [c for c in status.get("initContainerStatuses") or () if c.get("name") in sidecars]
    containers = [*(status.get("containerStatuses") or ()), *started]
    ready = sum(1 for c in containers if c.get("ready") and "running" in (c.get("state") or {}))
    gates = spec.get("readinessGates") or []
    true = {c.get("type") for c in status.get("conditions") or () if c.get("status") == "True"}
    passed = sum(1 for gate in gates if gate.get("conditionType") in true)
    return [
        name_of(pod),
        f"{ready}/{len(spec.get('containers') or ()) + len(sidecars)}",
        _status(pod),
        _restarts(status, now),
        age(pod, now),
        status.get("podIP") or (status.get("podIPs") or [{}])[0].get("ip") or NONE,
        spec.get("nodeName") or NONE,
        status.get("nominatedNodeName") or NONE,
        f"{passed}/{len(gates)}" if gates else NONE,
    ]


def _status(pod: Object) -> str:
    """Return STATUS: the most telling of the phase and the containers' reasons; the first container's wins."""
    status = status_of(pod)
    phase = status.get("phase") or "Unknown"
    reason = status.get("reason") or phase
    initializing = _initializing(pod)
    initialized = _condition(status, "Initialized")
    if initializing:
        reason = initializing
    if not initializing or initialized:
        running = False
        for container in reversed(status.get("containerStatuses") or ()):
            state = container.get("state") or {}
            said = _reason(state)
            running = running or (not said and bool(container.get("ready")) and "running" in state)
            reason = said or reason
        if reason == "Completed" and running:
            reason = "Running" if _condition(status, "Ready") else "NotReady"
    if is_terminating(pod):
        if status.get("reason") == "NodeLost":
            return "Unknown"
        if phase not in ("Succeeded", "Failed"):
            return "Terminating"
    return str(reason)


def _initializing(pod: Object) -> str:
    """Return what the first unfinished init container is doing, empty if all are done. A started sidecar is done."""
    sidecars = _sidecars(spec_of(pod))
    total = len(spec_of(pod).get("initContainers") or ())
    for index, container in enumerate(status_of(pod).get("initContainerStatuses") or ()):
        state = container.get("state") or {}
        if "terminated" in state and state["terminated"].get("exitCode", 0) == 0:
            continue
        if container.get("started") and container.get("name") in sidecars:
            continue
        said = _reason(state)
        return f"Init:{said}" if said and said != "PodInitializing" else f"Init:{index}/{total}"
    return ""


def _sidecars(spec: Object) -> set[str]:
    """Return the names of the init containers that go on running beside the others."""
    return {c.get("name", "") for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"}


def _reason(state: dict[str, Any]) -> str:
    if (waiting := state.get("waiting")) and waiting.get("reason"):
        return str(waiting["reason"])
    if "terminated" in state:
        terminated = state["terminated"]
        if terminated.get("reason"):
            return str(terminated["reason"])
        if terminated.get("signal"):
            return f"Signal:{terminated['signal']}"
        return f"ExitCode:{terminated.get('exitCode', 0)}"
    return ""


def _condition(status: Object, kind: str) -> bool:
    return any(c.get("type") == kind and c.get("status") == "True" for c in status.get("conditions") or ())


def _restarts(status: Object, now: Now) -> str:
    containers = status.get("containerStatuses") or []
    count = sum(int(c.get("restartCount") or 0) for c in containers)
    ends = [
        moment
        for c in containers
        if (moment := moment_of(((c.get("lastState") or {}).get("terminated") or {}).get("finishedAt")))
    ]
    return f"{count} ({human((now - max(ends)).total_seconds())} ago)" if count and ends else str(count)


PODS = Layout(
    (
        NAME,
        Column("Ready"),
        Column("Status"),
        Column("Restarts"),
        AGE,
        wide("IP"),
        wide("Node"),
        wide("Nominated Node"),
        wide("Readiness Gates"),
    ),
    _cells,
)
