# SPDX-License-Identifier: Apache-2.0
r"""The case file: what one may write, field by field, and where a mistake in it stands.

A case is a YAML mapping: what it shows, a cluster, and steps. Each step changes the cluster and says which
connections must then be allowed or denied, as a table or one by one::

    shows: Without a policy everything passes; an empty ingress list isolates.
    cluster:
      namespaces: {shop: {team: a}}
      pods:
        shop/web: {labels: {app: web}, ports: [{name: http, containerPort: 80}]}
        shop/client: {labels: {app: client}}
    steps:
      - say: nobody may reach web
        apply:
          - {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: deny, namespace: shop},
             spec: {podSelector: {matchLabels: {app: web}}}}
        expect:
          - traffic: TCP/80
            table: |
              from\to      shop/web  shop/client
              shop/web        .          .
              shop/client     X          .

Rows are sources, columns destinations; ``.`` allows, ``X`` denies, ``-`` is not asked. This module checks the shape
only; ``build`` resolves names and addresses.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from ringfence.apis.yamltext import Unreadable, documents
from ringfence.errors import FieldError, InvalidObject

Verdict = Literal["allow", "deny"]
Error = Literal["too-big", "forged-too-big"]


class PortSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A port that a container of a pod declares, with the fields of v1 ContainerPort."""

    containerPort: int  # noqa: N815 - the API's spelling
    name: str | None = None
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"


class PodSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A pod. Without ``node`` pods go to the nodes in turn; without ``addresses`` each gets one of each family from
    its node's block, ``[]`` leaves it without; ``sidecarPorts`` are those of an init container that keeps running.
    Services send to pods that are ``ready`` only.
    """

    labels: dict[str, str] = {}
    ports: tuple[PortSpec, ...] = ()
    sidecarPorts: tuple[PortSpec, ...] = ()  # noqa: N815 - written beside the API's camelCase
    node: str | None = None
    addresses: tuple[str, ...] | None = None
    hostNetwork: bool = False  # noqa: N815 - the API's spelling
    phase: Literal["Pending", "Running", "Succeeded", "Failed", "Unknown"] = "Running"
    ready: bool = True
    terminating: bool = False


class NodeSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A node; without ``addresses`` it gets one of each family."""

    labels: dict[str, str] = {}
    addresses: tuple[str, ...] | None = None


class ServicePortSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A port of a Service, with the fields of v1 ServicePort; without ``targetPort`` it is ``port`` on the pods too."""

    port: int
    name: str | None = None
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    targetPort: int | str | None = None  # noqa: N815 - the API's spelling
    nodePort: int | None = None  # noqa: N815 - the API's spelling


class ServiceSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A Service; without ``clusterIPs`` it gets one of each family."""

    selector: dict[str, str]
    ports: tuple[ServicePortSpec, ...]
    type: Literal["ClusterIP", "NodePort"] = "ClusterIP"
    clusterIPs: tuple[str, ...] | None = None  # noqa: N815 - the API's spelling
    externalTrafficPolicy: Literal["Cluster", "Local"] = "Cluster"  # noqa: N815 - the API's spelling


class ConnectionSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"source": "from"}):
    """A connection to open and to keep open, in each family that both ends have (or only in ``family``)."""

    source: str
    to: str
    traffic: str
    family: Literal[4, 6] | None = None


class Expectation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"source": "from"}):
    """A table, or ``from``, ``to`` and ``verdict``; of each ``traffic`` (``TCP/80``, ``ICMP``), in each family that
    both ends have (or only in ``family``).

    With ``error`` it is not the connection that is asked for. ``too-big``: does a router's path-MTU error about the
    connection reach ``from``? ``forged-too-big``: does one about a connection between them that nobody opened?
    """

    traffic: str | tuple[str, ...]
    family: Literal[4, 6] | None = None
    error: Error | None = None
    table: str | None = None
    source: str | None = None
    to: str | None = None
    verdict: Verdict | None = None


class StepSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Changes, taken in the order of the fields, and what must hold after them.

    ``namespaces``, ``pods`` and ``services`` add or replace (a pod keeps its identity, and the addresses it has, until
    deleted; a Service its addresses); ``label`` merges into the labels of a pod (``namespace/name``) or a namespace
    (``name``), null takes one away; ``apply`` takes manifests of policies; ``delete`` names objects as
    ``Kind namespace/name``. ``connections`` opens connections, which must be possible; ``established`` says what has
    become of those of this step and of earlier ones.
    """

    say: str = ""
    nodes: dict[str, NodeSpec] = {}
    namespaces: dict[str, dict[str, str]] = {}
    pods: dict[str, PodSpec] = {}
    services: dict[str, ServiceSpec] = {}
    label: dict[str, dict[str, str | None]] = {}
    apply: tuple[dict[str, Any], ...] = ()
    delete: tuple[str, ...] = ()
    connections: dict[str, ConnectionSpec] = {}
    established: dict[str, Literal["alive", "cut"]] = {}
    expect: tuple[Expectation, ...] = ()


def _two_nodes() -> dict[str, NodeSpec]:
    return {"node-a": NodeSpec(), "node-b": NodeSpec()}


class ClusterSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The cluster before the first step; without ``nodes`` there are two, ``node-a`` and ``node-b``."""

    namespaces: dict[str, dict[str, str]] = {}
    nodes: dict[str, NodeSpec] = msgspec.field(default_factory=_two_nodes)
    pods: dict[str, PodSpec] = {}
    services: dict[str, ServiceSpec] = {}


class SettingsSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an operator may choose about the meaning of policies (``model.settings``)."""

    nodeProbes: Literal["allow", "deny"] = "allow"  # noqa: N815 - written beside the API's camelCase
    ownNodeEgress: Literal["policy", "allow"] = "policy"  # noqa: N815 - same
    establishedConnections: Literal["cut", "keep"] = "cut"  # noqa: N815 - same


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file."""

    shows: str
    cluster: ClusterSpec
    steps: tuple[StepSpec, ...]
    settings: SettingsSpec = SettingsSpec()


class Source:
    """A case's text: what it says, and on which line and column each field stands."""

    def __init__(self, text: str, *, file: str) -> None:
        self._file = file
        try:
            found = [*documents(text)]
        except Unreadable as stop:
            raise self._invalid(FieldError("", stop.problem, "", stop.line, stop.column)) from None
        if len(found) != 1:
            raise self._invalid(FieldError("", "a case is one YAML document", "FieldValueInvalid"))
        self._document = found[0]
        if self._document.repeated:
            raise self._invalid(*self._document.repeated)
        self.data: Any = self._document.value

    def error(self, path: str, message: str, *, place: str | None = None) -> InvalidObject:
        """Return the complaint about a field (``steps[0].expect[1].table``), with the place where it stands, or where
        another field does.
        """
        line, column = self._document.place(path if place is None else place)
        return self._invalid(FieldError(path, message, "FieldValueInvalid", line, column))

    def _invalid(self, *errors: FieldError) -> InvalidObject:
        return InvalidObject("Case", self._file.rpartition("/")[2], errors, file=self._file)


def decode(source: Source) -> Case:
    """Return the case that a text describes; raises ``InvalidObject`` with file, line, column and field."""
    try:
        return msgspec.convert(source.data, Case)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        if "got `bool`" in message:
            message += " (y, n, yes, no, on and off are truth values in YAML: quote them where they are names)"
        path = path.rstrip("`").replace("[...]", "").lstrip(".")
        _, _, unknown = message.partition("unknown field `")
        place = f"{path}.{unknown.rstrip('`')}".lstrip(".") if unknown else path
        raise source.error(path, message, place=place) from None
