# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest

from ringfence.lab.nodes.status import (
    Record,
    Running,
    Sandbox,
    State,
    Terminated,
    Waiting,
    ended,
    phase,
    pod_status,
    timestamp,
)

RUNS = Running(100.0)
FINE = ended(0, 0, 100.0, 101.0, "id")
FAILED = ended(3, 0, 100.0, 101.0, "id")
WAITS = Waiting("ContainerCreating")
BACKS_OFF = Waiting("CrashLoopBackOff", "back-off 10s")


def record(state: State, last: Terminated | None = None, **more: Any) -> Record:
    """Return a container in a state."""
    return Record("c", "image", state=state, last=last, **more)


@pytest.mark.parametrize(
    ("records", "policy", "expected"),
    [
        ([record(WAITS)], "Always", "Pending"),
        ([record(RUNS), record(WAITS)], "Always", "Pending"),
        ([record(RUNS), record(FINE)], "Never", "Running"),
        ([record(RUNS)], "Always", "Running"),
        ([record(BACKS_OFF, FAILED)], "Always", "Running"),
        ([record(FINE)], "Always", "Running"),
        ([record(FINE)], "Never", "Succeeded"),
        ([record(FINE), record(FAILED)], "Never", "Failed"),
        ([record(FINE)], "OnFailure", "Succeeded"),
        ([record(FAILED)], "OnFailure", "Running"),
        ([record(RUNS, init=True), record(WAITS)], "Always", "Pending"),
        ([record(FAILED, init=True), record(WAITS)], "Never", "Failed"),
        ([record(BACKS_OFF, FAILED, init=True), record(WAITS)], "Always", "Pending"),
        ([record(FINE, init=True), record(RUNS)], "Always", "Running"),
        ([record(RUNS, init=True, sidecar=True), record(FINE)], "Never", "Succeeded"),
    ],
)
def test_the_phase_is_what_kubernetes_makes_of_the_containers(
    records: list[Record], policy: str, expected: str
) -> None:
    """Pending until all have been made, Running while one runs or will, then by the exit codes and the policy."""
    assert phase(records, policy, left=True) == expected


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([record(RUNS, init=True, sidecar=True), record(FINE)], "Running"),
        ([record(FINE, init=True, sidecar=True), record(FAILED)], "Running"),
        ([record(FINE)], "Running"),
        ([record(FAILED)], "Running"),
        ([record(RUNS, init=True, sidecar=True), record(FAILED, init=True), record(WAITS)], "Pending"),
        ([record(RUNS, init=True, sidecar=True), record(WAITS)], "Pending"),
    ],
)
def test_the_end_is_not_told_before_everything_of_the_pod_has_ended(records: list[Record], expected: str) -> None:
    """A sidecar that runs, or a network that is there, is a pod that policy must not forget."""
    assert phase(records, "Never", left=False) == expected


def status_of(records: list[Record], old: list[dict[str, Any]] | None = None, now: float = 200.0) -> dict[str, Any]:
    """Return the status of a pod with addresses."""
    pod = {"spec": {"restartPolicy": "Never"}, "status": {"conditions": old or []}}
    return pod_status(pod, records, Sandbox(("10.0.1.5", "fd00::5"), ("10.0.0.4",), 50.0, left=True), now)


def conditions(status: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Return each condition's status and reason."""
    return {one["type"]: (one["status"], one.get("reason", "")) for one in status["conditions"]}


def test_a_running_pod_is_ready_when_all_its_containers_are() -> None:
    """Addresses, start and conditions as kubectl shows them."""
    status = status_of([record(RUNS, ready=True, started=True, id="x.c.0")])

    assert (status["phase"], status["podIP"], status["hostIP"]) == ("Running", "10.0.1.5", "10.0.0.4")
    assert status["podIPs"] == [{"ip": "10.0.1.5"}, {"ip": "fd00::5"}]
    assert status["startTime"] == "1970-01-01T00:00:50Z"
    assert conditions(status)["Ready"] == conditions(status)["ContainersReady"] == ("True", "")
    assert status["containerStatuses"][0]["containerID"] == "ringfence://x.c.0"


def test_an_unready_container_is_named() -> None:
    """A pod whose readiness probe fails runs, and gets no traffic from Services."""
    status = status_of([record(RUNS)])

    assert status["phase"] == "Running"
    assert conditions(status)["Ready"] == ("False", "ContainersNotReady")
    assert status["conditions"][2]["message"] == "containers with unready status: [c]"


def test_finished_pods_are_not_ready_and_say_so() -> None:
    """PodCompleted and PodFailed, with exit codes in the container's state."""
    fine, failed = status_of([record(FINE)]), status_of([record(FAILED)])

    assert conditions(fine)["Ready"] == ("False", "PodCompleted")
    assert conditions(failed)["Ready"] == ("False", "PodFailed")
    assert failed["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 3
    assert failed["containerStatuses"][0]["state"]["terminated"]["reason"] == "Error"


def test_others_conditions_are_kept_and_times_change_only_with_the_status() -> None:
    """The scheduler's PodScheduled survives a patch that replaces the list."""
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "t0"}
    first = status_of([record(RUNS)], [scheduled], now=200.0)
    second = status_of([record(RUNS, ready=True)], first["conditions"], now=300.0)
    times = {one["type"]: one["lastTransitionTime"] for one in second["conditions"]}

    assert times["PodScheduled"] == "t0"
    assert times["Initialized"] == timestamp(200.0)
    assert times["Ready"] == timestamp(300.0)


def test_a_pod_without_a_network_has_no_address() -> None:
    """Until the sandbox is there."""
    pod: dict[str, Any] = {"spec": {}, "status": {}}
    status = pod_status(pod, [record(WAITS)], Sandbox((), ("10.0.0.4",), 1.0), 2.0)

    assert "podIP" not in status
    assert conditions(status)["PodReadyToStartContainers"] == ("False", "")


def test_a_sidecar_is_initialized_when_it_has_started() -> None:
    """It never ends, and its readiness counts."""
    waiting = record(RUNS, init=True, sidecar=True)
    started = record(RUNS, init=True, sidecar=True, started=True, ready=True)

    assert conditions(status_of([waiting, record(WAITS)]))["Initialized"] == ("False", "ContainersNotInitialized")
    assert conditions(status_of([started, record(RUNS, ready=True)]))["Ready"] == ("True", "")
