# SPDX-License-Identifier: Apache-2.0
"""The kinds that the server knows from the start, as a table that one can read down.

Says what discovery says of a kind, where its objects are kept, and which fields can be selected on. What a kind
decides about its own writes is in ``kinds``, what ``kubectl get`` shows of it in ``printing``. Kinds made by
CustomResourceDefinitions become ``Resource`` values too (``customresources``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from ringfence.lab.apiserver import printing
from ringfence.lab.apiserver.eventforms import from_core, to_core
from ringfence.lab.apiserver.objects import Object
from ringfence.lab.apiserver.printing import ANY, Layout
from ringfence.lab.apiserver.schema.kinds import KindSchema, of_kind

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
STATUS_VERBS = ("get", "patch", "update")


@dataclass(frozen=True, slots=True)
class ScalePaths:
    """Where an object keeps its replicas, wanted and found, and the selector of them (empty if nowhere)."""

    spec: str = "spec.replicas"
    status: str = "status.replicas"
    selector: str = "spec.selector"


@dataclass(frozen=True, slots=True)
class Subresource:
    """A part of an object with a path of its own. ``kind`` and its group and version are what one sends and gets."""

    verbs: tuple[str, ...]
    kind: str = ""
    group: str = ""
    version: str = ""
    scale: ScalePaths = ScalePaths()


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """A kind in one version. ``storage`` names where its objects are kept: versions of a kind share it.

    ``spec_fields`` says which change bumps ``metadata.generation``: ``spec`` alone, everything beside metadata and
    status (empty string), or none at all (None). ``to_storage`` and ``from_storage`` turn objects of this version
    into the kept form and back, where they differ; neither changes its argument. ``schema`` and ``layout`` of built-in
    kinds are found by their names, those of custom kinds come with their definition.
    """

    group: str
    version: str
    kind: str
    plural: str
    singular: str = ""
    storage: str = ""
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    subresources: Mapping[str, Subresource] = field(default_factory=dict)
    spec_fields: str | None = "spec"
    selectable: tuple[str, ...] = ()
    to_storage: Callable[[Object], Object] | None = None
    from_storage: Callable[[Object], Object] | None = None
    custom: bool = False
    schema: KindSchema | None = None
    layout: Layout = ANY

    def __post_init__(self) -> None:
        object.__setattr__(self, "singular", self.singular or self.kind.lower())
        object.__setattr__(self, "storage", self.storage or self.plural)
        if not self.custom:
            object.__setattr__(self, "layout", printing.BUILT_IN.get(self.storage, ANY))

    @property
    def api_version(self) -> str:
        """Group and version as objects say them: ``v1``, ``apps/v1``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def list_kind(self) -> str:
        """The kind of a list of these."""
        return f"{self.kind}List"

    @property
    def has_status(self) -> bool:
        """Tell whether spec and status are written on separate paths."""
        return "status" in self.subresources

    def shape(self) -> KindSchema | None:
        """Return the kind's schema, None for the few kinds that have none."""
        return self.schema if self.custom else of_kind(self.api_version, self.kind)

    def is_kept(self, obj: Object) -> Object:
        """Return an object of this version in the form in which it is kept."""
        return self.to_storage(obj) if self.to_storage else obj

    def is_shown(self, obj: Object) -> Object:
        """Return a kept object in this version."""
        return self.from_storage(obj) if self.from_storage else obj


_STATUS = {"status": Subresource(STATUS_VERBS)}
_SCALE = {"scale": Subresource(STATUS_VERBS, "Scale", "autoscaling", "v1")}
_POD_PARTS = {
    "attach": Subresource(("create", "get"), "PodAttachOptions", "", "v1"),
    "binding": Subresource(("create",), "Binding", "", "v1"),
    "eviction": Subresource(("create",), "Eviction", "policy", "v1"),
    "exec": Subresource(("create", "get"), "PodExecOptions", "", "v1"),
    "log": Subresource(("get",)),
    "portforward": Subresource(("create", "get"), "PodPortForwardOptions", "", "v1"),
    **_STATUS,
}
_POD_FIELDS = (
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.nominatedNodeName",
)
_EVENT_FIELDS = (
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
)


_core = partial(Resource, group="", version="v1")

BUILT_IN: tuple[Resource, ...] = (
    _core(kind="ConfigMap", plural="configmaps", short_names=("cm",), spec_fields=None),
    _core(kind="Endpoints", plural="endpoints", short_names=("ep",), spec_fields=None),
    _core(kind="Event", plural="events", short_names=("ev",), spec_fields=None, selectable=_EVENT_FIELDS),
    _core(
        kind="Namespace",
        plural="namespaces",
        short_names=("ns",),
        namespaced=False,
        verbs=tuple(verb for verb in ALL_VERBS if verb != "deletecollection"),
        subresources={"finalize": Subresource(("update",)), **_STATUS},
        spec_fields=None,
        selectable=("status.phase",),
    ),
    _core(
        kind="Node",
        plural="nodes",
        short_names=("no",),
        namespaced=False,
        subresources=_STATUS,
        spec_fields=None,
        selectable=("spec.unschedulable",),
    ),
    _core(
        kind="Pod",
        plural="pods",
        short_names=("po",),
        categories=("all",),
        subresources=_POD_PARTS,
        spec_fields="spec",
        selectable=_POD_FIELDS,
    ),
    _core(kind="Secret", plural="secrets", spec_fields=None, selectable=("type",)),
    _core(kind="ServiceAccount", plural="serviceaccounts", short_names=("sa",), spec_fields=None),
    _core(
        kind="Service",
        plural="services",
        short_names=("svc",),
        categories=("all",),
        subresources=_STATUS,
        spec_fields=None,
        selectable=("spec.clusterIP", "spec.type"),
    ),
    Resource(
        group="apiextensions.k8s.io",
        version="v1",
        kind="CustomResourceDefinition",
        plural="customresourcedefinitions",
        short_names=("crd", "crds"),
        categories=("api-extensions",),
        namespaced=False,
        subresources=_STATUS,
    ),
    Resource(
        group="apps",
        version="v1",
        kind="Deployment",
        plural="deployments",
        short_names=("deploy",),
        categories=("all",),
        subresources={**_SCALE, **_STATUS},
    ),
    Resource(
        group="apps",
        version="v1",
        kind="ReplicaSet",
        plural="replicasets",
        short_names=("rs",),
        categories=("all",),
        subresources={**_SCALE, **_STATUS},
        selectable=("status.replicas",),
    ),
    Resource(
        group="authentication.k8s.io",
        version="v1",
        kind="SelfSubjectReview",
        plural="selfsubjectreviews",
        namespaced=False,
        verbs=("create",),
    ),
    Resource(
        group="authorization.k8s.io",
        version="v1",
        kind="SelfSubjectAccessReview",
        plural="selfsubjectaccessreviews",
        namespaced=False,
        verbs=("create",),
    ),
    Resource(
        group="authorization.k8s.io",
        version="v1",
        kind="SelfSubjectRulesReview",
        plural="selfsubjectrulesreviews",
        namespaced=False,
        verbs=("create",),
    ),
    Resource(group="coordination.k8s.io", version="v1", kind="Lease", plural="leases", spec_fields=None),
    Resource(group="discovery.k8s.io", version="v1", kind="EndpointSlice", plural="endpointslices", spec_fields=""),
    Resource(
        group="events.k8s.io",
        version="v1",
        kind="Event",
        plural="events",
        short_names=("ev",),
        spec_fields=None,
        selectable=(
            *(f.replace("involvedObject", "regarding") for f in _EVENT_FIELDS if f.startswith("involvedObject")),
            "reason",
            "reportingController",
            "type",
        ),
        to_storage=to_core,
        from_storage=from_core,
    ),
    Resource(
        group="networking.k8s.io", version="v1", kind="NetworkPolicy", plural="networkpolicies", short_names=("netpol",)
    ),
)

REVIEWS = frozenset(r.plural for r in BUILT_IN if r.verbs == ("create",))
"""Kinds that are questions: created, answered and forgotten."""

GROUP_ORDER = (
    "",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "networking.k8s.io",
    "apiextensions.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
)
"""The order in which discovery names the groups, which decides what a bare plural such as ``events`` means."""
