# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import signal
import socket
from functools import partial
from pathlib import Path

import pytest

from ringfence.errors import HostRefused
from ringfence.lab.nodes import wire
from ringfence.lab.nodes.runner_client import RunnerRuntime
from ringfence.lab.nodes.runtime import Exit, NotStarted, Process, Session
from tests.nodes.conversations import Said, container, hear, listen, log_text, proc, process, until

pytestmark = pytest.mark.kernel


async def run(runtime: RunnerRuntime, what: Process, network: Path | None = None, name: str = "one") -> Exit:
    """Run a container to its end."""
    return await (await runtime.start(container(name, what, network))).wait()


async def test_a_container_runs_in_its_network_namespace_with_a_name_and_processes_of_its_own(
    runtime: RunnerRuntime, network: Path, tmp_path: Path
) -> None:
    """Nothing but the loopback of an empty namespace, the hostname that was asked for, PID 1."""
    script = "ip -o link | wc -l; hostname; echo $$; ls /proc | grep -c '^[0-9]'"

    exit_ = await run(runtime, process("sh", "-c", script), network)

    assert exit_.code == 0
    lines = log_text(tmp_path, "one").splitlines()
    assert lines[:3] == ["stdout F 1", "stdout F one", "stdout F 1"]
    assert int(lines[3].rsplit(" ", 1)[1]) <= 4


async def test_output_is_logged_by_stream_and_line_and_the_exit_code_is_told(
    runtime: RunnerRuntime, tmp_path: Path
) -> None:
    """F marks whole lines, P the beginning of one that is not finished."""
    exit_ = await run(runtime, process("sh", "-c", "echo out; echo err >&2; printf unfinished; exit 7"))

    assert (exit_.code, exit_.signal) == (7, 0)
    assert sorted(log_text(tmp_path, "one").splitlines()) == ["stderr F err", "stdout F out", "stdout P unfinished"]


async def test_a_killed_container_ends_with_128_and_the_signal(runtime: RunnerRuntime) -> None:
    """Kubernetes knows SIGKILL as 137."""
    running = await runtime.start(container("one", process("sleep", "1000")))
    await runtime.kill("one")

    assert (await running.wait()).code == 137


@pytest.mark.parametrize(
    ("what", "complaint"),
    [
        (process("no-such-program"), 'exec: "no-such-program": executable file not found in $PATH'),
        (process("/no/such"), 'exec: "/no/such": stat /no/such: no such file or directory'),
        (process("/etc/passwd"), 'exec: "/etc/passwd": permission denied'),
        (process("true", cwd="/no/such"), "chdir to cwd ('/no/such'): no such file or directory"),
    ],
)
async def test_what_cannot_be_started_is_said_in_a_container_runtimes_words(
    runtime: RunnerRuntime, what: Process, complaint: str
) -> None:
    """And nothing of it stays."""
    with pytest.raises(NotStarted) as raised:
        await runtime.start(container("one", what))

    assert str(raised.value) == complaint
    assert await runtime.adopt() == []


async def test_nothing_that_a_container_writes_reaches_the_machines_files(
    runtime: RunnerRuntime, network: Path
) -> None:
    """Programs are read-only; /root, /tmp, /etc and / are the container's own, and so is every mount."""
    script = (
        "touch /usr/rf-test /home/rf-test /opt/rf-test 2>/dev/null && exit 9;"
        "set -e; for d in /root /tmp /etc /var/tmp /run /dev/shm ''; do echo x > $d/rf-test; done;"
        "exec sleep 1000"
    )
    running = await runtime.start(container("one", process("sh", "-c", script), network))
    await until(lambda: b"sleep" in proc(running.pid, "cmdline"), "the script came to its end")

    places = [Path(place) for place in ("/usr", "/home", "/root", "/tmp", "/etc", "/var/tmp", "/run", "/dev/shm", "/")]
    assert not any((place / "rf-test").exists() for place in places)
    assert b"ringfence /" not in proc(os.getpid(), "mountinfo")


async def test_root_in_a_container_cannot_change_the_machine(runtime: RunnerRuntime, network: Path) -> None:
    """No more capabilities than container runtimes give, and the kernel's own files are read-only."""
    script = (
        "ip link set lo up || echo kept; echo b > /proc/sysrq-trigger || echo kept; mount -t tmpfs x /mnt || echo kept"
    )
    session = await _in_idle_container(runtime, network, process("sh", "-c", f"({script}) 2>/dev/null"))

    assert (await listen(session)).out == "kept\nkept\nkept\n"


async def test_capabilities_and_users_of_the_security_context_are_given(runtime: RunnerRuntime, network: Path) -> None:
    """``add: [NET_ADMIN]`` changes the pod's links; ``runAsUser`` is who the program is."""
    admin = await _in_idle_container(runtime, network, process("ip", "link", "set", "lo", "up", add=("NET_ADMIN",)))
    user = await runtime.exec("idle", process("id", "-u", uid=1234, gid=99))
    mask = await runtime.exec("idle", process("grep", "CapEff", "/proc/self/status", uid=1234))

    assert (await listen(admin)).code == 0
    assert (await listen(user)).out == "1234\n"
    assert (await listen(mask)).out == "CapEff:\t0000000000000000\n"


def _descriptors(pid: int) -> list[Path]:
    return list(Path(f"/proc/{pid}/fd").iterdir())


async def _in_idle_container(runtime: RunnerRuntime, network: Path, what: Process) -> Session:
    await runtime.start(container("idle", process("/agnhost", "pause"), network))
    return await runtime.exec("idle", what)


async def test_agnhost_is_started_without_an_interpreter_and_is_no_more_than_other_programs(
    runtime: RunnerRuntime, network: Path
) -> None:
    """Its command line, descriptors, environment and rights are those of a program that was executed."""
    running = await runtime.start(container("idle", process("/agnhost", "pause", env={"A": "b"}), network))
    lines = proc(running.pid, "status").decode().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    rights = await runtime.exec("idle", process("grep", "CapEff", "/proc/1/status"))

    assert proc(running.pid, "cmdline").strip(b"\0") == b"/agnhost\0pause"
    assert sorted(path.name for path in _descriptors(running.pid)) == ["0", "1", "2"]
    assert proc(running.pid, "environ").strip(b"\0") == b""
    assert status["Name"] == "agnhost"
    assert status["CapEff"] in (await listen(rights)).out
    assert int(status["CapEff"], 16) & (1 << 21 | 1 << 12) == 0  # neither SYS_ADMIN nor NET_ADMIN


async def test_agnhost_gets_the_containers_environment(runtime: RunnerRuntime, network: Path, tmp_path: Path) -> None:
    """Porter serves what its environment names, and what it starts inherits it."""
    porter = process("/agnhost", "porter", env={"SERVE_PORT_8099": "hi"})
    await runtime.start(container("one", porter, network))
    await until(lambda: "Serving HTTP on port 8099" in log_text(tmp_path, "one"), "porter serves")


async def test_exec_joins_the_container_and_tells_output_apart(runtime: RunnerRuntime, network: Path) -> None:
    """Same files, same processes; stdout, stderr, exit code."""
    session = await _in_idle_container(runtime, network, process("sh", "-c", "cat /proc/1/comm; echo e >&2; exit 3"))

    assert await listen(session) == Said("agnhost\n", "e\n", 3)


async def test_input_is_passed_on_however_much_it_is_and_ends_when_it_is_told_to(
    runtime: RunnerRuntime, network: Path
) -> None:
    """20 MB through a slow reader: nothing is lost, and nothing stalls."""
    data = os.urandom(1 << 20) * 20
    session = await _in_idle_container(runtime, network, process("sh", "-c", "sleep 0.2; wc -c", stdin=True))
    for at in range(0, len(data), 1 << 16):
        await session.send(wire.STDIN, data[at : at + (1 << 16)])
    await session.send(wire.STDIN_END, b"")

    assert (await listen(session)).out.strip() == str(len(data))


async def test_output_waits_for_a_slow_listener_and_is_whole(runtime: RunnerRuntime, network: Path) -> None:
    """20 MB of output to somebody who does not read at once; the runner goes on serving others meanwhile."""
    size = 20 << 20
    session = await _in_idle_container(runtime, network, process("head", "-c", str(size), "/dev/zero"))

    assert (await listen(await runtime.exec("idle", process("echo", "there")))).out == "there\n"
    assert len((await listen(session)).out) == size


async def test_a_terminal_has_a_size_a_prompt_for_who_comes_later_and_keeps_its_shell(
    runtime: RunnerRuntime, network: Path
) -> None:
    """``kubectl run -it`` and ``kubectl attach -it`` again: the same shell, its prompt at once, SIGWINCH heard."""
    shell = process("bash", "--norc", tty=True, stdin=True, once=True, env={"PS1": "$ ", "TERM": "dumb"})
    running = await runtime.start(container("one", shell, network))
    first = await runtime.attach("one", stdin=True)
    await hear(first, "$ ")
    await first.send(wire.RESIZE, b'{"Width":101,"Height":42}')
    await first.send(wire.STDIN, b"stty size; x=kept\n")
    await hear(first, "42 101")
    await first.close()

    second = await runtime.attach("one", stdin=True)
    await hear(second, "$ ")
    await second.send(wire.STDIN, b"echo $x; exit 5\n")

    assert "kept" in (await listen(second)).out
    assert (await running.wait()).code == 5


async def test_stdin_once_ends_with_its_first_client(runtime: RunnerRuntime, network: Path, tmp_path: Path) -> None:
    """stdinOnce: open until the first client that attached to stdin disconnects."""
    running = await runtime.start(container("one", process("cat", stdin=True, once=True), network))
    watching = await runtime.attach("one", stdin=False)
    await watching.close()
    client = await runtime.attach("one", stdin=True)
    await client.send(wire.STDIN, b"heard\n")
    await hear(client, "heard")
    await client.close()

    assert (await running.wait()).code == 0
    assert log_text(tmp_path, "one") == "stdout F heard"


def _has_said(directory: Path, name: str, text: str) -> bool:
    return text in log_text(directory, name)


async def test_sigterm_ends_what_cannot_hear_it_and_is_heard_by_what_can(
    runtime: RunnerRuntime, network: Path, tmp_path: Path
) -> None:
    """PID 1 gets only signals it asked for: ``terminate`` says whether waiting makes sense."""
    handling = process("bash", "-c", "trap 'exit 6' TERM; echo set; while :; do sleep 0.05; done")
    ignoring = process("bash", "-c", "trap '' TERM; echo set; while :; do sleep 0.05; done")
    answers, codes = {}, {}
    for name, what in {"deaf": process("sleep", "1000"), "handling": handling, "ignoring": ignoring}.items():
        running = await runtime.start(container(name, what, network))
        if name != "deaf":
            await until(partial(_has_said, tmp_path, name, "set"), "the trap is set")
        answers[name] = await runtime.terminate(name, running.pid)
        if name != "handling":
            await runtime.kill(name)
        codes[name] = (await running.wait()).code

    assert answers == {"deaf": False, "handling": True, "ignoring": True}
    assert codes == {"deaf": 137, "handling": 6, "ignoring": 137}


async def test_an_interactive_shell_ends_with_its_terminal(runtime: RunnerRuntime, network: Path) -> None:
    """Bash on a terminal ignores SIGTERM; hanging up ends it, so that nobody waits 30 s for a forgotten shell."""
    running = await runtime.start(container("one", process("bash", "--norc", tty=True, stdin=True), network))
    session = await runtime.attach("one", stdin=True)
    await hear(session, "# ")
    await runtime.terminate("one", running.pid)

    assert (await running.wait()).code == 128 + signal.SIGHUP


async def test_containers_outlive_their_kubelet_and_are_found_again(
    runtime: RunnerRuntime, network: Path, tmp_path: Path
) -> None:
    """Another kubelet sees what runs, what has ended and how, and hears of every later end."""
    await runtime.start(container("runs", process("sleep", "1000"), network, about={"pod": "a"}))
    await (await runtime.start(container("ended", process("false"), network))).wait()

    other = RunnerRuntime(tmp_path)
    found = {entry["id"]: entry for entry in await other.adopt()}
    watched = await other.watch("runs", found["runs"]["pid"], found["runs"]["started"])
    await other.kill("runs")

    assert found["runs"]["exit"] is None
    assert found["runs"]["about"]["pod"] == "a"
    assert found["ended"]["exit"]["code"] == 1
    assert (await watched.wait()).code == 137
    await other.shutdown()


async def test_when_the_runner_dies_every_container_dies_with_it_and_the_next_start_has_a_new_one(
    runtime: RunnerRuntime, network: Path, tmp_path: Path
) -> None:
    """No process is left that nobody reaps, and the kubelet is told."""
    running = await runtime.start(container("one", process("sleep", "1000"), network))
    os.kill(int((tmp_path / "runner.lock").read_text()), signal.SIGKILL)

    with pytest.raises(HostRefused):
        await running.wait()
    await until(lambda: not proc(running.pid, "status"), "the container is gone")
    assert (await run(runtime, process("true"), network, "two")).code == 0


async def test_a_start_that_nobody_waits_for_any_more_leaves_no_process(runtime: RunnerRuntime) -> None:
    """A pod deleted in the very moment of its start."""
    connection, _ = await runtime._open({"op": "hello"})
    await connection.close()
    request = {"op": "start", "id": "one", "hostname": "one", "log": "logs/one.log", "files": {}, "volumes": [],
               "about": {}, "argv": ["sleep", "1000"], "env": {"PATH": "/usr/bin:/bin"}, "cwd": "", "tty": False,
               "stdin": False, "once": False, "uid": 0, "gid": 0, "groups": [], "add": [], "drop": [],
               "privileged": False}  # fmt: skip
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        runtime._connect(sock)
        sock.sendall(wire.encode_json(wire.REQUEST, request))

    assert await runtime.adopt() == []


async def test_volumes_and_files_are_where_they_were_asked_for(runtime: RunnerRuntime, tmp_path: Path) -> None:
    """A shared directory is seen by both sides; files of /etc too; a read-only volume refuses writing."""
    (tmp_path / "shared").mkdir()
    script = "cat /etc/hosts /etc/config/a; echo made > /data/f; touch /ro/f 2>/dev/null || echo refused"
    what = container(
        "one", process("sh", "-c", script),
        files={"/etc/hosts": "hosts\n", "/etc/config/a": "config\n"},
        volumes=[("shared", "/data", False), ("shared", "/ro", True)],
    )  # fmt: skip
    exit_ = await (await runtime.start(what)).wait()

    assert exit_.code == 0
    assert log_text(tmp_path, "one") == "stdout F hosts\nstdout F config\nstdout F refused"
    assert (tmp_path / "shared" / "f").read_text() == "made\n"


async def test_a_log_that_is_full_is_put_aside(runtime: RunnerRuntime, tmp_path: Path) -> None:
    """10 MB a file, one file before it: a chatty container does not fill the disk."""
    exit_ = await run(runtime, process("sh", "-c", "yes | head -c 1000000"))

    assert exit_.code == 0
    logs = [tmp_path / "logs" / "one.log", tmp_path / "logs" / "one.log.1"]
    assert all(0 < log.stat().st_size <= 10 << 20 for log in logs)
