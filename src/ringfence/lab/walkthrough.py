# SPDX-License-Identifier: Apache-2.0
"""The walk-through, as data: what is typed where, and what must come of it.

These are the command lines of Microsoft's document "Secure traffic between pods by using network policies in AKS",
typed at real kubectl and at the shell of the client pod.
"""

from __future__ import annotations

import enum
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ringfence.lab.terminal import Terminal

IMAGE = "k8sgcr.azk8s.cn/e2e-test-images/agnhost:2.33"
POLICY = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: demo-policy
  namespace: demo
spec:
  podSelector:
    matchLabels:
      app: server
  ingress:
  - from:
    - podSelector:
        matchLabels:
          app: client
    ports:
    - port: 80
      protocol: TCP
"""
_PATIENCE = 15.0  # seconds for a step's outcome: a person would look again, too
_WIDE = r"NAME +READY +STATUS +RESTARTS +AGE +IP +NODE +NOMINATED NODE +READINESS GATES\n"
_RUNNING = r" +1/1 +Running +0 +\S+ +[0-9.]+ +aks-nodepool1-\d+ +<none> +<none>"


class Where(enum.Enum):
    """Where a step is typed."""

    SHELL = "your shell"
    NEW_TERMINAL = "a second window"
    CLIENT = "the client's shell"


@dataclass(frozen=True, slots=True)
class Step:
    """A command line, and the pattern that its whole output must match; ``{server}`` is the server pod's address.

    ``until``: type it again until the output is as expected: the command asks for a state that is just coming about.
    """

    title: str
    where: Where
    line: str
    expected: str
    pattern: str
    until: bool = False


_CONNECT = "/agnhost connect {server}:80 --timeout=3s --protocol=tcp"
STEPS = (
    Step(
        "A namespace for the walk-through",
        Where.SHELL,
        "kubectl create namespace demo",
        "namespace/demo created",
        r"namespace/demo created",
    ),
    Step(
        "A server pod, on TCP port 80",
        Where.SHELL,
        f'kubectl run server -n demo --image={IMAGE} --labels="app=server" --port=80 '
        '--command -- /agnhost serve-hostname --tcp --http=false --port "80"',
        "pod/server created",
        r"pod/server created",
    ),
    Step(
        "A client pod, and a shell in it",
        Where.NEW_TERMINAL,
        f"kubectl run -it client -n demo --image={IMAGE} --command -- bash",
        "a prompt",
        r"(?s).*[#$] ",
    ),
    Step(
        "Both pods run; the server's IP is what the client connects to",
        Where.SHELL,
        "kubectl get pod --output=wide -n demo",
        "client and server, Running, with IP and NODE",
        rf"{_WIDE}client{_RUNNING}\nserver{_RUNNING}",
        until=True,
    ),
    Step("Without a policy, the client reaches the server", Where.CLIENT, _CONNECT, "nothing", r"", until=True),
    Step(
        "A policy: only pods labelled app=client may reach the server",
        Where.SHELL,
        "kubectl apply -f demo-policy.yaml",
        "networkpolicy.networking.k8s.io/demo-policy created",
        r"networkpolicy\.networking\.k8s\.io/demo-policy created",
    ),
    Step("The client has no such label: it is cut off", Where.CLIENT, _CONNECT, "TIMEOUT", r"TIMEOUT", until=True),
    Step(
        "The client gets the label",
        Where.SHELL,
        "kubectl label pod client -n demo app=client",
        "pod/client labeled",
        r"pod/client labeled",
    ),
    Step("The client reaches the server again", Where.CLIENT, _CONNECT, "nothing", r"", until=True),
    Step(
        "Everything goes with its namespace",
        Where.SHELL,
        "kubectl delete namespace demo",
        'namespace "demo" deleted',
        r'namespace "demo" deleted',
    ),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step printed, whether that was as expected, how often it was typed, and how long it took in all."""

    step: Step
    line: str
    printed: str
    met: bool
    tries: int
    seconds: float


def walk(directory: Path, environment: Mapping[str, str], steps: tuple[Step, ...] = STEPS) -> Iterator[Outcome]:
    """Type the steps one by one and yield what came of each; stops after the first that differs.

    ``directory`` is where the policy's file is written, ``environment`` has PATH and KUBECONFIG for kubectl.
    """
    (directory / "demo-policy.yaml").write_text(POLICY)
    walker = _Walker(directory, environment)
    try:
        for step in steps:
            outcome = walker.take(step)
            yield outcome
            if not outcome.met:
                return
    finally:
        walker.close()


class _Walker:
    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self._directory = directory
        self._environment = environment
        self._client: Terminal | None = None
        self._server = ""

    def take(self, step: Step) -> Outcome:
        line = step.line.format(server=self._server) if step.where is Where.CLIENT else step.line
        type_line = self._typist(step.where)
        start, tries = time.monotonic(), 0
        while True:
            tries += 1
            printed = type_line(line)
            met = re.fullmatch(step.pattern, printed) is not None
            if met or not step.until or time.monotonic() - start > _PATIENCE:
                break
        found = re.search(r"^server .* (\S+) +aks-", printed, re.MULTILINE)
        self._server = found.group(1) if found else self._server
        return Outcome(step, line, printed, met, tries, time.monotonic() - start)

    def _typist(self, where: Where) -> Callable[[str], str]:
        match where:
            case Where.SHELL:
                return self._run
            case Where.NEW_TERMINAL:
                return self._open
            case Where.CLIENT:
                assert self._client is not None, "the client's shell is opened by an earlier step"
                client = self._client
                return lambda line: client.type(line, seconds=_PATIENCE)

    def _run(self, line: str) -> str:
        done = subprocess.run(
            shlex.split(line),
            cwd=self._directory,
            env=dict(self._environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.stdout.rstrip("\n")

    def _open(self, line: str) -> str:
        self._client = Terminal(shlex.split(line), self._environment)
        return self._client.prompt(seconds=_PATIENCE)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
