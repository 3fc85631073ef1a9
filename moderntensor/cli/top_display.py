"""What `top` shows of a node, in a picture or in a line."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from .output import count, duration, key_value_table, size
from .peers import peer_table
from .remote import plain
from .status import disk_line, phase_line

if TYPE_CHECKING:
    from ..client.model import NodeStatus, Peer, SyncState, Traffic
    from ..errors import ClientError

NARROW: Final = 90  # columns under which tables leave out what matters less
TYPES_SHOWN: Final = 5  # of messages, those with most bytes since the last look
RATES_KEPT: Final = 60  # looks in the little charts, and for the rate of a node's own blocks
_LEVELS: Final = "▁▂▃▄▅▆▇█"
_STYLES: Final = {"notice": "cyan", "warning": "yellow", "critical": "bold red"}


class Look(NamedTuple):
    """What the node said at one time."""

    status: NodeStatus
    sync: SyncState
    peers: list[Peer]
    traffic: list[Traffic]


class View:
    """The last look at a node, what has changed since the one before, and whether it is away."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.look: Look | None = None
        self.trouble: ClientError | None = None
        self.received: deque[float] = deque(maxlen=RATES_KEPT)
        """Bytes per second, the newest last."""
        self.sent: deque[float] = deque(maxlen=RATES_KEPT)
        self._at = 0.0
        self._away_since = 0.0
        self._now = 0.0
        self._types: list[tuple[str, float, float]] = []
        self._heads: deque[tuple[float, int]] = deque(maxlen=RATES_KEPT)

    def take(self, look: Look, now: float) -> None:
        """A new look, at a time in seconds."""
        before, seconds = self.look, now - self._at
        self.look, self.trouble, self._at, self._now = look, None, now, now
        if before is not None and before.status.started_at != look.status.started_at:
            before = None  # another life of the node: its counters begin again
            self._heads.clear()
        self._heads.append((now, look.status.head.height))
        if before is None or seconds <= 0:
            return
        old = {each.type: each for each in before.traffic}
        self._types = [
            (
                each.type,
                (each.bytes_received - (was.bytes_received if was else 0)) / seconds,
                (each.bytes_sent - (was.bytes_sent if was else 0)) / seconds,
            )
            for each in look.traffic
            for was in [old.get(each.type)]
        ]
        self.received.append(sum(row[1] for row in self._types))
        self.sent.append(sum(row[2] for row in self._types))

    def miss(self, error: ClientError, now: float) -> None:
        """It did not answer."""
        if self.trouble is None:
            self._away_since = now
        self.trouble, self._now = error, now

    def as_dict(self) -> dict[str, Any]:
        """A look for programs."""
        if self.trouble is not None or self.look is None:
            return {"node": self.node, "error": str(self.trouble)}
        return {
            "node": self.node,
            "status": self.look.status,
            "sync": self.look.sync,
            "peers": len(self.look.peers),
            "bytes_received_per_second": self.received[-1] if self.received else None,
            "bytes_sent_per_second": self.sent[-1] if self.sent else None,
        }

    @property
    def away(self) -> str | None:
        """What to say where it does not answer."""
        if self.trouble is None:
            return None
        return f"no answer for {duration(self._now - self._away_since)}: {self.trouble.problem}"

    @property
    def rates(self) -> str:
        """What goes through it."""
        if self.look is None:
            return ""
        status, sync, *_ = self.look
        blocks = sync.blocks_per_second
        if status.producing and status.phase in ("idle", "waiting", "following"):
            (since, lowest), (until, highest) = self._heads[0], self._heads[-1]
            # Those that it makes itself no sync counts.
            blocks = max(blocks, (highest - lowest) / (until - since) if until > since else 0.0)
        rates = {
            "headers": sync.headers_per_second,
            "accounts": sync.accounts_per_second,
            "blocks": blocks,
            "transactions": sync.transactions_per_second,
        }
        told = [f"{count(rate)} {what}/s" for what, rate in rates.items() if rate >= 0.5]
        if 0.5 <= blocks * 60 < 30:
            told.append(f"{count(blocks * 60)} blocks/min")
        return ", ".join(told)

    def render(self, width: int, height: int) -> RenderableType:
        """The picture, no wider and no higher than that."""
        if self.look is None:
            return Text(self.away or "")
        status, sync, peers, _ = self.look
        narrow = width < NARROW
        facts = {
            "head": f"{count(status.head.height)}  {status.head.hash[:16]}, "
            f"{duration(status.head.age)} old",
            "phase": phase_line(status, sync),
            "rates": self.rates,
            "mempool": f"{count(status.mempool.transactions)} transactions, "
            f"{size(status.mempool.bytes)}",
            "on disk": disk_line(status),
            "in": _chart(self.received, narrow),
            "out": _chart(self.sent, narrow),
        }
        parts: list[RenderableType] = [_facts(facts)]
        if sync.progress < 1 and status.phase in ("headers", "state", "blocks"):
            parts.append(ProgressBar(total=1.0, completed=sync.progress, width=max(width - 6, 10)))
        parts += [
            Text(f"{each.severity}: {plain(each.text)}", _STYLES[each.severity])
            for each in status.warnings
        ]
        used = len(facts) + len(parts) + 3  # border and the heading of the peers
        if not narrow and self._types:
            parts.append(self._busiest())
            used += min(len(self._types), TYPES_SHOWN) + 1
        places = status.places
        parts.append(
            Text(
                f"{len(peers)} peers: {places.inbound} in, {places.outbound} out, "
                f"{places.max_peers} at most",
                "bold",
            )
        )
        room = max(height - used - 2, 0)
        ranked = sorted(peers, key=lambda peer: peer.bytes_received + peer.bytes_sent, reverse=True)
        if ranked and room:
            parts.append(peer_table(ranked[:room], narrow=narrow))
        title = f"{self.node}  moderntensor {plain(status.version)}  up {duration(status.uptime)}"
        return Panel(
            Group(*parts),
            title=Text(title, overflow="ellipsis", no_wrap=True),
            subtitle=Text(self.away or "q: quit", overflow="ellipsis", no_wrap=True),
            border_style="red" if self.trouble else "cyan",
            height=height,
            width=width,
        )

    def _busiest(self) -> Table:
        table = Table(box=None, pad_edge=False)
        for name in ("message", "in", "out"):
            table.add_column(name, justify="left" if name == "message" else "right")
        busiest = sorted(self._types, key=lambda row: row[1] + row[2], reverse=True)
        for name, received, sent in busiest[:TYPES_SHOWN]:
            table.add_row(Text(name), f"{size(received)}/s", f"{size(sent)}/s")
        return table


def line_of(view: View) -> str:
    """A look in one line."""
    if view.look is None or view.away is not None:
        return f"{view.away}"
    status, sync = view.look.status, view.look.sync
    line = (
        f"{phase_line(status, sync)}: block {count(status.head.height)} "
        f"({status.head.hash[:16]}), {len(view.look.peers)} peers"
    )
    if rates := view.rates:
        line += f", {rates}"
    if view.received:
        line += f", {size(view.received[-1])}/s in, {size(view.sent[-1])}/s out"
    return line


def _facts(facts: dict[str, str]) -> Table:
    table = key_value_table({name: Text(value) for name, value in facts.items() if value})
    for column in table.columns:
        column.no_wrap, column.overflow = True, "ellipsis"
    table.columns[0].min_width = max(map(len, facts))  # the values give way
    return table


def _chart(rates: deque[float], narrow: bool) -> str:
    """The last rate, and how it got there."""
    if not rates:
        return ""
    highest = max(*rates, 1.0)
    last = list(rates)[-20 if narrow else -RATES_KEPT :]
    bars = "".join(_LEVELS[min(int(rate / highest * 8), 7)] for rate in last)
    return f"{size(rates[-1]) + '/s':>12}  {bars}"
