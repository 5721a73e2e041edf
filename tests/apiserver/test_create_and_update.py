# SPDX-License-Identifier: Apache-2.0
"""What a create fills in, what an update may change, and when a write is none."""

from __future__ import annotations

import datetime
import re
from typing import Any

import pytest

from ringfence.lab.apiserver.api import Api
from ringfence.lab.apiserver.status import Failure
from tests.apiserver.writes import Requests, causes, deployment, pod


@pytest.fixture
def req(api: Api) -> Requests:
    """Make requests."""
    return Requests(api)


def test_a_new_object_gets_its_identity_from_the_server(req: Requests) -> None:
    """What a client says of uid, times, generation or status does not count."""
    lie = {"name": "web", "uid": "mine", "creationTimestamp": "2000-01-01T00:00:00Z", "generation": 7, "selfLink": "/x"}
    made = req.create("deployments", {**deployment(), "metadata": lie, "status": {"replicas": 9}})
    meta = made["metadata"]
    assert re.fullmatch(r"[0-9a-f-]{36}", meta["uid"])
    assert meta["creationTimestamp"] > "2020"
    assert meta["namespace"] == "default"
    assert meta["generation"] == 1
    assert int(meta["resourceVersion"]) == req.api.store.revision
    assert "selfLink" not in meta
    assert "status" not in made
    assert made["apiVersion"] == "apps/v1"


def test_a_generated_name_is_the_prefix_and_five_characters(req: Requests) -> None:
    """GenerateName gives every object a name of its own."""
    body = {"metadata": {"generateName": "job-"}, "spec": pod()["spec"]}
    names = {req.create("pods", body)["metadata"]["name"] for _ in range(20)}
    assert len(names) == 20
    assert all(re.fullmatch(r"job-[a-z0-9]{5}", name) for name in names)


def test_a_name_is_taken_once(req: Requests) -> None:
    """409 AlreadyExists, in kube-apiserver's words."""
    req.create("pods", pod())
    with pytest.raises(Failure, match='^pods "web" already exists$') as refused:
        req.create("pods", pod())
    assert (refused.value.code, refused.value.reason) == (409, "AlreadyExists")


def test_a_namespace_must_exist(api: Api) -> None:
    """404 for the namespace, not for the object."""
    from ringfence.lab.apiserver.requests import Target, WriteOptions
    from ringfence.lab.apiserver.writing import Write, create

    resource = Requests(api).resource("pods")
    with pytest.raises(Failure, match='^namespaces "nowhere" not found$'):
        create(Write(api, Target(resource, "nowhere"), WriteOptions("t")), pod())


def test_nothing_new_goes_into_a_namespace_that_is_going_away(req: Requests, api: Api) -> None:
    """403 with the cause that controllers look for."""
    from ringfence.lab.apiserver.requests import Target, WriteOptions
    from ringfence.lab.apiserver.writing import Write, create

    req.create("namespaces", {"metadata": {"name": "old"}})
    req.delete("namespaces", "old")
    with pytest.raises(Failure, match="because it is being terminated") as refused:
        create(Write(api, Target(req.resource("pods"), "old"), WriteOptions("t")), pod())
    assert refused.value.code == 403
    assert refused.value.status["details"]["causes"][0]["reason"] == "NamespaceTerminating"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"kind": "Service"}, "cannot be handled as a Pod"),
        ({"apiVersion": "apps/v1"}, r"the API version in the data \(apps/v1\) does not match"),
        ({"metadata": {"name": "a", "namespace": "other"}}, "does not match the namespace sent on the request"),
        ({"metadata": {"name": "a", "resourceVersion": "5"}}, "resourceVersion should not be set"),
        ({"spec": {"containers": "x"}}, "json: cannot unmarshal string into Go struct field PodSpec.spec.containers"),
        ({"spec": {"nodeNam": "x"}}, 'strict decoding error: unknown field "spec.nodeNam"'),
    ],
)
def test_bodies_that_do_not_fit_the_path_are_bad_requests(req: Requests, body: dict[str, object], words: str) -> None:
    """400: the object is not even looked at further."""
    with pytest.raises(Failure, match=words) as refused:
        req.create("pods", {**pod(), **body})
    assert refused.value.code == 400


def test_unknown_fields_warn_or_vanish_as_asked(req: Requests) -> None:
    """FieldValidation Warn tells, Ignore does not; neither keeps the field."""
    req.create("pods", {**pod("a"), "foo": 1}, validation="Warn")
    assert req.warnings == ['unknown field "foo"']
    made = req.create("pods", {**pod("b"), "foo": 1}, validation="Ignore")
    assert len(req.warnings) == 1
    assert "foo" not in made


def test_a_dry_run_says_what_would_be_and_keeps_nothing(req: Requests) -> None:
    """Creates, updates and deletes alike."""
    before = req.api.store.revision
    assert req.create("pods", pod(), dry_run=True)["metadata"]["uid"]
    assert req.get("pods", "web") is None
    assert req.api.store.revision == before
    req.create("pods", pod())
    patched = req.patch("pods", "web", {"metadata": {"labels": {"a": "b"}}}, dry_run=True)
    assert patched["metadata"]["labels"] == {"a": "b"}
    req.delete("pods", "web", dry_run=True)
    kept = req.get("pods", "web")
    assert kept is not None
    assert "labels" not in kept["metadata"]


def test_a_write_that_changes_nothing_takes_no_revision(req: Requests) -> None:
    """Neither an update nor a patch nor an apply: watchers hear nothing, kubectl says unchanged."""
    made = req.create("deployments", deployment())
    revision = req.api.store.revision
    later = req.api.clock() + datetime.timedelta(hours=1)
    req.api.clock = lambda: later
    req.update("deployments", made)
    req.patch("deployments", "web", {"spec": {"replicas": 1}})
    req.patch("deployments", "web", {"spec": {"replicas": 1}}, kind="strategic-merge")
    assert req.api.store.revision == revision
    applied = {"apiVersion": "apps/v1", "kind": "Deployment", **deployment("applied")}
    first = req.patch("deployments", "applied", applied, kind="apply")
    again = req.patch("deployments", "applied", applied, kind="apply")
    assert first["metadata"]["resourceVersion"] == again["metadata"]["resourceVersion"]


def test_an_update_of_an_old_revision_is_a_conflict(req: Requests) -> None:
    """Whoever says a resourceVersion changes that one, or nothing: 409."""
    made = req.create("configmaps", {"metadata": {"name": "c"}, "data": {"a": "1"}})
    req.update("configmaps", {**made, "data": {"a": "2"}})
    with pytest.raises(
        Failure, match='^Operation cannot be fulfilled on configmaps "c": the object has been modified'
    ) as no:
        req.update("configmaps", {**made, "data": {"a": "3"}})
    assert (no.value.code, no.value.reason) == (409, "Conflict")
    patch = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}, "data": {"a": "4"}}
    with pytest.raises(Failure, match="the object has been modified"):
        req.patch("configmaps", "c", patch)
    unconditional = {"metadata": {"name": "c"}, "data": {"a": "5"}}
    assert req.update("configmaps", unconditional)["data"] == {"a": "5"}


def test_an_update_means_the_object_with_its_uid(req: Requests) -> None:
    """An object of the same name made anew is another one: 409."""
    made = req.create("configmaps", {"metadata": {"name": "c"}})
    req.delete("configmaps", "c")
    req.create("configmaps", {"metadata": {"name": "c"}})
    body = {"metadata": {"name": "c", "uid": made["metadata"]["uid"]}}
    with pytest.raises(Failure, match="Precondition failed: UID in precondition"):
        req.update("configmaps", body)


def test_spec_and_status_are_written_on_their_own_paths(req: Requests) -> None:
    """The main path keeps the stored status, /status keeps everything else."""
    made = req.create("deployments", deployment())
    status = req.update(
        "deployments", {**made, "spec": {**made["spec"], "replicas": 9}, "status": {"replicas": 3}}, sub="status"
    )
    assert status["status"] == {"replicas": 3}
    assert status["spec"]["replicas"] == 1
    spec = req.update("deployments", {**status, "spec": {**made["spec"], "replicas": 9}, "status": {"replicas": 7}})
    assert spec["spec"]["replicas"] == 9
    assert spec["status"] == {"replicas": 3}
    patched = req.patch("deployments", "web", {"status": {"readyReplicas": 2}, "spec": {"replicas": 4}}, sub="status")
    assert patched["status"] == {"replicas": 3, "readyReplicas": 2}
    assert patched["spec"]["replicas"] == 9


def test_the_generation_counts_changes_of_the_spec(req: Requests) -> None:
    """Labels and status do not count."""
    req.create("deployments", deployment())
    req.patch("deployments", "web", {"metadata": {"labels": {"a": "b"}}})
    req.patch("deployments", "web", {"status": {"replicas": 1}}, sub="status")
    assert req.patch("deployments", "web", {"spec": {"replicas": 2}})["metadata"]["generation"] == 2


def test_identity_cannot_be_changed(req: Requests) -> None:
    """A patch of uid or creation time is a conflict or has no effect; the name is the path's."""
    made = req.create("configmaps", {"metadata": {"name": "c"}})
    patched = req.patch("configmaps", "c", {"metadata": {"creationTimestamp": "2000-01-01T00:00:00Z", "generation": 5}})
    assert patched["metadata"]["creationTimestamp"] == made["metadata"]["creationTimestamp"]
    with pytest.raises(Failure, match="does not match the name on the URL"):
        req.patch("configmaps", "c", {"metadata": {"name": "d"}})


def test_custom_updates_must_say_their_revision(req: Requests) -> None:
    """Definitions and their objects cannot be updated without a resourceVersion."""
    from tests.apiserver.test_custom_resources import definition

    req.create("customresourcedefinitions", definition())
    req.create("widgets", {"metadata": {"name": "w"}})
    with pytest.raises(
        Failure, match=r"metadata\.resourceVersion: Invalid value: 0x0: must be specified for an update"
    ):
        req.update("widgets", {"metadata": {"name": "w"}})


def test_every_write_is_in_managed_fields(req: Requests) -> None:
    """Each manager, and the status apart."""
    req.create("deployments", deployment(), manager="maker")
    req.patch("deployments", "web", {"spec": {"replicas": 2}}, manager="scaler")
    req.patch("deployments", "web", {"status": {"replicas": 2}}, manager="controller", sub="status")
    fields = req.get("deployments", "web")["metadata"]["managedFields"]  # type: ignore[index]
    assert {(f["manager"], f["operation"], f.get("subresource", "")) for f in fields} == {
        ("controller", "Update", "status"),
        ("maker", "Update", ""),
        ("scaler", "Update", ""),
    }
    scaler = next(f for f in fields if f["manager"] == "scaler")
    assert scaler["fieldsV1"] == {"f:spec": {"f:replicas": {}}}


def test_apply_makes_owns_and_defends_fields(req: Requests) -> None:
    """Another manager's change is a conflict unless forced."""
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1", "b": "1"}}
    req.patch("configmaps", "c", body, kind="apply", manager="one")
    with pytest.raises(Failure, match=r'conflict with "one": \.data\.a') as refused:
        req.patch("configmaps", "c", {**body, "data": {"a": "2"}}, kind="apply", manager="two")
    assert refused.value.code == 409
    assert refused.value.status["details"]["causes"] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "one"', "field": ".data.a"}
    ]
    forced = req.patch("configmaps", "c", {**body, "data": {"a": "2"}}, kind="apply", manager="two", force=True)
    assert forced["data"] == {"a": "2", "b": "1"}
    less = req.patch("configmaps", "c", {**body, "data": {}}, kind="apply", manager="one")
    assert less["data"] == {"a": "2"}


def test_a_patch_of_nothing_is_not_found(req: Requests) -> None:
    """Only apply creates."""
    with pytest.raises(Failure, match='^configmaps "c" not found$') as refused:
        req.patch("configmaps", "c", {})
    assert refused.value.code == 404


def test_a_strict_patch_that_makes_unknown_fields_is_invalid(req: Requests) -> None:
    """422 about the patch, not 400 as for whole objects."""
    req.create("configmaps", {"metadata": {"name": "c"}})
    with pytest.raises(Failure, match='strict decoding error: unknown field "dat"') as refused:
        req.patch("configmaps", "c", {"dat": {}})
    assert refused.value.code == 422
    assert causes(refused.value)[0][0] == "patch"


def test_metadata_rules_are_reported_with_their_causes(req: Requests) -> None:
    """422 with every broken rule, in kube-apiserver's form."""
    with pytest.raises(Failure) as refused:
        req.create("configmaps", {"metadata": {"name": "Bad_Name", "labels": {"a b": "c"}}})
    assert refused.value.message.startswith(
        'ConfigMap "Bad_Name" is invalid: [metadata.name: Invalid value: "Bad_Name": '
    )
    assert [field for field, _ in causes(refused.value)] == ["metadata.name", "metadata.labels"]


def test_scaling_changes_replicas_alone(req: Requests) -> None:
    """GET, PUT and PATCH of /scale."""
    req.create("deployments", deployment())
    scale = {"metadata": {"name": "web"}, "spec": {"replicas": 3}}
    done = req.update("deployments", scale, sub="scale")
    assert (done["kind"], done["spec"]["replicas"], done["status"]["selector"]) == ("Scale", 3, "app=web")
    req.patch("deployments", "web", {"spec": {"replicas": 5}}, sub="scale")
    assert req.get("deployments", "web")["spec"]["replicas"] == 5  # type: ignore[index]
    with pytest.raises(Failure, match="must be greater than or equal to 0"):
        req.patch("deployments", "web", {"spec": {"replicas": -1}}, sub="scale")


def test_binding_puts_a_pod_on_a_node_once(req: Requests) -> None:
    """What schedulers do; a second binding is a conflict."""
    req.create("pods", pod())
    req.part("pods", "web", "binding", {"target": {"kind": "Node", "name": "n1"}, "metadata": {"name": "web"}})
    bound = req.get("pods", "web")
    assert bound is not None
    assert bound["spec"]["nodeName"] == "n1"
    assert bound["status"]["conditions"][0]["type"] == "PodScheduled"
    with pytest.raises(Failure, match="already assigned to node") as refused:
        req.part("pods", "web", "binding", {"target": {"name": "n2"}})
    assert refused.value.code == 409


def test_a_cluster_wide_object_has_no_namespace(req: Requests) -> None:
    """400 if it says that it has one."""
    with pytest.raises(Failure, match="namespace field should not be set on a cluster-scoped object"):
        req.create("namespaces", {"metadata": {"name": "n", "namespace": "default"}})


@pytest.mark.parametrize(
    ("sub", "body", "code"),
    [
        ("binding", {"target": {}}, 422),
        ("binding", {"kind": "Pod", "target": {"name": "n"}}, 400),
        ("eviction", ["x"], 400),
    ],
)
def test_parts_of_a_pod_need_a_body_that_fits(req: Requests, sub: str, body: Any, code: int) -> None:
    """Refused before anything happens."""
    req.create("pods", pod())
    with pytest.raises(Failure) as refused:
        req.part("pods", "web", sub, body)
    assert refused.value.code == code
    assert req.get("pods", "web") is not None


def test_a_pod_that_is_being_deleted_is_not_bound(req: Requests) -> None:
    """409."""
    body = pod()
    body["metadata"]["finalizers"] = ["x.io/a"]
    req.create("pods", body)
    req.delete("pods", "web")
    with pytest.raises(Failure, match="is being deleted, cannot be assigned to a host"):
        req.part("pods", "web", "binding", {"target": {"name": "n"}})


def test_old_revisions_are_conflicts_on_every_path(req: Requests) -> None:
    """Scale and finalize too."""
    made = req.create("deployments", deployment())
    old = {"name": "web", "resourceVersion": made["metadata"]["resourceVersion"]}
    req.patch("deployments", "web", {"spec": {"replicas": 2}})
    with pytest.raises(Failure, match="Operation cannot be fulfilled on deployments.apps"):
        req.update("deployments", {"metadata": old, "spec": {"replicas": 3}}, sub="scale")
    namespace = {"metadata": {"name": "default", "resourceVersion": "99"}, "spec": {}}
    with pytest.raises(Failure, match="Operation cannot be fulfilled on namespaces"):
        req.update("namespaces", namespace, sub="finalize")
