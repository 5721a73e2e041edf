# SPDX-License-Identifier: Apache-2.0
"""An imagined cluster has a pod of every kind that selectors can tell apart."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.model.cluster import Cluster, ContainerPort, Endpoint, Namespace, PodKey
from ringfence.model.labels import Labels, Operator, Requirement, Selector
from ringfence.model.policy import InNamespace, NamespacesMatching, PodPeer
from ringfence.model.ports import NamedPort, PortMatch, Ports, Protocol
from ringfence.semantics.imagined import imagined
from ringfence.semantics.questions import Questions
from tests.semantics.busy_worlds import World, worlds
from tests.semantics.small_worlds import KEYS, network_policies, policy, rule

_anything = st.dictionaries(st.sampled_from((*KEYS, "unasked")), st.sampled_from(("a", "b", "c", "other")), max_size=3)


@given(drawn=worlds, of_pod=_anything, of_namespace=_anything, place=st.sampled_from(("shop", "bank", "late", "new")))
@settings(deadline=None, max_examples=150)
def test_a_pod_with_any_labels_is_matched_as_one_that_is_imagined(
    drawn: World, of_pod: dict[str, str], of_namespace: dict[str, str], place: str
) -> None:
    """In a namespace that is known, and in one with any labels."""
    known = list(drawn.cluster.namespaces.values())
    made = imagined(known, [drawn.one, drawn.other])
    namespaces = dict(made.namespaces)
    namespaces.setdefault(place, Namespace(place, Labels(of_namespace)))
    stranger = Endpoint(PodKey(place, "stranger"), "uid", Labels(of_pod), frozenset(), "")
    questions = Questions(
        Cluster(namespaces.values(), (), [*made.endpoints.values(), stranger]), [drawn.one, drawn.other]
    )

    def asked(endpoint: Endpoint) -> tuple[int, int]:
        found = questions._of_identity(endpoint.key.namespace, endpoint.labels)
        return found.subjects, found.peers

    assert asked(stranger) in {asked(each) for each in made.endpoints.values()}


def test_a_value_that_nobody_asks_for_is_found_whatever_is_asked_for() -> None:
    """NotIn is true of another value, which must be another."""
    differs = Selector((Requirement("app", Operator.NOT_IN, ("other", "other-2")), Requirement("app", Operator.EXISTS)))
    made = imagined([], [network_policies(policy(subject=PodPeer(InNamespace("shop"), differs), ingress=()))])

    assert {each.labels.get("app") for each in made.endpoints.values()} == {None, "other-3"}


def test_a_namespace_that_only_a_selector_names_has_that_name() -> None:
    """By its label of that name."""
    named = Selector((Requirement("kubernetes.io/metadata.name", Operator.IN, ("bank",)),))
    made = imagined([], [network_policies(policy(subject=PodPeer(NamespacesMatching(named)), ingress=()))])

    assert "bank" in made.namespaces


def test_port_names_have_numbers_of_their_own() -> None:
    """The same on every pod, and different for each name and protocol."""
    matches = (PortMatch(Protocol.TCP, NamedPort("http")), PortMatch(Protocol.UDP, NamedPort("http")))
    made = imagined([], [network_policies(policy(ingress=(rule(traffic=Ports(matches)),)))])

    assert {each.ports for each in made.endpoints.values()} == {
        (ContainerPort("http", 61000, Protocol.TCP), ContainerPort("http", 61001, Protocol.UDP))
    }
    assert len({address for each in made.endpoints.values() for address in each.addresses}) == 4
