# SPDX-License-Identifier: Apache-2.0
"""Workloads of files stand for the pods that they would make; pods know whose they are."""

from __future__ import annotations

from typing import Any

import pytest

from ringfence.apis.manifests import cluster_from_objects, load_text
from ringfence.apis.workloads import Owner, is_workload, owner_of, template_pods, twin_of
from ringfence.model.cluster import PodKey

PORTS = [{"name": "http", "containerPort": 8080}]
TEMPLATE = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "m", "ports": PORTS}]}}


def workload(kind: str, version: str = "apps/v1", **spec: Any) -> dict[str, Any]:
    """Return a workload named ``web`` of namespace ``shop``."""
    meta = {"name": "web", "namespace": "shop"}
    return {"apiVersion": version, "kind": kind, "metadata": meta, "spec": {"template": TEMPLATE, **spec}}


@pytest.mark.parametrize(
    ("made", "names"),
    [
        pytest.param(workload("Deployment"), ["deploy/web"], id="one"),
        pytest.param(workload("Deployment", replicas=3), ["deploy/web", "deploy/web~2"], id="several"),
        pytest.param(workload("Deployment", replicas=0), ["deploy/web"], id="none-yet"),
        pytest.param(workload("DaemonSet"), ["ds/web", "ds/web~2"], id="one-a-node"),
        pytest.param(workload("ReplicationController", "v1", replicas=2), ["rc/web", "rc/web~2"], id="old"),
        pytest.param(workload("Job", "batch/v1", parallelism=2), ["job/web", "job/web~2"], id="parallel"),
        pytest.param(
            workload("CronJob", "batch/v1", jobTemplate={"spec": {"template": TEMPLATE}}), ["cronjob/web"], id="cron"
        ),
        pytest.param(workload("Deployment", "example.com/v1"), [], id="somebody-elses-kind"),
        pytest.param({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": "x"}, [], id="no-name"),
    ],
)
def test_a_workload_makes_pods_from_its_template(made: dict[str, Any], names: list[str]) -> None:
    """Two where several may run, since one replica need not reach another."""
    pods = template_pods([made] if is_workload(made) else [], [])

    assert names == [pod["metadata"]["name"] for pod in pods]
    assert all(pod["metadata"]["labels"] == {"app": "web"} for pod in pods)
    assert {owner_of(pod) for pod in pods} <= {Owner(made["kind"], "shop", "web")}


def test_a_workload_whose_pods_are_there_makes_none() -> None:
    """A dump of a cluster holds Deployment, ReplicaSet and pods: the pods count, once."""
    reference = {"kind": "ReplicaSet", "name": "web-5d4f", "controller": True}
    labels = {"pod-template-hash": "5d4f"}
    pod = {"metadata": {"name": "web-5d4f-x", "namespace": "shop", "labels": labels, "ownerReferences": [reference]}}
    owned = workload("ReplicaSet")
    owned["metadata"]["ownerReferences"] = [{"kind": "Deployment", "name": "web", "controller": True}]

    assert owner_of(pod) == Owner("Deployment", "shop", "web")
    assert template_pods([workload("Deployment"), owned], [pod]) == []


@pytest.mark.parametrize(
    ("references", "owner"),
    [
        pytest.param([], None, id="nobody"),
        pytest.param(None, None, id="null"),
        pytest.param([{"kind": "ReplicaSet", "name": "web"}], None, id="no-controller"),
        pytest.param([{"kind": "Wizard", "name": "x", "controller": True}], None, id="unknown-kind"),
        pytest.param(
            [{"kind": "ReplicaSet", "name": "web", "controller": True}], Owner("ReplicaSet", "default", "web"), id="rs"
        ),
    ],
)
def test_whose_a_pod_is_says_its_controller(references: Any, owner: Owner | None) -> None:
    """A ReplicaSet that no Deployment made is its pods' own."""
    assert owner_of({"metadata": {"name": "p", "ownerReferences": references}}) == owner


def test_a_twin_knows_the_first() -> None:
    """The second pod of a workload stands for all others."""
    assert twin_of(PodKey("shop", "deploy/web~2")) == PodKey("shop", "deploy/web")
    assert twin_of(PodKey("shop", "deploy/web")) is None


def test_workloads_of_files_are_endpoints_and_those_of_a_cluster_are_not() -> None:
    """A cluster has the pods themselves."""
    objects = [workload("Deployment")]
    bare, filled = cluster_from_objects(objects), cluster_from_objects(objects, fill_gaps=True)

    assert set(bare.cluster.endpoints) == set()
    assert filled.cluster.endpoints[PodKey("shop", "deploy/web")].ports[0].name == "http"


def test_a_broken_template_is_complained_about_where_it_stands() -> None:
    """The complaint is about the workload, with the template's path and line."""
    text = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  template:
    spec:
      hostNetwork: 7
"""
    from ringfence.apis.manifests import cluster_from_manifests

    offline = cluster_from_manifests(load_text(text, file="f").manifests, fill_gaps=True)

    (problem,) = offline.problems
    assert str(problem).startswith('f:7:7: Deployment.apps "web" is invalid: spec.template.spec.hostNetwork')
