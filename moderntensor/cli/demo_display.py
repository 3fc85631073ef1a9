"""What the demo shows: a live panel on a terminal, plain lines anywhere else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..network.sync import SyncPhase, SyncResult, SyncStatus
from .output import count, duration, key_value_table, short, size

LOOKS_PER_LINE: Final = 20  # of a sync in the same phase, where there is no terminal


@dataclass(frozen=True)
class LiveBlock:
    """A block made while all nodes watched. `seconds` from its making until the last had it."""

    height: int
    producer: int
    transactions: int
    has_ours: bool
    seconds: float


class Standing(NamedTuple):
    """Where a node is: its head, and how many accounts it has with the SHA-256 of all of them."""

    height: int
    head: bytes
    state_root: bytes
    accounts: int
    accounts_digest: bytes


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
    """Lines, for logs and pipes: one for each phase that is seen, and then one a second."""

    interval = 0.05

    def __init__(self, out: Console) -> None:
        self._out = out
        self._phase: SyncPhase | None = None
        self._looks = 0

    def say(self, text: str) -> None:
        self._phase = None
        self._out.print(text)

    def built(self, done: int, total: int) -> None:
        if done == total:
            self._out.print(f"  {count(done)} blocks signed")

    def syncing(self, status: SyncStatus) -> None:
        self._looks += 1
        if status.phase is self._phase and self._looks < LOOKS_PER_LINE:
            return
        self._phase, self._looks = status.phase, 0
        parts = [
            f"headers {count(status.header_height)}",
            f"accounts {count(status.accounts_done)} of {count(status.accounts_total)} proved"
            if status.accounts_total
            else "",
            f"blocks {count(status.current_height)} of {count(status.target_height)} "
            f"({status.progress:.0%})",
            _rates(status, ", "),
            size(status.bytes_received),
            f"{status.peers} peers",
            f"{duration(status.eta_seconds)} to go",
        ]
        self._out.print(f"  {status.phase.value}: " + ", ".join(filter(None, parts)))

    def live(self, block: LiveBlock) -> None:
        self._out.print(_live_line(block))


def _rates(status: SyncStatus, between: str) -> str:
    """The rates of what goes on, per second."""
    rates = {
        "headers": status.headers_per_second,
        "accounts": status.accounts_per_second,
        "blocks": status.blocks_per_second,
        "transactions": status.transactions_per_second,
    }
    return between.join(f"{count(rate)} {what}/s" for what, rate in rates.items() if rate)


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
                "rates": _rates(status, "   "),
                "received": size(status.bytes_received),
                "peers": status.peers,
                "time to go": duration(status.eta_seconds),
            }
        )
        if status.waiting:
            numbers.add_row("waiting", status.waiting)
        rows = [("headers", status.header_height, status.target_height)]
        if status.accounts_total:
            rows.append(("accounts", status.accounts_done, status.accounts_total))
        bars = _bars([*rows, ("blocks", status.current_height, status.target_height)])
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
    full: SyncResult,
    fast: SyncResult,
    live: list[LiveBlock],
    nodes: Mapping[str, Standing],
) -> None:
    """The tables at the end: what the syncs did, and where each node stands."""
    numbers = Table(title="the two syncs", title_justify="left")
    for name in ("what", "full sync", "fast sync"):
        numbers.add_column(name, justify="left" if name == "what" else "right")
    rows: list[tuple[str, Callable[[SyncResult], str]]] = [
        ("headers checked", lambda result: count(result.headers)),
        ("accounts proved", lambda result: count(result.accounts)),
        ("blocks executed", lambda result: count(result.blocks)),
        ("transactions executed", lambda result: count(result.transactions)),
        ("received", lambda result: size(result.bytes_received)),
        ("time", lambda result: duration(result.seconds)),
    ]
    for name, told in rows:
        numbers.add_row(name, told(full), told(fast))
    out.print(numbers)
    out.print(_ratio(full.seconds, fast))
    if live:
        slowest = max(block.seconds for block in live)
        out.print(
            f"{count(len(live))} live block{'' if len(live) == 1 else 's'}, each on every node "
            f"after {slowest * 1000:.0f} ms at most"
        )

    table = Table(title="where the nodes stand", title_justify="left")
    for name in ("node", "height", "head", "state root", "accounts"):
        table.add_column(name, justify="right" if name in ("height", "accounts") else "left")
    for name, node in nodes.items():
        row = count(node.height), short(node.head), short(node.state_root), count(node.accounts)
        table.add_row(name, *row)
    out.print(table)
    same = len(set(nodes.values())) == 1
    out.print("all nodes agree, in every account" if same else "THE NODES DO NOT AGREE")


def _ratio(full_seconds: float, fast: SyncResult) -> str:
    if not fast.accounts:
        return "the fast sync found no state to fetch, and executed all blocks as the full one did"
    ratio = full_seconds / fast.seconds
    if ratio < 1:
        return f"fast sync took {1 / ratio:.1f} times as long: so short a chain is sooner executed"
    return f"fast sync was {ratio:.1f} times as fast as full sync"
