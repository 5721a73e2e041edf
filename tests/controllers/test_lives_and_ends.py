# SPDX-License-Identifier: Apache-2.0
"""Namespaces, owners and nodes: what they must have, and what becomes of the rest when they go."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from ringfence.lab.controllers.actions import Create, Delete, DeleteAll, FinalizeNamespace, Patch
from ringfence.lab.controllers.garbage import GarbageCollector
from ringfence.lab.controllers.namespaces import ROOT_CA, Namespaces
from ringfence.lab.controllers.nodes import LEASE_NAMESPACE, NodeLifecycle
from ringfence.lab.controllers.pods import condition
from ringfence.lab.controllers.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    REPLICA_SETS,
    SERVICE_ACCOUNTS,
    Object,
)
from tests.controllers.clusters import Cluster, namespace, node, pod

ENDING = {"deletionTimestamp": "2026-01-01T00:00:00Z"}


def cluster() -> Cluster:
    """Return a cluster that knows all kinds of these tests."""
    made = Cluster()
    made.world.follow(CONFIG_MAPS)
    made.world.follow(LEASES)
    return made


def test_every_namespace_is_furnished() -> None:
    """A default service account and the CA that pods verify the API server with, both restored if they are spoilt."""
    made, controller = cluster(), Namespaces("PEM")
    made.add(NAMESPACES, namespace("demo"))
    made.look(controller, "demo")

    assert made.get(SERVICE_ACCOUNTS, "demo/default")
    assert made.get(CONFIG_MAPS, f"demo/{ROOT_CA}")["data"] == {"ca.crt": "PEM"}
    assert made.look(controller, "demo").actions == []
    made.change(CONFIG_MAPS, f"demo/{ROOT_CA}", {"data": {"ca.crt": "spoilt"}})
    assert list(controller.affected(made.world, CONFIG_MAPS, f"demo/{ROOT_CA}", None, {})) == ["demo"]
    made.look(controller, "demo")
    assert made.get(CONFIG_MAPS, f"demo/{ROOT_CA}")["data"] == {"ca.crt": "PEM"}


def test_a_namespace_ends_when_its_content_has() -> None:
    """Everything in it is asked to go; it is finalized when nothing is left, not before."""
    made, controller = cluster(), Namespaces("PEM")
    made.add(NAMESPACES, namespace("demo", **ENDING))
    made.add(PODS, pod("a"))
    leaving = pod("b")
    leaving["metadata"].update(ENDING)
    made.add(PODS, leaving)
    first = controller.reconcile(made.world, "demo", made.now)
    made.world.remove(PODS, "demo/a")
    second = controller.reconcile(made.world, "demo", made.now)
    made.world.remove(PODS, "demo/b")
    third = controller.reconcile(made.world, "demo", made.now)

    assert first.actions == [DeleteAll(PODS, "demo")]
    assert second.actions == [], "what is going already is waited for"
    assert [type(action) for action in third.actions] == [FinalizeNamespace]
    made.look(controller, "demo")
    assert not made.look(controller, "demo").actions
    made.add(NAMESPACES, {**namespace("done", **ENDING), "spec": {}})
    assert not made.look(controller, "done").actions


def test_namespaces_wake_for_what_concerns_them() -> None:
    """The end of anything in an ending namespace matters; in a living one only what it must have does."""
    made, controller = cluster(), Namespaces("PEM")
    made.add(NAMESPACES, namespace("demo", **ENDING))
    made.add(NAMESPACES, namespace("alive"))

    def woken(resource: Any, key: str, old: Object | None, new: Object | None) -> list[str]:
        return list(controller.affected(made.world, resource, key, old, new))

    assert woken(NAMESPACES, "demo", None, {}) == ["demo"]
    assert woken(PODS, "demo/p", {}, None) == ["demo"]
    assert woken(PODS, "demo/p", {}, {}) == []
    assert woken(PODS, "alive/p", {}, None) == []
    assert woken(SERVICE_ACCOUNTS, "alive/default", {}, None) == ["alive"]
    assert woken(NODES, "n", {}, None) == []


def owned(name: str, *owners: Object, blocking: bool = False) -> Object:
    """Return a pod with owners."""
    made = pod(name)
    made["metadata"]["ownerReferences"] = [
        {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"],
            "blockOwnerDeletion": blocking,
        }
        for owner in owners
    ]
    return made


def replica_set(name: str, **meta: Any) -> Object:
    """Return a ReplicaSet."""
    template: Object = {"spec": {"containers": []}}
    return {"metadata": {"name": name, "namespace": "demo", **meta}, "spec": {"template": template}}


def test_dependents_go_with_their_last_owner() -> None:
    """When an owner is gone its dependents follow, unless another owner is there: then only the reference goes."""
    made, collector = cluster(), GarbageCollector()
    first, second = (made.add(REPLICA_SETS, replica_set(name)) for name in ("a", "b"))
    made.add(PODS, owned("shared", first, second))
    made.add(PODS, owned("own", first))
    uid = first["metadata"]["uid"]
    made.world.remove(REPLICA_SETS, "demo/a")

    assert uid in collector.affected(made.world, REPLICA_SETS, "demo/a", first, None)
    actions = collector.reconcile(made.world, uid, made.now).actions
    assert [type(action) for action in actions] == [Patch, Delete]
    deletion = actions[1]
    assert isinstance(deletion, Delete)
    assert (deletion.key, deletion.unless) == ("demo/own", (REPLICA_SETS, "demo/a", uid)), "the server is asked first"
    for action in actions:
        made.perform(action)
    assert [o["name"] for o in made.get(PODS, "demo/shared")["metadata"]["ownerReferences"]] == ["b"]
    assert collector.reconcile(made.world, uid, made.now).actions == []


def test_owners_of_kinds_that_nobody_follows_may_be_there() -> None:
    """What cannot be seen is not taken for gone; what is going needs no second deletion."""
    made, collector = cluster(), GarbageCollector()
    stranger = owned("p")
    stranger["metadata"]["ownerReferences"] = [{"apiVersion": "x/v1", "kind": "Y", "name": "y", "uid": "u"}]
    made.add(PODS, stranger)
    leaving = owned("q", {"metadata": {"name": "r", "uid": "v"}})
    leaving["metadata"].update(ENDING)
    made.add(PODS, leaving)

    assert collector.affected(made.world, PODS, "demo/p", None, stranger) == {"u"}
    assert collector.reconcile(made.world, "u", made.now).actions == []
    assert collector.reconcile(made.world, "v", made.now).actions == []


def test_a_living_owner_is_left_alone() -> None:
    """Only an owner that is being deleted, and asked for it, has its dependents seen to."""
    made, collector = cluster(), GarbageCollector()
    owner = made.add(REPLICA_SETS, replica_set("a"))
    dependent = made.add(PODS, owned("p", owner))
    uid = owner["metadata"]["uid"]

    assert collector.affected(made.world, PODS, "demo/p", None, dependent) == set()
    assert not collector.reconcile(made.world, uid, made.now).actions
    made.change(REPLICA_SETS, "demo/a", {"metadata": {**ENDING, "finalizers": ["example.com/mine"]}})
    assert not collector.reconcile(made.world, uid, made.now).actions


def test_foreground_deletion_waits_for_dependents_that_block() -> None:
    """The owner's finalizer goes when the last blocking dependent has; the others need not be waited for."""
    made, collector = cluster(), GarbageCollector()
    owner = made.add(REPLICA_SETS, replica_set("a", finalizers=["foregroundDeletion", "x/y"], **ENDING))
    uid = owner["metadata"]["uid"]
    blocking = made.add(PODS, owned("blocking", owner, blocking=True))
    made.add(PODS, owned("free", owner))

    assert uid in collector.affected(made.world, REPLICA_SETS, "demo/a", None, owner)
    actions = collector.reconcile(made.world, uid, made.now).actions
    assert [action.key for action in actions if isinstance(action, Delete)] == ["demo/blocking", "demo/free"]
    made.world.remove(PODS, "demo/blocking")
    assert uid in collector.affected(made.world, PODS, "demo/blocking", blocking, None)
    made.look(collector, uid)
    assert made.get(REPLICA_SETS, "demo/a")["metadata"]["finalizers"] == ["x/y"]


def test_orphans_forget_their_owner() -> None:
    """With ``--cascade=orphan`` the dependents stay and the owner goes."""
    made, collector = cluster(), GarbageCollector()
    owner = made.add(REPLICA_SETS, replica_set("a", finalizers=["orphan"], **ENDING))
    dependent = made.add(PODS, owned("p", owner))
    made.look(collector, owner["metadata"]["uid"])
    orphan = made.get(PODS, "demo/p")
    assert "ownerReferences" not in orphan["metadata"]
    assert collector.affected(made.world, PODS, "demo/p", dependent, orphan) == {owner["metadata"]["uid"]}
    made.look(collector, owner["metadata"]["uid"])

    assert "finalizers" not in made.get(REPLICA_SETS, "demo/a")["metadata"]


def lease(made: Cluster, name: str, renewed: str) -> None:
    """Write a node's heartbeat."""
    key = f"{LEASE_NAMESPACE}/{name}"
    if made.world.get(LEASES, key) is None:
        made.add(LEASES, {"metadata": {"name": name, "namespace": LEASE_NAMESPACE}, "spec": {"renewTime": renewed}})
    else:
        made.change(LEASES, key, {"spec": {"renewTime": renewed}})


def test_a_node_that_falls_silent_is_not_ready() -> None:
    """What counts is that the lease changes, by our clock: a lease that looks old on first sight gets its time."""
    made, controller = cluster(), NodeLifecycle()
    made.add(NODES, node("n"))
    assert made.look(controller, "n").again is None, "no heartbeat yet"
    lease(made, "n", "2020-01-01T00:00:00Z")
    assert list(controller.affected(made.world, LEASES, f"{LEASE_NAMESPACE}/n", None, {})) == ["n"]
    assert made.look(controller, "n").again == 40
    assert list(controller.affected(made.world, LEASES, f"{LEASE_NAMESPACE}/n", {}, {})) == []
    made.now += datetime.timedelta(seconds=30)
    lease(made, "n", "2020-01-01T00:00:10Z")
    assert made.look(controller, "n").again == 40
    made.now += datetime.timedelta(seconds=41)
    made.look(controller, "n")
    ready = condition(made.get(NODES, "n"), "Ready")

    assert ready is not None
    assert (ready["status"], ready["reason"]) == ("Unknown", "NodeStatusUnknown")
    assert made.look(controller, "n").actions == ()


def test_pods_of_a_node_that_is_gone_are_deleted_after_a_while() -> None:
    """Nobody is there to end them; a node that comes back in time keeps its pods."""
    made, controller = cluster(), NodeLifecycle()
    made.add(PODS, pod("p", nodeName="n"))
    stray = made.get(PODS, "demo/p")

    assert list(controller.affected(made.world, PODS, "demo/p", None, stray)) == ["n"]
    assert made.look(controller, "n").again == 40
    made.add(NODES, node("n"))
    assert list(controller.affected(made.world, PODS, "demo/p", None, stray)) == []
    made.look(controller, "n")
    made.world.remove(NODES, "n")
    made.now += datetime.timedelta(seconds=100)
    assert made.look(controller, "n").again == 40
    made.now += datetime.timedelta(seconds=41)
    outcome = made.look(controller, "n")
    assert [action.options for action in outcome.actions if isinstance(action, Delete)] == [{"gracePeriodSeconds": 0}]
    assert made.look(controller, "n").actions == ()


@pytest.mark.parametrize(
    ("old", "new", "woken"), [(None, "True", True), ("True", "True", False), ("True", "Unknown", True)]
)
def test_heartbeats_in_a_node_wake_nobody(old: str | None, new: str, woken: bool) -> None:  # noqa: FBT001 - a table
    """Only what changes a node's readiness is looked at."""
    before = node("n", ready=old) if old else None

    assert bool(list(NodeLifecycle().affected(cluster().world, NODES, "n", before, node("n", ready=new)))) is woken


def test_other_kinds_are_nothing_to_the_node_controller() -> None:
    """Leases elsewhere and pods without a node do not matter."""
    made, controller = cluster(), NodeLifecycle()

    assert list(controller.affected(made.world, LEASES, "demo/l", None, {})) == []
    assert list(controller.affected(made.world, PODS, "demo/p", None, pod("p"))) == []
    assert list(controller.affected(made.world, DEPLOYMENTS, "demo/d", None, {})) == []
    assert Create(PODS, {}).tell is None
