# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from ringfence.dataplanes.ebpf import build

ROOT = Path(__file__).parents[3]
OBJECT = f"ringfence/dataplanes/ebpf/{build.file_name()}"
ENGINE = """
import ringfence
from ringfence.dataplanes.ebpf.build import object_path
from ringfence.dataplanes.ebpf.probe import probe
print(ringfence.__file__, object_path(), probe().answer.value, sep="\\n")
"""


def pip(*arguments: str | Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run pip with what is installed here and nothing else; ``path`` is where tools are looked for."""
    environment = {**os.environ, "PIP_NO_INDEX": "1", "PIP_NO_CACHE_DIR": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    if path is not None:
        environment["PATH"] = str(path)
    argv = [sys.executable, "-m", "pip", *map(str, arguments)]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)


def wheel_of(source: Path, target: Path) -> Path:
    """Build the wheel of a source tree or a source archive."""
    done = pip("wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", target, source)
    assert done.returncode == 0, done.stderr
    return next(target.iterdir())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel of this source tree."""
    return wheel_of(ROOT, tmp_path_factory.mktemp("wheel"))


def test_the_wheel_has_the_object_and_its_sources(wheel: Path) -> None:
    """A node needs no compiler; one of the other byte order has what to compile. So the wheel is for every machine."""
    names = zipfile.ZipFile(wheel).namelist()

    assert wheel.name.endswith("-py3-none-any.whl")
    assert [name for name in names if name.endswith(".o")] == [OBJECT]
    assert f"ringfence/dataplanes/ebpf/bpf/{build.MAIN}" in names


def test_the_source_archive_gives_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    """It holds all that is compiled, and the wheel is the same byte by byte, on another path too."""
    argv = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(tmp_path / "archive")]
    subprocess.run(argv, cwd=ROOT, capture_output=True, check=True)
    archive = next((tmp_path / "archive").iterdir())

    with tarfile.open(archive) as opened:
        assert any(name.endswith(f"/ebpf/bpf/{build.MAIN}") for name in opened.getnames())
    assert wheel_of(archive, tmp_path / "wheel").read_bytes() == wheel.read_bytes()


def test_a_build_without_a_compiler_says_what_to_do(tmp_path: Path) -> None:
    """One sentence in place of a wheel that cannot enforce."""
    done = pip("wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", tmp_path, ROOT, path=tmp_path)

    assert done.returncode != 0
    assert "there is no clang on this machine; apt-get install clang libbpf-dev" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.kernel
def test_the_engine_of_an_installed_wheel_needs_no_compiler(wheel: Path, tmp_path: Path) -> None:
    """The kernel takes the object that came with it, and nothing is compiled."""
    installed, cache = tmp_path / "installed", tmp_path / "cache"
    done = pip("install", "--no-deps", "--target", installed, wheel)
    assert done.returncode == 0, done.stderr

    environment: Mapping[str, str] = {
        "PYTHONPATH": str(installed),
        "PATH": str(tmp_path / "no-tools"),
        "XDG_CACHE_HOME": str(cache),
    }
    ran = subprocess.run([sys.executable, "-c", ENGINE], env=environment, capture_output=True, text=True, check=True)

    assert ran.stdout.split() == [str(installed / "ringfence" / "__init__.py"), str(installed / OBJECT), "yes"]
    assert not cache.exists()


def test_the_kernels_own_tool_reads_the_object(wheel: Path, tmp_path: Path) -> None:
    """Types and tables are in it under their names."""
    zipfile.ZipFile(wheel).extract(OBJECT, tmp_path)

    argv = ["bpftool", "btf", "dump", "file", str(tmp_path / OBJECT)]
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin"}
    dumped = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True).stdout

    assert "VAR 'rf_now'" in dumped
    assert "FUNC 'rf_filter'" in dumped
