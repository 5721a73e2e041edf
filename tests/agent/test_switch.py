# SPDX-License-Identifier: Apache-2.0
"""An agent starts with another engine than the one that is in force: real agents, real packets without a pause."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.agent.predecessors import TURN
from ringfence.agent.reconcile import Kind
from ringfence.dataplanes.registry import ENGINES
from ringfence.host import netns, process
from ringfence.host.turns import turn
from ringfence.kube.testing import ApiServer
from tests.agent.agents import agent, get, serving, until
from tests.dataplanes.conftest import standing
from tests.dataplanes.hammer import ALLOWED, DENIED, Hammer
from tests.dataplanes.router import PODS, VERSIONS, Router, address, passes

pytestmark = pytest.mark.kernel


@pytest.fixture
def router() -> Iterator[Router]:
    """Yield a router that enforces nothing yet, for agents to run in."""
    for made in standing("nftables"):
        process.run(["ip", "-n", made.netns["router"], "link", "set", "lo", "up"])
        yield made
        with netns.enter(made.netns["router"]):
            for engine in ENGINES.values():
                engine.remove()


@pytest.fixture
def api() -> ApiServer:
    """Return a cluster whose server lets clients in to one port, and to a TCP port that stays open."""
    api = ApiServer()
    api.put(Kind.NAMESPACES.value, {"metadata": {"name": "demo"}})
    api.put(Kind.NODES.value, {"metadata": {"name": "n1"}})
    for who in PODS:
        ips = [{"ip": address(who, version)} for version in VERSIONS]
        meta = {"namespace": "demo", "name": who, "uid": who, "labels": {"app": who}}
        status = {"podIP": ips[0]["ip"], "podIPs": ips}
        api.put(Kind.PODS.value, {"metadata": meta, "spec": {"nodeName": "n1"}, "status": status})
    allow(api, ALLOWED)
    return api


def allow(api: ApiServer, *ports: int) -> None:
    """Let the client in to UDP ports, and to TCP port 80."""
    client = {"podSelector": {"matchLabels": {"app": "client"}}}
    open_ = [{"protocol": "UDP", "port": port} for port in ports] + [{"protocol": "TCP", "port": 80}]
    spec = {"podSelector": {"matchLabels": {"app": "server"}}, "ingress": [{"from": [client], "ports": open_}]}
    api.put(Kind.POLICIES.value, {"metadata": {"namespace": "demo", "name": "web"}, "spec": spec})


def in_force(router: Router) -> set[str]:
    """Return the engines that have something in the router's kernel."""
    with netns.enter(router.netns["router"]):
        return {engine.name for engine in ENGINES.values() if engine.present()}


async def test_engines_change_under_fire_and_no_packet_is_lost_or_let_through(
    router: Router, api: ApiServer, tmp_path: Path
) -> None:
    """There and back again, by agents that end and that are killed: at each stop exactly the new engine is in force;
    the connection that was open before all of it passes all the time.
    """
    namespace = router.netns["router"]

    async def ready() -> bool:
        return (await get(tmp_path, "/readyz"))[0] == 200

    with contextlib.ExitStack() as flows:
        async with serving(api, namespace):
            for number, engine in enumerate(("nftables", "ebpf", "nftables", "ebpf")):
                async with agent(namespace, tmp_path, api.url, dataplane=engine) as running:

                    async def alone(engine: str = engine) -> bool:
                        return in_force(router) == {engine}

                    await until(ready)
                    await until(alone)
                    if number == 0:
                        near, far = flows.enter_context(router.connection("client", "server", 4, 80))
                        hammer = flows.enter_context(Hammer(router))
                    assert passes(near, far)
                    assert passes(far, near)
                    running.send_signal(signal.SIGKILL if number % 3 == 1 else signal.SIGTERM)
                    await running.wait()
                assert passes(near, far)
        assert hammer.sent > 1000
    assert hammer.heard == {ALLOWED: hammer.sent, DENIED: 0}
    told = [
        line
        for line in (tmp_path / "log").read_text().splitlines()
        if "taking away what another dataplane left" in line
    ]
    assert len(told) == 3


async def test_killed_between_the_two_steps_the_next_agent_finishes(
    router: Router, api: ApiServer, tmp_path: Path
) -> None:
    """What cannot be taken away is told, counted, tried again and stays in force, also when policy changes; no gate
    opens meanwhile. The successor of the agent that was killed there takes it away.
    """
    namespace = router.netns["router"]

    async def ready() -> bool:
        return (await get(tmp_path, "/readyz"))[0] == 200

    async def stuck() -> bool:
        return 'ringfence_sync_errors_total{stage="switch"} 2.0' in (await get(tmp_path, "/metrics"))[1]

    async def alone() -> bool:
        return in_force(router) == {"ebpf"}

    async with serving(api, namespace):
        async with agent(namespace, tmp_path, api.url, dataplane="nftables"):
            await until(ready)
        with netns.enter(namespace):
            held = contextlib.ExitStack()
            held.enter_context(turn(TURN))
        async with agent(namespace, tmp_path, api.url, "--log-format=json", dataplane="ebpf") as victim:
            await until(stuck)
            status, why = await get(tmp_path, "/readyz")
            assert status == 503
            assert "another dataplane's rules are still in force" in why
            assert in_force(router) == {"nftables", "ebpf"}
            assert (await get(tmp_path, "/v1/pods/demo/server?uid=server&timeout=0.1"))[0] == 503
            with Hammer(router) as hammer:
                assert router.datagram("client", "server", 6, ALLOWED)
            assert hammer.heard == {ALLOWED: hammer.sent, DENIED: 0}
            victim.kill()
            await victim.wait()
        last = json.loads((tmp_path / "log").read_text().splitlines()[-1])
        assert last["msg"].startswith("what another dataplane left in force cannot be taken away")
        held.close()
        allow(api, DENIED)  # the old rules know nothing of it
        async with agent(namespace, tmp_path, api.url, dataplane="ebpf"):
            await until(ready)
            await until(alone)
            assert (await get(tmp_path, "/v1/pods/demo/server?uid=server"))[0] == 200
            assert router.datagram("client", "server", 4, DENIED)
            assert not router.datagram("client", "server", 4, ALLOWED)


async def test_two_agents_of_different_engines_never_leave_the_node_open(
    router: Router, api: ApiServer, tmp_path: Path
) -> None:
    """Each takes the other for its predecessor; whichever is ended, the other one is alone in force soon."""
    namespace = router.netns["router"]
    homes = [tmp_path / "one", tmp_path / "two"]
    for home in homes:
        home.mkdir()

    async def ready() -> bool:
        return all([(await get(home, "/readyz"))[0] == 200 for home in homes])

    async def fought() -> bool:
        return all((home / "log").read_text().count("taking away what another dataplane left") > 2 for home in homes)

    async def alone() -> bool:
        return in_force(router) == {"ebpf"}

    async with serving(api, namespace), agent(namespace, homes[0], api.url, dataplane="ebpf"):
        async with agent(namespace, homes[1], api.url, dataplane="nftables"):
            await until(ready)
            with Hammer(router) as hammer:
                await until(fought)
        await until(alone)
    assert hammer.sent > 100
    assert hammer.heard == {ALLOWED: hammer.sent, DENIED: 0}
