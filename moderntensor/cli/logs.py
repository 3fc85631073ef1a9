"""What the command needs before it has a command to run: its log, and how options are refused."""

from __future__ import annotations

import logging
import sys

import typer

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
