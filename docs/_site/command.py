"""The reference page of the ``moderntensor`` command, from the command itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer.main

from moderntensor.cli.app import app

_KINDS = {Path: "PATH", int: "N", str: "TEXT", float: "X", int | None: "N", str | None: "TEXT"}
PLACE = "reference/command.md"


def page() -> str:
    """All commands with their options, as Markdown."""
    command = typer.main.get_command(app)
    lines = [
        "# The command",
        "",
        "`moderntensor COMMAND --help` says all of this in a terminal.",
        "`moderntensor --install-completion` makes your shell complete it.",
    ]
    lines += _described(command, "moderntensor", 2)
    return "\n".join(lines) + "\n"


def _described(command: Any, name: str, level: int) -> list[str]:
    context = typer.Context(command, info_name=name)
    below = {sub: command.get_command(context, sub) for sub in _names(command, context)}
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    lines = ["", f"{'#' * level} {name}", "", (command.help or "").strip(), "", f"    {usage}"]
    rows = []
    for parameter in command.params:
        if parameter.hidden or "--help" in parameter.opts:
            continue
        value = parameter.metavar or _KINDS.get(parameter.type_descriptor.annotation, "VALUE")
        if parameter.param_type_name == "option":
            names = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
            what = names if parameter.is_flag or parameter.is_bool_flag else f"{names} `{value}`"
        else:
            what = f"`{value}`"
        rows.append(f"| {_cell(what)} | {_cell(parameter.help or '')}{_default(parameter)} |")
    if rows:
        lines += ["", "| | |", "|---|---|", *rows]
    for sub, each in below.items():
        lines += _described(each, f"{name} {sub}", min(level + 1, 4))
    return lines


def _names(command: Any, context: typer.Context) -> list[str]:
    return command.list_commands(context) if hasattr(command, "list_commands") else []


def _default(parameter: Any) -> str:
    value = parameter.default
    if value is None or value is False or callable(value) or parameter.required or value == ():
        return ""
    return f" Default: `{_cell(str(getattr(value, 'value', value)))}`."


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
