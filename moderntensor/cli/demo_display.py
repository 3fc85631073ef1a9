"""What the demo shows: a live panel on a terminal, plain lines anywhere else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..network.sync import SyncResult, SyncStatus
from .output import count, duration, key_value_table, short, size


@dataclass(frozen=True)
class LiveBlock:
    """A block made while all nodes watched. `seconds` from its making until the last had it."""

    height: int
    producer: int
    transactions: int
    has_ours: bool
    seconds: float


class Display(ABC):
    """Where the demo tells what it does."""

    interval: float
    """Seconds between two looks at a running sync."""

    @abstractmethod
    def say(self, text: str) -> None:
        """A new act begins."""

    @abstractmethod
    def built(self, done: int, total: int) -> None:
        """So many blocks are signed. May be called from a worker thread."""

    @abstractmethod
    def syncing(self, status: SyncStatus) -> None:
        """How the sync stands."""

    @abstractmethod
    def live(self, block: LiveBlock) -> None:
        """A live block has reached every node."""


@contextmanager
def make_display(out: Console) -> Iterator[Display]:
    """The display that fits `out`."""
    if not out.is_terminal:
        yield PlainDisplay(out)
        return
    display = TerminalDisplay(out)
    with Live(get_renderable=display.render, console=out, refresh_per_second=10) as live:
        display.clear = live.refresh
        yield display


class PlainDisplay(Display):
    """Lines, for logs and pipes."""

    interval = 1.0

    def __init__(self, out: Console) -> None:
        self._out = out

    def say(self, text: str) -> None:
        self._out.print(text)

    def built(self, done: int, total: int) -> None:
        if done == total:
            self._out.print(f"  {count(done)} blocks signed")

    def syncing(self, status: SyncStatus) -> None:
        self._out.print(
            f"  {status.phase.value}: headers {count(status.header_height)}, "
            f"blocks {count(status.current_height)} of {count(status.target_height)} "
            f"({status.progress:.0%}), {count(status.headers_per_second)} headers/s, "
            f"{count(status.blocks_per_second)} blocks/s, "
            f"{count(status.transactions_per_second)} tx/s, {size(status.bytes_received)}, "
            f"{status.peers} peers, {duration(status.eta_seconds)} to go"
        )

    def live(self, block: LiveBlock) -> None:
        self._out.print(_live_line(block))


class TerminalDisplay(Display):
    """One panel that stays in place, the story above it."""

    interval = 0.1

    def __init__(self, out: Console) -> None:
        self._out = out
        self._panel: Panel | None = None
        self.clear: Callable[[], None] = lambda: None
        """Draws what `render` gives now, at once."""

    def render(self) -> Panel | Text:
        return self._panel or Text("")

    def say(self, text: str) -> None:
        if self._panel is not None:  # how an act ended stays on the screen
            ended, self._panel = self._panel, None
            self.clear()
            self._out.print(ended)
        self._out.print(f"[bold]{text}[/bold]")

    def built(self, done: int, total: int) -> None:
        self._panel = Panel(
            _bars([("signed", done, total)]), title="building the chain", border_style="cyan"
        )

    def syncing(self, status: SyncStatus) -> None:
        numbers = key_value_table(
            {
                "rates": f"{count(status.headers_per_second)} headers/s   "
                f"{count(status.blocks_per_second)} blocks/s   "
                f"{count(status.transactions_per_second)} transactions/s",
                "received": size(status.bytes_received),
                "peers": status.peers,
                "time to go": duration(status.eta_seconds),
            }
        )
        if status.waiting:
            numbers.add_row("waiting", status.waiting)
        bars = _bars(
            [
                ("headers", status.header_height, status.target_height),
                ("blocks", status.current_height, status.target_height),
            ]
        )
        self._panel = Panel(
            Group(bars, numbers), title=f"sync: {status.phase.value}", border_style="cyan"
        )

    def live(self, block: LiveBlock) -> None:
        self._out.print(_live_line(block))


def _bars(rows: list[tuple[str, int, int]]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, done, total in rows:
        bar = ProgressBar(total=max(total, 1), completed=done, width=40)
        table.add_row(name, bar, f"{count(done)} of {count(total)}")
    return table


def _live_line(block: LiveBlock) -> str:
    ours = "with our transaction" if block.has_ours else "without our transaction"
    return (
        f"  block {count(block.height)} by node {block.producer}, "
        f"{block.transactions} transaction{'' if block.transactions == 1 else 's'}, {ours}: "
        "on every node after "
        f"{block.seconds * 1000:.0f} ms"
    )


def show_summary(
    out: Console,
    result: SyncResult,
    live: list[LiveBlock],
    heads: Mapping[str, tuple[int, bytes, bytes]],
) -> None:
    """The tables at the end: what the sync did, and where each node stands."""
    numbers = Table(title="sync of the fresh node", title_justify="left")
    for name in ("what", "how many", "per second"):
        numbers.add_column(name, justify="left" if name == "what" else "right")
    per_second = result.bytes_received / result.seconds if result.seconds else 0.0
    numbers.add_row("headers", count(result.headers), count(result.headers_per_second))
    numbers.add_row("blocks", count(result.blocks), count(result.blocks_per_second))
    numbers.add_row(
        "transactions", count(result.transactions), count(result.transactions_per_second)
    )
    numbers.add_row("received", size(result.bytes_received), size(per_second))
    numbers.add_row("time", duration(result.seconds), "")
    if live:
        slowest = max(block.seconds for block in live)
        numbers.add_row("live blocks", count(len(live)), f"{slowest * 1000:.0f} ms at most")
    out.print(numbers)

    nodes = Table(title="where the nodes stand", title_justify="left")
    for name in ("node", "height", "head", "state root"):
        nodes.add_column(name, justify="right" if name == "height" else "left")
    for name, (height, block_hash, state_root) in heads.items():
        nodes.add_row(name, count(height), short(block_hash), short(state_root))
    out.print(nodes)
    same = len(set(heads.values())) == 1
    out.print("all nodes agree" if same else "THE NODES DO NOT AGREE")
