# SPDX-License-Identifier: Apache-2.0
"""Whatever is sent, the answer is an object or a refusal: the server itself never fails, nor does what it stored."""

from __future__ import annotations

import copy
import random
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.lab.apiserver.api import Api
from ringfence.lab.apiserver.bootstrap import bootstrap
from ringfence.lab.apiserver.rendering import View
from ringfence.lab.apiserver.requests import Form
from ringfence.lab.apiserver.status import Failure
from ringfence.lab.apiserver.store import Store
from tests.apiserver.test_custom_resources import definition, widget
from tests.apiserver.writes import Object, Requests, deployment, pod, service

CONTAINER = {
    "name": "c",
    "image": "i",
    "ports": [{"containerPort": 80, "name": "a"}],
    "env": [{"name": "A", "value": "b"}],
    "resources": {"limits": {"cpu": "1"}},
    "volumeMounts": [{"name": "v", "mountPath": "/v"}],
}
PEER = {"podSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["x"]}]}}
BLOCK = {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}
META = {
    "name": "c",
    "labels": {"a": "b"},
    "annotations": {"x": "y"},
    "finalizers": ["a.b/c"],
    "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "u"}],
}
SEEDS: dict[str, Object] = {
    "pods": pod(containers=[CONTAINER], volumes=[{"name": "v"}], tolerations=[{"operator": "Exists"}]),
    "deployments": deployment(),
    "replicasets": deployment(),
    "services": service(type="NodePort", ipFamilyPolicy="PreferDualStack"),
    "networkpolicies": {
        "metadata": {"name": "np"},
        "spec": {
            "podSelector": {"matchLabels": {"a": "b"}},
            "ingress": [{"from": [BLOCK, PEER], "ports": [{"port": 80, "endPort": 90}]}],
            "policyTypes": ["Ingress"],
        },
    },
    "customresourcedefinitions": {
        **definition(plural="gadgets", kind="Gadget", shortNames=["gd"]),
        "metadata": {"name": "gadgets.example.com"},
    },
    "widgets": widget(color="blue"),
    "configmaps": {"metadata": META, "data": {"a": "b"}},
    "secrets": {"metadata": {"name": "s"}, "stringData": {"a": "b"}, "data": {"x": "YQ=="}},
    "endpointslices": {"metadata": {"name": "e"}, "addressType": "IPv4", "endpoints": [{"addresses": ["10.1.1.1"]}]},
    "nodes": {
        "metadata": {"name": "n"},
        "spec": {"podCIDR": "10.1.0.0/24"},
        "status": {"addresses": [{"type": "InternalIP", "address": "1.1.1.1"}], "conditions": [{"type": "Ready"}]},
    },
    "namespaces": {"metadata": {"name": "zz"}},
    "events": {
        "metadata": {"name": "ev"},
        "involvedObject": {"kind": "Pod", "name": "a", "namespace": "default"},
        "series": {"count": 1},
    },
}
WEIRD: list[Any] = [None, "", 0, -1, 1.5, True, [], {}, "x" * 5, [None], [{}], [[]], {"a": None}, {"": 1}]
WEIRD += ["\0", "é😀", 10**20, ["x", "x"]]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of everything inside a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inner:
        yield (*path, key)
        yield from places(below, (*path, key))


def mutated(value: Any, rnd: random.Random) -> Any:
    """Return a copy with one to three things in it broken."""
    value = copy.deepcopy(value)
    for _ in range(rnd.randint(1, 3)):
        paths = list(places(value))
        if not paths:
            break
        *parents, last = rnd.choice(paths)
        inner = value
        for key in parents:
            inner = inner[key]
        if rnd.random() < 0.2:
            del inner[last]
        else:
            inner[last] = copy.deepcopy(rnd.choice(WEIRD))
    return value


def answered(request: Callable[[], Object]) -> Object | None:
    """Return the object, None if it was refused; a refusal is the client's fault."""
    try:
        return request()
    except Failure as refused:
        # server-side apply answers 500 for what does not fit the schema, as kube-apiserver does
        if refused.code < 500 or refused.message.startswith("failed to create typed"):
            return None
        raise


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from(sorted(SEEDS)))
def test_every_broken_body_gets_a_proper_answer(rnd: random.Random, plural: str) -> None:
    """Created, updated, patched in all four ways; and what is stored can be shown in every form."""
    answer_bodies(rnd, plural)


def answer_bodies(rnd: random.Random, plural: str) -> None:
    """Try mutations of one kind of object on a server of its own."""
    with tempfile.TemporaryDirectory() as directory:
        api = Api(Store(Path(directory) / "state.db"))
        bootstrap(api, endpoints=(), port=6443)
        req = Requests(api)
        req.create("customresourcedefinitions", definition())
        validation = rnd.choice(["Strict", "Warn", "Ignore"])
        made = answered(lambda: req.create(plural, mutated(SEEDS[plural], rnd), validation=validation))
        if made is None:
            made = req.create(plural, copy.deepcopy(SEEDS[plural]), validation="Ignore")
        name = made["metadata"]["name"]
        for kind in ("merge", "strategic-merge", "apply", "json"):
            body = mutated(SEEDS[plural] if kind != "json" else [{"op": "add", "path": "/spec", "value": {}}], rnd)
            force = kind == "apply"
            answered(partial(req.patch, plural, name, body, kind=kind, validation=validation, force=force))
            stored = req.get(plural, name)
            if stored is None:
                break
            for form in Form:
                View(req.resource(plural), form).object(stored, api.clock())
        api.store.close()
