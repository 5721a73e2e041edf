# SPDX-License-Identifier: Apache-2.0
"""Validation of NetworkPolicies: each kind of invalid policy, in kube-apiserver's words."""

from __future__ import annotations

from typing import Any

import pytest

from ringfence.apis.networkpolicy import SHAPE, CidrForm, validate, validation
from ringfence.apis.shapes import unknown_fields

LABEL_KEY = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric"
    " character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is"
    " '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
LABEL_VALUE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and"
    " end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is"
    " '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and"
    " end with an alphanumeric character (e.g. 'example.com', regex used for validation is"
    r" '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
CIDR = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
PORT = "spec.ingress[0].ports[0]"
PEER = "spec.ingress[0].from[0]"


def policy(spec: Any, **metadata: Any) -> dict[str, Any]:
    """Return a policy with a spec."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "demo", **metadata},
        "spec": spec,
    }


def with_port(**port: Any) -> dict[str, Any]:
    """Return a policy with one port entry."""
    return policy({"podSelector": {}, "ingress": [{"ports": [port]}]})


def with_peer(peer: Any) -> dict[str, Any]:
    """Return a policy with one peer."""
    return policy({"podSelector": {}, "ingress": [{"from": [peer]}]})


def with_block(cidr: str, *exceptions: str) -> dict[str, Any]:
    """Return a policy with one block."""
    return with_peer({"ipBlock": {"cidr": cidr, "except": list(exceptions)}})


def with_expression(**expression: Any) -> dict[str, Any]:
    """Return a policy whose podSelector has one expression."""
    return policy({"podSelector": {"matchExpressions": [expression]}})


EXPRESSION = "spec.podSelector.matchExpressions[0]"

INVALID = [
    pytest.param(
        with_port(port=80.5),
        f'{PORT}.port: Invalid value: "number": {PORT}.port in body must be of type integer or string: "number"',
        id="port is a fraction",
    ),
    pytest.param(
        with_peer({"ipBlock": {"except": ["10.0.0.0/8"]}}), f"{PEER}.ipBlock.cidr: Required value", id="no cidr"
    ),
    pytest.param(
        with_expression(operator="Exists"),
        f'{EXPRESSION}.key: Invalid value: "": name part must be non-empty',
        id="expression without a key",
    ),
    pytest.param(
        policy({"podSelector": {"matchLabels": {"a": True}}}),
        'spec.podSelector.matchLabels.a: Invalid value: "boolean": spec.podSelector.matchLabels.a in body must be of'
        ' type string: "boolean"',
        id="label is a boolean",
    ),
    pytest.param(
        policy({"podSelector": {}, "ingress": [{"from": {"podSelector": {}}}]}),
        'spec.ingress[0].from: Invalid value: "object": spec.ingress[0].from in body must be of type array: "object"',
        id="from is an object",
    ),
    pytest.param(
        with_port(port=80, protocol="ICMP"),
        f'{PORT}.protocol: Unsupported value: "ICMP": supported values: "TCP", "UDP", "SCTP"',
        id="protocol without ports",
    ),
    pytest.param(
        with_port(port=80, protocol="tcp"),
        f'{PORT}.protocol: Unsupported value: "tcp": supported values: "TCP", "UDP", "SCTP"',
        id="protocol in lower case",
    ),
    pytest.param(
        with_port(port=0), f"{PORT}.port: Invalid value: 0: must be between 1 and 65535, inclusive", id="port 0"
    ),
    pytest.param(
        with_port(port=65536),
        f"{PORT}.port: Invalid value: 65536: must be between 1 and 65535, inclusive",
        id="port too high",
    ),
    pytest.param(
        with_port(port="80"),
        f'{PORT}.port: Invalid value: "80": must contain at least one letter (a-z)',
        id="port number as a string",
    ),
    pytest.param(
        with_port(port="a-port-name-too-long"),
        f'{PORT}.port: Invalid value: "a-port-name-too-long": must be no more than 15 bytes',
        id="port name too long",
    ),
    pytest.param(
        with_port(port="my_p"),
        f'{PORT}.port: Invalid value: "my_p": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)',
        id="port name with an underscore",
    ),
    pytest.param(
        with_port(port="a--b"),
        f'{PORT}.port: Invalid value: "a--b": must not contain consecutive hyphens',
        id="port name with two hyphens",
    ),
    pytest.param(
        with_port(port="-ab"),
        f'{PORT}.port: Invalid value: "-ab": must not begin or end with a hyphen',
        id="port name starting with a hyphen",
    ),
    pytest.param(
        with_port(port=80, endPort=79),
        f"{PORT}.endPort: Invalid value: 79: must be greater than or equal to `port`",
        id="endPort below port",
    ),
    pytest.param(
        with_port(port=80, endPort=65536),
        f"{PORT}.endPort: Invalid value: 65536: must be between 1 and 65535, inclusive",
        id="endPort too high",
    ),
    pytest.param(
        with_port(port="http", endPort=90),
        f"{PORT}.endPort: Invalid value: 90: may not be specified when `port` is non-numeric",
        id="endPort of a named port",
    ),
    pytest.param(
        with_port(endPort=90),
        f"{PORT}.endPort: Invalid value: 90: may not be specified when `port` is not specified",
        id="endPort of no port",
    ),
    pytest.param(with_peer({}), f"{PEER}: Required value: must specify a peer", id="empty peer"),
    pytest.param(
        with_peer({"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}),
        f"{PEER}: Forbidden: may not specify both ipBlock and another peer",
        id="block and selector",
    ),
    pytest.param(
        with_block("10.0.0.0/33"), f'{PEER}.ipBlock.cidr: Invalid value: "10.0.0.0/33": {CIDR}', id="mask too long"
    ),
    pytest.param(with_block("10.0.0.0"), f'{PEER}.ipBlock.cidr: Invalid value: "10.0.0.0": {CIDR}', id="no mask"),
    pytest.param(
        with_block("10.0.0.0/255.0.0.0"),
        f'{PEER}.ipBlock.cidr: Invalid value: "10.0.0.0/255.0.0.0": {CIDR}',
        id="netmask",
    ),
    pytest.param(
        with_block("fe80::%eth0/64"), f'{PEER}.ipBlock.cidr: Invalid value: "fe80::%eth0/64": {CIDR}', id="zone"
    ),
    pytest.param(
        with_block("10.0.0.5/8"),
        f'{PEER}.ipBlock.cidr: Invalid value: "10.0.0.5/8": must not have bits set beyond the prefix length',
        id="host bits",
    ),
    pytest.param(
        with_block("010.0.0.0/8"),
        f'{PEER}.ipBlock.cidr: Invalid value: "010.0.0.0/8": must not have leading 0s in IP or prefix length',
        id="leading zeros",
    ),
    pytest.param(
        with_block("10.0.0.0/8", "192.168.0.0/16"),
        f'{PEER}.ipBlock.except[0]: Invalid value: "192.168.0.0/16": must be a strict subset of `cidr`',
        id="exception outside",
    ),
    pytest.param(
        with_block("10.0.0.0/8", "10.0.0.0/8"),
        f'{PEER}.ipBlock.except[0]: Invalid value: "10.0.0.0/8": must be a strict subset of `cidr`',
        id="exception of everything",
    ),
    pytest.param(
        with_block("10.0.0.0/8", "2001:db8::/64"),
        f'{PEER}.ipBlock.except[0]: Invalid value: "2001:db8::/64": must be a strict subset of `cidr`',
        id="exception of the other family",
    ),
    pytest.param(
        with_block("10.0.0.0/8", "10.x/16"),
        f'{PEER}.ipBlock.except[0]: Invalid value: "10.x/16": {CIDR}',
        id="exception is no CIDR",
    ),
    pytest.param(
        policy({"podSelector": {}, "policyTypes": ["ingress"]}),
        'spec.policyTypes[0]: Unsupported value: "ingress": supported values: "Ingress", "Egress"',
        id="policy type in lower case",
    ),
    pytest.param(
        policy({"podSelector": {}, "policyTypes": ["Ingress", "Egress", "Ingress"]}),
        'spec.policyTypes: Invalid value: ["Ingress","Egress","Ingress"]: may not specify more than two policyTypes',
        id="three policy types",
    ),
    pytest.param(
        with_expression(key="a", operator="In"),
        f"{EXPRESSION}.values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
        id="In without values",
    ),
    pytest.param(
        with_expression(key="a", operator="Exists", values=["b"]),
        f"{EXPRESSION}.values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        id="Exists with values",
    ),
    pytest.param(
        with_expression(key="a", operator="Equals", values=["b"]),
        f'{EXPRESSION}.operator: Invalid value: "Equals": not a valid selector operator',
        id="unknown operator",
    ),
    pytest.param(
        policy({"podSelector": {"matchLabels": {"-a": "b"}}}),
        f'spec.podSelector.matchLabels: Invalid value: "-a": {LABEL_KEY}',
        id="label key",
    ),
    pytest.param(
        policy({"podSelector": {"matchLabels": {"a": "b c"}}}),
        f'spec.podSelector.matchLabels: Invalid value: "b c": {LABEL_VALUE}',
        id="label value",
    ),
    pytest.param(
        with_expression(key="a", operator="In", values=["ok", "b c"]),
        f'{EXPRESSION}.values[1]: Invalid value: "b c": {LABEL_VALUE}',
        id="label value in an expression",
    ),
    pytest.param(policy({}, name="My_Policy"), f'metadata.name: Invalid value: "My_Policy": {SUBDOMAIN}', id="name"),
    pytest.param(policy({}, name=""), "metadata.name: Required value: name or generateName is required", id="no name"),
]


@pytest.mark.parametrize(("invalid", "complaint"), INVALID)
def test_an_invalid_policy_gets_kube_apiservers_complaint(invalid: dict[str, Any], complaint: str) -> None:
    """Each kind of mistake is found, worded as by kube-apiserver, and nothing is said of any other field."""
    first, *others = validate(invalid)

    assert str(first) == complaint
    assert {error.path for error in others} <= {first.path}


@pytest.mark.parametrize(
    ("field", "obj"),
    [
        ("spec.ingres", policy({"podSelector": {}, "ingres": []})),
        ("spec.ingress[0].from[0].podSelectr", with_peer({"podSelectr": {}})),
    ],
)
def test_unknown_fields_are_found_wherever_they_stand(field: str, obj: dict[str, Any]) -> None:
    """A misspelt field is named with its path, as a server does when asked to be strict."""
    assert [str(error) for error in unknown_fields(obj, SHAPE, "")] == [f'{field}: unknown field "{field}"']


VALID = [
    pytest.param(policy({}), id="no podSelector"),
    pytest.param(policy(None), id="null spec"),
    pytest.param({"metadata": {"name": "p"}}, id="no namespace: the request has it"),
    pytest.param(policy({"podSelector": {}, "ingress": [{}], "egress": None, "policyTypes": []}), id="empty things"),
    pytest.param(with_port(port=65535, endPort=65535, protocol="SCTP"), id="highest port"),
    pytest.param(with_port(protocol="UDP"), id="a protocol alone"),
    pytest.param(with_port(port="http-2"), id="port name"),
    pytest.param(with_peer({"podSelector": None, "namespaceSelector": {}}), id="null selector beside another"),
    pytest.param(with_block("0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16"), id="exceptions within one another"),
    pytest.param(with_block("2001:DB8:0:0::/64", "2001:db8::/65"), id="IPv6 in another spelling"),
    pytest.param(
        with_expression(key="example.com/a", operator="NotIn", values=["", "b"]), id="prefixed key, empty value"
    ),
]


@pytest.mark.parametrize("valid", VALID)
def test_a_valid_policy_gets_no_complaint(valid: dict[str, Any]) -> None:
    """What kube-apiserver accepts is accepted."""
    assert validate(valid) == []


def test_complaints_come_in_kube_apiservers_order() -> None:
    """Metadata, podSelector, then each rule's ports before its peers, ingress before egress, policyTypes last."""
    invalid = policy(
        {
            "policyTypes": ["X"],
            "egress": [{"to": [{}], "ports": [{"port": 0}]}],
            "ingress": [{"from": [{}], "ports": [{"port": 0}]}],
            "podSelector": {"matchLabels": {"a": "b c"}},
        },
        name="-",
    )

    assert [error.path for error in validate(invalid)] == [
        "metadata.name",
        "spec.podSelector.matchLabels",
        "spec.ingress[0].ports[0].port",
        "spec.ingress[0].from[0]",
        "spec.egress[0].ports[0].port",
        "spec.egress[0].to[0]",
        "spec.policyTypes[0]",
    ]


def test_reasons_are_those_of_the_api() -> None:
    """Each kind of complaint has the cause that a Status carries."""
    reasons = {param.id: validate(param.values[0])[0].reason for param in INVALID}

    assert reasons["port 0"] == "FieldValueInvalid"
    assert reasons["empty peer"] == "FieldValueRequired"
    assert reasons["block and selector"] == "FieldValueForbidden"
    assert reasons["policy type in lower case"] == "FieldValueNotSupported"
    assert reasons["from is an object"] == "FieldValueTypeInvalid"


def test_an_update_may_keep_cidrs_of_an_old_form_and_only_those() -> None:
    """CIDRs that the stored object has are not held to today's form; new ones are."""
    old = policy(
        {
            "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.5/8", "except": ["10.1.0.1/16"]}}]}, None],
            "egress": [{"to": [{"ipBlock": {"cidr": "010.0.0.0/8"}}, None, {"podSelector": {}}]}],
        }
    )

    assert validate(with_block("10.0.0.5/8", "10.1.0.1/16"), old=old) == []
    assert validate(with_block("010.0.0.0/8"), old=old) == []
    assert len(validate(with_block("11.0.0.5/8"), old=old)) == 1


def test_an_update_may_keep_bad_label_values_if_the_stored_podselector_has_some() -> None:
    """Values in matchExpressions were not always checked; an object that has bad ones stays updatable."""
    invalid = with_expression(key="a", operator="In", values=["b c"])

    assert len(validate(invalid, old=policy({}))) == 1
    assert validate(invalid, old=invalid) == []


def test_old_api_servers_took_host_bits_and_leading_zeros() -> None:
    """The legacy form of CIDRs can be asked for; what never was a CIDR is still refused."""
    for cidr in ("10.0.0.5/8", "010.0.0.0/8", "10.0.0.0/08", "::ffff:10.0.0.0/104", "2001:0db8::00001/64"):
        assert validate(with_block(cidr), cidrs=CidrForm.LEGACY) == []
        assert len(validate(with_block(cidr))) == 1
    assert len(validate(with_block("10.0.0.256/8"), cidrs=CidrForm.LEGACY)) == 1


@pytest.mark.parametrize("thing", [None, 5, "x", [], {"spec": 5}, {"spec": []}, {"metadata": "x", "spec": {}}])
def test_what_is_no_policy_at_all_is_refused_without_a_crash(thing: object) -> None:
    """Any JSON value can be validated."""
    assert validate(thing) != []


@pytest.mark.parametrize(
    "peer",
    [
        {"ipBlock": {"cidr": "10.0.0.0/8"}},
        {"ipBlock": {"cidr": "010.0.0.0/8"}},
        {"ipBlock": {"cidr": "10.0.0.0/33"}},
        {"ipBlock": {"cidr": ""}},
        {"ipBlock": {}},
        {"ipBlock": {"except": ["10.0.0.0/9"]}},
        {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}},
        {"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}},
        {},
    ],
)
def test_plain_blocks_are_passed_over_and_nothing_else_is(
    peer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The short way to sound blocks hides no complaint, in either form of CIDRs."""
    obj = {"metadata": {"name": "p"}, "spec": {"podSelector": {}, "ingress": [{"from": [peer]}]}}
    found = [validate(obj, cidrs=form) for form in CidrForm]
    monkeypatch.setattr(validation, "_is_plain_block", lambda _peer, _leniency: False)

    assert [validate(obj, cidrs=form) for form in CidrForm] == found
