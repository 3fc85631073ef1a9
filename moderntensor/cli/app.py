"""The command itself and the options that all commands share; those are in `lazy`."""

from __future__ import annotations

from typing import Annotated

import typer

from .._version import VERSION
from .lazy import LazyGroup
from .logs import set_up_logging

app = typer.Typer(
    name="moderntensor",
    cls=LazyGroup,
    help="A peer-to-peer node of a layer-1 blockchain: sync, gossip, chains and keys.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from .. import backend  # noqa: PLC0415 - no other option needs the engines

        typer.echo(
            f"moderntensor {VERSION} ({backend.NAME} engines, "
            f"SHA-256: {backend.headers.sha256_implementation()})"
        )
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
    log_level: Annotated[
        str,
        typer.Option(metavar="LEVEL", help="What to log on stderr: debug, info, warning or error."),
    ] = "warning",
) -> None:
    """Options that every command takes; they stand before the command's name."""
    set_up_logging(log_level)
