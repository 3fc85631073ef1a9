"""What happens in a node, as a numbered stream for any number of listeners.

The last events are kept once, for all: a listener is a position among them. Who is slower than
events come finds that its position is gone, is told how many it missed, and goes on with the rest;
who comes back with the last id it saw gets what came since. So no listener costs memory, but for
what its socket has taken.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import msgspec

from ..blockchain.block import BlockHeader
from ..blockchain.chain_queries import headers_below
from ..blockchain.chain_types import HeadChanged
from ..client import model
from ..errors import StorageError
from ..network.peer import Peer
from ..network.tasks import TaskSet
from ..network.text import printable
from ..node import FullNode
from .limits import (
    EVENTS_KEPT,
    HEAD_INTERVAL,
    HEADS_WAITING,
    LISTENER_WRITE,
    LISTENERS,
    SYNC_INTERVAL,
)
from .problems import Refusal
from .views import header_view, sync_view

__all__ = ["EventStream", "Listener"]

log = logging.getLogger(__name__)

_ALL_BODIES: Final = 1 << 31


class EventStream:
    """Collects a node's events between `start` and `close`. For the loop's thread."""

    def __init__(self, node: FullNode, tasks: TaskSet) -> None:
        self._node = node
        self._tasks = tasks
        self._life = node.runtime.entropy(4).hex()
        self._frames: deque[bytes] = deque(maxlen=EVENTS_KEPT)
        self.number = 0
        """Of the last event; the first is 1."""
        self.listeners: dict[Listener, None] = {}
        self._heads: deque[HeadChanged] = deque(maxlen=HEADS_WAITING)
        self._moved = asyncio.Event()
        self._ends: list[Callable[[], object]] = []
        self.closed = False

    # --- life -----------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to listen to the node."""
        loop = asyncio.get_running_loop()

        def moved(event: HeadChanged) -> None:  # on the thread that writes
            with suppress(RuntimeError):  # the loop is closed: nobody listens any more
                loop.call_soon_threadsafe(self._head_moved, event)

        p2p = self._node.p2p
        p2p.on_peer_connected.append(self._peer_came)
        p2p.on_peer_disconnected.append(self._peer_went)
        self._ends = [
            self._node.chain.subscribe(moved),
            lambda: p2p.on_peer_connected.remove(self._peer_came),
            lambda: p2p.on_peer_disconnected.remove(self._peer_went),
        ]
        self._tasks.start(self._tell_heads(), "HTTP head events")
        self._tasks.start(self._watch_sync(), "HTTP sync events")

    def close(self) -> None:
        """No more events; every listener comes to its end."""
        self.closed = True
        for end in self._ends:
            end()
        self._ends = []
        for listener in self.listeners:
            listener.wake.set()

    # --- telling --------------------------------------------------------------------------

    def publish(self, event: model.Event) -> None:
        """Number an event and wake those who listen."""
        self.number += 1
        self._frames.append(self.frame(event, self.number))
        for listener in self.listeners:
            listener.wake.set()

    def frame(self, event: model.Event, number: int) -> bytes:
        """An event as it is sent."""
        tag = event.__struct_config__.tag
        head = f"id: {self._life}-{number}\nevent: {tag}\ndata: "
        return head.encode() + msgspec.json.encode(event) + b"\n\n"

    def _peer_came(self, peer: Peer) -> None:
        self._tell_peer(peer, None)

    def _peer_went(self, peer: Peer) -> None:
        self._tell_peer(peer, printable(peer.drop_reason or "") or "gone")

    def _tell_peer(self, peer: Peer, reason: str | None) -> None:
        self.publish(
            model.PeerEvent(
                address=peer.address,
                node_id=peer.node_id.hex(),
                outbound=peer.outbound,
                connected=reason is None,
                reason=reason,
            )
        )

    def _head_moved(self, event: HeadChanged) -> None:
        self._heads.append(event)
        self._moved.set()

    async def _tell_heads(self) -> None:
        """Reorganisations, each of them, then the head that is the last by now."""
        while True:
            await self._moved.wait()
            self._moved.clear()
            while self._heads:
                moved = self._heads.popleft()
                if moved.reverted:
                    self._tell_reorganisation(moved)
            try:  # not in the queue of clients, who could keep it from its turn
                found = await self._node.runtime.run(
                    headers_below, self._node.chain.store, None, 1, _ALL_BODIES
                )
            except StorageError as error:
                log.warning("the head cannot be told: %s", error)
                self._moved.set()  # it is still to be told
                await asyncio.sleep(SYNC_INTERVAL)
                continue
            if found:
                self._tell_head(*found[0])
            await asyncio.sleep(HEAD_INTERVAL)  # in a sync there are hundreds of heads a second

    def _tell_head(self, header: BlockHeader, transactions: int | None) -> None:
        count = transactions or 0
        self.publish(model.HeadEvent(header=header_view(header, count), transactions=count))

    def _tell_reorganisation(self, moved: HeadChanged) -> None:
        (from_height, from_hash), (lowest, _) = moved.reverted[0], moved.reverted[-1]
        self.publish(
            model.ReorganisationEvent(
                from_height=from_height,
                from_hash=from_hash.hex(),
                to_height=moved.head.height,
                to_hash=moved.head.hash.hex(),
                fork_height=lowest - 1,
            )
        )

    async def _watch_sync(self) -> None:
        told: tuple[object, ...] = ()
        while True:
            sync = sync_view(self._node)
            moving = (
                sync.phase,
                sync.header_height,
                sync.current_height,
                sync.target_height,
                sync.accounts_done,
                sync.accounts_total,
                sync.waiting,
                sync.backfilling,
                self._node.chain.earliest_height,
            )
            if moving != told:
                told = moving
                self.publish(model.SyncEvent(sync=sync))
            await asyncio.sleep(SYNC_INTERVAL)

    # --- listening ------------------------------------------------------------------------

    def listen(self, last_id: str | None) -> Listener:
        """A listener, from now on or from the event after `last_id`. Refuses one too many."""
        if len(self.listeners) >= LISTENERS:
            raise Refusal(
                503,
                f"{LISTENERS} listeners are here already, which is the most",
                headers={"Retry-After": "10"},
            )
        listener = Listener(self, self._position(last_id))
        self.listeners[listener] = None
        return listener

    def _position(self, last_id: str | None) -> int:
        if not last_id:
            return self.number
        life, _, text = last_id.partition("-")
        if life == self._life and text.isascii() and text.isdecimal() and len(text) <= 18:
            return min(int(text), self.number)
        return 0  # of another life: all that is known of is news

    def after(self, position: int, max_bytes: int) -> tuple[bytes, int]:
        """Frames of the events after `position`, up to `max_bytes` but at least one, and the
        position after them."""
        first = self.number - len(self._frames)
        frames: list[bytes] = []
        size = 0
        if position < first:
            frames.append(self.frame(model.MissedEvent(events=first - position), first))
            position = first
        while position < self.number and (not frames or size < max_bytes):
            frame = self._frames[position - first]
            frames.append(frame)
            size += len(frame)
            position += 1
        return b"".join(frames), position


class Listener:
    """One who listens: a position in the stream."""

    def __init__(self, stream: EventStream, position: int) -> None:
        self._stream = stream
        self.position = position
        self.wake = asyncio.Event()
        self.gone = False

    def leave(self) -> None:
        """End; idempotent."""
        self.gone = True
        self._stream.listeners.pop(self, None)
        self.wake.set()

    @property
    def over(self) -> bool:
        """Whether there is nobody to tell, or nothing any more."""
        return self.gone or self._stream.closed

    def take(self) -> bytes:
        """What came since the last call, or its beginning; empty if nothing did."""
        self.wake.clear()
        data, self.position = self._stream.after(self.position, LISTENER_WRITE)
        return data
