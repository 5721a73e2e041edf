# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ringfence.dataplanes.ebpf import build
from ringfence.errors import HostLacks

ASK = "from ringfence.dataplanes.ebpf.build import object_path; print(object_path())"


def build_module(package: Path) -> ModuleType:
    """Run a package's ``build.py`` as what builds a wheel does: by its path, with nothing read yet."""
    spec = importlib.util.spec_from_file_location("build_of_a_copy", package / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return a copy of the engine's folder, without what is compiled."""
    copy = tmp_path / "somewhere" / "else"
    shutil.copytree(build.SOURCES, copy / "bpf")
    shutil.copy(build.__file__, copy)
    return copy


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where object files are kept: nothing is there yet, and no folder either."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    return tmp_path / "cache" / "ringfence"


def test_no_warning_and_no_path_of_this_machine(tmp_path: Path, package: Path) -> None:
    """The same sources give the same bytes, wherever they lie and with every warning an error."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()

    one = build.compile_into(here, *build.STRICT)
    two = build_module(package).compile_into(there)

    assert one.name == two.name
    assert one.read_bytes() == two.read_bytes()
    assert str(tmp_path).encode() not in two.read_bytes()
    assert str(build.SOURCES).encode() not in one.read_bytes()


def test_the_version_is_that_of_the_sources(package: Path) -> None:
    """An edit of any source makes another version, and taking it back the old one; times and other files do not."""
    header = next((package / "bpf").glob("*.h"))
    content = header.read_text()

    (package / "bpf" / "notes.txt").write_text("nothing is compiled from this\n")
    header.touch()
    same = build_module(package).object_version()
    header.write_text(content + "\n")
    edited = build_module(package).object_version()
    header.write_text(content)

    assert same == build.object_version()
    assert edited != same
    assert build_module(package).object_version() == same


def test_compiled_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was compiled at first use is found again, where there is no compiler too."""
    first = build.object_path()
    monkeypatch.setenv("PATH", "")

    assert first == cache / build.file_name()
    assert build.object_path() == first


def test_what_came_with_the_package_is_taken(cache: Path, package: Path) -> None:
    """Nothing is compiled then, and nothing kept."""
    shipped = build_module(package).compile_into(package)

    assert build_module(package).object_path() == shipped
    assert not cache.exists()


def test_an_object_of_other_sources_is_not_taken(cache: Path, package: Path) -> None:
    """A package whose sources were edited is compiled anew, whatever lies beside them."""
    build_module(package).compile_into(package)
    source = package / "bpf" / build.MAIN
    source.write_text(source.read_text() + "\n")

    edited = build_module(package)

    assert edited.object_path() == cache / edited.file_name()


@pytest.mark.usefixtures("cache")
def test_no_compiler_names_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence, and the packages to install."""
    monkeypatch.setenv("PATH", "")

    with pytest.raises(HostLacks, match="there is no clang on this machine") as caught:
        build.object_path()

    assert caught.value.remedy == "apt-get install clang libbpf-dev"


def test_a_refusal_is_told_in_one_line(cache: Path, package: Path) -> None:
    """The compiler's own words about the first error; nothing is left of the attempt."""
    (package / "bpf" / build.MAIN).write_text('#include "no-such-header.h"\n')

    with pytest.raises(HostLacks, match="'no-such-header.h' file not found") as caught:
        build_module(package).object_path()

    assert "\n" not in str(caught.value)
    assert list(cache.iterdir()) == []


def test_without_a_home_a_temporary_folder_serves(tmp_path: Path, cache: Path) -> None:
    """Where nothing can be written at home, the object file goes to a folder that only this user may write to."""
    cache.parent.write_text("a file where a folder should be")

    found = build.object_path()

    assert found.parent == tmp_path / "temporary" / f"ringfence-{os.geteuid()}"
    assert found.parent.stat().st_mode & 0o777 == 0o700
    assert build.object_path() == found


@pytest.mark.parametrize("how", ["anybody may write to it", "it is a link"])
def test_what_somebody_else_could_have_put_there_is_not_taken(tmp_path: Path, cache: Path, how: str) -> None:
    """It would be loaded into the kernel: such a folder is passed over."""
    cache.mkdir(parents=True)
    (cache / build.file_name()).write_text("not from us")
    if how == "it is a link":
        cache.rename(tmp_path / "moved")
        cache.symlink_to(tmp_path / "moved")
    else:
        cache.chmod(0o777)

    found = build.object_path()

    assert found.parent.parent == tmp_path / "temporary"
    assert found.read_bytes().startswith(b"\x7fELF")


def test_nowhere_to_keep_it_is_said(tmp_path: Path, cache: Path) -> None:
    """Nothing is loaded from a place that others may write to, not even as a last resort."""
    for folder in (cache, tmp_path / "temporary" / f"ringfence-{os.geteuid()}"):
        folder.mkdir(parents=True)
        folder.chmod(0o777)

    with pytest.raises(HostLacks, match="others may write to") as caught:
        build.object_path()

    assert "XDG_CACHE_HOME" in caught.value.remedy


def test_processes_at_the_same_time_do_not_hurt_each_other(cache: Path) -> None:
    """All find the same whole file, and nothing else is left."""
    processes = [
        subprocess.Popen([sys.executable, "-c", ASK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    told = {process.communicate(timeout=60) for process in processes}

    assert told == {(f"{cache / build.file_name()}\n", "")}
    assert [path.name for path in cache.iterdir()] == [build.file_name()]
    assert (cache / build.file_name()).read_bytes() == build.compile_into(cache.parent).read_bytes()
