"""What the commands share that ask a running node: which one, with what token, and how."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from .output import bad_option, directory

if TYPE_CHECKING:
    from ..client import Client

__all__ = [
    "DataDirectory",
    "Node",
    "TokenFile",
    "ask",
    "emit_model",
    "hex_digits",
    "plain",
    "token_in",
    "url_of",
]

TOKEN_FILE: Final = "http.token"  # noqa: S105 - a file's name
T = TypeVar("T")

Node = Annotated[
    str,
    typer.Option(
        "--node",
        metavar="URL",
        envvar="MODERNTENSOR_NODE",
        help="The HTTP API of the node: a URL, or HOST:PORT as its --http has it.",
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", envvar="MODERNTENSOR_TOKEN_FILE", help="A file with the node's token."
    ),
]
DataDirectory = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        parser=directory,
        help="The node's data directory, in which its token is.",
    ),
]


def token_in(token_file: Path | None, data: Path | None) -> Path | None:
    """The file of the token: as told, else the one that a node writes into its data directory."""
    if token_file is not None:
        return token_file
    return None if data is None else data / TOKEN_FILE


def ask(node: str, work: Callable[[Client], Awaitable[T]], token_file: Path | None = None) -> T:
    """Do `work` with a client of the node, in an event loop of its own."""
    from ..client import Client  # noqa: PLC0415 - an extra; help needs none

    async def run() -> T:
        async with Client(url_of(node), token_file=token_file) as client:
            return await work(client)

    return asyncio.run(run())


def url_of(node: str) -> str:
    """``HOST:PORT`` as a URL; anything else as it is, for the client to judge."""
    return f"http://{node}" if re.fullmatch(r"[^/:@]+:[0-9]+|\[[^/@\]]+\]:[0-9]+", node) else node


def emit_model(value: Any, *, line: bool = False) -> None:
    """What the API says, on stdout as JSON, or with `line` in one line of many."""
    import msgspec  # noqa: PLC0415 - an extra

    text = msgspec.json.encode(value)
    typer.echo((text if line else msgspec.json.format(text, indent=1)).decode())


def plain(text: str) -> str:
    """A peer's words, made fit for a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def hex_digits(name: str, text: str, length: int | None = None) -> bytes:
    """`length` bytes (None: any number) given as hex; a usage error if they are not that."""
    digits = text.removeprefix("0x")
    whole = len(digits) % 2 == 0 if length is None else len(digits) == 2 * length
    if not whole or not all(c in "0123456789abcdefABCDEF" for c in digits):
        wanted = "hex digits, two for each byte" if length is None else f"{2 * length} hex digits"
        raise bad_option(name, f"{text[:80]!r} is not {wanted}")
    return bytes.fromhex(digits)
