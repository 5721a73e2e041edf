# SPDX-License-Identifier: Apache-2.0
"""The server's process: a quick start, a clean stop, and a memory that outlives both."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.apiserver.apiservers import RunningServer
from tests.apiserver.writes import pod


def test_everything_is_there_after_a_restart(own_server: RunningServer) -> None:
    """Objects, uids and revisions; a watch from before must list again, one that saw everything goes on."""
    own_server.start()
    path = "/api/v1/namespaces/default/pods"
    before = own_server.post(path, pod()).json
    assert own_server.stop() == 0
    own_server.start()
    assert own_server.get(f"{path}/web").json == before
    assert [n["metadata"]["name"] for n in own_server.get("/api/v1/namespaces").json["items"]] == [
        "default", "kube-node-lease", "kube-public", "kube-system",
    ]  # fmt: skip
    with own_server.watch(f"{path}?watch=true&resourceVersion=1") as watch:
        (event,) = watch.take(1)
        assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
    revision = own_server.get(path).json["metadata"]["resourceVersion"]
    with own_server.watch(f"{path}?watch=true&resourceVersion={revision}") as watch:
        own_server.post(path, pod("next"))
        assert watch.seen(1) == [("ADDED", "next")]


def test_a_killed_server_loses_nothing_that_it_confirmed(own_server: RunningServer) -> None:
    """Even without a moment to say goodbye."""
    own_server.start()
    path = "/api/v1/namespaces/default/configmaps"
    for count in range(20):
        assert own_server.post(path, {"metadata": {"name": f"c{count}"}}).code == 201
    assert own_server.process is not None
    own_server.process.send_signal(signal.SIGKILL)
    own_server.process.wait(10)
    own_server.start()
    assert len(own_server.get(path).json["items"]) == 20


def test_a_stop_is_quick_although_clients_watch(own_server: RunningServer) -> None:
    """Watches are ended, not waited for."""
    own_server.start()
    with own_server.watch("/api/v1/pods?watch=true&resourceVersion=0"):
        started = time.monotonic()
        assert own_server.stop() == 0
        assert time.monotonic() - started < 5


def test_a_port_in_use_is_one_clear_sentence(own_server: RunningServer) -> None:
    """Exit code 2, no traceback."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", own_server.port))
        other.listen()
        command = [sys.executable, "-m", "ringfence.lab.apiserver", "--lab-dir", str(own_server.paths.directory)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    expected = f"port {own_server.port} on 127.0.0.1 is in use by another process; choose another with --port"
    assert done.stderr == f"Error: {expected}\n"


def test_a_directory_that_is_no_lab_is_one_clear_sentence(tmp_path: Path) -> None:
    """With the remedy."""
    command = [sys.executable, "-m", "ringfence.lab.apiserver", "--lab-dir", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert 'there is no lab "none"' in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_lab_directory_holds_a_readable_database(own_server: RunningServer) -> None:
    """SQLite, one row for each object, the object as JSON."""
    import sqlite3

    own_server.start()
    own_server.stop()
    with sqlite3.connect(own_server.paths.database) as database:
        query = "SELECT body FROM objects WHERE storage = 'services' AND name = 'kubernetes'"
        (raw,) = database.execute(query).fetchone()
    assert json.loads(raw)["spec"]["clusterIP"] == "10.0.0.1"
    database.close()
