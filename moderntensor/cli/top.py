"""``moderntensor top``: a running node, live. On a terminal a picture that stays in place, anywhere
else a line for each look."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.live import Live

from ..errors import ClientError, NodeRefusedError
from .output import AsJson, console
from .remote import Node, ask, emit_model
from .status import DEFAULT_NODE
from .top_display import Look, View, line_of

if TYPE_CHECKING:
    from ..client import Client

QUIT_KEYS: Final = re.compile(rb"[qQ\x03\x04]")  # Ctrl-C and Ctrl-D too
# What arrows, function keys and wheels send begins with escape and may have a Q in it (F2).
_SEQUENCE: Final = re.compile(rb"\x1b(?:O[ -~]|\[[0-?]*[ -/]*[@-~])")
_UNFINISHED: Final = re.compile(rb"\x1b(?:O|\[[0-?]*[ -/]*)?\Z")
_MAX_HELD: Final = 64  # bytes of a sequence that does not end
# Refusals that no waiting heals.
_LASTING: Final = frozenset({400, 401, 403, 404, 405})


def top(
    interval: Annotated[
        float, typer.Option(min=0.2, max=3600, help="Seconds between two looks.")
    ] = 2.0,
    looks: Annotated[
        int | None, typer.Option("--count", min=1, help="End after so many looks.")
    ] = None,
    node: Node = DEFAULT_NODE,
    as_json: AsJson = False,
) -> None:
    """Watch a running node: sync, head, peers and traffic, until q or Ctrl-C.

    It goes on where the node stops, and shows it again when it is back. Where the output is no
    terminal, each look is a line; with --json a line of JSON.
    """
    ask(node, lambda client: _watch(client, interval, looks, as_json))


async def _watch(client: Client, interval: float, looks: int | None, as_json: bool) -> None:
    view = View(client.node)
    view.take(await _look(client), asyncio.get_running_loop().time())  # must be there at first
    out = console()
    if as_json or not out.is_terminal or out.is_dumb_terminal:  # nothing stays in place there
        while True:
            if as_json:
                emit_model(view.as_dict(), line=True)
            else:
                out.print(line_of(view), markup=False)
            sys.stdout.flush()
            if (looks := _fewer(looks)) == 0:
                return
            await asyncio.sleep(interval)
            await _look_again(client, view)
    with Live(
        get_renderable=lambda: view.render(out.width, out.height),
        console=out,
        screen=True,
        auto_refresh=False,
    ) as live:
        try:
            async with asyncio.timeout(None) as until_key:
                with _on_quit_key(until_key):
                    while True:
                        live.refresh()
                        if (looks := _fewer(looks)) == 0:
                            return
                        await asyncio.sleep(interval)
                        await _look_again(client, view)
        except TimeoutError:  # a key, whatever was going on
            return


def _fewer(looks: int | None) -> int | None:
    return None if looks is None else looks - 1


async def _look(client: Client) -> Look:
    status, sync, peers, traffic = await asyncio.gather(
        client.status(), client.sync(), client.peers(), client.traffic()
    )
    return Look(status, sync, peers, traffic.types)


async def _look_again(client: Client, view: View) -> None:
    """A node that is away for a while is waited for."""
    now = asyncio.get_running_loop().time
    try:
        view.take(await _look(client), now())
    except ClientError as error:
        if isinstance(error, NodeRefusedError) and error.status in _LASTING:
            raise
        view.miss(error, now())


class Keys:
    """What is typed, however it is cut."""

    def __init__(self) -> None:
        self._held = b""

    def quit(self, pressed: bytes) -> bool:
        """Whether a key is among them that ends the picture."""
        alone = _SEQUENCE.sub(b"", self._held + pressed)
        unfinished = _UNFINISHED.search(alone)
        self._held = unfinished.group()[:_MAX_HELD] if unfinished else b""
        return QUIT_KEYS.search(alone) is not None


@contextmanager
def _on_quit_key(until_key: asyncio.Timeout) -> Iterator[None]:
    """Ends `until_key` when a key is pressed that ends the picture; without a keyboard, or where
    the system gives no single keys, never."""
    try:
        import termios  # noqa: PLC0415 - not on every system
        import tty  # noqa: PLC0415
    except ImportError:
        yield
        return
    if not sys.stdin.isatty():
        yield
        return
    keyboard = sys.stdin.fileno()
    loop = asyncio.get_running_loop()

    keys = Keys()

    def read() -> None:
        pressed = os.read(keyboard, 64)
        if not pressed or keys.quit(pressed):
            loop.remove_reader(keyboard)
            until_key.reschedule(loop.time())

    before = termios.tcgetattr(keyboard)
    tty.setcbreak(keyboard)
    loop.add_reader(keyboard, read)
    try:
        yield
    finally:
        loop.remove_reader(keyboard)
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
