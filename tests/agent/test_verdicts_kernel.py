# SPDX-License-Identifier: Apache-2.0
"""Real packets, a real agent, and what its log says of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ringfence.agent.reconcile import Kind
from ringfence.host import process
from ringfence.kube.testing import ApiServer
from tests.agent.agents import agent, get, serving, until
from tests.dataplanes.conftest import standing
from tests.dataplanes.router import PODS, VERSIONS, Router, address

pytestmark = pytest.mark.kernel


@pytest.fixture
def router() -> Iterator[Router]:
    """Yield a router that enforces nothing yet, for an agent to run in."""
    for made in standing("ebpf"):
        process.run(["ip", "-n", made.netns["router"], "link", "set", "lo", "up"])
        yield made


@pytest.fixture
def api() -> ApiServer:
    """Return a cluster: the server and a client on the node, another pod elsewhere; the server is isolated twice."""
    api = ApiServer()
    api.put(Kind.NAMESPACES.value, {"metadata": {"name": "demo"}})
    for node in ("n1", "n2"):
        api.put(Kind.NODES.value, {"metadata": {"name": node}})
    for who, node in zip(PODS, ("n1", "n1", "n2"), strict=True):
        ips = [{"ip": address(who, version)} for version in VERSIONS]
        meta = {"namespace": "demo", "name": who, "uid": who, "labels": {"app": who}}
        status = {"podIP": ips[0]["ip"], "podIPs": ips}
        api.put(Kind.PODS.value, {"metadata": meta, "spec": {"nodeName": node}, "status": status})
    server = {"podSelector": {"matchLabels": {"app": "server"}}}
    client = {"podSelector": {"matchLabels": {"app": "client"}}}
    for name, spec in (("deny", {}), ("web", {"ingress": [{"from": [client], "ports": [{"port": 80}]}]})):
        api.put(Kind.POLICIES.value, {"metadata": {"namespace": "demo", "name": name}, "spec": {**server, **spec}})
    return api


async def test_log_names_pods_policies_and_rules_of_real_packets(
    router: Router, api: ApiServer, tmp_path: Path
) -> None:
    """A denied connection, of a pod of another node, and an allowed one, in both families; both are counted. The next
    agent, which was not asked to, tells only what is denied.
    """
    namespace = router.netns["router"]

    def lines(message: str) -> list[dict[str, Any]]:
        told = map(json.loads, (tmp_path / "log").read_text().splitlines())
        return [line for line in told if line["msg"] == message]

    async def ready() -> bool:
        return (await get(tmp_path, "/readyz"))[0] == 200

    async def both_told() -> bool:
        return len(lines("denied")) >= len(VERSIONS) and len(lines("allowed")) >= len(VERSIONS)

    options = ("--log-allows", "--log-format=json")
    async with serving(api, namespace), agent(namespace, tmp_path, api.url, *options, dataplane="ebpf"):
        await until(ready)
        for version in VERSIONS:
            with router.listen("server", version, 80):
                assert not router.connects("other", "server", version, 80)
                assert router.connects("client", "server", version, 80, within=2)
        await until(both_told)
        metrics = (await get(tmp_path, "/metrics"))[1]
    assert 'ringfence_verdicts_total{direction="ingress",reason="rule",verdict="allowed"} 2.0' in metrics
    allowed, denied = lines("allowed"), lines("denied")

    async def one_more_told() -> bool:
        return len(lines("denied")) > len(denied)

    async with serving(api, namespace), agent(namespace, tmp_path, api.url, "--log-format=json", dataplane="ebpf"):
        await until(ready)
        with router.listen("server", 4, 80):
            assert router.connects("client", "server", 4, 80, within=2)
            assert not router.connects("other", "server", 4, 80)
        await until(one_more_told)
    assert lines("allowed") == allowed

    for message, who, ground in (
        ("denied", "other", {"reason": "no_rule", "policies": "NetworkPolicy demo/deny and demo/web"}),
        ("allowed", "client", {"reason": "rule", "policy": "NetworkPolicy demo/web", "rule": "spec.ingress[0]"}),
    ):
        told = [{k: v for k, v in line.items() if k not in ("time", "at", "level", "msg")} for line in lines(message)]
        assert told[: len(VERSIONS)] == [
            {
                "source_pod": f"demo/{who}",
                "source_address": address(who, version),
                "destination_pod": "demo/server",
                "destination_address": address("server", version),
                "protocol": "TCP",
                "port": 80,
                "direction": "ingress",
                **ground,
            }
            for version in VERSIONS
        ]
