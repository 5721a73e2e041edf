# SPDX-License-Identifier: Apache-2.0
"""Deployments and ReplicaSets: whole stories, and bounds that hold at every step of any rollout."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.lab.controllers.actions import Create, Delete, Patch
from ringfence.lab.controllers.deployments import REVISION, Deployments
from ringfence.lab.controllers.pods import condition, is_active, is_ready, selects
from ringfence.lab.controllers.replicasets import ReplicaSets
from ringfence.lab.controllers.resources import DEPLOYMENTS, NAMESPACES, NODES, PODS, REPLICA_SETS, Object
from ringfence.lab.controllers.rollout import Bounds, bounds, template_hash, without_hash
from tests.controllers.clusters import Cluster, namespace, pod, running

KEY = "demo/web"


def deployment(replicas: int = 3, image: str = "i1", **spec: Any) -> Object:
    """Return a Deployment."""
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}}
    return {
        "metadata": {"name": "web", "namespace": "demo", "annotations": {"note": "kept"}},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template, **spec},
    }


class Story:
    """A cluster with one Deployment, moved on step by step."""

    def __init__(self, made: Object) -> None:
        self.cluster = Cluster()
        self.deployments, self.replica_sets = Deployments(), ReplicaSets()
        self.cluster.add(DEPLOYMENTS, made)

    def step(self, *, start: int | None = None) -> bool:
        """Let the controllers look once; start some pods (None: all). Tells whether anything happened."""
        before = str([self.cluster.all(kind) for kind in (DEPLOYMENTS, REPLICA_SETS, PODS)])
        self.cluster.look(self.deployments, KEY)
        for key in list(self.cluster.world.all(REPLICA_SETS)):
            self.cluster.look(self.replica_sets, key)
        waiting = [p for p in self.cluster.all(PODS) if not is_ready(p)]
        for each in waiting[:start]:
            key = f"demo/{each['metadata']['name']}"
            self.cluster.change(PODS, key, {"status": running("10.0.0.1")}, status=True)
        return before != str([self.cluster.all(kind) for kind in (DEPLOYMENTS, REPLICA_SETS, PODS)])

    def settle(self) -> None:
        """Go on until nothing happens any more."""
        for _ in range(100):
            if not self.step():
                return
        raise AssertionError("the controllers do not come to rest")

    def update(self, patch: Object) -> None:
        """Change the Deployment."""
        self.cluster.change(DEPLOYMENTS, KEY, patch)

    def set_image(self, image: str) -> None:
        """Change the template."""
        self.update({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}})

    @property
    def deployment(self) -> Object:
        """The Deployment as it is."""
        return self.cluster.get(DEPLOYMENTS, KEY)

    @property
    def status(self) -> Object:
        """Its status."""
        found: Object = self.deployment["status"]
        return found

    def sizes(self) -> dict[str, int]:
        """Return how many pods each image has."""
        found: dict[str, int] = {}
        for each in self.cluster.all(PODS):
            image = each["spec"]["containers"][0]["image"]
            found[image] = found.get(image, 0) + 1
        return found


def reason(obj: Object, kind: str) -> str:
    """Return the reason of a condition."""
    found = condition(obj, kind)
    assert found is not None
    return f"{found['status']} {found['reason']}"


def test_a_deployment_makes_a_replica_set_that_makes_pods() -> None:
    """Labels, owners, revision and status are what kubectl rollout reads."""
    story = Story(deployment())
    story.settle()
    (replica_set,) = story.cluster.all(REPLICA_SETS)
    pods = story.cluster.all(PODS)

    assert len(pods) == 3
    label = replica_set["metadata"]["labels"]["pod-template-hash"]
    assert replica_set["metadata"]["name"] == f"web-{label}"
    assert {p["metadata"]["labels"]["pod-template-hash"] for p in pods} == {label}
    assert pods[0]["metadata"]["ownerReferences"][0]["uid"] == replica_set["metadata"]["uid"]
    assert replica_set["metadata"]["annotations"]["note"] == "kept"
    assert story.deployment["metadata"]["annotations"][REVISION] == "1"
    assert story.status["availableReplicas"] == 3
    assert story.status["observedGeneration"] == 1
    assert reason(story.deployment, "Available") == "True MinimumReplicasAvailable"
    assert reason(story.deployment, "Progressing") == "True NewReplicaSetAvailable"
    assert "ScalingReplicaSet Scaled up replica set" in story.cluster.events[0]
    assert any(event.startswith("SuccessfulCreate Created pod: web-") for event in story.cluster.events)


def test_a_new_template_rolls_out_and_back() -> None:
    """Each template has its ReplicaSet; going back finds the old one and gives it a new revision."""
    story = Story(deployment())
    story.settle()
    story.set_image("i2")
    story.step()
    assert story.status["observedGeneration"] == 2
    assert "updatedReplicas" not in story.status
    story.step()
    assert reason(story.deployment, "Progressing") == "True ReplicaSetUpdated"
    story.settle()

    assert story.sizes() == {"i2": 3}
    assert len(story.cluster.all(REPLICA_SETS)) == 2
    assert story.deployment["metadata"]["annotations"][REVISION] == "2"
    story.set_image("i1")
    story.settle()
    assert story.sizes() == {"i1": 3}
    assert len(story.cluster.all(REPLICA_SETS)) == 2
    assert story.deployment["metadata"]["annotations"][REVISION] == "3"
    assert story.status["updatedReplicas"] == story.status["replicas"] == 3


def test_scaling_changes_the_count_and_nothing_else() -> None:
    """Up, down to nothing, and up again, without a new ReplicaSet."""
    story = Story(deployment(2))
    story.settle()
    for count in (5, 0, 1):
        story.update({"spec": {"replicas": count}})
        story.settle()
        assert len(story.cluster.all(PODS)) == count
    assert len(story.cluster.all(REPLICA_SETS)) == 1
    assert "replicas" in story.status


def test_a_paused_deployment_keeps_its_size_and_its_template() -> None:
    """Paused, a new template waits and scaling goes on; resumed, it rolls out."""
    story = Story(deployment(2))
    story.settle()
    story.update({"spec": {"paused": True}})
    story.set_image("i2")
    story.settle()
    assert story.sizes() == {"i1": 2}
    assert reason(story.deployment, "Progressing") == "Unknown DeploymentPaused"
    story.update({"spec": {"replicas": 3}})
    story.settle()
    assert story.sizes() == {"i1": 3}
    story.update({"spec": {"paused": None}})
    story.settle()

    assert story.sizes() == {"i2": 3}


def test_a_deployment_that_starts_paused_makes_nothing() -> None:
    """Nothing is there to keep at size; once scaled to nothing, what is there is."""
    story = Story(deployment(2, paused=True))
    story.settle()
    assert story.cluster.all(REPLICA_SETS) == []
    story.update({"spec": {"paused": None}})
    story.settle()
    story.update({"spec": {"replicas": 0}})
    story.settle()
    story.update({"spec": {"paused": True, "replicas": 1}})
    story.settle()
    assert story.sizes() == {"i1": 1}


def test_recreate_ends_all_old_pods_before_the_first_new_one() -> None:
    """With ``Recreate`` two templates never run at once, pods that are still ending included."""
    story = Story(deployment(2, strategy={"type": "Recreate"}))
    story.settle()
    story.set_image("i2")
    for _ in range(50):
        story.step()
        assert len(story.sizes()) <= 1, story.sizes()
    assert story.sizes() == {"i2": 2}


def test_recreate_waits_for_pods_that_are_ending() -> None:
    """A pod counts until it is gone; its end brings the Deployment's next look."""
    story = Story(deployment(1, strategy={"type": "Recreate"}))
    story.settle()
    (old,) = story.cluster.all(PODS)
    key = f"demo/{old['metadata']['name']}"
    story.cluster.change(PODS, key, {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})
    story.set_image("i2")
    story.cluster.look(story.deployments, KEY)
    story.cluster.look(story.deployments, KEY)

    assert len(story.cluster.all(REPLICA_SETS)) == 1, "the new one waits"
    assert list(story.deployments.affected(story.cluster.world, PODS, key, old, None)) == [KEY]
    story.cluster.world.remove(PODS, key)
    story.settle()
    assert story.sizes() == {"i2": 1}


def test_old_replica_sets_are_forgotten_beyond_the_limit() -> None:
    """``revisionHistoryLimit`` old ones stay for rolling back, the oldest go first."""
    story = Story(deployment(1, revisionHistoryLimit=1))
    for image in ("i1", "i2", "i3", "i4"):
        story.set_image(image)
        story.settle()

    revisions = sorted(rs["metadata"]["annotations"][REVISION] for rs in story.cluster.all(REPLICA_SETS))
    assert revisions == ["3", "4"]


def test_a_rollout_that_does_not_get_on_says_so_after_its_deadline() -> None:
    """``progressDeadlineSeconds`` without progress is a failure; with the first new pod it is a rollout again."""
    story = Story(deployment(1, progressDeadlineSeconds=60))
    for _ in range(6):
        story.step(start=0)
    assert reason(story.deployment, "Progressing") == "True ReplicaSetUpdated"
    assert reason(story.deployment, "Available") == "False MinimumReplicasUnavailable"
    outcome = story.cluster.look(story.deployments, KEY)
    assert outcome.again == 60
    story.cluster.now += datetime.timedelta(seconds=61)
    story.cluster.look(story.deployments, KEY)
    assert reason(story.deployment, "Progressing") == "False ProgressDeadlineExceeded"
    story.settle()

    assert reason(story.deployment, "Progressing") == "True NewReplicaSetAvailable"


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 6),
    st.sampled_from([0, 1, 2, "0%", "25%", "50%", "100%"]),
    st.sampled_from([0, 1, 2, "0%", "25%", "50%", "100%"]),
    st.lists(st.integers(0, 2), min_size=1, max_size=60),
)
def test_no_rollout_leaves_its_bounds(replicas: int, surge: Any, unavailable: Any, pace: list[int]) -> None:
    """However slowly pods start: never more than the surge allows, never fewer available than must be, and it ends."""
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
    story = Story(deployment(replicas, strategy=strategy))
    story.settle()
    limits = bounds(story.deployment["spec"])
    story.set_image("i2")
    for start in pace:
        story.step(start=start)
        pods = [p for p in story.cluster.all(PODS) if is_active(p)]
        assert len(pods) <= replicas + limits.surge
        assert sum(is_ready(p) for p in pods) >= replicas - limits.unavailable
    story.settle()

    assert story.sizes() == ({"i2": replicas} if replicas else {})


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable", "expected"),
    [
        (10, "25%", "25%", Bounds(3, 2)),
        (1, "25%", "25%", Bounds(1, 0)),
        (4, 0, 0, Bounds(0, 1)),
        (4, 0, "10%", Bounds(0, 1)),
        (4, 1, 0, Bounds(1, 0)),
    ],
)
def test_percentages_are_rounded_in_favour_of_availability(
    replicas: int, surge: Any, unavailable: Any, expected: Bounds
) -> None:
    """Surge rounds up, unavailable down; both nothing would be a standstill."""
    rolling = {"maxSurge": surge, "maxUnavailable": unavailable}

    assert bounds({"replicas": replicas, "strategy": {"rollingUpdate": rolling}}) == expected


def test_template_hashes_tell_templates_apart() -> None:
    """The same template has the same label value, whatever the order of its keys; another has another."""
    one = {"spec": {"a": 1, "b": 2}}

    assert template_hash(one) == template_hash({"spec": {"b": 2, "a": 1}})
    assert template_hash(one) != template_hash({"spec": {"a": 1}})
    assert template_hash(one) != template_hash(one, collisions=1)
    assert template_hash(one).isalnum()
    hashed = {"metadata": {"labels": {"pod-template-hash": "x"}, "creationTimestamp": None}, "spec": {}}
    assert without_hash(hashed) == {"metadata": {}, "spec": {}}


def replica_set(replicas: int, **spec: Any) -> Object:
    """Return a ReplicaSet of its own."""
    made = deployment(replicas, **spec)
    made["metadata"]["name"] = "rs"
    return made


def test_orphans_that_are_selected_are_adopted_and_count() -> None:
    """A pod with the right labels and no controller becomes ours instead of a new one being made."""
    cluster, controller = Cluster(), ReplicaSets()
    cluster.add(REPLICA_SETS, replica_set(1))
    cluster.add(PODS, pod("orphan"))
    cluster.add(PODS, pod("other", labels={"app": "x"}))

    assert list(controller.affected(cluster.world, PODS, "demo/orphan", None, pod("orphan"))) == ["demo/rs"]
    assert list(controller.affected(cluster.world, PODS, "demo/x", None, pod("x", labels={}))) == []
    cluster.look(controller, "demo/rs")
    cluster.look(controller, "demo/rs")
    assert [p["metadata"]["name"] for p in cluster.all(PODS)] == ["orphan", "other"]
    assert cluster.get(REPLICA_SETS, "demo/rs")["status"]["replicas"] == 1


def test_the_least_useful_pods_go_first() -> None:
    """Scaling down takes pods without a node, then those that do not run, then unready ones, then the youngest."""
    cluster, controller = Cluster(), ReplicaSets()
    cluster.add(REPLICA_SETS, replica_set(5))
    cluster.look(controller, "demo/rs")
    names = [p["metadata"]["name"] for p in cluster.all(PODS)]
    for index, name in enumerate(names[1:], 1):
        cluster.change(PODS, f"demo/{name}", {"spec": {"nodeName": "n"}})
        if index > 1:
            cluster.change(PODS, f"demo/{name}", {"status": running("10.0.0.1", ready=index > 2)}, status=True)
    cluster.change(REPLICA_SETS, "demo/rs", {"spec": {"replicas": 1}})
    outcome = controller.reconcile(cluster.world, "demo/rs", cluster.now)

    gone = [action.key for action in outcome.actions if isinstance(action, Delete)]
    assert gone == [f"demo/{name}" for name in [*names[:3], names[4]]]


def test_ended_pods_are_replaced_and_status_counts_what_lives() -> None:
    """Failed pods stay to be looked at, but do not count; ready ones count as available after minReadySeconds."""
    cluster, controller = Cluster(), ReplicaSets()
    cluster.add(REPLICA_SETS, replica_set(2, minReadySeconds=30))
    cluster.look(controller, "demo/rs")
    first, second = (f"demo/{p['metadata']['name']}" for p in cluster.all(PODS))
    cluster.change(PODS, first, {"status": {"phase": "Failed"}}, status=True)
    cluster.change(PODS, second, {"status": running("10.0.0.1", since="2026-01-01T00:00:00Z")}, status=True)
    outcome = cluster.look(controller, "demo/rs")
    assert outcome.again == 30
    cluster.look(controller, "demo/rs")

    assert len(cluster.all(PODS)) == 3
    status = cluster.get(REPLICA_SETS, "demo/rs")["status"]
    assert status == {"replicas": 2, "fullyLabeledReplicas": 2, "readyReplicas": 1, "observedGeneration": 1}
    cluster.now += datetime.timedelta(seconds=31)
    cluster.look(controller, "demo/rs")
    assert cluster.get(REPLICA_SETS, "demo/rs")["status"]["availableReplicas"] == 1


def test_nothing_is_made_in_a_namespace_that_ends_or_for_an_owner_that_ends() -> None:
    """The API server would refuse, and what is made would only have to go again."""
    cluster = Cluster()
    cluster.add(NAMESPACES, namespace("demo", deletionTimestamp="2026-01-01T00:00:00Z"))
    cluster.add(REPLICA_SETS, replica_set(1))
    cluster.add(DEPLOYMENTS, deployment())

    made = [
        action
        for controller, key in ((ReplicaSets(), "demo/rs"), (Deployments(), KEY))
        for action in controller.reconcile(cluster.world, key, cluster.now).actions
        if isinstance(action, Create)
    ]
    assert made == []
    assert cluster.look(ReplicaSets(), "demo/none").actions == ()
    assert cluster.look(Deployments(), "demo/none").actions == ()


def test_changes_reach_who_owns_what_changed() -> None:
    """A ReplicaSet's change is its Deployment's, a pod's its ReplicaSet's; strangers' changes are nobody's."""
    story = Story(deployment(1))
    story.settle()
    world = story.cluster.world
    (rs,), (made,) = story.cluster.all(REPLICA_SETS), story.cluster.all(PODS)
    rs_key = f"demo/{rs['metadata']['name']}"

    assert list(story.deployments.affected(world, REPLICA_SETS, rs_key, None, rs)) == [KEY]
    assert list(story.deployments.affected(world, DEPLOYMENTS, KEY, None, {})) == [KEY]
    assert list(story.deployments.affected(world, PODS, "demo/p", None, made)) == []
    assert list(story.deployments.affected(world, PODS, "demo/p", pod("p"), None)) == []
    assert list(story.deployments.affected(world, NODES, "n", None, {})) == []
    assert list(story.replica_sets.affected(world, PODS, "demo/p", made, made)) == [rs_key]
    assert list(story.replica_sets.affected(world, NODES, "n", None, {})) == []
    stranger = pod("s")
    stranger["metadata"]["ownerReferences"] = [{"uid": "who", "controller": True}]
    assert list(story.replica_sets.affected(world, PODS, "demo/s", None, stranger)) == []


def test_a_selector_of_nothing_selects_nothing() -> None:
    """None is no selector at all; an empty one selects everything."""
    assert not selects(None, {"a": "b"})
    assert selects({}, {})
    assert not selects({"matchLabels": {"a": "c"}}, {"a": "b"})


def test_a_status_that_says_so_already_is_not_written() -> None:
    """At rest, a look writes nothing: no loop of writes and wakes."""
    story = Story(deployment(2))
    story.settle()
    outcomes = [story.cluster.look(story.deployments, KEY)]
    outcomes += [story.cluster.look(story.replica_sets, key) for key in story.cluster.world.all(REPLICA_SETS)]

    assert [action for outcome in outcomes for action in outcome.actions if isinstance(action, Patch)] == []
