# SPDX-License-Identifier: Apache-2.0
"""The official Python client: a second, independent reader of everything that the server says."""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

import pytest

from tests.apiserver.apiservers import RunningServer
from tests.apiserver.writes import pod


@pytest.fixture(scope="module")
def models() -> Any:
    """Import the client: slow, so for these tests alone; its own types are wrong in places."""
    return importlib.import_module("kubernetes.client")


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Any:
    """Configure the client from the lab's kubeconfig."""
    config = importlib.import_module("kubernetes.config")
    return config.new_client_from_config(config_file=str(server.paths.kubeconfig))


def test_typed_objects_make_the_round_trip(client: Any, models: Any, namespace: str) -> None:
    """Create, read, list, patch, delete, with the client's own models."""
    core, net = models.CoreV1Api(client), models.NetworkingV1Api(client)
    made = core.create_namespaced_pod(namespace, pod())
    assert made.metadata.uid
    assert made.status.phase == "Pending"
    spec = models.V1NetworkPolicySpec(
        pod_selector=models.V1LabelSelector(match_labels={"app": "web"}), policy_types=["Ingress"]
    )
    policy = models.V1NetworkPolicy(metadata=models.V1ObjectMeta(name="deny"), spec=spec)
    net.create_namespaced_network_policy(namespace, policy)
    found = net.list_namespaced_network_policy(namespace, limit=1)
    assert [item.metadata.name for item in found.items] == ["deny"]
    patched = core.patch_namespaced_pod("web", namespace, {"metadata": {"labels": {"app": "web"}}})
    assert patched.metadata.labels == {"app": "web"}
    core.delete_namespaced_pod("web", namespace)
    with pytest.raises(models.ApiException) as gone:
        core.read_namespaced_pod("web", namespace)
    assert gone.value.status == 404


def test_its_watch_sees_what_happens(client: Any, models: Any, namespace: str) -> None:
    """From the list's revision on."""
    watch = importlib.import_module("kubernetes.watch")
    core = models.CoreV1Api(client)
    listed = core.list_namespaced_config_map(namespace)
    for name in ("a", "b"):
        core.create_namespaced_config_map(namespace, {"metadata": {"name": name}})
    stream = watch.Watch().stream(
        core.list_namespaced_config_map,
        namespace,
        resource_version=listed.metadata.resource_version,
        timeout_seconds=5,
    )
    seen = [(event["type"], event["object"].metadata.name) for event, _ in zip(stream, range(2), strict=False)]
    assert seen == [("ADDED", "a"), ("ADDED", "b")]


def test_every_built_in_kind_can_be_listed(client: Any, models: Any) -> None:
    """With its models, which refuse what they do not know."""
    core, apps = models.CoreV1Api(client), models.AppsV1Api(client)
    for lister in (
        core.list_namespace,
        core.list_node,
        core.list_pod_for_all_namespaces,
        core.list_service_for_all_namespaces,
        core.list_service_account_for_all_namespaces,
        core.list_config_map_for_all_namespaces,
        core.list_secret_for_all_namespaces,
        core.list_event_for_all_namespaces,
        core.list_endpoints_for_all_namespaces,
        apps.list_deployment_for_all_namespaces,
        apps.list_replica_set_for_all_namespaces,
        models.DiscoveryV1Api(client).list_endpoint_slice_for_all_namespaces,
        models.CoordinationV1Api(client).list_lease_for_all_namespaces,
        # of a namespace without any: this client refuses events without eventTime, which the API allows
        partial(models.EventsV1Api(client).list_namespaced_event, "kube-system"),
        models.NetworkingV1Api(client).list_network_policy_for_all_namespaces,
        models.ApiextensionsV1Api(client).list_custom_resource_definition,
    ):
        assert int(lister().metadata.resource_version) > 0
