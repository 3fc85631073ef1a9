"""The section on the flood in docs/security.md, from the JSON file of the last run.

python -m benchmarks.flood.page
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "security.md"
RESULT = ROOT / "benchmarks" / "results" / "flood.json"
BEGIN, END = "<!-- flood: begin -->", "<!-- flood: end -->"
MIB = 1024 * 1024


def lines(result: dict[str, Any]) -> Iterator[str]:
    """What stands between the markers."""
    yield from filled(
        f"""`python -m benchmarks.flood` lets an honest peer sync a chain of empty blocks and blocks
        with two transfers ({result["blocks"]:,} in all) from nothing again and again, and thirty
        hostile ones attack meanwhile, five of each kind: garbage, floods of requests, slow frames,
        asking without reading, giant claims, unasked replies. Dropped, each comes again from
        another address of another network a tenth of a second later."""
    )
    yield ""
    yield "| | Undisturbed | Under attack |"
    yield "|---|---|---|"
    rates = (sorted(result[name])[len(result[name]) // 2] for name in ("undisturbed", "disturbed"))
    yield "| Blocks synced per second, median | " + " | ".join(f"{r:,.0f}" for r in rates) + " |"
    before, meanwhile = result["cpu_undisturbed"], result["cpu_disturbed"]
    for name, who in (
        ("node", "the node"),
        ("honest", "the honest peer"),
        ("hostile", "the attackers"),
    ):
        quiet = f"{before[name]:.0%}" if name in before else "–"
        yield f"| Processor time of {who}, of one core | {quiet} | {meanwhile[name]:.0%} |"
    rest, most = result["memory_at_rest"] / MIB, result["memory_most"] / MIB
    yield f"| Anonymous resident memory of the node, at most | {rest:.0f} MiB | {most:.0f} MiB |"
    yield ""
    attacks = result["attacks"]
    yield from filled(
        f"""The honest peer kept **{result["ratio"]:.0%}** of its rate (at least 50 % are required)
        and was never dropped; afterwards it had {result["after"]:,.0f} blocks/s. Memory may not
        exceed the byte budget of this test and 64 MiB, together
        {result["memory_allowed"] / MIB:.0f} MiB. In the last stretch of {result["seconds"]:.0f} s
        the attackers opened {sum(attacks["connections"].values()):,} connections and sent
        {sum(attacks["megabytes_sent"].values()):,.0f} MB; the node banned
        {result["node"]["bans"]:,} addresses in all. {result["machine"]}: node, peer and attackers
        share the cores, so what the attackers burn themselves is lost to the others."""
    )


def filled(text: str) -> list[str]:
    """A paragraph in lines."""
    return textwrap.wrap(" ".join(text.split()), 100, break_long_words=False)


def write(result: dict[str, Any]) -> None:
    """Replace what stands between the markers."""
    page = PAGE.read_text(encoding="utf-8")
    text = "\n".join((BEGIN, *lines(result), END))
    PAGE.write_text(
        re.sub(f"{BEGIN}.*{END}", lambda _: text, page, flags=re.DOTALL), encoding="utf-8"
    )


if __name__ == "__main__":
    write(json.loads(RESULT.read_text(encoding="utf-8")))
