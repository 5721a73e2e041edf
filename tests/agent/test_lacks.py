# SPDX-License-Identifier: Apache-2.0
"""What becomes of an agent on a machine that lacks something: each lack is made, in mounts and a network of its own."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.dataplanes.ebpf import build
from ringfence.host import netns
from ringfence.host.bpf.links import Family, Hook, NetfilterPlace, attach_netfilter
from ringfence.host.bpf.programs import AttachType, BpfProgram, ProgramType
from ringfence.kube.testing import ApiServer
from ringfence.lab import engines
from tests.agent.agents import agent, get, made_namespace, rules, serving, small_cluster, until

pytestmark = pytest.mark.kernel

ASK = """
import json, sys
from ringfence.cli.main import run
code = run(["agent", "--dataplane", "ebpf", "--node-name", "n1", "--kubeconfig", sys.argv[1]])
from ringfence.agent.start import choose_engine
from ringfence.errors import UsageError
try:
    choice = choose_engine("auto")
    print(json.dumps([code, choice.name, choice.reason]))
except UsageError as error:
    print(json.dumps([code, "", str(error)]))
"""
NO_LIBRARY = "mount --bind /dev/null $(readlink -f $(ldconfig -p | sed -n 's/.*libbpf.so.1 .*=> //p' | head -1));"


def ask(tmp_path: Path, prelude: str, **env: str) -> tuple[str, str, str]:
    """Start an agent on ebpf after a shell has taken something away: what it says at its end, with exit code 2. And
    which engine ``auto`` takes there, and why.
    """
    config = tmp_path / "kubeconfig"
    clusters = [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}]
    contexts = [{"name": "x", "context": {"cluster": "c"}}]
    config.write_text(json.dumps({"clusters": clusters, "contexts": contexts, "current-context": "x"}))
    line = f"{prelude} {shlex.join([sys.executable, '-c', ASK, str(config)])}"
    done = subprocess.run(
        ["unshare", "--net", "--mount", "--propagation=private", "sh", "-ec", line],
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path / "state"), **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout, done.stderr
    code, name, reason = json.loads(done.stdout)
    assert code == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr.strip(), name, reason


@pytest.mark.parametrize(
    ("prelude", "lack", "remedy"),
    [
        pytest.param(
            "mount -t tmpfs none /sys/kernel/btf;",
            "this kernel does not tell how its own types look (BTF; there is no /sys/kernel/btf/vmlinux)",
            "use a kernel with CONFIG_DEBUG_INFO_BTF",
            id="no BTF",
        ),
        pytest.param(
            "mount -t tmpfs none /sys/fs;",
            "there is no /sys/fs/bpf to mount a bpffs on",
            "mount sysfs on /sys, or use a kernel with CONFIG_BPF_SYSCALL",
            id="no place for a bpffs",
        ),
        pytest.param(
            "mount -t bpf -o ro bpf /sys/fs/bpf;",
            "the bpffs on /sys/fs/bpf is read-only",
            "make it writable: mount -o remount,rw /sys/fs/bpf",
            id="bpffs read-only",
        ),
        pytest.param(
            NO_LIBRARY,
            "there is no libbpf.so.1 on this machine",
            "install it: apt-get install libbpf1",
            id="no libbpf",
        ),
    ],
)
def test_lack_is_one_sentence_with_its_remedy(tmp_path: Path, prelude: str, lack: str, remedy: str) -> None:
    """The agent ends with it, and ``auto`` takes nftables, with the same reason."""
    said, name, reason = ask(tmp_path, prelude)

    assert said == f"Error: ebpf cannot run here: {lack}; {remedy}"
    assert name == "nftables"
    assert reason.startswith(f"not ebpf: {lack} ({remedy}); nftables: ")


def test_a_lab_says_why_it_takes_another_engine() -> None:
    """On the standard error output; its data are as ever."""
    code = "from ringfence.cli.lab import choose_engine; print(choose_engine(None))"
    line = f"mount -t tmpfs none /sys/kernel/btf; {shlex.join([sys.executable, '-c', code])}"
    argv = ["unshare", "--net", "--mount", "--propagation=private", "sh", "-ec", line]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)

    assert done.stdout == "nftables\n"
    assert done.stderr.startswith(
        "this lab's engine is nftables: not ebpf: this kernel does not tell how its own types"
    )


def test_no_compiler_and_nothing_compiled(tmp_path: Path) -> None:
    """The packages are named that bring a compiler."""
    said, name, _ = ask(tmp_path, "PATH=/nowhere", XDG_CACHE_HOME=str(tmp_path / "no"), TMPDIR=str(tmp_path / "no"))

    lack = "the eBPF program is not compiled: there is no clang on this machine"
    assert said == f"Error: ebpf cannot run here: {lack}; {build.REMEDY}"
    assert name == "nftables"


def test_without_privileges_nothing_can_run(tmp_path: Path) -> None:
    """Then ``auto`` says of each engine why not."""
    said, name, why = ask(tmp_path, "setpriv --bounding-set=-all --inh-caps=-all")

    assert said == "Error: ebpf cannot run here: network namespaces need CAP_SYS_ADMIN; run this as root"
    assert name == ""
    assert why.startswith(
        "no dataplane can run here: not ebpf: network namespaces need CAP_SYS_ADMIN (run this as root)"
    )


def refused_object(folder: Path) -> None:
    """Put an object file of our version into a folder, with a program that reads where it may not."""
    sources = folder / "sources"
    shutil.copytree(build.SOURCES, sources)
    main = sources / build.MAIN
    whole = main.read_text()
    place = whole.index("{", whole.index("int rf_filter("))
    wild = "if (*(volatile int *)(long)ctx->state->hook) return 1;"
    main.write_text(whole[: place + 1] + wild + whole[place + 1 :])
    argv = ["clang", *build.FLAGS, "-isystem", build._headers(), "-c", build.MAIN]
    argv += ["-o", str(folder / build.file_name())]
    subprocess.run(argv, cwd=sources, check=True)


def test_refusal_of_the_verifier_says_where_all_of_its_log_is(tmp_path: Path) -> None:
    """In the folder for state; where that cannot be, among temporary files. A later refusal takes the place."""
    cache = tmp_path / "cache" / "ringfence"
    cache.mkdir(mode=0o700, parents=True)
    refused_object(cache)
    place = tmp_path / "state" / "ringfence" / "verifier-rf_filter.log"

    for _ in range(2):
        said, name, reason = ask(tmp_path, "", XDG_CACHE_HOME=str(tmp_path / "cache"))
        assert said.startswith(
            "Error: ebpf cannot run here: the kernel's verifier refuses the BPF program rf_filter: R"
        )
        assert said.endswith(
            f"; use --dataplane nftables on this machine, and report it; all that it says is in {place}"
        )
        assert name == "nftables"
        assert "not ebpf: the kernel's verifier refuses" in reason
        assert list(place.parent.iterdir()) == [place]
    log = place.read_text()
    assert "processed " in log
    assert "invalid mem access" in log

    shutil.rmtree(tmp_path / "state")
    (tmp_path / "state").write_text("a file where a folder should be")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    said, _, _ = ask(tmp_path, "", XDG_CACHE_HOME=str(tmp_path / "cache"), TMPDIR=str(temporary))
    (place,) = temporary.iterdir()
    assert str(place) in said
    assert "processed " in place.read_text()


@pytest.fixture
def namespace() -> Iterator[str]:
    """Yield a namespace with nothing but a loopback that is up."""
    yield from made_namespace()


async def test_the_next_best_is_taken_where_the_first_does_not_get_its_program_in(
    namespace: str, tmp_path: Path
) -> None:
    """Though its probe went well: here somebody else's programs are in all its places at a hook. Asked for by name it
    is tried again instead, and gets in when there is room.
    """
    api: ApiServer = small_cluster()
    with netns.enter(namespace), BpfProgram.constant(1, ProgramType.NETFILTER, AttachType.NETFILTER) as accept:
        places = [NetfilterPlace(Family.IPV6, Hook.LOCAL_OUT, priority) for priority in range(64)]
        blockers = [attach_netfilter(accept, place) for place in places]

    async def ready() -> bool:
        return (await get(tmp_path, "/readyz"))[0] == 200

    async def refused() -> bool:
        return "the ebpf dataplane refused the program" in (await get(tmp_path, "/readyz"))[1]

    async def alone() -> bool:
        return engines.in_force(namespace) == {"ebpf"}

    async with serving(api, namespace):
        async with agent(namespace, tmp_path, api.url, dataplane="auto"):
            await until(ready)
            assert "demo-policy" in rules(namespace)
        log = (tmp_path / "log").read_text()
        assert "not ebpf: rf_filter cannot be attached at IPV6 LOCAL_OUT" in log
        assert "Traceback" not in log
        async with agent(namespace, tmp_path, api.url, dataplane="ebpf"):
            await until(refused)
            assert "demo-policy" in rules(namespace)
            for blocker in blockers:
                blocker.close()
            await until(ready)
            await until(alone)
