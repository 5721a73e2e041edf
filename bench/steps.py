# SPDX-License-Identifier: Apache-2.0
"""How long is one step of an agent, with 1,000, 10,000 and 100,000 pods in the cluster, 250 of them here?

A thousand policies, each of which lets all pods of the cluster be reached, so that one set has everybody. Measured are
``decode`` (most of what many blocks cost) and ``reconcile``, in this process: no API server, no kernel.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench import worlds
from bench.rows import Rows
from ringfence.agent.reconcile import Event, Kind, State, decode, reconcile
from ringfence.kube.changes import Listed, Removed, Upserted

_LOCAL, _APPS, _TEAMS = 250, 40, 10
_KINDS = (Kind.NAMESPACES, Kind.NODES, Kind.PODS, Kind.POLICIES)


def bench_step(rows: Rows) -> None:
    """Measure a full start, and each kind of event."""
    for pods in (500,) if rows.quick else (1000, 10_000, 100_000):
        rows.progress(f"a cluster of {pods:,} pods")
        _measure(rows, _World(pods), 3 if rows.quick else 15)


@dataclass(frozen=True, slots=True)
class _World:
    """Pods of forty applications in each namespace; policies between applications, teams, and to everybody."""

    pods: int
    policies: int = 1000

    @property
    def spaces(self) -> int:
        """About 250 pods in each namespace, where there are many."""
        return max(20, self.pods // 250)

    def space(self, number: int, team: int | None = None) -> worlds.Object:
        """Return a namespace."""
        labels = {"team": f"t{number % _TEAMS if team is None else team}"}
        return {"metadata": {"name": f"space-{number}", "labels": labels}}

    def pod(self, number: int, *, app: str | None = None, here: bool | None = None) -> worlds.Object:
        """Return a pod; its node is spread over the namespaces."""
        every = max(1, self.pods // _LOCAL)
        here = number % every == number // every % every if here is None else here
        labels = {"app": app or f"app-{number // self.spaces % _APPS}", "tier": ("web", "api", "db")[number % 3]}
        space = f"space-{number % self.spaces}"
        return worlds.pod(number, worlds.NODE if here else worlds.ELSEWHERE, space=space, **labels)

    def policy(self, number: int, *, port: int = 8080) -> worlds.Object:
        """Return a policy for one application (each tenth: for the whole namespace), in both directions."""
        dice = random.Random(number)
        peers = [
            worlds.labelled(app=f"app-{dice.randrange(_APPS)}"),
            {
                "namespaceSelector": {"matchLabels": {"team": f"t{dice.randrange(_TEAMS)}"}},
                **worlds.labelled(tier=dice.choice(("web", "api", "db"))),
            },
        ]
        selects = {"app": f"app-{dice.randrange(_APPS)}"} if number % 10 else {}
        made = worlds.policy(f"policy-{number}", selects, peers, space=f"space-{number % self.spaces}")
        everybody = {"to": [{"namespaceSelector": {}}], "ports": [{"protocol": "UDP", "port": 53}]}
        made["spec"]["egress"] = [{"to": peers, "ports": [{"port": port}, {"port": "http"}]}, everybody]
        return made

    def blocks(self, count: int, last: int) -> worlds.Object:
        """Return a policy that lets blocks in, the last one another each time."""
        peers = [worlds.block(each) for each in range(count - 1)] + [worlds.block(count + last)]
        return worlds.policy(f"blocks-{count}", {}, peers, space="space-1")


def _measure(rows: Rows, world: _World, repeats: int) -> None:
    listing = [
        [world.space(number) for number in range(world.spaces)],
        [{"metadata": {"name": worlds.NODE}, "status": {"addresses": [{"address": "10.0.0.1"}]}}],
        [world.pod(number) for number in range(world.pods)],
        [world.policy(number) for number in range(world.policies)],
    ]
    texts = [[(_key(obj), msgspec.json.encode(obj)) for obj in objects] for objects in listing]
    del listing
    before, start = _megabytes(), time.perf_counter()
    events = [
        Event(kind, Listed({key: decode(kind, raw) for key, raw in each}))
        for kind, each in zip(_KINDS, texts, strict=True)
    ]
    state = reconcile(State(worlds.NODE), events).state
    about = f"{world.pods:,} pods"
    rows.row(f"full start, {about}: lists read and compiled", [time.perf_counter() - start])
    rows.row(f"full start, {about}: memory taken", [_megabytes() - before], unit="MiB")
    for what, kind, change in _changes(world):
        seconds = []
        for number in range(repeats + 1):
            obj = change(number)
            raw = msgspec.json.encode(obj)
            start = time.perf_counter()
            told = decode(kind, raw)
            event = Event(kind, Removed(_key(obj), told) if what == "pod removed" else Upserted(_key(obj), told))
            state = reconcile(state, [event]).state
            seconds.append(time.perf_counter() - start)
        rows.row(f"{what}, {about}", seconds[1:])


_Change = tuple[str, Kind, Callable[[int], worlds.Object]]


def _changes(world: _World) -> list[_Change]:
    return [
        ("remote pod added", Kind.PODS, lambda n: world.pod(world.pods + n, here=False)),
        ("local pod added", Kind.PODS, lambda n: world.pod(world.pods + 100 + n, here=True)),
        ("remote pod's label changed", Kind.PODS, lambda n: world.pod(1, app=f"app-{n}", here=False)),
        ("local pod's label changed", Kind.PODS, lambda n: world.pod(0, app=f"app-{n}", here=True)),
        ("pod removed", Kind.PODS, lambda n: world.pod(2 + n)),
        ("namespace's label changed", Kind.NAMESPACES, lambda n: world.space(3, team=n % _TEAMS)),
        ("policy changed", Kind.POLICIES, lambda n: world.policy(0, port=9000 + n)),
        ("one of 1,000 ipBlocks changed", Kind.POLICIES, lambda n: world.blocks(1000, n)),
        ("one of 10,000 ipBlocks changed", Kind.POLICIES, lambda n: world.blocks(10_000, n)),
    ]


def _key(obj: worlds.Object) -> str:
    meta = obj["metadata"]
    return f"{meta['namespace']}/{meta['name']}" if "namespace" in meta else str(meta["name"])


def _megabytes() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20
