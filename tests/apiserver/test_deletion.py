# SPDX-License-Identifier: Apache-2.0
"""Deletion: at once, with grace, held by finalizers, under preconditions; and how a namespace ends."""

from __future__ import annotations

from typing import Any

import pytest

from ringfence.lab.apiserver.api import Api
from ringfence.lab.apiserver.deleting import delete_options
from ringfence.lab.apiserver.objects import moment_of
from ringfence.lab.apiserver.status import Failure
from tests.apiserver.writes import Requests, deployment, pod


@pytest.fixture
def req(api: Api) -> Requests:
    """Make requests."""
    return Requests(api)


def running(req: Requests, **spec: Any) -> None:
    """Make a pod that runs on a node."""
    req.create("pods", pod(**spec))
    req.part("pods", "web", "binding", {"target": {"name": "n1"}})
    req.patch("pods", "web", {"status": {"phase": "Running"}}, sub="status")


def test_an_object_that_nothing_holds_is_gone_at_once(req: Requests) -> None:
    """The answer is a Status with the uid of what was there."""
    made = req.create("configmaps", {"metadata": {"name": "c"}})
    answer = req.delete("configmaps", "c")
    assert answer["status"] == "Success"
    assert answer["details"] == {"name": "c", "kind": "configmaps", "uid": made["metadata"]["uid"]}
    with pytest.raises(Failure, match='^configmaps "c" not found$'):
        req.delete("configmaps", "c")


def test_a_running_pod_lives_on_until_its_kubelet_says_that_it_ended(req: Requests) -> None:
    """DeletionTimestamp is the moment when the grace ends; grace 0 removes it."""
    running(req)
    marked = req.delete("pods", "web")
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 30
    end = moment_of(marked["metadata"]["deletionTimestamp"])
    assert end is not None
    assert 28 < (end - req.api.clock()).total_seconds() <= 30
    req.delete("pods", "web", grace=0)
    assert req.get("pods", "web") is None


def test_a_second_deletion_may_only_shorten_the_grace(req: Requests) -> None:
    """Never prolong it; without a wish of its own it changes nothing."""
    running(req, terminationGracePeriodSeconds=20)
    first = req.delete("pods", "web")
    assert req.delete("pods", "web", grace=60) == first
    assert req.delete("pods", "web") == first
    assert req.delete("pods", "web", grace=5)["metadata"]["deletionGracePeriodSeconds"] == 5


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_pods_that_run_nowhere_or_ended_need_no_grace(req: Requests, phase: str) -> None:
    """Nobody is there to say that they ended."""
    req.create("pods", pod())
    assert req.delete("pods", "web")["kind"] == "Pod"
    assert req.get("pods", "web") is None
    running(req)
    req.patch("pods", "web", {"status": {"phase": phase}}, sub="status")
    req.delete("pods", "web")
    assert req.get("pods", "web") is None


def test_finalizers_hold_an_object_until_the_last_is_gone(req: Requests) -> None:
    """It is marked, can lose finalizers but not gain any, and then goes."""
    req.create("configmaps", {"metadata": {"name": "c", "finalizers": ["x.io/a", "x.io/b"]}})
    marked = req.delete("configmaps", "c")
    assert marked["metadata"]["deletionTimestamp"]
    with pytest.raises(Failure, match="no new finalizers can be added if the object is being deleted"):
        req.patch("configmaps", "c", {"metadata": {"finalizers": ["x.io/a", "x.io/b", "x.io/c"]}})
    req.patch("configmaps", "c", {"metadata": {"finalizers": ["x.io/a"]}})
    assert req.get("configmaps", "c") is not None
    req.patch("configmaps", "c", {"metadata": {"finalizers": None}})
    assert req.get("configmaps", "c") is None


@pytest.mark.parametrize(
    ("policy", "finalizers"), [("Orphan", ["orphan"]), ("Foreground", ["foregroundDeletion"]), ("Background", None)]
)
def test_the_propagation_policy_asks_the_garbage_collector(
    req: Requests, policy: str, finalizers: list[str] | None
) -> None:
    """Orphan and Foreground hold the object by a finalizer that the collector takes away."""
    req.create("deployments", deployment())
    req.delete("deployments", "web", policy=policy)
    left = req.get("deployments", "web")
    assert (left["metadata"]["finalizers"] if left else None) == finalizers


@pytest.mark.parametrize("condition", [{"uid": "other"}, {"revision": "1"}])
def test_a_failed_precondition_deletes_nothing(req: Requests, condition: dict[str, str]) -> None:
    """409 when uid or resourceVersion is another."""
    req.create("configmaps", {"metadata": {"name": "c"}})
    with pytest.raises(Failure, match="Precondition failed") as refused:
        req.delete("configmaps", "c", **condition)
    assert refused.value.code == 409
    assert req.get("configmaps", "c") is not None


def test_a_namespace_ends_when_it_is_finalized(req: Requests) -> None:
    """Terminating first; gone once the controller has emptied its finalizers."""
    made = req.create("namespaces", {"metadata": {"name": "old"}})
    assert made["spec"] == {"finalizers": ["kubernetes"]}
    assert made["metadata"]["labels"] == {"kubernetes.io/metadata.name": "old"}
    marked = req.delete("namespaces", "old")
    assert marked["status"]["phase"] == "Terminating"
    assert "deletionGracePeriodSeconds" not in marked["metadata"]
    req.update("namespaces", {**marked, "spec": {"finalizers": []}}, sub="finalize")
    assert req.get("namespaces", "old") is None


def test_finalizing_a_living_namespace_keeps_it(req: Requests) -> None:
    """Only one that is being deleted goes."""
    made = req.create("namespaces", {"metadata": {"name": "new"}})
    req.update("namespaces", {**made, "spec": {}}, sub="finalize")
    assert req.get("namespaces", "new") is not None
    req.delete("namespaces", "new")
    assert req.get("namespaces", "new") is None


@pytest.mark.parametrize("name", ["default", "kube-system", "kube-public"])
def test_a_cluster_keeps_its_first_namespaces(req: Requests, name: str) -> None:
    """403, in the words of the admission plugin."""
    with pytest.raises(Failure, match=f'^namespaces "{name}" is forbidden: this namespace may not be deleted$') as no:
        req.delete("namespaces", name)
    assert no.value.code == 403


def test_an_eviction_deletes_the_pod(req: Requests) -> None:
    """As kubectl drain asks for it."""
    req.create("pods", pod())
    req.part("pods", "web", "eviction", {"metadata": {"name": "web"}})
    assert req.get("pods", "web") is None


def test_delete_options_come_from_body_or_query() -> None:
    """The body counts first; old spellings are understood; nonsense is refused."""
    assert delete_options({"gracePeriodSeconds": 3}, {"gracePeriodSeconds": "5"}).grace == 3
    assert delete_options(None, {"gracePeriodSeconds": "5", "propagationPolicy": "Orphan"}).policy == "Orphan"
    assert delete_options({"orphanDependents": True}, {}).policy == "Orphan"
    assert delete_options({"orphanDependents": False}, {}).policy == "Background"
    assert delete_options({"preconditions": {"uid": "u"}, "dryRun": ["All"]}, {}).dry_run
    with pytest.raises(Failure, match="Unsupported value"):
        delete_options({"propagationPolicy": "Sideways"}, {})
    with pytest.raises(Failure, match="no number"):
        delete_options(None, {"gracePeriodSeconds": "soon"})
    with pytest.raises(Failure, match="DeleteOptions"):
        delete_options(["x"], {})
