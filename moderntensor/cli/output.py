"""How the command speaks: tables and numbers for people, JSON for programs, progress on stderr."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from .logs import bad_option

if TYPE_CHECKING:
    from ..blockchain.chain_types import ChainHead

__all__ = [
    "AsJson",
    "bad_option",
    "console",
    "count",
    "directory",
    "duration",
    "emit",
    "key_value_table",
    "progress",
    "seconds_of",
    "short",
    "show",
    "size",
    "working",
]

_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def directory(text: str) -> Path:
    """The parser of an argument that names a directory. An empty one, as from a variable of the
    shell that is not set, would be the current directory; a usage error."""
    if not text:
        raise typer.BadParameter("an empty name is no directory")
    return Path(text)


def console(*, stderr: bool = False) -> Console:
    """The console for results, or with `stderr` for what is said meanwhile.

    Lines are not wrapped where the output is no terminal.
    """
    plain = not (sys.stderr if stderr else sys.stdout).isatty()
    return Console(
        stderr=stderr,
        highlight=False,
        soft_wrap=plain,
        width=160 if plain else None,
        force_terminal=False if plain else None,
    )


def key_value_table(rows: dict[str, object]) -> Table:
    """Two columns without lines: names and what they are."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, str(value))
    return table


def show(rows: dict[str, object]) -> None:
    """Names and what they are, on stdout; where that is no terminal, with nothing to strip."""
    out = console()
    if out.is_terminal:
        out.print(key_value_table(rows))
        return
    width = max(map(len, rows))
    for name, value in rows.items():
        out.print(f"{name:<{width}}  {value}", markup=False)


def emit(
    value: Mapping[str, object] | Sequence[Mapping[str, object]], *, line: bool = False
) -> None:
    """JSON on stdout: for people to read too, or with `line` one line of many."""
    typer.echo(json.dumps(value, indent=None if line else 1, default=str))


@contextmanager
def working(what: str) -> Iterator[Callable[[str], None]]:
    """Says on stderr, where that is a terminal, what takes so long, while the block lasts; what
    it gives says something else instead."""
    out = console(stderr=True)
    if not out.is_terminal:
        yield lambda text: None
        return
    with out.status(what) as shown:
        yield shown.update


def progress(what: str, total: int, heads: Iterator[ChainHead], start: int = 0) -> None:
    """Drain `heads`, showing on stderr how far they are, of `total` blocks from `start` on."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    out = console(stderr=True)
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as shown:
        task = shown.add_task(what, total=total)
        for head in heads:
            shown.update(task, completed=head.height - start)


def count(number: float) -> str:
    """1234567 → ``1,234,567``. Integers of any size are exact."""
    return f"{number:,}" if isinstance(number, int) else f"{number:,.0f}"


def size(number: float) -> str:
    """Bytes for people: 1536 → ``1.5 KiB``."""
    for unit in ("B", "KiB", "MiB"):
        if abs(number) < 1024:
            return f"{number:,.0f} {unit}" if unit == "B" else f"{number:,.1f} {unit}"
        number /= 1024
    return f"{number:,.1f} GiB"


def duration(seconds: float | None) -> str:
    """Seconds for people: 75 → ``1m15s``; None → ``-``."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


def seconds_of(name: str, text: str) -> int:
    """Seconds, or 15m, 24h, 7d; a usage error if it is none of these."""
    found = re.fullmatch(r"([0-9]{1,10})([smhd]?)", text)
    if found is None:
        raise bad_option(name, f"{text!r} is no time: needs seconds, or 15m, 24h, 7d")
    return int(found[1]) * _UNITS[found[2]]


def short(digest: bytes) -> str:
    """The first eight bytes of a hash in hex, enough to tell two apart on a screen."""
    return digest[:8].hex()
