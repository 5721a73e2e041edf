# SPDX-License-Identifier: Apache-2.0
"""What ``kubectl get`` shows of each kind, cell by cell."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from ringfence.lab.apiserver.printing import ANY, BUILT_IN
from ringfence.lab.apiserver.printing.durations import human, since

NOW = datetime.datetime(2026, 11, 24, 12, tzinfo=datetime.UTC)
AGO = "2026-11-24T11:55:00Z"
META = {"name": "x", "creationTimestamp": AGO}

Object = dict[str, Any]


def cells(storage: str, **obj: Any) -> list[Any]:
    """Return the row of an object."""
    return BUILT_IN[storage].cells({"metadata": META, **obj}, NOW)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-5, "<invalid>"), (-1, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (185, "3m5s"), (600, "10m"),
        (3 * 3600, "3h"), (3 * 3600 + 300, "3h5m"), (8 * 3600, "8h"), (47 * 3600, "47h"), (48 * 3600, "2d"),
        (50 * 3600, "2d2h"), (8 * 86400, "8d"), (729 * 86400, "729d"), (730 * 86400, "2y"), (1096 * 86400, "3y1d"),
        (9 * 365 * 86400, "9y"),
    ],
)  # fmt: skip
def test_ages_are_short(seconds: float, shown: str) -> None:
    """Coarser the longer they are."""
    assert human(seconds) == shown


def test_what_has_no_time_has_an_unknown_age() -> None:
    """Also what is no time at all."""
    assert since(None, NOW) == since("soon", NOW) == "<unknown>"


def container(ready: bool = True, restarts: int = 0, **state: Any) -> Object:  # noqa: FBT001, FBT002 - a shorthand
    """Return a container's status."""
    last = {"lastState": {"terminated": {"finishedAt": AGO}}} if restarts else {}
    return {"ready": ready, "restartCount": restarts, "state": state, **last}


RUNNING: dict[str, Any] = {"running": {}}


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        ({"phase": "Pending"}, "Pending"),
        ({"phase": "Running", "containerStatuses": [container(**RUNNING)]}, "Running"),
        (
            {"phase": "Pending", "containerStatuses": [container(waiting={"reason": "ContainerCreating"})]},
            "ContainerCreating",
        ),
        (
            {"phase": "Running", "containerStatuses": [container(waiting={"reason": "CrashLoopBackOff"})]},
            "CrashLoopBackOff",
        ),
        ({"phase": "Succeeded", "containerStatuses": [container(terminated={"reason": "Completed"})]}, "Completed"),
        ({"phase": "Failed", "containerStatuses": [container(terminated={"exitCode": 3})]}, "ExitCode:3"),
        ({"phase": "Failed", "containerStatuses": [container(terminated={"signal": 9})]}, "Signal:9"),
        ({"phase": "Failed", "reason": "Evicted"}, "Evicted"),
        (
            {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [container(terminated={"reason": "Completed"}), container(**RUNNING)],
            },
            "Running",
        ),
        (
            {
                "phase": "Running",
                "containerStatuses": [container(terminated={"reason": "Completed"}), container(**RUNNING)],
            },
            "NotReady",
        ),
        ({"phase": "Pending", "initContainerStatuses": [container(**RUNNING)]}, "Init:0/1"),
        (
            {"phase": "Pending", "initContainerStatuses": [container(terminated={"exitCode": 1, "reason": "Error"})]},
            "Init:Error",
        ),
        ({"phase": "Pending", "initContainerStatuses": [container(terminated={"exitCode": 0})]}, "Pending"),
    ],
)
def test_the_status_of_a_pod_is_the_most_telling_reason(status: Object, shown: str) -> None:
    """As kubectl users know it."""
    spec: Object = {"containers": [{}], "initContainers": [{}]}
    assert cells("pods", spec=spec, status=status)[2] == shown


def test_a_deleted_pod_terminates_unless_it_ended() -> None:
    """Or its node is lost."""
    meta = {**META, "deletionTimestamp": AGO}
    shown = [
        BUILT_IN["pods"].cells({"metadata": meta, "status": status}, NOW)[2]
        for status in ({"phase": "Running"}, {"phase": "Succeeded"}, {"phase": "Running", "reason": "NodeLost"})
    ]
    assert shown == ["Terminating", "Succeeded", "Unknown"]


def test_a_pod_shows_restarts_addresses_and_gates() -> None:
    """The last restart's age stands behind the number."""
    row = cells(
        "pods",
        spec={"containers": [{}, {}], "nodeName": "n", "readinessGates": [{"conditionType": "g"}]},
        status={
            "phase": "Running",
            "podIP": "10.1.1.1",
            "containerStatuses": [container(restarts=2, **RUNNING), container(ready=False, **RUNNING)],
            "conditions": [{"type": "g", "status": "True"}],
        },
    )
    assert row == ["x", "1/2", "Running", "2 (5m ago)", "5m", "10.1.1.1", "n", "<none>", "1/1"]


def test_a_started_sidecar_counts_as_a_container_that_runs() -> None:
    """It is an init container that never ends: the pod is initialised all the same, and READY counts it."""
    row = cells(
        "pods",
        spec={"containers": [{"name": "main"}], "initContainers": [{"name": "side", "restartPolicy": "Always"}]},
        status={
            "phase": "Running",
            "initContainerStatuses": [{**container(**RUNNING), "name": "side", "started": True}],
            "containerStatuses": [{**container(**RUNNING), "name": "main"}],
        },
    )
    assert row[1:3] == ["2/2", "Running"]


def test_a_node_shows_what_it_is() -> None:
    """Readiness, roles, addresses, versions."""
    info = {"kubeletVersion": "v1", "osImage": "os", "kernelVersion": "k", "containerRuntimeVersion": "r"}
    status = {
        "conditions": [{"type": "Ready", "status": "True"}],
        "nodeInfo": info,
        "addresses": [{"type": "InternalIP", "address": "10.1"}, {"type": "InternalIP", "address": "fd"}],
    }
    meta = {**META, "labels": {"node-role.kubernetes.io/b": "", "kubernetes.io/role": "a"}}
    layout = BUILT_IN["nodes"]
    row = layout.cells({"metadata": meta, "spec": {"unschedulable": True}, "status": status}, NOW)
    assert row == ["x", "Ready,SchedulingDisabled", "a,b", "5m", "v1", "10.1", "<none>", "os", "k", "r"]
    assert cells("nodes")[1:3] == ["Unknown", "<none>"]
    assert cells("nodes", status={"conditions": [{"type": "Ready", "status": "Unknown"}]})[1] == "NotReady"


@pytest.mark.parametrize(
    ("spec", "status", "external", "ports"),
    [
        ({"ports": [{"port": 80}]}, {}, "<none>", "80/TCP"),
        ({"type": "NodePort", "ports": [{"port": 1, "nodePort": 2, "protocol": "UDP"}]}, {}, "<none>", "1:2/UDP"),
        ({"type": "LoadBalancer"}, {}, "<pending>", "<none>"),
        ({"type": "LoadBalancer"}, {"loadBalancer": {"ingress": [{"ip": "1.1.1.1"}]}}, "1.1.1.1", "<none>"),
        ({"type": "ExternalName", "externalName": "a.b"}, {}, "a.b", "<none>"),
        ({"externalIPs": ["1.1.1.1", "2.2.2.2"]}, {}, "1.1.1.1,2.2.2.2", "<none>"),
    ],
)
def test_a_service_shows_how_to_reach_it(spec: Object, status: Object, external: str, ports: str) -> None:
    """Addresses and ports."""
    row = cells("services", spec=spec, status=status)
    assert (row[3], row[4]) == (external, ports)


@pytest.mark.parametrize(
    ("selector", "shown"),
    [
        ({}, "<none>"),
        ({"matchLabels": {"b": "1", "a": "2"}}, "a=2,b=1"),
        (
            {
                "matchLabels": {"z": "1"},
                "matchExpressions": [
                    {"key": "a", "operator": "In", "values": ["y", "x"]},
                    {"key": "b", "operator": "NotIn", "values": ["x"]},
                    {"key": "c", "operator": "Exists"},
                    {"key": "d", "operator": "DoesNotExist"},
                ],
            },
            "a in (x,y),b notin (x),c,!d,z=1",
        ),
        ({"matchExpressions": [{"key": "a", "operator": "Like"}]}, "<error>"),
    ],
)
def test_a_policy_shows_whom_it_selects(selector: Object, shown: str) -> None:
    """POD-SELECTOR."""
    assert cells("networkpolicies", spec={"podSelector": selector}) == ["x", shown, "5m"]


def test_workloads_show_wanted_and_found() -> None:
    """READY, and the template in -o wide."""
    spec = {
        "replicas": 3,
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"spec": {"containers": [{"name": "c", "image": "i"}, {"name": "d", "image": "j"}]}},
    }
    status = {"replicas": 3, "readyReplicas": 2, "updatedReplicas": 1, "availableReplicas": 2}
    tail = ["5m", "c,d", "i,j", "a=b"]
    assert cells("deployments", spec=spec, status=status) == ["x", "2/3", 1, 2, *tail]
    assert cells("replicasets", spec=spec, status=status) == ["x", 3, 3, 2, *tail]


def test_an_event_shows_the_last_time() -> None:
    """Of a series, of the event, or of its making; and who reports."""
    about = {"kind": "Pod", "name": "web", "fieldPath": "spec.containers{c}"}
    row = cells(
        "events",
        involvedObject=about,
        type="Normal",
        reason="R",
        message=" hello\n",
        firstTimestamp="2026-11-24T11:50:00Z",
        lastTimestamp=AGO,
        count=3,
        source={"component": "kubelet", "host": "n"},
    )
    assert row == ["5m", "Normal", "R", "pod/web", "spec.containers{c}", "kubelet, n", "hello", "10m", 3, "x"]
    series = cells("events", eventTime=AGO, series={"lastObservedTime": "2026-11-24T11:59:00Z", "count": 7})
    assert (series[0], series[7], series[8]) == ("60s", "5m", 7)
    assert cells("events", reportingComponent="c")[5] == "c"


def test_the_other_kinds_show_what_they_hold() -> None:
    """Counts, holders, and a few of many."""
    assert cells("configmaps", data={"a": "1"}, binaryData={"b": ""}) == ["x", 2, "5m"]
    assert cells("secrets", type="Opaque", data={"a": "1"}) == ["x", "Opaque", 1, "5m"]
    assert cells("serviceaccounts") == ["x", 0, "5m"]
    assert cells("namespaces", status={"phase": "Active"}) == ["x", "Active", "5m"]
    assert cells("leases", spec={"holderIdentity": "me"}) == ["x", "me", "5m"]
    subset = {"addresses": [{"ip": f"10.0.0.{n}"} for n in range(5)], "ports": [{"port": 80}]}
    assert cells("endpoints", subsets=[subset])[1] == "10.0.0.0:80,10.0.0.1:80,10.0.0.2:80 + 2 more..."
    row = cells("endpointslices", addressType="IPv4", ports=[{"port": 80}, {}], endpoints=[{"addresses": ["a"]}])
    assert row == ["x", "IPv4", "80,*", "a", "5m"]
    assert cells("endpointslices", addressType="IPv4")[2:4] == ["<unset>", "<unset>"]
    assert ANY.cells({"metadata": META}, NOW) == ["x", AGO]
