# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ringfence.agent.evidence import Evidence
from ringfence.agent.gate import Answers, serving_address, serving_socket
from ringfence.agent.metrics import Metrics
from ringfence.agent.podgate import PodGate
from ringfence.agent.reconcile import Event, Kind, State, decode, reconcile
from ringfence.agent.standing import Stage, Standing
from ringfence.compiler.interpret import Judgement
from ringfence.dataplanes.memory.apply import MemoryDataplane
from ringfence.errors import UsageError
from ringfence.kube.changes import Listed
from ringfence.model.flow import Flow


def state_with(*pods: dict[str, Any]) -> State:
    """Return the state of an agent that has listed the namespace demo and these pods."""
    listed: dict[Kind, dict[str, Any]] = {
        Kind.NAMESPACES: {"demo": {"metadata": {"name": "demo"}}},
        Kind.NODES: {},
        Kind.PODS: {f"demo/{each['metadata']['name']}": each for each in pods},
        Kind.POLICIES: {"demo/deny": DENY},
    }
    events = [
        Event(kind, Listed({key: decode(kind, json.dumps(thing).encode()) for key, thing in things.items()}))
        for kind, things in listed.items()
    ]
    return reconcile(State("n1"), events).state


def pod(name: str, address: str) -> dict[str, Any]:
    """Return a pod of the node; its uid is ``uid-NAME``."""
    return {
        "metadata": {"namespace": "demo", "name": name, "uid": f"uid-{name}"},
        "spec": {"nodeName": "n1"},
        "status": {"podIP": address, "podIPs": [{"ip": address}]},
    }


DENY = {"metadata": {"name": "deny", "namespace": "demo"}, "spec": {}}


class Stored:
    """The API server holds the one policy of ``state_with``."""

    async def now(self, namespace: str) -> Evidence:
        """Return the policy."""
        return Evidence(namespace, "", {"demo/deny": decode(Kind.POLICIES, json.dumps(DENY).encode())})

    async def knows(self, namespace: str, name: str, uid: str) -> bool:  # noqa: ARG002 - the protocol's
        """Return no."""
        return False


def answers(standing: Standing, judge: Callable[[Flow], Judgement] | None = None, dataplane: str = "memory") -> Answers:
    """Return the handlers of an agent."""
    metrics = Metrics(dataplane, "n1")
    return Answers(standing, PodGate(standing, Stored(), metrics=metrics), metrics, judge)


class Door:
    """A gate that is served on a real socket, and a client of it."""

    def __init__(self, path: Path, standing: Standing, dataplane: MemoryDataplane) -> None:
        self.path = path
        self.standing = standing
        self.dataplane = dataplane

    async def get(self, target: str) -> tuple[int, Any]:
        """Ask, and return status and answer."""
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.path))) as session,
            session.get(f"http://gate{target}") as response,
        ):
            text = await response.text()
            return response.status, json.loads(text) if response.content_type == "application/json" else text

    def commit(self, state: State) -> None:
        """Put a state in force."""
        assert state.program is not None
        self.dataplane.apply(state.program)
        self.standing.commit(state)


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """Serve a gate."""
    standing, dataplane = Standing(), MemoryDataplane()
    app = answers(standing, dataplane.judge).gate()
    async with serving_socket(app, tmp_path / "gate.sock"):
        yield Door(tmp_path / "gate.sock", standing, dataplane)


async def test_pod_is_let_in_at_the_commit_that_has_it(door: Door) -> None:
    """Who asks early waits, through commits without the pod, and is answered by the one with it."""
    asking = asyncio.create_task(door.get("/v1/pods/demo/web?uid=uid-web&timeout=20"))
    door.commit(state_with())
    door.commit(state_with(pod("other", "10.1.0.9")))
    await door.get("/livez")  # a round trip: the question was heard before it
    assert not asking.done()
    door.commit(state_with(pod("web", "10.1.0.5")))

    assert await asking == (200, {"open": True, "inForce": True, "ground": "in_force"})
    assert await door.get("/v1/pods/demo/web?uid=uid-web") == (
        200,
        {"open": True, "inForce": True, "ground": "in_force"},
    )


async def test_who_waits_in_vain_is_told_why(door: Door) -> None:
    """After the time the answer is 503 with what is missing, and what the dataplane said."""
    door.commit(state_with())
    door.standing.refuse(Stage.APPLY, "the kernel said no")
    status, answer = await door.get("/v1/pods/demo/web?uid=uid-web&timeout=0.01")

    assert status == 503
    assert (answer["open"], answer["inForce"]) == (False, False)
    assert answer["reason"] == "the agent has not seen the pod demo/web with uid uid-web; the kernel said no"


async def test_question_without_uid_is_refused(door: Door) -> None:
    """A name alone could mean a pod that is gone."""
    assert (await door.get("/v1/pods/demo/web"))[0] == 400
    assert (await door.get("/v1/pods/demo/web?uid=u&timeout=soon"))[0] == 400


async def test_ready_is_after_the_first_commit_and_while_nothing_is_refused(door: Door) -> None:
    """Readiness follows what is in force; being alive does not."""
    assert await door.get("/readyz") == (503, "nothing was committed yet\n")
    door.commit(state_with())
    assert await door.get("/readyz") == (200, "ok\n")
    door.standing.refuse(Stage.COMPILE, "a bug")
    door.commit(state_with())
    assert await door.get("/readyz") == (503, "a bug\n")
    door.standing.clear(Stage.COMPILE)
    assert await door.get("/readyz") == (200, "ok\n")
    assert await door.get("/livez") == (200, "ok\n")


async def test_verdicts_are_of_the_local_halves(door: Door) -> None:
    """The memory dataplane answers for its own pods: whose half is local, allowed or not, and why."""
    assert (await door.get("/v1/verdict?source=10.1.0.9&destination=10.1.0.5&port=80"))[0] == 503
    door.commit(state_with(pod("web", "10.1.0.5")))
    status, answer = await door.get("/v1/verdict?source=10.1.0.9&destination=10.1.0.5&protocol=TCP&port=80")

    assert status == 200
    assert (answer["allowed"], answer["source"], answer["destination"]) == (False, False, True)
    assert answer["ingress"]["why"] == "the pod is isolated and no rule matches"
    _, outward = await door.get("/v1/verdict?source=10.1.0.5&destination=10.1.0.9&port=80")
    assert (outward["allowed"], outward["source"], outward["destination"]) == (True, True, False)
    for wrong in ("source=x&destination=10.1.0.5&port=80", "source=10.1.0.9&destination=10.1.0.5&protocol=IPX&port=1"):
        assert (await door.get(f"/v1/verdict?{wrong}"))[0] == 400


async def test_kernel_dataplanes_give_no_verdicts(tmp_path: Path) -> None:
    """Where packets decide, the gate does not."""
    standing = Standing()
    async with serving_socket(answers(standing, dataplane="nftables").gate(), tmp_path / "s"):
        door = Door(tmp_path / "s", standing, MemoryDataplane())
        assert (await door.get("/v1/verdict?source=10.1.0.9&destination=10.1.0.5&port=80"))[0] == 404


async def test_socket_is_private_and_replaces_a_stale_one(tmp_path: Path) -> None:
    """A killed agent leaves a socket that nobody listens on; the next one's takes its place."""
    path = tmp_path / "gate.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    standing = Standing()
    for _ in range(2):
        async with serving_socket(answers(standing).gate(), path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert (await Door(path, standing, MemoryDataplane()).get("/livez"))[0] == 200

    assert not path.with_name("gate.sock.new").exists()


async def test_socket_that_cannot_be_is_said_in_a_sentence(tmp_path: Path) -> None:
    """No such directory, or a path that is too long: UsageError."""
    app = answers(Standing()).gate()
    for path in (tmp_path / "none" / "s", tmp_path / ("x" * 120)):
        with pytest.raises(UsageError, match="gate socket"):
            async with serving_socket(app, path):
                pass


async def test_metrics_address_serves_health_and_nothing_else() -> None:
    """Metrics, readiness and liveness are on the address; the gate is not."""
    standing = Standing()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1:{port}"):
            async with serving_address(answers(standing).health(), f"127.0.0.1:{port}"):
                pass
    async with (
        serving_address(answers(standing).health(), f"127.0.0.1:{port}"),
        aiohttp.ClientSession(f"http://{ipaddress.ip_address('127.0.0.1')}:{port}") as session,
    ):
        async with session.get("/metrics") as response:
            text = await response.text()
        async with session.get("/v1/pods/demo/web?uid=u") as refused:
            assert refused.status == 404

    assert 'ringfence_build_info{dataplane="memory",node="n1",version=' in text
    for name in (
        "ringfence_programs_applied_total",
        "ringfence_apply_seconds_count",
        "ringfence_policy_realized_seconds_count",
        "ringfence_pod_gate_seconds_count",
        "ringfence_drift_repaired_total",
        'ringfence_sync_errors_total{stage="apply"}',
        "ringfence_policy_problems",
    ):
        assert name in text


@pytest.mark.parametrize("address", ["9090", "host:port", ""])
async def test_address_that_is_none_is_said(address: str) -> None:
    """The form of an address is host:port."""
    with pytest.raises(UsageError, match=r"write host:port"):
        async with serving_address(answers(Standing()).health(), address):
            pass
