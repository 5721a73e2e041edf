# SPDX-License-Identifier: Apache-2.0
"""Logs, exec and attach: what is checked here, and that every byte passes to and from the kubelet's socket.

The kubelet of these tests is a small one that speaks the same protocol on a Unix socket; kubectl is the real one.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator

import aiohttp
import pytest
from aiohttp import web

from tests.apiserver.apiservers import Ran, RunningServer
from tests.apiserver.writes import pod

STDIN, STDOUT, STDERR, ERROR = range(4)


async def _logs(request: web.Request) -> web.StreamResponse:
    if request.query.get("previous") == "true":
        return web.Response(status=400, text="previous terminated container not found")
    response = web.StreamResponse()
    await response.prepare(request)
    for line in range(int(request.query.get("tailLines", "3"))):
        await response.write(f"line {line} of {request.match_info['container']}\n".encode())
    return response


async def _exec(request: web.Request) -> web.StreamResponse:
    """Echo stdin in capitals, then end with the exit code that the command says."""
    socket = web.WebSocketResponse(protocols=("v5.channel.k8s.io", "v4.channel.k8s.io"), compress=False, max_msg_size=0)
    await socket.prepare(request)
    command = request.query.getall("command", [])
    await socket.send_bytes(bytes([STDERR]) + f"{command}\n".encode())
    if request.query.get("stdin") == "true":
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.BINARY or message.data[:1] == b"\xff":
                break
            if message.data[0] == STDIN:
                await socket.send_bytes(bytes([STDOUT]) + message.data[1:].upper())
    code = command[-1] if command and command[-1].isdigit() else "0"
    status: dict[str, object] = {"metadata": {}, "status": "Success"}
    if code != "0":
        cause = {"reason": "ExitCode", "message": code}
        status = {
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": f"command terminated with exit code {code}", "details": {"causes": [cause]},
        }  # fmt: skip
    await socket.send_bytes(bytes([ERROR]) + json.dumps(status).encode())
    await socket.close()
    return socket


@pytest.fixture(scope="module")
def kubelet(server: RunningServer) -> Iterator[None]:
    """Serve logs and exec on the kubelet's socket, in a thread of its own."""
    loop = asyncio.new_event_loop()
    app = web.Application()
    app.router.add_get("/containerLogs/{ns}/{pod}/{container}", _logs)
    app.router.add_get("/exec/{ns}/{pod}/{container}", _exec)
    app.router.add_get("/attach/{ns}/{pod}/{container}", _exec)
    runner = web.AppRunner(app)

    async def start() -> None:
        await runner.setup()
        await web.UnixSite(runner, str(server.paths.kubelet_socket)).start()

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    server.paths.kubelet_socket.unlink(missing_ok=True)


def run(server: RunningServer, namespace: str, *containers: str, phase: str = "Running") -> str:
    """Make a pod that runs; returns its path."""
    path = f"/api/v1/namespaces/{namespace}/pods/web"
    names = containers or ("c",)
    server.post(path.rpartition("/")[0], pod(containers=[{"name": n, "image": "i"} for n in names]))
    server.post(f"{path}/binding", {"metadata": {"name": "web"}, "target": {"name": "n"}})
    common = {"image": "i", "imageID": "i", "ready": True, "restartCount": 0}
    running = [{"name": n, "state": {"running": {}}, **common} for n in names]
    server.patch(f"{path}/status", {"status": {"phase": phase, "containerStatuses": running}})
    return path


@pytest.mark.usefixtures("kubelet")
def test_logs_are_passed_on(server: RunningServer, namespace: str, kubectl: Callable[..., Ran]) -> None:
    """With their options, from the container that is meant."""
    run(server, namespace, "a", "b")
    assert kubectl("logs", "-n", namespace, "web", "-c", "b").out == "".join(f"line {n} of b\n" for n in range(3))
    assert kubectl("logs", "-n", namespace, "web", "-c", "a", "--tail=1", "-f").out == "line 0 of a\n"
    assert "previous terminated container not found" in kubectl("logs", "-n", namespace, "web", "-c", "a", "-p").err


@pytest.mark.usefixtures("kubelet")
def test_exec_passes_streams_and_exit_codes(server: RunningServer, namespace: str, kubectl: Callable[..., Ran]) -> None:
    """Standard input to its end, both outputs, and the code as kubectl's own."""
    run(server, namespace)
    ran = kubectl("exec", "-n", namespace, "web", "--", "fail", "7")
    assert (ran.code, ran.err.splitlines()[0]) == (7, "['fail', '7']")
    big = "abcdefgh" * 100_000
    assert kubectl("exec", "-i", "-n", namespace, "web", "--", "shout", stdin=big).out == big.upper()
    attached = kubectl("attach", "-i", "-n", namespace, "web", stdin="hello")
    assert "HELLO" in attached.out


@pytest.mark.usefixtures("kubelet")
@pytest.mark.parametrize(
    ("path", "code", "words"),
    [
        ("/log?container=z", 400, "container z is not valid for pod web"),
        ("/log", 400, "a container name must be specified for pod web, choose one of: [a b]"),
        ("/exec?container=a&command=x", 400, "Upgrade request required"),
        ("/portforward", 400, "port-forward is not available in a lab"),
    ],
)
def test_streams_that_cannot_be_are_refused(
    server: RunningServer, namespace: str, path: str, code: int, words: str
) -> None:
    """One clear sentence, before any upgrade."""
    answer = server.get(run(server, namespace, "a", "b") + path)
    assert answer.code == code
    assert words in answer.json["message"]


def test_a_pod_that_does_not_run_has_no_streams(
    server: RunningServer, namespace: str, kubectl: Callable[..., Ran]
) -> None:
    """Not scheduled, still starting, or over: kubectl shows why."""
    path = f"/api/v1/namespaces/{namespace}/pods"
    server.post(path, pod())
    assert "pod web does not have a host assigned" in kubectl("logs", "-n", namespace, "web").err
    server.post(f"{path}/web/binding", {"metadata": {"name": "web"}, "target": {"name": "n"}})
    told = kubectl("logs", "-n", namespace, "web").err
    assert 'container "c" in pod "web" is waiting to start: ContainerCreating' in told
    assert 'container not found ("c")' in kubectl("exec", "-n", namespace, "web", "--", "x").err
    server.patch(f"{path}/web/status", {"status": {"phase": "Succeeded"}})
    assert "current phase is Succeeded" in kubectl("exec", "-n", namespace, "web", "--", "x").err
    assert 'pods "none" not found' in kubectl("logs", "-n", namespace, "none").err


def test_a_kubelet_that_is_away_is_said_to_be(own_server: RunningServer) -> None:
    """503 with where to look."""
    own_server.start()
    answer = own_server.get(run(own_server, "default") + "/log")
    assert (answer.code, answer.json["reason"]) == (503, "ServiceUnavailable")
    assert "the lab's kubelet does not answer" in answer.json["message"]
