"""How the command speaks: logging to stderr, tables and numbers for people."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from ..blockchain.chain_types import ChainHead

_LEVELS = ("debug", "info", "warning", "error")


def bad_option(name: str, text: str) -> typer.BadParameter:
    """What to raise where an option's value cannot be used: exit code 2."""
    return typer.BadParameter(text, param_hint=name)


def set_up_logging(level: str) -> None:
    """Send the package's log to stderr at `level`; a usage error if there is no such level."""
    if level.lower() not in _LEVELS:
        raise bad_option("--log-level", f"{level!r} is not one of {', '.join(_LEVELS)}")
    logging.basicConfig(
        stream=sys.stderr,
        level=level.upper(),
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
        force=True,
    )


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


def short(digest: bytes) -> str:
    """The first eight bytes of a hash in hex, enough to tell two apart on a screen."""
    return digest[:8].hex()
