"""``moderntensor keys``: the keys of validators and of accounts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..blockchain.crypto import KeyPair
from ..blockchain.key_files import load_key, save_key
from ..runtime import Runtime
from .facts import key_facts
from .output import AsJson, emit
from .output import show as show_rows

app = typer.Typer(help="Make and show keys.", no_args_is_help=True)


@app.command("new")
def new(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH", help="The file to write, with mode 0600; it must not exist yet."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Make a key pair and store it in PATH. It signs both transactions and blocks."""
    key = KeyPair.generate(Runtime())
    save_key(path, key)
    _show(path, key, as_json)


@app.command("show")
def show(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A key file.")],
    as_json: AsJson = False,
) -> None:
    """Show the public half of the key in PATH."""
    _show(path, load_key(path), as_json)


def _show(path: Path, key: KeyPair, as_json: bool) -> None:
    if as_json:
        emit(key_facts(path, key))
        return
    show_rows(
        {
            "file": path,
            "address": "0x" + key.address.hex(),
            "validator key": key.public_key.hex(),
        }
    )
