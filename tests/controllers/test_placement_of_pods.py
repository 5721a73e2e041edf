# SPDX-License-Identifier: Apache-2.0
"""Which node a pod goes to, and what is said if it can go to none."""

from __future__ import annotations

from typing import Any

import pytest

from ringfence.lab.controllers.actions import Bind
from ringfence.lab.controllers.placement import Placed, Unschedulable, place, why_not
from ringfence.lab.controllers.resources import NODES, PODS, SERVICES
from ringfence.lab.controllers.scheduler import Scheduler
from tests.controllers.clusters import Cluster, node, pod, running


def test_the_node_with_the_fewest_pods_is_chosen() -> None:
    """Pods spread; among equals the name decides, so that the outcome is the same each time."""
    nodes = [node("b"), node("a"), node("c")]

    assert place(pod("p"), nodes, {}) == Placed("a")
    assert place(pod("p"), nodes, {"a": 2, "b": 1, "c": 1}) == Placed("b")


def test_the_message_counts_nodes_by_reason() -> None:
    """The words of kube-scheduler, which people search for."""
    nodes = [node("a"), node("b", ready="Unknown"), node("c", unschedulable=True)]
    outcome = place(pod("p", nodeSelector={"kubernetes.io/os": "windows"}), nodes, {})

    assert outcome == Unschedulable(
        "0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) were not ready, "
        "1 node(s) were unschedulable. preemption: 0/3 nodes are available: "
        "3 Preemption is not helpful for scheduling."
    )
    assert place(pod("p"), [], {}) == Unschedulable("no nodes available to schedule pods")


def affinity(*terms: Any) -> dict[str, Any]:
    """Return what demands one of some node selector terms."""
    required = {"nodeSelectorTerms": list(terms)}
    return {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}}


def expression(key: str, operator: str, *values: str) -> dict[str, Any]:
    """Return a term of one requirement."""
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


@pytest.mark.parametrize(
    ("spec", "fits"),
    [
        ({"nodeSelector": {"kubernetes.io/os": "linux"}}, True),
        ({"nodeSelector": {"kubernetes.io/os": "windows"}}, False),
        (affinity(expression("kubernetes.io/os", "In", "linux")), True),
        (affinity(expression("kubernetes.io/os", "NotIn", "linux")), False),
        (affinity(expression("size", "In", "5")), False),
        (affinity(expression("kubernetes.io/os", "Exists")), True),
        (affinity(expression("kubernetes.io/os", "DoesNotExist")), False),
        (affinity(expression("size", "Gt", "5")), False),
        (affinity(expression("cores", "Gt", "3")), True),
        (affinity(expression("cores", "Lt", "3")), False),
        (affinity(expression("cores", "Like", "3")), False),
        (affinity({}), False),
        (affinity({}, expression("cores", "Exists")), True),
        (affinity({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]}), True),
        (affinity({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]}), False),
        ({"affinity": {"nodeAffinity": {}}}, True),
    ],
)
def test_selectors_and_affinity_choose_nodes(spec: dict[str, Any], fits: bool) -> None:  # noqa: FBT001 - a table
    """Labels, names and numbers; the terms of an affinity are alternatives."""
    here = node("a")
    here["metadata"]["labels"]["cores"] = "4"

    assert (why_not(pod("p", **spec), here, 0) == "") is fits


@pytest.mark.parametrize(
    ("toleration", "fits"),
    [
        (None, False),
        ({"operator": "Exists"}, True),
        ({"key": "gpu", "operator": "Exists"}, True),
        ({"key": "gpu", "operator": "Equal", "value": "yes"}, True),
        ({"key": "gpu", "value": "no"}, False),
        ({"key": "cpu", "operator": "Exists"}, False),
        ({"key": "gpu", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"value": "yes"}, False),
    ],
)
def test_taints_repel_whom_they_do_not_know(toleration: dict[str, Any] | None, fits: bool) -> None:  # noqa: FBT001
    """A pod goes to a tainted node only if it tolerates the taint."""
    here = node("a", taints=[{"key": "gpu", "value": "yes", "effect": "NoSchedule"}, {"key": "x", "effect": "Prefer"}])
    reason = why_not(pod("p", tolerations=[toleration] if toleration else []), here, 0)

    assert reason == ("" if fits else "node(s) had untolerated taint {gpu: yes}")


def test_a_full_node_takes_no_more() -> None:
    """``allocatable.pods`` is a limit."""
    assert why_not(pod("p"), node("a"), 110) == "Too many pods"


def scheduled(cluster: Cluster, scheduler: Scheduler) -> list[str]:
    """Connect a scheduler to a cluster; returns the keys that become dirty, as they do."""
    dirty: list[str] = []
    cluster.world.watch(
        lambda resource, key, old, new: dirty.extend(scheduler.affected(cluster.world, resource, key, old, new))
    )
    return dirty


def test_pods_are_bound_and_spread_even_before_bindings_are_seen() -> None:
    """A placement counts as soon as it is decided: two pods at once do not go to the same empty node."""
    cluster, scheduler = Cluster(), Scheduler()
    dirty = scheduled(cluster, scheduler)
    for name in ("a", "b"):
        cluster.add(NODES, node(name))
    for name in ("p1", "p2"):
        cluster.add(PODS, pod(name))

    assert dirty == ["demo/p1", "demo/p2"]
    bindings = [
        action
        for key in dirty
        for action in scheduler.reconcile(cluster.world, key, cluster.now).actions
        if isinstance(action, Bind)
    ]
    assert [binding.node for binding in bindings] == ["a", "b"]


def test_a_pod_that_fits_nowhere_says_so_once_and_is_tried_when_nodes_change() -> None:
    """The condition and the event come with the reason, not with each attempt; a new node brings the next attempt."""
    cluster, scheduler = Cluster(), Scheduler()
    dirty = scheduled(cluster, scheduler)
    cluster.add(PODS, pod("p", nodeSelector={"kubernetes.io/os": "linux"}))
    cluster.look(scheduler, "demo/p")
    condition = cluster.get(PODS, "demo/p")["status"]["conditions"][0]

    assert condition["reason"] == "Unschedulable"
    assert cluster.events == ["FailedScheduling no nodes available to schedule pods"]
    assert cluster.look(scheduler, "demo/p").actions == []
    dirty.clear()
    cluster.add(NODES, node("a"))
    assert dirty == ["demo/p"]
    cluster.look(scheduler, "demo/p")
    assert cluster.get(PODS, "demo/p")["spec"]["nodeName"] == "a"
    assert cluster.events[-1] == "Scheduled Successfully assigned demo/p to a"
    dirty.clear()
    cluster.change(NODES, "a", {"status": {"conditions": [{"type": "Ready", "status": "True", "heartbeat": 1}]}})
    assert dirty == [], "a heartbeat concerns nobody"


def test_room_that_is_freed_goes_to_who_waits() -> None:
    """When a pod ends, waiting pods are looked at again."""
    cluster, scheduler = Cluster(), Scheduler()
    dirty = scheduled(cluster, scheduler)
    full = node("a")
    full["status"]["allocatable"]["pods"] = "1"
    cluster.add(NODES, full)
    cluster.add(PODS, pod("first", nodeName="a", status=running("10.0.0.1")))
    cluster.add(PODS, pod("second"))
    cluster.look(scheduler, "demo/second")
    assert "Too many pods" in cluster.events[-1]
    dirty.clear()
    cluster.change(PODS, "demo/first", {"status": {"phase": "Succeeded"}}, status=True)

    assert dirty == ["demo/second"]
    cluster.look(scheduler, "demo/second")
    assert cluster.get(PODS, "demo/second")["spec"]["nodeName"] == "a"
    dirty.clear()
    cluster.world.remove(PODS, "demo/second")
    assert dirty == []


@pytest.mark.parametrize(
    "spec", [{"nodeName": "a"}, {"schedulerName": "mine"}, {"schedulingGates": [{"name": "x"}]}, None]
)
def test_other_pods_are_none_of_its_business(spec: dict[str, Any] | None) -> None:
    """A pod with a node, another scheduler or a gate is left alone; so is one that is gone."""
    cluster, scheduler = Cluster(), Scheduler()
    cluster.add(NODES, node("a"))
    if spec is not None:
        cluster.add(PODS, pod("p", **spec))

    assert not cluster.look(scheduler, "demo/p").actions
    assert list(scheduler.affected(cluster.world, SERVICES, "demo/s", None, {})) == []
