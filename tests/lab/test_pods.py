# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ringfence.lab.terminal import Terminal
from tests.lab.labs import KUBECTL, Lab

pytestmark = [pytest.mark.lab, pytest.mark.kernel]

IMAGE = "k8sgcr.azk8s.cn/e2e-test-images/agnhost:2.33"
FIRST_NODE = "aks-nodepool1-000000"


@pytest.fixture
def namespace(lab: Lab, request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield a namespace of the test's own, and delete it with all that is in it."""
    name = "pods-" + hashlib.sha256(request.node.name.encode()).hexdigest()[:8]
    lab.must("create", "namespace", name)
    yield name
    lab.must("delete", "namespace", name, "--wait=false")


def pod(name: str, *command: str, **spec: Any) -> str:
    """Return a pod's manifest."""
    container = {"name": "c", "image": "x", "command": list(command), **spec.pop("container", {})}
    spec = {"containers": [container], **spec}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})


def created(lab: Lab, namespace: str, manifest: str) -> None:
    """Create a pod and wait until it is ready."""
    lab.must("apply", "-n", namespace, "-f", "-", stdin=manifest)
    lab.must("wait", "-n", namespace, "--for=condition=Ready", "--timeout=20s", "-f", "-", stdin=manifest)


def environment(lab: Lab) -> dict[str, str]:
    """Return what kubectl needs to find the lab."""
    return {**os.environ, "KUBECONFIG": str(lab.kubeconfig), "KUBECACHEDIR": str(lab.directory / "cache")}


def settle(terminal: Terminal) -> None:
    """Wait for the shell, and for what kubectl says about it, which may come after the first prompt."""
    terminal.prompt(seconds=20)
    while "settled" not in terminal.type("echo settled", seconds=20).splitlines():
        pass


def seconds(action: Callable[[], object]) -> float:
    """Return how long something took."""
    began = time.monotonic()
    action()
    return time.monotonic() - began


def column(lab: Lab, namespace: str, name: str, number: int) -> str:
    """Return a column of what ``kubectl get pod`` prints."""
    return lab.must("get", "pod", name, "-n", namespace, "--no-headers").split()[number]


def test_run_it_gives_a_shell_and_attach_finds_it_again(lab: Lab, namespace: str) -> None:
    """``kubectl run -it`` as in the document; the terminal is closed, and ``attach -it`` is in the same shell."""
    run = [str(KUBECTL), "run", "-it", "client", "-n", namespace, f"--image={IMAGE}", "--command", "--", "bash"]
    with Terminal(run, environment(lab)) as terminal:
        settle(terminal)
        assert terminal.type("tty && kept=here && hostname", seconds=10).splitlines() == ["/dev/pts/0", "client"]
    with Terminal([str(KUBECTL), "attach", "-it", "client", "-n", namespace], environment(lab)) as terminal:
        settle(terminal)
        assert terminal.type("echo $kept", seconds=10) == "here"


def test_run_rm_i_pipes_input_through_and_returns_the_exit_code(lab: Lab, namespace: str) -> None:
    """One-off pods in scripts; nothing of the pod stays."""
    words = ("run", "once", "-i", "--rm", "--quiet", "--restart=Never", "--image=x", "-n", namespace, "--command", "--")
    done = lab.kubectl(*words, "sh", "-c", "tr a-z A-Z; exit 4", stdin="input\n")

    assert (done.code, done.out) == (4, "INPUT\n")
    assert lab.kubectl("get", "pod", "once", "-n", namespace).code == 1


def test_exec_passes_streams_and_exit_codes(lab: Lab, namespace: str) -> None:
    """stdout, stderr, a pipe, an exit code, a program that is not there."""
    created(lab, namespace, pod("p", "sleep", "1000"))
    exec_ = ("exec", "p", "-n", namespace)

    assert lab.kubectl(*exec_, "--", "sh", "-c", "echo o; echo e >&2; exit 7").code == 7
    done = lab.kubectl(*exec_, "--", "sh", "-c", "echo o; echo e >&2")
    assert (done.out, done.err) == ("o\n", "e\n")
    assert lab.kubectl(*exec_, "-i", "--", "md5sum", stdin="x" * 3_000_000).out.split()[0] == (
        hashlib.md5(b"x" * 3_000_000).hexdigest()
    )
    missing = lab.kubectl(*exec_, "--", "no-such-program")
    assert missing.code != 0
    assert 'exec: "no-such-program": executable file not found in $PATH' in missing.err


def test_exec_on_a_terminal_knows_its_size(lab: Lab, namespace: str) -> None:
    """``kubectl exec -it``: the exit code of the shell is kubectl's."""
    created(lab, namespace, pod("p", "sleep", "1000"))
    words = [str(KUBECTL), "exec", "-it", "p", "-n", namespace, "--", "bash", "--norc"]
    with Terminal(words, environment(lab)) as terminal:
        settle(terminal)
        assert terminal.type("test -t 0 && echo terminal", seconds=10) == "terminal"


def test_files_are_copied_both_ways(lab: Lab, namespace: str, tmp_path: Path) -> None:
    """``kubectl cp``, which runs tar in the pod."""
    created(lab, namespace, pod("p", "sleep", "1000"))
    data = os.urandom(1 << 20) * 8
    (tmp_path / "there").write_bytes(data)
    lab.must("cp", str(tmp_path / "there"), f"{namespace}/p:/tmp/file")
    lab.must("cp", f"{namespace}/p:/tmp/file", str(tmp_path / "back"))

    assert (tmp_path / "back").read_bytes() == data
    assert not Path("/tmp/file").exists()


def test_logs_follow_a_container_and_remember_the_one_before(lab: Lab, namespace: str) -> None:
    """-f ends with the container; --previous, --tail and --timestamps as usual."""
    script = "echo first; sleep 0.5; echo second; test -e /data/again && exec sleep 1000; touch /data/again; exit 3"
    manifest = pod(
        "p", "sh", "-c", script,
        container={"volumeMounts": [{"name": "d", "mountPath": "/data"}]}, volumes=[{"name": "d", "emptyDir": {}}],
    )  # fmt: skip
    created(lab, namespace, manifest)
    followed = lab.must("logs", "-f", "p", "-n", namespace)
    lab.until(lambda: column(lab, namespace, "p", 3) == "1", "the restart")

    assert followed == "first\nsecond\n"
    assert lab.must("logs", "p", "-n", namespace, "--previous", "--tail=1") == "second\n"
    stamped = lab.must("logs", "p", "-n", namespace, "--previous", "--timestamps").splitlines()[0]
    assert stamped.endswith("Z first")
    status = lab.get("pod", "p", "-n", namespace)["status"]["containerStatuses"][0]
    assert status["lastState"]["terminated"]["exitCode"] == 3


def test_the_agents_gate_keeps_a_pod_waiting_and_its_link_down(lab: Lab, namespace: str) -> None:
    """No packet passes before policy for the pod is in force; what it waits for is an event, and it comes up after."""
    agent = process_of(lab, "ringfence", "agent", "--node-name", FIRST_NODE)
    os.kill(agent, signal.SIGSTOP)
    try:
        lab.must("apply", "-n", namespace, "-f", "-", stdin=pod("gated", "sleep", "1000", nodeName=FIRST_NODE))
        lab.until(
            lambda: "waiting for network policy" in lab.must("get", "events", "-n", namespace), "the event", seconds=30
        )
        status = lab.get("pod", "gated", "-n", namespace)["status"]
        links = subprocess.run(
            ["ip", "-n", pod_netns(lab, namespace, "gated"), "-o", "link", "show", "eth0"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
    finally:
        os.kill(agent, signal.SIGCONT)

    assert status["podIP"].startswith("10.224.0.")
    assert status["containerStatuses"][0]["state"]["waiting"]["reason"] == "ContainerCreating"
    assert "NO-CARRIER" in links
    lab.must("wait", "pod/gated", "-n", namespace, "--for=condition=Ready", "--timeout=20s")


def process_of(lab: Lab, *words: str) -> int:
    """Return the process of the lab whose command line has all these words."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            line = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
            if all(word.encode() in line for word in words) and str(lab.directory).encode() in b" ".join(line):
                return int(entry.name)
    raise AssertionError(f"no process of the lab with {words}")


def pod_netns(lab: Lab, namespace: str, name: str) -> str:
    """Return the name of a pod's network namespace."""
    prefix = f"rf-{lab.name}-pod.{namespace}.{name}."
    return next(entry.name for entry in Path("/run/netns").iterdir() if entry.name.startswith(prefix))


def test_deletion_waits_for_a_program_that_handles_sigterm_and_no_longer(lab: Lab, namespace: str) -> None:
    """A handler has its time, within the grace; without one the pod is gone at once; a shorter grace counts."""
    loop = "while :; do sleep 0.05; done"
    handles = pod("handles", "bash", "-c", f"trap 'sleep 0.5; exit 0' TERM; {loop}")
    ignores = pod("ignores", "bash", "-c", f"trap '' TERM; {loop}", terminationGracePeriodSeconds=600)
    lab.must("apply", "-n", namespace, "-f", "-", stdin=pod("deaf", "sleep", "1000", terminationGracePeriodSeconds=600))
    created(lab, namespace, handles)
    created(lab, namespace, ignores)

    assert 0.5 <= seconds(lambda: lab.must("delete", "pod", "handles", "-n", namespace)) < 10
    assert seconds(lambda: lab.must("delete", "pod", "deaf", "-n", namespace)) < 10
    lab.must("delete", "pod", "ignores", "-n", namespace, "--wait=false")
    assert column(lab, namespace, "ignores", 2) == "Terminating"
    assert 0.5 <= seconds(lambda: lab.must("delete", "pod", "ignores", "-n", namespace, "--grace-period=1")) < 10


def test_a_deleted_pod_leaves_no_process_no_namespace_and_no_file(lab: Lab, namespace: str) -> None:
    """Nothing of it on the machine."""
    created(lab, namespace, pod("p", "sleep", "4711"))
    netns = pod_netns(lab, namespace, "p")
    uid = lab.get("pod", "p", "-n", namespace)["metadata"]["uid"]
    lab.must("delete", "pod", "p", "-n", namespace)

    assert not (Path("/run/netns") / netns).exists()
    assert not (lab.directory / "pods" / f"{namespace}_p_{uid}").exists()
    assert all(b"4711" not in line for line in _command_lines())


def _command_lines() -> Iterator[bytes]:
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit():
                yield (entry / "cmdline").read_bytes()


def test_init_containers_run_in_order_and_sidecars_stay(lab: Lab, namespace: str) -> None:
    """An init container's file is there for the main one; a sidecar runs beside it and is probed."""
    mount = {"volumeMounts": [{"name": "d", "mountPath": "/data"}]}
    inits = [
        {"name": "one", "image": "x", "command": ["sh", "-c", "echo one > /data/f"], **mount},
        {"name": "side", "image": IMAGE, "args": ["netexec"], "restartPolicy": "Always", **mount},
        {"name": "two", "image": "x", "command": ["sh", "-c", "echo two >> /data/f"], **mount},
    ]
    probe = {"httpGet": {"path": "/hostname", "port": 8080}, "periodSeconds": 1}
    manifest = pod(
        "p", "sh", "-c", "cat /data/f; exec sleep 1000",
        container={**mount, "readinessProbe": probe}, initContainers=inits, volumes=[{"name": "d", "emptyDir": {}}],
    )  # fmt: skip
    created(lab, namespace, manifest)

    assert lab.must("logs", "p", "-n", namespace, "-c", "c") == "one\ntwo\n"
    statuses = lab.get("pod", "p", "-n", namespace)["status"]["initContainerStatuses"]
    assert [("running" in one["state"], one["started"]) for one in statuses] == [
        (False, True),
        (True, True),
        (False, True),
    ]


def test_probes_come_from_the_node_and_pass_a_policy_that_denies_everybody(lab: Lab, namespace: str) -> None:
    """tcp, http by a port's name, and exec; a liveness probe that fails restarts the container."""
    deny = {"podSelector": {}, "policyTypes": ["Ingress"]}
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "deny"}, "spec": deny}
    lab.must("apply", "-n", namespace, "-f", "-", stdin=json.dumps(policy))
    container = {
        "image": IMAGE,
        "args": ["netexec", "--http-port=80"],
        "ports": [{"name": "web", "containerPort": 80}],
        "startupProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1},
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": "web"}, "periodSeconds": 1},
        "livenessProbe": {"exec": {"command": ["test", "!", "-e", "/ill"]}, "periodSeconds": 1, "failureThreshold": 1},
    }
    manifest = json.loads(pod("p"))
    manifest["spec"]["containers"] = [{"name": "c", **container}]
    created(lab, namespace, json.dumps(manifest))
    lab.must("exec", "p", "-n", namespace, "--", "touch", "/ill")

    lab.until(lambda: column(lab, namespace, "p", 3).startswith("1"), "the restart")


def test_what_cannot_run_says_why(lab: Lab, namespace: str) -> None:
    """STATUS and events name the reason: no image, no program, no config map; and it comes up once there is one."""
    broken = {
        "image": pod("image", container={"image": "nginx:1.27", "command": []}),
        "program": pod("program", "no-such-program"),
        "config": pod("config", "sleep", "9", container={"envFrom": [{"configMapRef": {"name": "later"}}]}),
    }
    for manifest in broken.values():
        lab.must("apply", "-n", namespace, "-f", "-", stdin=manifest)

    def shown() -> dict[str, str]:
        return {name: column(lab, namespace, name, 2) for name in broken}

    wanted = {"image": "ErrImagePull", "program": "CrashLoopBackOff", "config": "CreateContainerConfigError"}
    lab.until(lambda: shown() == wanted, f"{wanted}")
    events = lab.must("get", "events", "-n", namespace)
    assert "give the container a command" in events
    assert 'exec: "no-such-program": executable file not found in $PATH' in events
    lab.must("create", "configmap", "later", "-n", namespace, "--from-literal=a=b")
    lab.until(lambda: column(lab, namespace, "config", 2) == "Running", "the pod with its config map")


def test_pods_live_on_when_their_kubelet_dies(lab: Lab, namespace: str) -> None:
    """Same process, same address, no restart; what was deleted meanwhile goes when the kubelet is back."""
    created(lab, namespace, pod("stays", "sleep", "1000"))
    created(lab, namespace, pod("goes", "sleep", "1000"))
    before = lab.get("pod", "stays", "-n", namespace)["status"]
    gone = pod_netns(lab, namespace, "goes")
    os.kill(process_of(lab, "ringfence.lab.nodes"), signal.SIGKILL)
    lab.must("delete", "pod", "goes", "-n", namespace, "--wait=false")
    lab.until(lambda: lab.exec("stays", "true", namespace=namespace).code == 0, "exec, by the new kubelet")
    lab.until(lambda: not (Path("/run/netns") / gone).exists(), "the end of the deleted pod")

    after = lab.get("pod", "stays", "-n", namespace)["status"]
    assert after["podIPs"] == before["podIPs"]
    assert after["containerStatuses"] == before["containerStatuses"]


def test_pods_start_again_when_their_processes_are_lost(lab: Lab, namespace: str) -> None:
    """The runner dies, and every container with it: they are restarted in the same network, and that is counted."""
    created(lab, namespace, pod("p", "sleep", "1000"))
    before = lab.get("pod", "p", "-n", namespace)["status"]
    os.kill(int((lab.directory / "pods" / "runner.lock").read_text()), signal.SIGKILL)
    lab.until(lambda: column(lab, namespace, "p", 3).startswith("1"), "the restart")
    lab.must("wait", "pod/p", "-n", namespace, "--for=condition=Ready", "--timeout=20s")

    after = lab.get("pod", "p", "-n", namespace)["status"]
    assert after["podIP"] == before["podIP"]
    assert after["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 137


def test_host_network_pods_share_their_nodes_network(lab: Lab, namespace: str) -> None:
    """Their address is the node's, and policy's gate is not for them."""
    manifest = pod(
        "h", "/agnhost", "netexec", "--http-port=8123", "--udp-port=-1", hostNetwork=True, nodeName=FIRST_NODE
    )
    created(lab, namespace, manifest)
    created(lab, namespace, pod("p", "sleep", "1000"))
    address = lab.get("pod", "h", "-n", namespace)["status"]["podIP"]

    assert address == "10.224.0.4"
    assert lab.exec("p", "/agnhost", "connect", f"{address}:8123", "--timeout=5s", namespace=namespace).code == 0


def test_sctp_goes_from_pod_to_pod(lab: Lab, namespace: str) -> None:
    """Both families, across nodes; a port that nobody serves is refused: by ABORT, or by ICMP without any server."""
    server = pod("server", "/agnhost", "netexec", "--http-port=8080", "--sctp-port=5000", nodeName=FIRST_NODE)
    created(lab, namespace, server)
    created(lab, namespace, pod("client", "sleep", "1000", nodeName="aks-nodepool1-000001"))
    addresses = {one: lab.get("pod", one, "-n", namespace)["status"]["podIPs"] for one in ("server", "client")}

    def connect(source: str, destination: str, port: int) -> tuple[int, str]:
        words = ("/agnhost", "connect", f"{destination}:{port}", "--protocol=sctp", "--timeout=5s")
        done = lab.exec(source, *words, namespace=namespace)
        return done.code, done.err.splitlines()[0] if done.err else ""

    refused = (1, "OTHER: connection refused")
    four, six = (one["ip"] for one in addresses["server"])
    assert connect("client", four, 5000) == connect("client", f"[{six}]", 5000) == (0, "")
    assert connect("client", four, 5001) == refused
    assert connect("server", addresses["client"][0]["ip"], 5000) == refused


def test_a_pod_with_a_sidecar_has_ended_when_the_sidecar_has(lab: Lab, namespace: str) -> None:
    """It runs while the sidecar does, then is stopped with time to say good-bye; then the address is free, and only
    then the end is told: a completed pod is none of policy's any more.
    """
    bye = "trap 'sleep 1; echo bye; exit 0' TERM; while :; do sleep 0.05; done"
    side = {"name": "side", "image": "x", "command": ["bash", "-c", bye], "restartPolicy": "Always"}
    manifest = pod("done", "sh", "-c", "sleep 0.5", initContainers=[side], restartPolicy="Never", nodeName=FIRST_NODE)
    lab.must("apply", "-n", namespace, "-f", "-", stdin=manifest)
    lab.until(lambda: "terminated" in main_state(lab, namespace, "done"), "the end of the main container")
    between = lab.get("pod", "done", "-n", namespace)["status"]
    netns = pod_netns(lab, namespace, "done")
    lab.must("wait", "pod/done", "-n", namespace, "--for=jsonpath={.status.phase}=Succeeded", "--timeout=20s")

    assert (between["phase"], "running" in between["initContainerStatuses"][0]["state"]) == ("Running", True)
    assert not (Path("/run/netns") / netns).exists()
    assert lab.must("logs", "done", "-n", namespace, "-c", "side") == "bye\n"


def main_state(lab: Lab, namespace: str, name: str) -> dict[str, Any]:
    """Return the state of a pod's container; empty before there is one."""
    statuses = lab.get("pod", name, "-n", namespace)["status"].get("containerStatuses") or [{"state": {}}]
    state: dict[str, Any] = statuses[0]["state"]
    return state


def test_a_failed_init_container_takes_sidecar_and_network_with_it(lab: Lab, namespace: str) -> None:
    """Nothing of a failed pod runs on, and nothing of its network is left, though its object stays."""
    inits = [
        {"name": "side", "image": "x", "command": ["sleep", "4712"], "restartPolicy": "Always"},
        {"name": "fails", "image": "x", "command": ["sh", "-c", "sleep 0.3; exit 3"]},
    ]
    manifest = pod("failed", "true", initContainers=inits, restartPolicy="Never", nodeName=FIRST_NODE)
    lab.must("apply", "-n", namespace, "-f", "-", stdin=manifest)
    lab.until(lambda: any(b"4712" in line for line in _command_lines()), "the sidecar")
    netns = pod_netns(lab, namespace, "failed")
    lab.must("wait", "pod/failed", "-n", namespace, "--for=jsonpath={.status.phase}=Failed", "--timeout=20s")

    assert not (Path("/run/netns") / netns).exists()
    assert all(b"4712" not in line for line in _command_lines())
