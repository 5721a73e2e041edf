# SPDX-License-Identifier: Apache-2.0
"""Record what apimachinery makes of random patches, applies and updates of pods, for the tests of the lab's API server.

Asks the oracle that is built from ``main.go`` beside this file (its comment says how)::

    .venv/bin/python tools/apimachinery/record.py path/to/oracle

The answers are facts, kept in ``tests/apiserver/machinery/recorded``; run again when the Kubernetes version changes.
"""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

OUTPUT = Path(__file__).parents[2] / "tests/apiserver/machinery/recorded/apimachinery-0.32.3.json.gz"
MERGES = 400
HISTORIES = 80
STEPS = 5

Object = dict[str, Any]
chance = random.Random(20)


def often(probability: float) -> bool:
    """Tell whether something happens this time."""
    return chance.random() < probability


def labels() -> dict[str, str]:
    """Return a few labels."""
    return {chance.choice("abc"): chance.choice("xyz") for _ in range(chance.randint(1, 3))}


def port(number: int) -> Object:
    """Return a container port."""
    made: Object = {"containerPort": number}
    if often(0.5):
        made["name"] = chance.choice("hg")
    if often(0.5):
        made["protocol"] = "TCP"
    return made


def container(name: str) -> Object:
    """Return a container."""
    made: Object = {"name": name, "resources": {}}
    if often(0.7):
        made["image"] = chance.choice(["i1", "i2"])
    if often(0.4):
        made["args"] = [chance.choice("pq") for _ in range(chance.randint(1, 2))]
    if often(0.5):
        made["ports"] = [port(number) for number in chance.sample([80, 81, 82], chance.randint(1, 2))]
    if often(0.5):
        names = chance.sample("EFG", chance.randint(1, 2))
        made["env"] = [{"name": name, "value": chance.choice("12")} for name in names]
    if often(0.3):
        made["resources"] = {"limits": {"cpu": chance.choice("12")}}
    if often(0.2):
        made["securityContext"] = {"runAsUser": chance.randint(1, 3), "capabilities": {"add": [chance.choice("AB")]}}
    return made


def pod() -> Object:
    """Return a pod."""
    metadata: Object = {"name": "p", "namespace": "d"}
    names = chance.sample("abcd", chance.randint(1, 3))
    spec: Object = {"containers": [container(name) for name in names]}
    if often(0.6):
        metadata["labels"] = labels()
    if often(0.3):
        metadata["finalizers"] = finalizers()
    if often(0.3):
        spec["nodeSelector"] = {"k": chance.choice("ab")}
    if often(0.3):
        spec["hostNetwork"] = True
    if often(0.3):
        spec["tolerations"] = [{"key": chance.choice("ab"), "operator": "Exists"}]
    if often(0.2):
        spec["volumes"] = [{"name": name, "emptyDir": {}} for name in chance.sample("uv", chance.randint(1, 2))]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def finalizers() -> list[str]:
    """Return one or two finalizers."""
    return ["x/" + letter for letter in chance.sample("abcd", chance.randint(1, 2))]


def strategic_patch() -> Object:
    """Return a strategic merge patch with directives.

    Not both a deletion and an order of one list: apimachinery's answer then depends on how Go's slices grow.
    """
    metadata: Object = {}
    if often(0.4):
        metadata["labels"] = {key: (None if often(0.3) else value) for key, value in labels().items()}
    if often(0.3):
        metadata[chance.choice(["finalizers", "$deleteFromPrimitiveList/finalizers"])] = finalizers()
    spec: Object = {}
    if often(0.7):
        spec = changed_containers()
    elif often(0.5):
        spec["$setElementOrder/containers"] = [{"name": n} for n in chance.sample("abcd", chance.randint(1, 4))]
    if often(0.3):
        spec["nodeSelector"] = chance.choice([None, {"k": "z"}])
    if often(0.3):
        spec["tolerations"] = chance.choice([None, [{"key": "n"}]])
    if often(0.2):
        retained = {"$retainKeys": ["name", "hostPath"], "emptyDir": None, "hostPath": {"path": "/x"}, "name": "u"}
        spec["volumes"] = [retained]
    return {key: value for key, value in (("metadata", metadata), ("spec", spec)) if value}


def changed_containers() -> Object:
    """Return a patch to the list of containers."""
    changes = [container(name) for name in chance.sample("abcde", chance.randint(1, 3))]
    if often(0.5):
        names = [change["name"] for change in changes]
        for name in "abcd":
            if name not in names and often(0.4):
                names.insert(chance.randint(0, len(names)), name)
        return {"containers": changes, "$setElementOrder/containers": [{"name": name} for name in names]}
    for change in changes:
        if often(0.2):
            change["image"] = None
    if often(0.4):
        chance.choice(changes)["$patch"] = "delete"
    elif often(0.1):
        changes.append({"$patch": "replace"})
    return {"containers": changes}


def configuration() -> Object:
    """Return what somebody applies: often only a part of a pod."""
    made = pod()
    if often(0.4):
        del made["spec"]["containers"]
    return made


def without_nulls(value: Any) -> Any:
    """Return JSON without nulls and left-over directives: what decoding it into Go types leaves."""
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None and not k.startswith("$")}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


class Oracle:
    """The Go program."""

    def __init__(self, program: str) -> None:
        self._process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, question: Object) -> Object:
        """Return the question with its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer: Object = json.loads(self._process.stdout.readline())
        return {**question, **without_nulls(answer)}

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def history(oracle: Oracle) -> list[Object]:
    """Return what several managers do to one pod, one after the other."""
    steps: list[Object] = []
    live: Object | None = None
    for _ in range(STEPS):
        op = "apply" if often(0.6) else "update"
        said = configuration() if op == "apply" else pod()
        who = chance.choice(["m1", "m2", "kubectl"])
        step = oracle.ask({"op": op, "live": live, "patch": said, "manager": who, "force": often(0.4)})
        steps.append(step)
        if "result" in step:
            live = step["result"]
            live["metadata"]["uid"] = "u"  # otherwise the next step takes it for new
            if not live.get("spec", {}).get("containers"):
                break  # not a pod that could be
            for each in live["spec"]["containers"]:
                each.setdefault("resources", {})
            live.pop("status", None)
    return steps


def main() -> None:
    """Ask and write."""
    oracle = Oracle(sys.argv[1])
    merges = [oracle.ask({"op": "merge", "live": pod(), "patch": strategic_patch()}) for _ in range(MERGES)]
    histories = [step for _ in range(HISTORIES) for step in history(oracle)]
    oracle.close()
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps([*merges, *histories], separators=(",", ":"), sort_keys=True).encode()
    OUTPUT.write_bytes(gzip.compress(text, 9, mtime=0))
    print(f"{OUTPUT}: {len(merges)} merges, {len(histories)} steps, {OUTPUT.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
