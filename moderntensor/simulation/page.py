"""A campaign's results as one HTML file that needs nothing else, light or dark as the reader is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .._version import VERSION
from .report import Summary, said, simulated, title_of, unit_of
from .result import FAILURE, LIVENESS, SAFETY

if TYPE_CHECKING:
    from .charts import Chart

FILE: Final = "index.html"
CHARTS: Final = "charts"
"""Beside the page, the pictures as files of their own."""
MISSING: Final = (
    "The charts are missing here, because matplotlib is: pip install 'moderntensor[simulation]'."
)

_STYLE: Final = """
:root { color-scheme: light dark; --ground: #f6f8f9; --card: #ffffff; --ink: #1f2933;
  --soft: #5f6c78; --line: #d3dae1; --first: #0f766e; --second: #b45309;
  --good: #0f766e; --bad: #b42318; }
@media (prefers-color-scheme: dark) { :root { --ground: #11161b; --card: #1a2128; --ink: #e4e9ee;
  --soft: #9aa7b3; --line: #35404a; --first: #2dd4bf; --second: #fbbf24;
  --good: #2dd4bf; --bad: #ff8a7a; } }
* { box-sizing: border-box }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif }
main { max-width: 1180px; margin: 0 auto; padding: 40px 24px 64px }
h1 { font-size: 28px; margin: 0; letter-spacing: -.01em }
h2 { font-size: 20px; margin: 48px 0 2px }
h2 .state { font-size: 13px; font-weight: 600; margin-left: 10px; vertical-align: 2px }
h3 { font-size: 14px; margin: 0 0 4px }
p { margin: 4px 0 16px; color: var(--soft) }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(165px, 1fr)); gap: 12px;
  margin: 24px 0 28px }
.tile, .card { background: var(--card); border: 1px solid var(--line); border-radius: 10px }
.tile { padding: 14px 16px }
.tile b { display: block; font-size: 25px; line-height: 1.2; font-variant-numeric: tabular-nums }
.tile span { color: var(--soft); font-size: 13px }
.good { color: var(--good) } .bad { color: var(--bad) }
.card { padding: 16px; margin: 0 0 14px; overflow-x: auto }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(430px, 100%), 1fr));
  gap: 14px; margin-bottom: 14px }
.charts .card { margin: 0 } .charts svg { display: block; width: 100%; height: auto }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th { text-align: right; font-weight: 600; font-size: 13px; color: var(--soft) }
td, th { padding: 6px 10px; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap }
td:first-child, th:first-child { text-align: left; padding-left: 0 }
td.text { white-space: normal; text-align: left; min-width: 260px; color: var(--soft) }
th.text { text-align: left } tr:last-child td { border-bottom: 0 }
a { color: inherit; text-decoration-color: var(--soft); text-underline-offset: 3px }
code { font: 13px/1.5 ui-monospace, "DejaVu Sans Mono", monospace }
pre { margin: 4px 0 0; overflow-x: auto; user-select: all }
.seed { border-left: 3px solid var(--bad); padding: 2px 0 2px 14px; margin: 12px 0 }
footer { margin-top: 48px; color: var(--soft); font-size: 13px }
"""
# The charts' colours by the names that they have in the style.
_COLOURS: Final = {
    "#1f2933": "var(--ink)",
    "#d3dae1": "var(--line)",
    "#0f766e": "var(--first)",
    "#b45309": "var(--second)",
}


def write(directory: Path, summaries: Sequence[Summary], title: str = "Simulation") -> bool:
    """Write ``index.html`` and, if matplotlib is there, ``charts/``; whether it is."""
    charts: dict[str, list[Chart]] = {}
    try:
        from .charts import draw  # noqa: PLC0415  an extra
    except ImportError as error:
        if error.name is None or error.name.partition(".")[0] != "matplotlib":
            raise
        drawn = False
    else:
        drawn = True
        for each in summaries:
            charts[each.scenario] = draw(each, directory / CHARTS)
    directory.mkdir(parents=True, exist_ok=True)
    text = "\n".join(_page(summaries, charts, title, drawn)) + "\n"
    (directory / FILE).write_text(text, encoding="utf-8")
    return drawn


def _page(
    summaries: Sequence[Summary], charts: Mapping[str, Sequence[Chart]], title: str, drawn: bool
) -> Iterator[str]:
    yield '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n<main>"
    yield f"<h1>{escape(title)}</h1>"
    yield "<p>Whole nodes on a simulated network, in virtual time.</p>"
    yield from _tiles(summaries)
    yield from _overview(summaries)
    if not drawn:
        yield f'<div class="card">{escape(MISSING)}</div>'
    for each in summaries:
        yield from _scenario(each, charts.get(each.scenario, ()))
    yield f"<footer>moderntensor {escape(VERSION)}</footer>\n</main>\n</html>"


def _tiles(summaries: Sequence[Summary]) -> Iterator[str]:
    seeds, held = (sum(getattr(each, name) for each in summaries) for name in ("seeds", "held"))
    unsafe = sum(each.violations[SAFETY] for each in summaries)
    virtual = sum(each.virtual_seconds for each in summaries)
    wall = sum(each.wall_seconds for each in summaries)
    tiles = [
        (f"{seeds:,}", f"seeds of {_several(len(summaries), 'scenario')}", ""),
        (f"{held:,}", "held in every check", "good" if held == seeds else ""),
        (f"{seeds - held:,}", "did not", "bad" if held < seeds else ""),
        (f"{unsafe:,}", "broke safety", "bad" if unsafe else "good"),
        (simulated(virtual), "simulated", ""),
        (f"{virtual / max(wall, 1e-9):,.0f}×", "as fast as the clock, per worker", ""),
    ]
    yield '<div class="tiles">'
    for number, what, state in tiles:
        yield f'<div class="tile"><b class="{state}">{number}</b><span>{what}</span></div>'
    yield "</div>"


def _several(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _overview(summaries: Sequence[Summary]) -> Iterator[str]:
    yield '<div class="card"><table><tr><th>Scenario</th><th class="text">What happens</th>'
    for name in ("Seeds", "Held", "Safety", "Liveness", "No end", "Simulated", "Wall, a seed"):
        yield f"<th>{name}</th>"
    yield "</tr>"
    for each in summaries:
        counts = [each.violations[kind] for kind in (SAFETY, LIVENESS, FAILURE)]
        told = "".join(f'<td class="{"bad" if n else ""}">{n:,}</td>' for n in counts)
        state = "good" if each.held == each.seeds else "bad"
        yield (
            f'<tr><td><a href="#{escape(each.scenario)}">{escape(each.scenario)}</a></td>'
            f'<td class="text">{escape(each.about)}</td><td>{each.seeds:,}</td>'
            f'<td class="{state}">{each.held:,}</td>{told}'
            f"<td>{simulated(each.virtual_seconds)}</td>"
            f"<td>{said(each.wall_seconds / each.seeds, 's')}</td></tr>"
        )
    yield "</table></div>"


def _scenario(summary: Summary, charts: Sequence[Chart]) -> Iterator[str]:
    bad = summary.seeds - summary.held
    state = f"{bad:,} of {summary.seeds:,} did not hold" if bad else f"all {summary.seeds:,} held"
    name = escape(summary.scenario)
    yield f'<h2 id="{name}">{name}<span class="state {"bad" if bad else "good"}">{state}</span>'
    parameters = ", ".join(f"{key} = {value}" for key, value in summary.parameters.items())
    yield f"</h2><p>{escape(summary.about + (f' ({parameters})' if parameters else ''))}</p>"
    if charts:
        yield '<div class="charts">'
        for chart in charts:
            yield f'<div class="card"><h3>{escape(chart.title)}</h3>{_inline(chart)}</div>'
        yield "</div>"
    if summary.spreads:
        yield from _figures(summary)
    if summary.bad:
        yield from _bad(summary)


def _figures(summary: Summary) -> Iterator[str]:
    yield '<div class="card"><table><tr><th>Figure</th>'
    for name in ("Least", "Median", "90 %", "99 %", "Most", "Of"):
        yield f"<th>{name}</th>"
    yield "</tr>"
    for metric, spread in summary.spreads.items():
        unit = unit_of(metric)
        numbers = (spread.low, spread.median, spread.p90, spread.p99, spread.high)
        told = "".join(f"<td>{said(number, unit)}</td>" for number in numbers)
        yield f"<tr><td>{escape(title_of(metric))}</td>{told}<td>{spread.count:,}</td></tr>"
    yield "</table></div>"


def _bad(summary: Summary) -> Iterator[str]:
    yield '<div class="card"><h3>What did not hold</h3>'
    for each in summary.bad:
        yield f'<div class="seed"><b>seed {each.seed}</b>'
        for violation in each.violations:
            yield f"<br>{escape(violation)}"
        yield f"<pre><code>{escape(each.replay)}</code></pre></div>"
    if (more := summary.seeds - summary.held - len(summary.bad)) > 0:
        yield f"<p>… and {_several(more, 'seed')} more, see results.jsonl.</p>"
    yield "</div>"


def _inline(chart: Chart) -> str:
    """The picture as part of the page: in its colours, with names that no other has."""
    svg = chart.svg[chart.svg.index("<svg") :]
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{chart.name}-\1"', svg)
    svg = re.sub(r'((?:xlink:)?href="#|url\(#)', rf"\g<1>{chart.name}-", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg\b[^>]*?) (?:width|height)="[^"]*"', r"\1", svg, count=1)
    for colour, name in _COLOURS.items():
        svg = svg.replace(colour, name)
    label = escape(chart.about, quote=True)
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
