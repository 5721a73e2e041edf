# SPDX-License-Identifier: Apache-2.0
"""Make the field tables with which the lab's API server reads protobuf bodies, from the Go types of ``k8s.io/api``.

The tables are facts of the wire: per message, field number -> JSON name and kind. The Go sources say in struct tags
what the ``.proto`` files do not: which messages are inlined in JSON, and which fields are pointers (a zero that is
sent means zero) or not (a zero means "not set"). Needs the two modules, as ``go mod download`` leaves them::

    .venv/bin/python tools/protobuf_tables.py ~/go/pkg/mod/k8s.io/api@v0.32.3 ~/go/pkg/mod/k8s.io/apimachinery@v0.32.3
"""

from __future__ import annotations

import gzip
import json
import re
import sys
from pathlib import Path

OUTPUT = Path(__file__).parents[1] / "src/ringfence/lab/apiserver/data/protobuf.json.gz"
META = "meta/v1"
ROOTS = {
    "core/v1": "Binding ConfigMap Event Namespace Node Pod Secret Service ServiceAccount",
    "apps/v1": "Deployment ReplicaSet",
    "authentication/v1": "SelfSubjectReview TokenRequest",
    "authorization/v1": "SelfSubjectAccessReview SelfSubjectRulesReview",
    "autoscaling/v1": "Scale",
    "coordination/v1": "Lease",
    "discovery/v1": "EndpointSlice",
    "events/v1": "Event",
    "networking/v1": "NetworkPolicy",
    "policy/v1": "Eviction",
    META: "DeleteOptions",
}
_SCALARS = {
    "bool": "bool",
    "byte": "int",
    "float64": "double",
    "int": "int",
    "int32": "int",
    "int64": "int",
    "string": "string",
    "uint32": "int",
    "[]byte": "bytes",
    # types with a wire form of their own
    "Time": "time",
    "MicroTime": "microtime",
    "intstr.IntOrString": "intstr",
    "resource.Quantity": "quantity",
    "runtime.RawExtension": "json",
    "FieldsV1": "json",
    "types.UID": "string",
}
_STRUCT = re.compile(r"^type (\w+) struct \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_ALIAS = re.compile(r"^type (\w+) ((?:map\[\w+\]|\[\])?[\w.]+)$", re.MULTILINE)
_FIELD = re.compile(r'^\s*(?:(\w+)\s+)?([\w.*\[\]]+)\s+`json:"([^"]*)"[^`]*?\sprotobuf:"\w+,(\d+),(\w+)', re.MULTILINE)


class Package:
    """The Go types of one API package."""

    def __init__(self, path: str, source: Path) -> None:
        text = source.read_text()
        self.path = path
        self.structs = {match[1]: match[2] for match in _STRUCT.finditer(text)}
        self.aliases = {match[1]: match[2] for match in _ALIAS.finditer(text) if match[2] != "struct"}
        imports = re.findall(r'^\s*(\w+ )?"k8s\.io/(?:api|apimachinery/pkg/apis)/([\w/]+)"', text, re.MULTILINE)
        self.imports = {name.strip() or full.rsplit("/", 1)[-1]: full for name, full in imports}


class Tables:
    """Collects the tables of messages and of all that they hold."""

    def __init__(self, packages: dict[str, Package]) -> None:
        self.packages = packages
        self.made: dict[str, dict[str, list[str]]] = {}

    def add(self, package: Package, name: str) -> None:
        """Add a message and everything below it."""
        key = f"{package.path}.{name}"
        if key in self.made:
            return
        table = self.made[key] = {}
        for _, go_type, tag, number, _ in _FIELD.findall(package.structs[name]):
            json_name, *options = tag.split(",")
            kind, flags = self._kind(package, go_type)
            if "inline" in options:
                flags += "i"
            if "omitempty" not in options:
                flags += "k"  # Go writes it even if it is zero
            table[number] = [json_name, kind, flags]

    def _kind(self, package: Package, go_type: str) -> tuple[str, str]:
        """Return a field's kind (a scalar's name, or a message's) and its flags: pointer, repeated, map."""
        if go_type in _SCALARS:
            return _SCALARS[go_type], ""
        if go_type.startswith("*"):
            kind, flags = self._kind(package, go_type[1:])
            return kind, flags + "p"
        if go_type.startswith("[]"):
            kind, flags = self._kind(package, go_type[2:])
            return kind, flags.replace("p", "") + "r"
        if go_type.startswith("map["):
            kind, flags = self._kind(package, go_type.split("]", 1)[1])
            return kind, flags.replace("p", "") + "m"
        prefix, _, name = go_type.rpartition(".")
        home = self.packages[package.imports[prefix]] if prefix else package
        if home.path == META and name in _SCALARS:
            return _SCALARS[name], ""
        if name in home.structs:
            self.add(home, name)
            return f"{home.path}.{name}", ""
        kind, flags = self._kind(home, home.aliases[name])
        # a named list (ExtraValue) is a message with one repeated field
        return (kind, flags) if "r" not in flags else ("list", "")


def main() -> None:
    """Write the tables, reproducibly."""
    api, machinery = Path(sys.argv[1]), Path(sys.argv[2])
    packages = {path: Package(path, api / path / "types.go") for path in ROOTS if path != META}
    packages[META] = Package(META, machinery / "pkg/apis/meta/v1/types.go")
    tables = Tables(packages)
    for path, names in ROOTS.items():
        for name in names.split():
            tables.add(packages[path], name)
    text = json.dumps(tables.made, separators=(",", ":"), sort_keys=True).encode()
    OUTPUT.write_bytes(gzip.compress(text, 9, mtime=0))
    print(f"{OUTPUT}: {len(tables.made)} messages, {OUTPUT.stat().st_size // 1000} kB packed")


if __name__ == "__main__":
    main()
