# SPDX-License-Identifier: Apache-2.0
"""Who reaches whom as a graph in Graphviz' language: parties in boxes of their namespaces, an edge for what passes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from ringfence.semantics.parties import Kind, Party
from ringfence.semantics.reachability import Reachability

_SHAPES = {
    Kind.WORKLOAD: "box",
    Kind.POD: "box",
    Kind.NODES: "house",
    Kind.OWN_NODE: "house",
    Kind.OUTSIDE: "ellipse",
}


def dot(reached: Reachability) -> str:
    """Return the graph; the same traffic both ways is one edge with two heads."""
    return "\n".join(_lines(reached))


def _lines(reached: Reachability) -> Iterator[str]:
    yield "digraph reachability {"
    yield '  rankdir=LR; node [fontname="sans-serif", fontsize=11]; edge [fontname="sans-serif", fontsize=9];'
    namespaces: dict[str | None, list[Party]] = defaultdict(list)
    for party in dict.fromkeys((*reached.sources, *reached.destinations)):
        namespaces[party.namespace].append(party)
    for number, (namespace, parties) in enumerate(sorted(namespaces.items(), key=lambda each: each[0] or "~")):
        inside = "    " if namespace else "  "
        if namespace:
            yield f"  subgraph cluster_{number} {{"
            yield f"    label={_quoted(namespace)}; style=rounded;"
        for party in parties:
            yield f"{inside}{_quoted(party.name)} [shape={_SHAPES[party.kind]}, label={_quoted(_label(party))}];"
        if namespace:
            yield "  }"
    yield from _edges(reached)
    yield "}"


def _label(party: Party) -> str:
    return party.name.removeprefix(f"{party.namespace}/") if party.namespace else party.name


def _edges(reached: Reachability) -> Iterator[str]:
    for (source, destination), each in reached.by_ends.items():
        back = reached.by_ends.get((destination, source))
        text = reached.text(each)
        mutual = back is not None and back.ever and source != destination and reached.text(back) == text
        if not each.ever or (mutual and source > destination):
            continue
        heads = ", dir=both" if mutual else ""
        yield f"  {_quoted(source)} -> {_quoted(destination)} [label={_quoted(text)}{heads}];"


def _quoted(text: str) -> str:
    backslash, quote = "\\", '"'
    return f'"{text.replace(backslash, backslash * 2).replace(quote, backslash + quote)}"'
