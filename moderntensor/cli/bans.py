"""``moderntensor bans``: whom a node neither dials nor admits."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.markup import escape
from rich.table import Table

from ..errors import ConfigError
from ..network.ban_file import BanFile
from ..network.bans import OPERATOR, Ban, new_ban, parse_key, seconds_left
from ..runtime import Runtime
from .output import AsJson, console, directory, duration, seconds_of

app = typer.Typer(
    help="Show, set and lift the bans of a node, whether it runs or not.", no_args_is_help=True
)

# What a node's data directory holds, one or the other; not to write into any other.
_SIGNS: Final = ("bans.json", "node.key", "chain")

Data = Annotated[
    Path, typer.Option(metavar="DIR", parser=directory, help="The node's data directory.")
]
Key = Annotated[
    str,
    typer.Argument(
        metavar="WHOM", help="An IP address, a network (10.0.0.0/8), HOST:PORT or a node id."
    ),
]


@app.command("list")
def show(data: Data, as_json: AsJson = False) -> None:
    """Show the bans in force, the one that ends first on top."""
    now = Runtime().wall_time()
    bans = [ban for ban in _file(data).read() if seconds_left(ban, now) > 0]
    bans.sort(key=lambda ban: (seconds_left(ban, now), ban.key))
    if as_json:
        typer.echo(json.dumps([_as_dict(ban, now) for ban in bans], indent=1))
        return
    if not bans:
        console().print("nobody is banned")
        return
    table = Table("whom", "ends in", "at", "why", "times", box=None, pad_edge=False)
    for ban in bans:
        left = seconds_left(ban, now)
        row = (ban.key, duration(left), _time(now + left), ban.reason, str(ban.times))
        table.add_row(*map(escape, row))  # "[fe80::1]:30303" looks like markup
    console().print(table)


@app.command("add")
def add(
    whom: Key,
    data: Data,
    length: Annotated[
        str, typer.Option("--for", metavar="TIME", help="How long: seconds, or 15m, 24h, 7d.")
    ] = "24h",
    reason: Annotated[str, typer.Option(help="A word for the list.")] = OPERATOR,
    as_json: AsJson = False,
) -> None:
    """Ban WHOM from now on. A node that runs parts from those whom it hits within seconds."""
    now = Runtime().wall_time()
    ban = new_ban(whom, seconds_of("--for", length), reason, now)
    _file(data).change({ban.key: ban}, now)
    if as_json:
        typer.echo(json.dumps(_as_dict(ban, now), indent=1))
    else:
        typer.echo(f"banned {ban.key} until {_time(ban.until)}")


@app.command("lift")
def lift(whom: Key, data: Data, as_json: AsJson = False) -> None:
    """End the ban of WHOM, as the list names it. A node that runs admits it within seconds."""
    now = Runtime().wall_time()
    key = parse_key(whom)
    file = _file(data)
    before = {ban.key: ban for ban in file.change({key: None}, now)}
    if key not in before or seconds_left(before[key], now) <= 0:
        raise ConfigError(f"{key} is not banned")
    if as_json:
        typer.echo(json.dumps(_as_dict(before[key], now), indent=1))
    else:
        typer.echo(f"lifted the ban of {key}")


def _file(data: Path) -> BanFile:
    if not any((data / name).exists() for name in _SIGNS):
        raise ConfigError(f"{data}: no data directory of a node")
    return BanFile(data)


def _time(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _as_dict(ban: Ban, now: float) -> dict[str, object]:
    return {
        "key": ban.key,
        "until": ban.until,
        "seconds_left": round(seconds_left(ban, now)),
        "reason": ban.reason,
        "times": ban.times,
    }
