# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.host import netns
from ringfence.lab import images
from tests.images.agnhosts import Agnhost

NAMESPACE = f"rfagnhost-{os.getpid()}"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Build agnhost where it stands, so that it runs outside of a container, too."""
    monkeypatch.setattr(images, "HOME", str(tmp_path))
    images.build_agnhost(tmp_path)
    return tmp_path / "agnhost"


@pytest.fixture
def agnhost(program: Path) -> Agnhost:
    """Return agnhost for this machine's loopback."""
    return Agnhost(program)


@pytest.fixture
def isolated(program: Path) -> Iterator[Agnhost]:
    """Yield agnhost in a network namespace with nothing but a loopback."""
    netns.create(NAMESPACE)
    try:
        with netns.enter(NAMESPACE):
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        yield Agnhost(program, NAMESPACE)
    finally:
        netns.delete(NAMESPACE)
