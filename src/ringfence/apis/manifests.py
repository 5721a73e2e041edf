# SPDX-License-Identifier: Apache-2.0
"""Manifests from files, directories and text: objects, each with the place that it was written at.

Reads what kubectl reads: YAML and JSON, several documents a file, directories, lists of objects. Everything that is
wrong is collected with file, line and column, and the rest is still read. What an object means is the business of
the module of its API; ``cluster_from_objects`` puts them together for tools that work without a cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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
from ringfence.apis.yamltext import Document, Unreadable, documents
from ringfence.errors import FieldError, InvalidObject, UsageError
from ringfence.model.cluster import Cluster
from ringfence.model.policy import Policy, PolicySet

STDIN = "-"
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
        return InvalidObject(
            kind_of(self.object), name_of(self.object), [self.located(error) for error in errors], file=self.file
        )


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
    directories below only if ``recursive``. Raises ``UsageError`` for a path that is not there or cannot be read.
    """
    manifests: list[Manifest] = []
    problems: list[InvalidObject] = []
    for path in paths:
        if str(path) == STDIN and stdin is not None:
            texts = [("stdin", stdin())]
        else:
            texts = [_read(each, problems) for each in _files(Path(path), recursive=recursive)]
        for name, text in texts:
            loaded = load_text(text, file=name)
            manifests += loaded.manifests
            problems += loaded.problems
    return Loaded(tuple(manifests), tuple(problems))


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
        where = FieldError("", stop.problem, "", stop.line, stop.column)
        problems.append(InvalidObject("file", file, [where], file=file))
    return Loaded(tuple(manifests), tuple(problems))


def cluster_from_manifests(manifests: Iterable[Manifest], *, fill_gaps: bool = False) -> Offline:
    """Return the cluster and policies that manifests make up; problems have file, line and column.

    With ``fill_gaps``, what files seldom hold is made up: the namespaces that objects are in, and addresses for pods
    that have none (``core.with_invented_addresses``). Without, it is missing, as it would be in a cluster.
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
                case "networking.k8s.io/v1", "NetworkPolicy":
                    lowered = lower(obj)
                    self.policies.append(lowered.policy)
                    errors = [*unknown_fields(obj, networkpolicy.SHAPE, ""), *lowered.problems]
                    if errors:
                        self.problems.append(complaint(errors))
                case _:
                    pass
        except InvalidObject as error:
            self.problems.append(complaint(error.errors))

    def finish(self, *, fill_gaps: bool) -> Offline:
        pods: Sequence[Pod] = self.pods
        if fill_gaps:
            pods = with_invented_addresses(self.pods)
            implied = {pod.metadata.namespace for pod in pods} | {policy.ref.namespace for policy in self.policies}
            known = {namespace.metadata.name for namespace in self.namespaces}
            self.namespaces += [NamespaceObject(ObjectMeta(name=name)) for name in sorted(implied - known)]
        # An object that is given twice is the later one, as if both had been applied.
        last = {policy.ref: policy for policy in self.policies}
        return Offline(
            build_cluster(self.namespaces, self.nodes, pods), policy_set(last.values()), tuple(self.problems)
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


def _files(path: Path, *, recursive: bool) -> list[Path]:
    if path.is_dir():
        found = path.rglob("*") if recursive else path.glob("*")
        return sorted(each for each in found if each.suffix in _SUFFIXES and each.is_file())
    if not path.exists():
        raise UsageError(f'the path "{path}" does not exist')
    return [path]


def _read(path: Path, problems: list[InvalidObject]) -> tuple[str, str]:
    try:
        return str(path), path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f'the path "{path}" cannot be read: {error.strerror}') from None
    except UnicodeDecodeError as error:
        where = FieldError("", f"not UTF-8: {error.reason} at byte {error.start}", "", 1, 1)
        problems.append(InvalidObject("file", str(path), [where], file=str(path)))
        return str(path), ""
