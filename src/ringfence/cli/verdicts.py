# SPDX-License-Identifier: Apache-2.0
"""``ringfence verdicts``: the door through which other projects' test suites ask any engine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ringfence.cases.script import Script


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("case", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option(
    "--dataplane",
    type=click.Choice(["reference", "memory", "nftables", "ebpf"]),
    default="reference",
    show_default=True,
    help="Who answers: the oracle, compiled programs in memory, or real packets in a lab (needs root).",
)
def command(case: str, dataplane: str) -> None:
    """Answer the probes of CASE, a JSON file of steps (events on objects, then probes), "-" for stdin.

    Prints {"verdicts": [["allow", "deny", ...], ...]}: a list for each step, a word for each probe. A kind of object
    that no engine knows yet is refused, never left out.

    \b
    Examples:
      ringfence verdicts case.json
      ringfence verdicts case.json --dataplane memory
    """
    from ringfence.cases.exchange import decode_script, encode_verdicts

    raw = sys.stdin.buffer.read() if case == "-" else Path(case).read_bytes()
    script = decode_script(raw, file="stdin" if case == "-" else case)
    if dataplane in ("nftables", "ebpf"):
        click.echo(encode_verdicts(_with_packets(script, dataplane)))
        return
    from ringfence.cases.engines import engine
    from ringfence.cases.run import verdicts

    click.echo(encode_verdicts(verdicts(script, engine(dataplane))))


def _with_packets(script: Script, dataplane: str) -> list[list[bool]]:
    from ringfence.lab.casebed import require, run_script

    require(dataplane)
    return run_script(script, dataplane)
