# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ringfence.cli.main import run
from ringfence.dataplanes.ebpf import build
from ringfence.dataplanes.nftables.probe import probe
from ringfence.host import nft

DOCTOR = (sys.executable, "-m", "ringfence", "doctor")
WITHOUT_PRIVILEGES = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")


@pytest.mark.kernel
def test_a_machine_that_can_run_labs_is_ready() -> None:
    """Exit code 0, every engine can run, and the best one is the default."""
    done = subprocess.run([*DOCTOR, "-o", "json"], capture_output=True, text=True, check=False)

    report = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert report["ready"] is True
    assert report["defaultEngine"] == "ebpf"
    assert {engine["name"]: engine["answer"] for engine in report["engines"]} == {
        "nftables": "yes",
        "ebpf": "yes",
        "memory": "yes",
    }
    hooks = {engine["name"]: engine["hook"] for engine in report["engines"] if engine["hook"] is not None}
    assert list(hooks) == ["ebpf"]
    assert hooks["ebpf"]["name"] == "netfilter"
    assert hooks["ebpf"]["reason"]
    assert all(fact["answer"] in ("yes", "no", "could not tell") for fact in report["facts"])


@pytest.mark.kernel
def test_without_privileges_the_remedy_is_said() -> None:
    """Exit code 1; the engine that is missing names its remedy, the one that needs nothing still runs."""
    done = subprocess.run([*WITHOUT_PRIVILEGES, *DOCTOR], capture_output=True, text=True, check=False)

    assert done.returncode == 1, done.stderr
    assert "remedy: run as root" in done.stdout
    assert "Not ready: no engine that filters packets" in done.stdout
    assert "ringfence lab up --network-policy memory" in done.stdout


def test_a_machine_that_cannot_compile_is_told_how_it_could(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a compiled eBPF program and without a compiler: the packages that bring one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setenv("PATH", "")

    run(["doctor", "-o", "json"])

    found = {fact["name"]: fact for fact in json.loads(capsys.readouterr().out)["facts"]}
    assert found["eBPF object"]["answer"] == "no"
    assert found["eBPF object"]["detail"] == "the eBPF program is not compiled: there is no clang on this machine"
    assert found["eBPF object"]["remedy"] == build.REMEDY


def test_every_lack_comes_with_its_remedy(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A machine without libnftables is told which package brings it, in both forms."""
    monkeypatch.setattr(nft, "LIBRARY", "librf-no-such-thing.so.1")

    codes = run(["doctor"]), run(["doctor", "-o", "json"])

    text, _, rest = capsys.readouterr().out.partition("{")
    report = json.loads("{" + rest)
    assert codes == (1, 1)
    assert "remedy: install it: apt-get install libnftables1" in text
    assert report["ready"] is False
    assert [e["remedy"] for e in report["engines"] if e["name"] == "nftables"] == [nft.REMEDY]
    assert all(fact["remedy"] for fact in report["facts"] if fact["answer"] == "no")
    assert probe().remedy == nft.REMEDY
