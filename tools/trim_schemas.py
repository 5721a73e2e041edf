# SPDX-License-Identifier: Apache-2.0
"""Make the schemas that the lab's API server carries: exactly its kinds, from the ``kubernetes-validate`` package.

``kubernetes-validate`` keeps the definitions of every Kubernetes version with the patch and list extensions, but is
100 MB installed; the lab needs one version of thirty kinds. The output is in the form of OpenAPI v3 components, so
that the server can hand them out as they are. Run by hand when the kinds or the version change::

    .venv/bin/python tools/trim_schemas.py
"""

from __future__ import annotations

import gzip
import importlib.util
import json
from pathlib import Path
from typing import Any

VERSION = "v1.32.0"
OUTPUT = Path(__file__).parents[1] / "src/ringfence/lab/apiserver/data/definitions.json.gz"
API = "io.k8s.api."
META = "io.k8s.apimachinery.pkg.apis.meta.v1."
ROOTS = (
    *(
        API + "core.v1." + kind
        for kind in (
            "Binding",
            "ConfigMap",
            "Endpoints",
            "Event",
            "Namespace",
            "Node",
            "Pod",
            "Secret",
            "Service",
            "ServiceAccount",
        )
    ),
    API + "apps.v1.Deployment",
    API + "apps.v1.ReplicaSet",
    API + "authentication.v1.SelfSubjectReview",
    API + "authentication.v1.TokenRequest",
    API + "authorization.v1.SelfSubjectAccessReview",
    API + "authorization.v1.SelfSubjectRulesReview",
    API + "autoscaling.v1.Scale",
    API + "coordination.v1.Lease",
    API + "discovery.v1.EndpointSlice",
    API + "events.v1.Event",
    API + "networking.v1.NetworkPolicy",
    API + "policy.v1.Eviction",
    META + "DeleteOptions",
    META + "ListMeta",
    META + "Status",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
)
# kinds that every group has (DeleteOptions, Status) list hundreds of group versions; explain needs the first
_GVK = "x-kubernetes-group-version-kind"
_SPECIAL: dict[str, dict[str, Any]] = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {
        "description": "IntOrString is a type that can hold an int32 or a string.",
        "oneOf": [{"type": "integer"}, {"type": "string"}],
        "format": "int-or-string",
    },
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {
        "description": "Quantity is a fixed-point representation of a number, such as 500m or 64Mi.",
        "oneOf": [{"type": "string"}, {"type": "number"}],
    },
}
# list-map keys that may be left out have these values (the Go sources' "+default")
_KEY_DEFAULTS = {
    ("io.k8s.api.core.v1.ContainerPort", "protocol"): "TCP",
    ("io.k8s.api.core.v1.ServicePort", "protocol"): "TCP",
}


def references(node: Any) -> set[str]:
    """Return the names of all definitions that a definition refers to."""
    if isinstance(node, list):
        return set().union(*(references(item) for item in node)) if node else set()
    if not isinstance(node, dict):
        return set()
    found = set().union(*(references(value) for value in node.values())) if node else set()
    reference = node.get("$ref")
    return found | ({reference.rsplit("/", 1)[1]} if isinstance(reference, str) else set())


def component(node: Any) -> Any:
    """Turn one JSON-schema node of kubernetes-validate into an OpenAPI v3 schema."""
    if not isinstance(node, dict):
        return node
    made: dict[str, Any] = {}
    for key, value in node.items():
        match key:
            case "$ref":
                made["$ref"] = "#/components/schemas/" + value.rsplit("/", 1)[1]
            case "type" if isinstance(value, list):
                made["type"] = next(kind for kind in value if kind != "null")
            case "properties":
                made["properties"] = {name: component(schema) for name, schema in sorted(value.items())}
            case "items" | "additionalProperties":
                made[key] = component(value)
            case "enum":
                continue
            case _ if key == _GVK:
                made[key] = value[:1]
            case _:
                made[key] = value
    if "$ref" in made and len(made) > 1:
        # an OpenAPI reference ignores its siblings; upstream wraps it so that the description counts
        made["allOf"] = [{"$ref": made.pop("$ref")}]
    return made


def trim(definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the components for ROOTS and everything that they refer to, sorted by name."""
    wanted: set[str] = set()
    open_ends = set(ROOTS)
    while open_ends:
        wanted |= open_ends
        open_ends = set().union(*(references(definitions[name]) for name in open_ends)) - wanted
    made = {name: _SPECIAL.get(name) or component(definitions[name]) for name in sorted(wanted)}
    for (name, field), value in _KEY_DEFAULTS.items():
        made[name]["properties"][field]["default"] = value
    return made


def main() -> None:
    """Write the trimmed definitions, reproducibly."""
    spec = importlib.util.find_spec("kubernetes_validate")
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).parent / "kubernetes-json-schema" / f"{VERSION}-local" / "_definitions.json"
    made = trim(json.loads(source.read_bytes())["$defs"])
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(made, separators=(",", ":"), ensure_ascii=False).encode()
    OUTPUT.write_bytes(gzip.compress(text, 9, mtime=0))
    print(f"{OUTPUT}: {len(made)} definitions, {len(text) // 1000} kB, {OUTPUT.stat().st_size // 1000} kB packed")


if __name__ == "__main__":
    main()
