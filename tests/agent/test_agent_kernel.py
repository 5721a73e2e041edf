# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.host import process
from ringfence.kube.testing import ApiServer
from tests.agent.agents import agent, get, made_namespace, put_pod, rules, serving, small_cluster, until

pytestmark = pytest.mark.kernel


@pytest.fixture
def namespace() -> Iterator[str]:
    """Yield a namespace with nothing but a loopback that is up."""
    yield from made_namespace()


@pytest.fixture
def api() -> ApiServer:
    """Return a cluster with a node, an isolated server and a client that it lets in."""
    return small_cluster()


@pytest.mark.parametrize("dataplane", ["nftables", "ebpf"])
async def test_rules_outlive_agent_and_api_server(
    namespace: str, api: ApiServer, tmp_path: Path, dataplane: str
) -> None:
    """Killed, or without API server, the agent leaves every rule as it is; its successor takes over what is there,
    writes nothing that is right already, and enforces what happened meanwhile.
    """

    async def ready() -> bool:
        return (await get(tmp_path, "/readyz"))[0] == 200

    async def sees_late() -> bool:
        return "10.1.0.3" in rules(namespace, dataplane)

    async with serving(api, namespace):
        port = int(api.url.rpartition(":")[2])
        async with agent(namespace, tmp_path, api.url, dataplane=dataplane) as first:
            await until(ready)
            enforced = rules(namespace, dataplane)
            assert "10.1.0.1" in enforced
            assert "demo-policy" in enforced
            first.send_signal(signal.SIGKILL)
            await first.wait()
        assert rules(namespace, dataplane) == enforced
        async with agent(namespace, tmp_path, api.url, dataplane=dataplane) as second:
            await until(ready)
            assert rules(namespace, dataplane) == enforced
            second.terminate()
            assert await second.wait() == 0
        assert rules(namespace, dataplane) == enforced
    async with agent(namespace, tmp_path, api.url, dataplane=dataplane) as third:

        async def answers() -> bool:
            return (await get(tmp_path, "/livez"))[0] == 200

        async def complains() -> bool:
            return "cannot follow the API server" in (tmp_path / "log").read_text()

        await until(answers)
        await until(complains)
        assert not await ready()
        assert rules(namespace, dataplane) == enforced
        put_pod(api, "late", "10.1.0.3", app="server")
        async with serving(api, namespace, port):
            await until(sees_late)
        assert third.returncode is None


async def test_foreign_change_is_undone_and_counted(namespace: str, api: ApiServer, tmp_path: Path) -> None:
    """Somebody deletes our table: within the interval it is back, and the metric says so; other tables stay."""

    async def repaired() -> bool:
        return "ringfence_drift_repaired_total 1.0" in (await get(tmp_path, "/metrics"))[1]

    async def in_force() -> bool:
        return (await get(tmp_path, "/v1/pods/demo/server?uid=uid-server"))[0] == 200

    async with serving(api, namespace), agent(namespace, tmp_path, api.url):
        await until(in_force)
        nft = ["ip", "netns", "exec", namespace, "nft"]
        process.run([*nft, "add table inet other; delete table inet ringfence"])
        await until(repaired)
        after = rules(namespace)

    assert "demo-policy" in after
    assert "table inet other" in after


async def test_allows_cannot_be_logged_of_an_engine_that_tells_nothing(
    namespace: str, api: ApiServer, tmp_path: Path
) -> None:
    """The agent says so and enforces; it does not pretend."""

    async def ready() -> bool:
        return (await get(tmp_path, "/readyz"))[0] == 200

    async with serving(api, namespace), agent(namespace, tmp_path, api.url, "--log-allows", dataplane="nftables"):
        await until(ready)

    assert "--log-allows has no effect" in (tmp_path / "log").read_text()
    assert "demo-policy" in rules(namespace)
