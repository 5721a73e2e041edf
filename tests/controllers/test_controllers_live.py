# SPDX-License-Identifier: Apache-2.0
"""The controllers at work on the lab's real API server. Only the kubelet is a stand-in: it says that pods run."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ringfence.errors import ClusterError
from ringfence.kube.client import Client
from ringfence.kube.config import load_access
from ringfence.kube.reflector import Listed, Removed, Upserted, reflect
from ringfence.lab.controllers import run_controllers
from tests.apiserver.apiservers import RunningServer

Object = dict[str, Any]
NOW = {"gracePeriodSeconds": 0, "kind": "DeleteOptions", "apiVersion": "v1"}
APPS = "/apis/apps/v1/namespaces/demo"
CORE = "/api/v1/namespaces/demo"


async def kubelet(client: Client) -> None:
    """Say of every pod that has a node that it runs, and end every pod that is to end."""
    numbers = itertools.count(1)
    done: set[tuple[str, bool]] = set()
    async for change in reflect(client, "/api/v1/pods", msgspec.json.decode):
        pods: list[Object] = []
        match change:
            case Listed(items=items):
                pods = list(items.values())
            case Upserted(object=pod):
                pods = [pod]
            case Removed():
                pass
        for pod in pods:
            meta = pod["metadata"]
            ending = "deletionTimestamp" in meta
            if not pod["spec"].get("nodeName") or (meta["uid"], ending) in done:
                continue
            done.add((meta["uid"], ending))
            path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
            address = f"10.224.0.{next(numbers)}"
            ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
            status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": [ready]}
            with suppress(ClusterError):  # somebody was quicker
                await (client.delete(path, NOW) if ending else client.patch(f"{path}/status", {"status": status}))


class Lab:
    """A server, the controllers, and a client."""

    def __init__(self, server: RunningServer, client: Client) -> None:
        self.server = server
        self.client = client

    async def until(self, condition: Callable[[], Awaitable[bool]], what: str) -> None:
        """Wait until the cluster is as it should be."""
        try:
            async with asyncio.timeout(20):
                while not await condition():  # noqa: ASYNC110 - the condition asks the server
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"not in time: {what}") from None

    async def find(self, path: str) -> Object | None:
        """Return an object, None if there is none."""
        try:
            found: Object = await self.client.get(path)
        except ClusterError:
            return None
        return found

    async def has_gone(self, path: str) -> bool:
        """Tell whether there is no such object."""
        return await self.find(path) is None

    async def items(self, path: str) -> list[Object]:
        """Return the objects of a collection."""
        found: list[Object] = (await self.client.get(path))["items"]
        return found

    async def available(self, count: int) -> bool:
        """Tell whether the Deployment has rolled out to this many pods."""
        found = await self.find(f"{APPS}/deployments/web")
        assert found is not None
        status = found.get("status", {})
        counts = [status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")]
        return counts == [count] * 3 and status["observedGeneration"] == found["metadata"]["generation"]


def deployment(replicas: int) -> Object:
    """Return a Deployment."""
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "agnhost:1"}]}}
    return {
        "metadata": {"name": "web"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template},
    }


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    """Run a server, controllers, two nodes, and a namespace."""
    with tempfile.TemporaryDirectory(prefix="rfctl-", dir="/tmp") as directory:
        server = RunningServer(Path(directory))
        await asyncio.to_thread(server.start)
        access = load_access(str(server.paths.kubeconfig))
        async with Client(access) as client:
            for name in ("node-a", "node-b"):
                status = {"conditions": [{"type": "Ready", "status": "True"}]}
                await client.create("/api/v1/nodes", {"metadata": {"name": name}, "status": status})
            await client.create("/api/v1/namespaces", {"metadata": {"name": "demo"}})
            tasks = [asyncio.create_task(run_controllers(access)), asyncio.create_task(kubelet(client))]
            yield Lab(server, client)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(server.stop)


async def test_a_deployment_lives_and_its_namespace_ends(lab: Lab) -> None:
    """From a Deployment and a Service to running pods with endpoints, a rollout, and an empty place afterwards."""
    service = {"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}
    await lab.client.create(f"{CORE}/services", service)
    await lab.client.create(f"{APPS}/deployments", deployment(4))
    await lab.until(lambda: lab.available(4), "four pods")
    pods = await lab.items(f"{CORE}/pods")

    assert sorted(pod["spec"]["nodeName"] for pod in pods) == ["node-a"] * 2 + ["node-b"] * 2
    assert await lab.find(f"{CORE}/serviceaccounts/default") is not None
    root_ca = await lab.find(f"{CORE}/configmaps/kube-root-ca.crt")
    assert root_ca is not None
    assert root_ca["data"]["ca.crt"] == lab.server.paths.ca_certificate.read_text()

    async def endpoints() -> bool:
        slices = await lab.items("/apis/discovery.k8s.io/v1/namespaces/demo/endpointslices")
        found = {address for each in slices for e in each["endpoints"] for address in e["addresses"]}
        return found == {pod["status"]["podIP"] for pod in await lab.items(f"{CORE}/pods")}

    await lab.until(endpoints, "an endpoint for each pod")
    image = {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "agnhost:2"}]}}}}
    await lab.client.patch(f"{APPS}/deployments/web", image)
    await lab.until(lambda: lab.available(4), "the rollout")
    assert {p["spec"]["containers"][0]["image"] for p in await lab.items(f"{CORE}/pods")} == {"agnhost:2"}
    reasons = {event["reason"] for event in await lab.items(f"{CORE}/events")}
    assert {"Scheduled", "SuccessfulCreate", "ScalingReplicaSet"} <= reasons

    await lab.client.delete("/api/v1/namespaces/demo")
    await lab.until(lambda: lab.has_gone("/api/v1/namespaces/demo"), "the end of the namespace")


@pytest.mark.parametrize("policy", ["Background", "Foreground", "Orphan"])
async def test_deletion_reaches_dependents_as_asked(lab: Lab, policy: str) -> None:
    """In the background, in the foreground, or not at all."""
    await lab.client.create(f"{APPS}/deployments", deployment(2))
    await lab.until(lambda: lab.available(2), "two pods")
    options = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy}
    await lab.client.delete(f"{APPS}/deployments/web", options)
    await lab.until(lambda: lab.has_gone(f"{APPS}/deployments/web"), "the end of the Deployment")
    if policy == "Orphan":
        (replica_set,) = await lab.items(f"{APPS}/replicasets")
        assert "ownerReferences" not in replica_set["metadata"]
        return

    async def cleared() -> bool:
        return not await lab.items(f"{CORE}/pods") and not await lab.items(f"{APPS}/replicasets")

    await lab.until(cleared, "the end of the pods")


async def test_controllers_survive_the_api_server(lab: Lab) -> None:
    """While the server is away nothing is lost; when it is back, what is to be done is done."""
    await lab.client.create(f"{APPS}/deployments", deployment(1))
    await lab.until(lambda: lab.available(1), "one pod")
    await asyncio.to_thread(lab.server.stop)
    await asyncio.to_thread(lab.server.start)
    await lab.client.patch(f"{APPS}/deployments/web", {"spec": {"replicas": 3}})

    await lab.until(lambda: lab.available(3), "three pods")


async def test_custom_resources_are_owned_and_cleared_like_any_other(lab: Lab) -> None:
    """A kind that comes by definition is followed: its objects go with their owner and with their namespace."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    definition = {
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"kind": "Widget", "plural": "widgets"},
            "versions": [version],
        },
    }
    await lab.client.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
    widgets = "/apis/example.com/v1/namespaces/demo/widgets"
    identity = {"apiVersion": "example.com/v1", "kind": "Widget"}
    await lab.until(lambda: _answers(lab, widgets), "the new kind")
    owner = await lab.client.create(f"{CORE}/configmaps", {"metadata": {"name": "owner"}})
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    await lab.client.create(widgets, {**identity, "metadata": {"name": "owned", "ownerReferences": [reference]}})
    await lab.client.create(widgets, {**identity, "metadata": {"name": "free"}})
    await lab.client.delete(f"{CORE}/configmaps/owner")
    await lab.until(lambda: lab.has_gone(f"{widgets}/owned"), "the end of what was owned")
    assert await lab.find(f"{widgets}/free") is not None

    await lab.client.delete("/api/v1/namespaces/demo")
    await lab.until(lambda: lab.has_gone("/api/v1/namespaces/demo"), "the end of the namespace")


async def _answers(lab: Lab, path: str) -> bool:
    return await lab.find(path) is not None
