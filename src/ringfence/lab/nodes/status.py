# SPDX-License-Identifier: Apache-2.0
"""What the API server is told of a pod. Pure: from records of its containers to ``status``, as a kubelet words it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Waiting:
    """Not running: why, in one word and in a sentence."""

    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Running:
    """Running since a time."""

    started: float


@dataclass(frozen=True, slots=True)
class Terminated:
    """Ran, and ended."""

    code: int
    signal: int
    reason: str
    started: float
    finished: float
    message: str = ""
    id: str = ""


State = Waiting | Running | Terminated


@dataclass(slots=True)
class Record:
    """What the kubelet knows of one container. ``restarts`` is also the number of the current attempt, from 0."""

    name: str
    image: str
    init: bool = False
    sidecar: bool = False
    state: State = field(default_factory=lambda: Waiting("ContainerCreating"))
    last: Terminated | None = None
    restarts: int = 0
    ready: bool = False
    started: bool = False
    id: str = ""


def timestamp(seconds: float) -> str:
    """Return a time as the API writes it, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def ended(code: int, number: int, started: float, finished: float, container: str) -> Terminated:
    """Return how an exit is reported: ``Completed`` for 0, else ``Error``."""
    reason = "Completed" if code == 0 else "Error"
    # "signal" stays 0, as container runtimes leave it: 128 + signal in the exit code says it.
    del number
    return Terminated(code, 0, reason, started, finished, id=container)


def phase(records: Sequence[Record], restart_policy: str, *, left: bool) -> str:
    """Return the pod's phase; ``left``: no container runs any more, and the pod has given its network back.

    "Pending: … one or more of the containers has not been set up and made ready to run. Running: … all of the
    containers have been created. At least one container is still running, or is in the process of starting or
    restarting. Succeeded: all containers have terminated in success, and will not be restarted. Failed: all containers
    have terminated, and at least one container has terminated in failure."

    The end is told only when it is one. Until then, though all that counts has ended, sidecars may run, and the address
    is not free: policy forgets a pod that has ended (SEMANTICS 26), and it must not before.
    """
    ahead = _phase_by_containers(records, restart_policy)
    if left or ahead not in ("Succeeded", "Failed"):
        return ahead
    began = all(_settled(record) is not None for record in records if not record.init)
    return "Running" if began else "Pending"


def _phase_by_containers(records: Sequence[Record], restart_policy: str) -> str:
    for record in records:
        if record.init and not record.sidecar:
            match record.state:
                case Terminated(code=0):
                    continue
                case Terminated() if restart_policy == "Never":
                    return "Failed"
                case _:
                    return "Pending"
    containers = [record for record in records if not record.init]
    states = [_settled(record) for record in containers]
    if any(state is None for state in states):
        return "Pending"
    if any(isinstance(state, Running) for state in states) or restart_policy == "Always":
        return "Running"
    codes = [state.code for state in states if isinstance(state, Terminated)]
    if not any(codes):
        return "Succeeded"
    if restart_policy == "Never":
        return "Failed"
    return "Running"


def _settled(record: Record) -> State | None:
    """Return a container's state, its last one if it waits to be restarted, or None if it never ran."""
    if isinstance(record.state, Waiting):
        return record.last
    return record.state


def _state(state: State | None) -> dict[str, Any]:
    match state:
        case None:
            return {}
        case Waiting(reason, message):
            return {"waiting": {"reason": reason} | ({"message": message} if message else {})}
        case Running(started):
            return {"running": {"startedAt": timestamp(started)}}
        case Terminated():
            found = {
                "exitCode": state.code,
                "reason": state.reason,
                "startedAt": timestamp(state.started),
                "finishedAt": timestamp(state.finished),
            }
            if state.id:
                found["containerID"] = f"ringfence://{state.id}"
            return {"terminated": found | ({"message": state.message} if state.message else {})}


def container_status(record: Record) -> dict[str, Any]:
    """Return one entry of ``containerStatuses``."""
    found: dict[str, Any] = {
        "name": record.name,
        "image": record.image,
        "imageID": f"ringfence://{record.image}" if record.id else "",
        "ready": record.ready,
        "started": record.started,
        "restartCount": record.restarts,
        "state": _state(record.state),
        "lastState": _state(record.last),
    }
    if record.id:
        found["containerID"] = f"ringfence://{record.id}"
    return found


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The pod's network as far as it is there: ``addresses`` is empty until it has been made.

    ``left``: nothing of the pod runs any more, and its network was given back.
    """

    addresses: tuple[str, ...]
    host_addresses: tuple[str, ...]
    started: float
    left: bool = False


def pod_status(pod: Json, records: Sequence[Record], sandbox: Sandbox, now: float) -> dict[str, Any]:
    """Return ``status`` for a merge patch; conditions of other writers are kept, times change only with the status."""
    current = phase(records, pod["spec"].get("restartPolicy", "Always"), left=sandbox.left)
    status: dict[str, Any] = {
        "phase": current,
        "startTime": timestamp(sandbox.started),
        "hostIP": sandbox.host_addresses[0],
        "hostIPs": [{"ip": address} for address in sandbox.host_addresses],
        "qosClass": pod.get("status", {}).get("qosClass", "BestEffort"),
        "containerStatuses": [container_status(record) for record in records if not record.init],
        "conditions": _conditions(pod, records, current, bool(sandbox.addresses), timestamp(now)),
    }
    if sandbox.addresses:
        status["podIP"] = sandbox.addresses[0]
        status["podIPs"] = [{"ip": address} for address in sandbox.addresses]
    if any(record.init for record in records):
        status["initContainerStatuses"] = [container_status(record) for record in records if record.init]
    return status


def _conditions(pod: Json, records: Sequence[Record], current: str, network: bool, now: str) -> list[dict[str, Any]]:  # noqa: FBT001 - one of four facts
    finished = current in ("Succeeded", "Failed")
    initialized = all(_initialized(record) for record in records if record.init)
    unready = [record.name for record in records if not record.ready and (not record.init or record.sidecar)]
    reason, message = "", ""
    if finished:
        reason = "PodCompleted" if current == "Succeeded" else "PodFailed"
    elif unready:
        reason, message = "ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]"
    ready = not reason
    mine = [
        ("PodReadyToStartContainers", network and not finished, "", ""),
        ("Initialized", initialized, "" if initialized else "ContainersNotInitialized", ""),
        ("Ready", ready, reason, message),
        ("ContainersReady", ready, reason, message),
    ]
    old = {condition["type"]: condition for condition in pod.get("status", {}).get("conditions") or ()}
    conditions = [_condition(old.pop(kind, {}), kind, why, what, now, true=true) for kind, true, why, what in mine]
    return [*conditions, *old.values()]


def _initialized(record: Record) -> bool:
    return record.started if record.sidecar else isinstance(record.state, Terminated) and record.state.code == 0


def _condition(old: Json, kind: str, reason: str, message: str, now: str, *, true: bool) -> dict[str, Any]:
    status = "True" if true else "False"
    found = {
        "type": kind,
        "status": status,
        "lastProbeTime": None,
        "lastTransitionTime": old["lastTransitionTime"] if old.get("status") == status else now,
    }
    if reason:
        found["reason"] = reason
    if message:
        found["message"] = message
    return found
