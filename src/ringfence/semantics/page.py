# SPDX-License-Identifier: Apache-2.0
"""Who reaches whom as one HTML file: a matrix that needs nothing from anywhere, in light and dark, by mouse or keys.

Everything is in the markup, so that it can be read and printed without scripts; the script only filters, moves by
arrow keys and says what decides the cell that is looked at. Text from the cluster is escaped wherever it stands.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from string import Template

from ringfence.semantics.exchanges import Exchange
from ringfence.semantics.reachability import EVER_SELF, Reachability


def page(reached: Reachability) -> str:
    """Return the page."""
    grounds: dict[str, int] = {}
    rows = "\n".join(_rows(reached, grounds))
    heads = "".join(f"<th scope=col>{escape(party.name)}</th>" for party in reached.destinations)
    notes = "".join(f"<li>{escape(note)}</li>" for note in (EVER_SELF, *reached.notes))
    # "<" is the only thing that could end a script early.
    known = json.dumps(list(grounds)).replace("<", "\\u003c")
    return _PAGE.substitute(heads=heads, rows=rows, notes=notes, grounds=known, style=_STYLE, script=_SCRIPT)


def _rows(reached: Reachability, grounds: dict[str, int]) -> Iterator[str]:
    for source in reached.sources:
        cells = "".join(
            _cell(reached, reached.by_ends.get((source.name, destination.name)), grounds)
            for destination in reached.destinations
        )
        yield f"<tr><th scope=row>{escape(source.name)}</th>{cells}</tr>"


def _cell(reached: Reachability, found: Exchange | None, grounds: dict[str, int]) -> str:
    if found is None:
        return "<td class=void></td>"
    text = reached.text(found)
    kind = text if text in ("all", "none") else "some"
    egress, ingress = (grounds.setdefault(each, len(grounds)) for each in reached.because(found))
    return f"<td class={kind} data-e={egress} data-i={ingress}>{escape(text)}</td>"


_STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1b1f24; --line: #d0d7de; --head: #f3f5f7;
  --all: #ffe2b8; --some: #d3f0d9; --none: #fff; --faint: #667; --focus: #0550ae; }
@media (prefers-color-scheme: dark) { :root { --back: #14171c; --text: #e6e9ee; --line: #363d47; --head: #1d222a;
  --all: #5a3f12; --some: #17452a; --none: #14171c; --faint: #99a2ae; --focus: #79b8ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text); font: 14px/1.4 system-ui, sans-serif;
  display: flex; flex-direction: column; height: 100vh; }
header, footer { padding: .6rem 1rem; }
h1 { font-size: 1.1rem; margin: 0 0 .4rem; }
form { display: flex; gap: 1rem; flex-wrap: wrap; align-items: center; }
input[type=search] { font: inherit; padding: .25rem .5rem; border: 1px solid var(--line); border-radius: 4px;
  background: var(--back); color: var(--text); }
main { overflow: auto; flex: 1; border-block: 1px solid var(--line); }
table { border-collapse: separate; border-spacing: 0; }
th, td { border-right: 1px solid var(--line); border-bottom: 1px solid var(--line); padding: .25rem .5rem;
  white-space: nowrap; text-align: left; }
thead th { position: sticky; top: 0; background: var(--head); z-index: 1; }
tbody th, thead th:first-child { position: sticky; left: 0; background: var(--head); font-weight: 500; }
thead th:first-child { z-index: 2; }
td.all { background: var(--all); } td.some { background: var(--some); }
td.none { background: var(--none); color: var(--faint); }
td.void { background: repeating-linear-gradient(45deg, transparent 0 5px, var(--head) 5px 7px); }
td:focus { outline: 3px solid var(--focus); outline-offset: -3px; }
.key span { padding: .1rem .5rem; border: 1px solid var(--line); margin-right: .4rem; }
#detail { min-height: 4.4em; } ul { margin: .3rem 0 0; padding-left: 1.2rem; color: var(--faint); font-size: .9em; }
.hidden { display: none; }
@media print { body { height: auto; } main { overflow: visible; } form { display: none; } }
"""

_SCRIPT = """
const table = document.querySelector("table"), detail = document.getElementById("detail");
const rows = [...table.tBodies[0].rows], heads = [...table.tHead.rows[0].cells];
for (const row of rows) for (const cell of row.cells) if (cell.tagName === "TD") cell.tabIndex = -1;
const first = table.querySelector("tbody td"); if (first) first.tabIndex = 0;
const plain = text => document.createTextNode(text);
function tell(cell) {
  const from = cell.parentElement.cells[0].textContent, to = heads[cell.cellIndex].textContent;
  const lines = cell.dataset.e === undefined ? [`${from} \\u2192 ${to}: nothing that a policy decides`]
    : [`${from} \\u2192 ${to}: ${cell.textContent}`, `egress: ${GROUNDS[cell.dataset.e]}`,
       `ingress: ${GROUNDS[cell.dataset.i]}`];
  const broken = line => [document.createElement("br"), plain(line)];
  detail.replaceChildren(plain(lines[0]), ...lines.slice(1).flatMap(broken));
}
table.addEventListener("focusin", event => { if (event.target.tagName === "TD") {
  table.querySelectorAll("td[tabindex='0']").forEach(other => { other.tabIndex = -1; });
  event.target.tabIndex = 0; tell(event.target); } });
table.addEventListener("mousedown", event => { const cell = event.target.closest("td"); if (cell) cell.focus(); });
const seen = cell => cell && cell.tagName === "TD" && !cell.classList.contains("hidden")
  && !cell.parentElement.classList.contains("hidden");
table.addEventListener("keydown", event => {
  const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  if (!step || event.target.tagName !== "TD") return;
  let row = rows.indexOf(event.target.parentElement), column = event.target.cellIndex, cell;
  do { row += step[0]; column += step[1]; cell = rows[row] && rows[row].cells[column]; }
  while (cell && cell.tagName === "TD" && !seen(cell));
  if (seen(cell)) { event.preventDefault(); cell.focus(); }
});
function filter() {
  const from = document.getElementById("from").value.toLowerCase();
  const to = document.getElementById("to").value.toLowerCase();
  const hide = heads.map((head, n) => n > 0 && !head.textContent.toLowerCase().includes(to));
  heads.forEach((head, n) => head.classList.toggle("hidden", hide[n]));
  for (const row of rows) {
    row.classList.toggle("hidden", !row.cells[0].textContent.toLowerCase().includes(from));
    [...row.cells].forEach((cell, n) => cell.classList.toggle("hidden", hide[n]));
  }
  const current = table.querySelector("td[tabindex='0']"), next = [...table.querySelectorAll("tbody td")].find(seen);
  if (next && !seen(current)) { current.tabIndex = -1; next.tabIndex = 0; }
}
for (const id of ["from", "to"]) document.getElementById(id).addEventListener("input", filter);
document.querySelector("form").addEventListener("submit", event => event.preventDefault());
"""

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Who reaches whom</title>
<style>$style</style>
</head>
<body>
<header>
<h1>Who reaches whom</h1>
<form>
<label>From <input type="search" id="from" placeholder="part of a name"></label>
<label>To <input type="search" id="to" placeholder="part of a name"></label>
<div class="key"><span style="background:var(--all)">all traffic</span><span style="background:var(--some)">some
traffic</span><span>none</span></div>
</form>
</header>
<main>
<table aria-label="Traffic that passes, sources down, destinations across">
<thead><tr><th scope="col">from \\ to</th>$heads</tr></thead>
<tbody>
$rows
</tbody>
</table>
</main>
<footer>
<div id="detail" role="status" aria-live="polite">Choose a cell to see what decides it: click, or Tab and arrow
keys.</div>
<ul>$notes</ul>
</footer>
<script>const GROUNDS = $grounds;$script</script>
</body>
</html>""")
