# SPDX-License-Identifier: Apache-2.0
"""Policies that select nobody, and peers that match nobody: only where the pods that there are, are known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ringfence.apis.core import NAME_LABEL
from ringfence.model.cluster import Endpoint, PodKey
from ringfence.model.labels import EVERYTHING, Operator, Selector
from ringfence.model.policy import NamespacesMatching, PodPeer
from ringfence.semantics.lint.andor import and_or
from ringfence.semantics.lint.findings import Finding
from ringfence.semantics.lint.nearness import is_slip, is_switch
from ringfence.semantics.lint.parts import Written, found, peers_of, rules_of, scope_called
from ringfence.semantics.lint.world import World

_EVERYWHERE = NamespacesMatching(EVERYTHING)
# What the controllers of tasks put on pods that come and go: nobody need have them at the moment.
_PASSING = frozenset(
    {
        "acme.cert-manager.io/http01-solver",
        "actions-ephemeral-runner",
        "batch.kubernetes.io/job-name",
        "cnpg.io/jobRole",
        "jenkins/label",
        "job-name",
        "job.runner.gitlab.com/pod",
        "spark-role",
        "tekton.dev/pipelineRun",
        "tekton.dev/taskRun",
        "workflows.argoproj.io/workflow",
    }
)


def subject(world: World, written: Written) -> Iterator[Finding]:
    """Judge the podSelector of a policy."""
    wanted = written.policy.subject
    matched = world.pods(wanted)
    explicit = wanted.pods != EVERYTHING
    if matched.on_host and (explicit or not matched.pods):
        left = "they stay open" if matched.pods else "it isolates nobody"
        message = f"{world.called(matched.on_host)}: on the host network, so that no policy applies, and {left}"
        yield found("host-network", written, "spec.podSelector", message)
    elif not matched.pods and world.pods_known(written.namespace) and _asks_for_pods(world, wanted):
        message = f"no pod of namespace {written.namespace} has {wanted.pods}"
        yield found("selects-nothing", written, "spec.podSelector", f"{message}{_hint(world, wanted)}")


def peers(world: World, written: Written) -> Iterator[Finding]:
    """Judge the peers of each rule of a policy."""
    for direction, rule in rules_of(written):
        confused = list(and_or(world, written, peers_of(direction, rule)))
        yield from confused
        for each in peers_of(direction, rule):
            if isinstance(each.peer, PodPeer) and each.path not in {one.path for one in confused}:
                yield from _nobody(world, written, each.peer, each.path)


def _nobody(world: World, written: Written, peer: PodPeer, path: str) -> Iterator[Finding]:
    matched = world.pods(peer)
    if matched.pods:
        return
    if matched.on_host:
        message = f"{world.called(matched.on_host)}: on the host network, where it is no pod but its node's address"
        yield found("host-network", written, path, message)
        return
    if isinstance(peer.scope, NamespacesMatching) and not world.namespaces(peer.scope):
        if not _asks_for_something(peer.scope.selector):
            return
        mislabelled = _mislabelled(world, peer.scope.selector)
        if world.whole or mislabelled:
            message = f"no namespace has {peer.scope.selector}{mislabelled}"
            yield found("peer-matches-nothing", written, f"{path}.namespaceSelector", message)
    elif _asks_for_pods(world, peer) and world.scope_known(peer.scope) and _is_meant(world, peer):
        message = f"no pod of {scope_called(peer.scope)} has {peer.pods}{_hint(world, peer)}"
        yield found("peer-matches-nothing", written, f"{path}.podSelector", message)


def _asks_for_something(wanted: Selector) -> bool:
    """Tell whether a selector asks for labels that are there to stay; "everybody but" may well be nobody now."""
    asked = {each.key for each in wanted.requirements if each.operator in (Operator.IN, Operator.EXISTS)}
    return bool(asked) and not asked & _PASSING


def _asks_for_pods(world: World, wanted: PodPeer) -> bool:
    """Tell whether a selection asks for pods that should be there: not by a label to opt in that nobody has yet."""
    switches = {each.key for each in wanted.pods.requirements if is_switch(each)}
    used = (switches & endpoint.labels.keys() for endpoint in world.pods(PodPeer(wanted.scope)).pods)
    return _asks_for_something(wanted.pods) and (not switches or any(used))


def _is_meant(world: World, wanted: PodPeer) -> bool:
    """Tell whether a peer that finds nobody was meant for pods that are known.

    In a live cluster there are no others. Files hold one application of a namespace and not its neighbours, whom a peer
    often means, so that something must show that it means these.
    """
    if world.whole or world.pods(PodPeer(_EVERYWHERE, wanted.pods)).pods:
        return True
    return any(is_slip(wanted.pods, endpoint.labels) for endpoint in world.pods(PodPeer(wanted.scope)).pods)


def _mislabelled(world: World, wanted: Selector) -> str:
    """Return the namespace whose name is asked for as a label that it does not have, as a half sentence."""
    for requirement in wanted.requirements:
        if requirement.operator is not Operator.IN or requirement.key == NAME_LABEL:
            continue
        for name in requirement.values:
            there = name in world.cluster.namespaces and name not in world.known.labelless
            if there and requirement.key not in world.cluster.namespaces[name].labels:
                return f"; namespace {name} has no label {requirement.key}, but always {NAME_LABEL}={name}"
    return ""


def _hint(world: World, wanted: PodPeer) -> str:
    """Say what comes nearest to a selection that finds nobody: in another namespace, or by other labels."""
    elsewhere = world.pods(PodPeer(_EVERYWHERE, wanted.pods)).pods
    if elsewhere:
        return f"; {world.called(elsewhere)} would match, in another namespace"
    here = world.pods(PodPeer(wanted.scope)).pods
    near = min(here, key=lambda pod: (not is_slip(wanted.pods, pod.labels), *_distance(wanted, pod)), default=None)
    if near is None or len(wanted.pods.unmet(near.labels)) == len(wanted.pods.requirements) > 1:
        return ""
    has = _has(near, (r.key for r in wanted.pods.unmet(near.labels)))
    return f"; nearest: {world.called([near])} has {has}"


def _distance(wanted: PodPeer, endpoint: Endpoint) -> tuple[int, PodKey]:
    return len(wanted.pods.unmet(endpoint.labels)), endpoint.key


def _has(endpoint: Endpoint, keys: Iterable[str]) -> str:
    return ", ".join(f"{key}={endpoint.labels[key]}" if key in endpoint.labels else f"no {key}" for key in keys)
