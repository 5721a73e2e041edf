# SPDX-License-Identifier: Apache-2.0
"""The model's values cannot be built wrong, and say what they are."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.model.addresses import Block
from ringfence.model.flow import Flow
from ringfence.model.labels import EVERYTHING, Labels, Operator, Requirement, Selector
from ringfence.model.policy import Action, NamespacesMatching, ObjectRef, PolicySet, Tier, listed
from ringfence.model.ports import PortRange, Protocol

V4, V6 = ipaddress.ip_address("10.0.0.1"), ipaddress.ip_address("fd00::1")


@pytest.mark.parametrize(
    "build",
    [
        lambda: Flow(V4, V6, Protocol.TCP, 80),
        lambda: Flow(V4, V4, Protocol.TCP),
        lambda: Flow(V4, V4, Protocol.ICMP, 80),
        lambda: Flow(V4, V4, Protocol.TCP, 65536),
        lambda: PortRange(2, 1),
        lambda: PortRange(0, 65536),
        lambda: Requirement("app", Operator.IN),
        lambda: Requirement("app", Operator.EXISTS, ("a",)),
        lambda: Tier("t", 0, Action.ALLOW),
    ],
)
def test_an_illegal_value_cannot_be_built(build: Callable[[], object]) -> None:
    """Constructors refuse, so nothing behind them has to check again."""
    with pytest.raises(ValueError, match=r"\S"):
        build()


def test_labels_are_values() -> None:
    """Equal whatever the order they were given in, hashable, and not equal to what is no Labels."""
    one, other = Labels({"a": "1", "b": "2"}), Labels({"b": "2", "a": "1"})

    assert one == other
    assert hash(one) == hash(other)
    assert one != {"a": "1", "b": "2"}
    assert (str(one), repr(one)) == ("a=1,b=2", "Labels({'a': '1', 'b': '2'})")


def test_selectors_that_say_the_same_are_equal() -> None:
    """The order of requirements and of their values does not matter, nor do repeats."""
    app = Requirement("app", Operator.IN, ("a", "b"))
    tier = Requirement("tier", Operator.EXISTS)

    assert Selector((app, tier)) == Selector((tier, Requirement("app", Operator.IN, ("b", "a", "a")), tier))
    assert str(EVERYTHING) == "everything"
    assert str(NamespacesMatching(Selector((tier,)))) == "namespaces with tier"


def test_names_of_objects_say_where_they_are() -> None:
    """Cluster-wide objects have no namespace in front."""
    assert str(ObjectRef("NetworkPolicy", "demo", "p")) == "NetworkPolicy demo/p"
    assert str(ObjectRef("Node", "", "n")) == "Node n"


def test_objects_are_listed_as_in_a_sentence() -> None:
    """A kind is said where it begins, and what there is no room for is counted."""
    refs = [ObjectRef("NetworkPolicy", "demo", name) for name in "abcde"]
    refs += [ObjectRef("Tier", "", "t"), ObjectRef("Tier", "", "u")]

    assert listed(refs[:1], 9) == "NetworkPolicy demo/a"
    assert listed(refs[:2], 2) == "NetworkPolicy demo/a and demo/b"
    assert listed(refs[:5], 2) == "NetworkPolicy demo/a, demo/b and 3 more"
    assert listed(refs[4:], 9) == "NetworkPolicy demo/e, Tier t and u"


def test_tiers_are_asked_in_their_order() -> None:
    """Whatever the order they were given in; ports of a range are told apart from one."""
    late, early = Tier("a", 2, Action.PASS), Tier("b", 1, Action.DENY)

    assert PolicySet((late, early)).tiers == (early, late)
    assert (str(PortRange(80, 80)), str(PortRange(80, 90))) == ("80", "80-90")


@given(
    length=st.integers(24, 32),
    holes=st.lists(st.tuples(st.integers(0, 255), st.integers(24, 32)), max_size=4),
    last=st.integers(0, 255),
)
def test_what_a_block_covers_is_the_networks_that_are_left(
    length: int, holes: list[tuple[int, int]], last: int
) -> None:
    """Covering an address, and lying in one of the networks that subtraction leaves, is the same."""
    exceptions = tuple(ipaddress.ip_network((f"10.0.0.{byte}", size), strict=False) for byte, size in holes)
    block = Block(ipaddress.ip_network(("10.0.0.0", length), strict=False), exceptions)
    address = ipaddress.ip_address(f"10.0.0.{last}")

    assert block.contains(address) == any(address in network for network in block.networks())
