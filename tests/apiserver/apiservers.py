# SPDX-License-Identifier: Apache-2.0
"""A server process with a lab directory of its own, plain HTTP and watches to look at the bytes, and real kubectls."""

from __future__ import annotations

import http.client
import ipaddress
import itertools
import json
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec

from ringfence.lab.config import LabConfig, LabPaths
from ringfence.lab.credentials import write_credentials

START_SECONDS = 20


class Answer(NamedTuple):
    """What the server answered."""

    code: int
    headers: http.client.HTTPMessage
    raw: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.raw)


class RunningServer:
    """A server process with a lab directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.paths = LabPaths(directory)
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        config = LabConfig(name="test", port=self.port, nodes=("aks-nodepool1-000000",), network_policy="memory")
        self.paths.config.write_bytes(msgspec.json.encode(config))
        service = ipaddress.ip_address("10.0.0.1")
        write_credentials(self.paths, name="test", port=self.port, fabric=(), service=service)
        self._tls = ssl.create_default_context(cafile=str(self.paths.ca_certificate))
        self.token = self.paths.token.read_text().strip()

    def start(self) -> None:
        """Start the process and wait until it answers."""
        command = [sys.executable, "-m", "ringfence.lab.apiserver", "--lab-dir", str(self.paths.directory)]
        with self.paths.log("apiserver").open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.paths.log("apiserver").read_text()
            try:
                if self.get("/readyz").code == 200:
                    return
            except OSError:
                time.sleep(0.02)
        raise TimeoutError(self.paths.log("apiserver").read_text())

    def stop(self) -> int:
        """Ask the process to end; returns its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(10)

    def connect(self, timeout: float = 20) -> http.client.HTTPSConnection:
        """Return a connection of its own."""
        return http.client.HTTPSConnection("127.0.0.1", self.port, context=self._tls, timeout=timeout)

    def request(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        """Make one request; bodies that are not bytes are sent as JSON."""
        connection = self.connect()
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        all_headers = {"Authorization": f"Bearer {self.token}", "User-Agent": "tester/1.0", **(headers or {})}
        if raw is not None:
            all_headers.setdefault("Content-Type", "application/json")
        try:
            connection.request(method, path, body=raw, headers=all_headers)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        """GET; keyword arguments are headers."""
        return self.request("GET", path, headers=headers)

    def post(self, path: str, body: Any) -> Answer:
        """POST JSON."""
        return self.request("POST", path, body)

    def patch(self, path: str, body: Any, kind: str = "merge-patch+json") -> Answer:
        """PATCH; ``kind`` completes the content type."""
        return self.request("PATCH", path, body, {"Content-Type": f"application/{kind}"})

    def watch(self, path: str, *, timeout: float = 10, accept: str = "application/json") -> Watch:
        """Open a watch."""
        connection = self.connect(timeout)
        connection.request("GET", path, headers={"Authorization": f"Bearer {self.token}", "Accept": accept})
        return Watch(connection, connection.getresponse())


class Watch:
    """An open watch: iterate for events."""

    def __init__(self, connection: http.client.HTTPSConnection, response: http.client.HTTPResponse) -> None:
        self._connection = connection
        self.response = response

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.response.close()
        self._connection.close()

    def __iter__(self) -> Iterator[Any]:
        for line in iter(self.response.readline, b""):
            yield json.loads(line)

    def take(self, count: int) -> list[Any]:
        """Return the next events."""
        return list(itertools.islice(self, count))

    def seen(self, count: int) -> list[tuple[str, str]]:
        """Return type and name of the next events."""
        return [(event["type"], event["object"]["metadata"].get("name", "")) for event in self.take(count)]


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Ran(NamedTuple):
    """What a kubectl command said."""

    code: int
    out: str
    err: str


def kubectls() -> list[Path]:
    """Return the real kubectls of this machine: PyPI's, and the system's own where it is new enough."""
    found = [Path(sys.executable).with_name("kubectl")]
    system = shutil.which("kubectl", path="/usr/local/bin:/usr/bin:/bin")
    if system:
        said = subprocess.run([system, "version", "--client", "-o", "json"], capture_output=True, check=False)
        minor = json.loads(said.stdout or b"{}").get("clientVersion", {}).get("minor", "0").rstrip("+")
        if int(minor) >= 30:
            found.append(Path(system))
    return found
