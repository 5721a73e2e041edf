# SPDX-License-Identifier: Apache-2.0
"""Manifests from files, directories and text: objects, each with the place that it was written at.

Reads what kubectl reads: YAML and JSON, several documents a file, directories, lists of objects. Everything that is
wrong is collected with file, line and column, and the rest is still read. What an object means is the business of
the module of its API; ``cluster_from_objects`` puts them together for tools that work without a cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ringfence.apis import networkpolicy
from ringfence.apis.core import (
    NamespaceObject,
    NodeObject,
    ObjectMeta,
    Pod,
    build_cluster,
    convert,
    with_invented_addresses,
)
from ringfence.apis.fields import required
from ringfence.apis.networkpolicy import lower, policy_set
from ringfence.apis.shapes import unknown_fields
from ringfence.apis.workloads import is_workload, template_pods
from ringfence.apis.yamltext import Document, Unreadable, documents
from ringfence.errors import FieldError, InvalidObject, UnreadablePath
from ringfence.model.cluster import Cluster
from ringfence.model.policy import Policy, PolicySet

STDIN = "-"
_TEMPLATE = "if it is a template, give what it renders to, as in: helm template . | ringfence lint -f -"
_SUFFIXES = frozenset({".yaml", ".yml", ".json"})


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object, and where it was written: ``path`` is its field path in the document (``items[2]`` in a List)."""

    object: dict[str, Any]
    file: str
    document: Document = field(repr=False)
    path: str = ""

    def located(self, error: FieldError) -> FieldError:
        """Return a complaint about the object with the line and column that it is about."""
        path = f"{self.path}.{error.path}" if self.path and error.path else self.path or error.path
        line, column = self.document.place(path)
        return replace(error, line=line, column=column)

    def complaint(self, errors: Sequence[FieldError]) -> InvalidObject:
        """Return complaints about the object as one error, each with its place."""
        located = sorted((self.located(error) for error in errors), key=_place)
        return InvalidObject(kind_of(self.object), name_of(self.object), located, file=self.file)


class Loaded(NamedTuple):
    """The objects of files in the order in which they stand there, and everything that was wrong."""

    manifests: tuple[Manifest, ...]
    problems: tuple[InvalidObject, ...]


class Offline(NamedTuple):
    """What tools without a cluster work on."""

    cluster: Cluster
    policies: PolicySet
    problems: tuple[InvalidObject, ...]


def load_paths(
    paths: Iterable[str | Path], *, recursive: bool = False, stdin: Callable[[], str] | None = None
) -> Loaded:
    """Load files and directories; ``-`` is what ``stdin`` returns.

    Directories are read as kubectl does: the files named ``*.yaml``, ``*.yml`` and ``*.json``, sorted, those of
    directories below only if ``recursive``. A path that cannot be read is a problem like others (``UnreadablePath``).
    """
    manifests: list[Manifest] = []
    problems: list[InvalidObject] = []
    for path in paths:
        for read in _texts(path, recursive=recursive, stdin=stdin):
            match read:
                case InvalidObject():
                    problems.append(read)
                case name, text:
                    loaded = load_text(text, file=name)
                    manifests += loaded.manifests
                    problems += loaded.problems
    return Loaded(tuple(manifests), by_place(problems))


def load_text(text: str, *, file: str) -> Loaded:
    """Load the objects of a text; ``file`` is the name that errors give it."""
    manifests: list[Manifest] = []
    problems: list[InvalidObject] = []
    try:
        for document in documents(text):
            if document.repeated:
                whose = kind_of(document.value), name_of(document.value)
                problems.append(InvalidObject(*whose, document.repeated, file=file))
            for value, path in _flattened(document.value, ""):
                # What is no object at all is complained about as one that has nothing.
                manifest = Manifest(value if isinstance(value, dict) else {}, file, document, path)
                errors = _identity_errors(manifest.object)
                if errors:
                    problems.append(manifest.complaint(errors))
                else:
                    manifests.append(manifest)
    except Unreadable as stop:
        hint = f"; {_TEMPLATE}" if "{{" in text else ""
        where = FieldError("", f"{stop.problem}{hint}", "", stop.line, stop.column)
        problems.append(InvalidObject("file", file, [where], file=file))
    return Loaded(tuple(manifests), by_place(problems))


def by_place(problems: Iterable[InvalidObject]) -> tuple[InvalidObject, ...]:
    """Return complaints file by file, those of one file by line."""
    files: dict[str | None, list[InvalidObject]] = {}
    for problem in problems:
        files.setdefault(problem.file, []).append(problem)
    return tuple(each for found in files.values() for each in sorted(found, key=lambda each: _place(each.errors[0])))


def _place(error: FieldError) -> tuple[int, int]:
    return error.line or 0, error.column or 0


def cluster_from_manifests(manifests: Iterable[Manifest], *, fill_gaps: bool = False) -> Offline:
    """Return the cluster and policies that manifests make up; problems have file, line and column.

    With ``fill_gaps``, what files seldom hold is made up: the namespaces that objects are in, the pods that workloads
    would make (``workloads.template_pods``), and addresses for pods that have none
    (``core.with_invented_addresses``). Without, it is missing, as it would be in a cluster.
    """
    gathered = _Gathered()
    for manifest in manifests:
        gathered.add(manifest.object, manifest.complaint)
    return gathered.finish(fill_gaps=fill_gaps)


def cluster_from_objects(objects: Iterable[Mapping[str, Any]], *, fill_gaps: bool = False) -> Offline:
    """Return the cluster and policies that decoded objects make up; as ``cluster_from_manifests``, without places."""
    gathered = _Gathered()
    for obj in objects:
        gathered.add(obj, partial(InvalidObject, kind_of(obj), name_of(obj)))
    return gathered.finish(fill_gaps=fill_gaps)


def kind_of(obj: object) -> str:
    """Return an object's kind as the API server's errors name it (``NetworkPolicy.networking.k8s.io``)."""
    match obj:
        case {"kind": str(kind), "apiVersion": str(api_version)} if "/" in api_version:
            return f"{kind}.{api_version.partition('/')[0]}"
        case {"kind": str(kind)}:
            return kind
        case _:
            return "object"


def name_of(obj: object) -> str:
    """Return an object's name, empty if it has none."""
    match obj:
        case {"metadata": {"name": str(name)}}:
            return name
        case _:
            return ""


@dataclass(slots=True)
class _Gathered:
    """Objects sorted by what they are; kinds that policy has no use for are left out."""

    namespaces: list[NamespaceObject] = field(default_factory=list)
    nodes: list[NodeObject] = field(default_factory=list)
    pods: list[Pod] = field(default_factory=list)
    policies: list[Policy] = field(default_factory=list)
    problems: list[InvalidObject] = field(default_factory=list)
    seen: list[Mapping[str, Any]] = field(default_factory=list)
    workloads: list[tuple[Mapping[str, Any], Callable[[Sequence[FieldError]], InvalidObject]]] = field(
        default_factory=list
    )

    def add(self, obj: Mapping[str, Any], complaint: Callable[[Sequence[FieldError]], InvalidObject]) -> None:
        try:
            match obj.get("apiVersion"), obj.get("kind"):
                case "v1", "Namespace":
                    self.namespaces.append(convert(NamespaceObject, obj))
                case "v1", "Node":
                    self.nodes.append(convert(NodeObject, obj))
                case "v1", "Pod":
                    pod = convert(Pod, obj)
                    pod.metadata.namespace = pod.metadata.namespace or networkpolicy.DEFAULT_NAMESPACE
                    self.pods.append(pod)
                    self.seen.append(obj)
                case "networking.k8s.io/v1", "NetworkPolicy":
                    lowered = lower(obj)
                    self.policies.append(lowered.policy)
                    errors = [*unknown_fields(obj, networkpolicy.SHAPE, ""), *lowered.problems]
                    if errors:
                        self.problems.append(complaint(errors))
                case _ if is_workload(obj):
                    self.workloads.append((obj, complaint))
                case _:
                    pass
        except InvalidObject as error:
            self.problems.append(complaint(error.errors))

    def _make_pods(self) -> None:
        for workload, complaint in self.workloads:
            try:
                self.pods += [convert(Pod, pod) for pod in template_pods([workload], self.seen)]
            except InvalidObject as error:
                errors = (replace(each, path=f"spec.template.{each.path}") for each in error.errors)
                self.problems.append(complaint(list(errors)))

    def finish(self, *, fill_gaps: bool) -> Offline:
        if fill_gaps:
            self._make_pods()
        pods: Sequence[Pod] = self.pods
        if fill_gaps:
            pods = with_invented_addresses(self.pods)
            implied = {pod.metadata.namespace for pod in pods} | {policy.ref.namespace for policy in self.policies}
            known = {namespace.metadata.name for namespace in self.namespaces}
            self.namespaces += [NamespaceObject(ObjectMeta(name=name)) for name in sorted(implied - known)]
        # An object that is given twice is the later one, as if both had been applied.
        last = {policy.ref: policy for policy in self.policies}
        return Offline(
            build_cluster(self.namespaces, self.nodes, pods), policy_set(last.values()), by_place(self.problems)
        )


def _flattened(value: Any, path: str) -> Iterable[tuple[Any, str]]:
    """Yield the objects of a document with their paths in it: itself, or what a List holds."""
    match value:
        case {"kind": str(kind), "items": list(items)} if kind.endswith("List"):
            # Items of typed lists (PodList) need not repeat what they are.
            implied = (
                {} if kind == "List" else {"apiVersion": value.get("apiVersion"), "kind": kind.removesuffix("List")}
            )
            for index, each in enumerate(items):
                item = {**implied, **each} if isinstance(each, dict) else each
                yield from _flattened(item, f"{path}.items[{index}]" if path else f"items[{index}]")
        case _:
            yield value, path


def _identity_errors(obj: Mapping[str, Any]) -> list[FieldError]:
    return [required(key) for key in ("apiVersion", "kind") if not isinstance(obj.get(key), str) or not obj[key]]


def _texts(
    path: str | Path, *, recursive: bool, stdin: Callable[[], str] | None
) -> Iterator[tuple[str, str] | InvalidObject]:
    """Yield name and text of each file of a path, or what keeps it from being read."""
    if str(path) == STDIN and stdin is not None:
        yield "stdin", stdin()
        return
    root = Path(path)
    try:
        if not root.exists():
            yield UnreadablePath(str(path), "does not exist")
            return
        files = _files(root, recursive=recursive)
    except OSError as error:
        yield UnreadablePath(str(path), f"cannot be read: {error.strerror}")
        return
    for file in files:
        try:
            yield str(file), file.read_text(encoding="utf-8-sig")
        except OSError as error:
            yield UnreadablePath(str(file), f"cannot be read: {error.strerror}")
        except UnicodeDecodeError as error:
            where = FieldError("", f"not UTF-8: {error.reason} at byte {error.start}", "", 1, 1)
            yield InvalidObject("file", str(file), [where], file=str(file))


def _files(path: Path, *, recursive: bool) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = path.rglob("*") if recursive else path.glob("*")
    return sorted(each for each in found if each.suffix in _SUFFIXES and each.is_file())
