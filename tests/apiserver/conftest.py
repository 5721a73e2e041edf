# SPDX-License-Identifier: Apache-2.0
"""A real API server for the tests of a session, the real kubectl, and the server without HTTP."""

from __future__ import annotations

import itertools
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ringfence.lab.apiserver.api import Api
from ringfence.lab.apiserver.bootstrap import bootstrap
from ringfence.lab.apiserver.store import Store
from tests.apiserver.apiservers import Ran, RunningServer, kubectls


@pytest.fixture(scope="session")
def server() -> Iterator[RunningServer]:
    """Run one server for all tests; each test works in a namespace of its own."""
    with tempfile.TemporaryDirectory(prefix="rfapi-", dir="/tmp") as directory:
        running = RunningServer(Path(directory))
        running.start()
        yield running
        running.stop()


@pytest.fixture
def own_server() -> Iterator[RunningServer]:
    """Make a server for one test, which starts it itself."""
    with tempfile.TemporaryDirectory(prefix="rfapi-", dir="/tmp") as directory:
        running = RunningServer(Path(directory))
        yield running
        if running.process is not None and running.process.poll() is None:
            running.stop()


_numbers = itertools.count(1)


@pytest.fixture
def namespace(server: RunningServer) -> str:
    """Make a namespace for one test."""
    name = f"test-{next(_numbers)}"
    made = server.post("/api/v1/namespaces", {"metadata": {"name": name}})
    assert made.code == 201, made.raw
    return name


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    """Make a server without HTTP, with the namespace ``default``."""
    store = Store(tmp_path / "state.db")
    made = Api(store)
    bootstrap(made, endpoints=(), port=6443)
    yield made
    store.close()


@pytest.fixture(scope="session", params=kubectls(), ids=lambda path: path.parent.name + "-kubectl")
def kubectl(
    request: pytest.FixtureRequest, server: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Ran]:
    """Run a real kubectl against the server."""
    cache = tmp_path_factory.mktemp("cache")
    base = [str(request.param), f"--kubeconfig={server.paths.kubeconfig}", f"--cache-dir={cache}"]

    def run(*arguments: str, stdin: str = "") -> Ran:
        done = subprocess.run([*base, *arguments], input=stdin, capture_output=True, text=True, timeout=60, check=False)
        return Ran(done.returncode, done.stdout, done.stderr)

    return run
