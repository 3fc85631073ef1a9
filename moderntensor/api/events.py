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

from ..blockchain.chain_queries import headers_below
from ..blockchain.chain_types import ChainHead, HeadChanged
from ..client import model
from ..errors import StorageError
from ..network.peer import Peer
from ..network.tasks import TaskSet
from ..network.text import printable
from ..node import FullNode
from .limits import (
    EVENTS_KEPT,
    HEAD_INTERVAL,
    LISTENER_WRITE,
    LISTENERS,
    SYNC_INTERVAL,
)
from .problems import Refusal
from .shares import who_yields
from .views import header_view, sync_view

__all__ = ["EventStream", "Listener"]

log = logging.getLogger(__name__)

_ALL_BODIES: Final = 1 << 31
_ANOTHER_LIFE: Final = -1  # the position of who comes with an id that this stream did not give


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
        self._head: ChainHead | None = None  # the last that was heard of
        self._moved = asyncio.Event()  # it is still to be told
        self._reorganisations = 0
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
        if event.reverted:
            self._reorganisations += 1
            self._tell_reorganisation(event)
        self._head = event.head
        self._moved.set()

    async def _tell_heads(self) -> None:
        """The head that is the last by now, at intervals."""
        while True:
            await self._moved.wait()
            self._moved.clear()
            try:
                await self._tell_head()
            except StorageError as error:
                log.warning("the head cannot be told: %s", error)
                self._moved.set()  # it is still to be told
                await asyncio.sleep(SYNC_INTERVAL)
            else:
                await asyncio.sleep(HEAD_INTERVAL)  # in a sync there are hundreds a second

    async def _tell_head(self) -> None:
        head, before = self._head, self._reorganisations
        if head is None:
            return
        # Not in the queue of clients, who could keep it from its turn.
        found = await self._node.runtime.run(
            headers_below, self._node.chain.store, head.height + 1, 1, _ALL_BODIES
        )
        # Where it is on the chain no longer, another is about to be told; and what a listener was
        # told to be taken off, it is not told to be the head.
        if before == self._reorganisations and found and found[0][0].hash == head.hash:
            header, count = found[0]
            self.publish(
                model.HeadEvent(header=header_view(header, count), transactions=count or 0)
            )

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

    def listen(self, last_id: str | None, client: str = "") -> Listener:
        """A listener at an address, from now on or from the event after `last_id`. Where all places
        are taken, the address with most of them gives its eldest up, or this one is refused."""
        if len(self.listeners) >= LISTENERS:
            most = who_yields((listener.client for listener in self.listeners), client)
            if most is None:
                raise Refusal(
                    503,
                    f"{LISTENERS} listeners are here already, which is the most",
                    headers={"Retry-After": "10"},
                )
            next(listener for listener in self.listeners if listener.client == most).leave()
        listener = Listener(self, self._position(last_id), client)
        self.listeners[listener] = None
        return listener

    def _position(self, last_id: str | None) -> int:
        if not last_id:
            return self.number
        life, _, text = last_id.partition("-")
        if life == self._life and text.isascii() and text.isdecimal() and len(text) <= 18:
            return min(int(text), self.number)
        return _ANOTHER_LIFE  # all that is known of is news, and there was more

    def beginning(self, position: int) -> bytes:
        """What a stream begins with. Who has to come back before the first event knows from where
        on, but not who is about to be told that it has missed some."""
        lines = ": events of a moderntensor node\nretry: 2000\n"
        known = f"id: {self._life}-{position}\n" if position >= 0 else ""
        return f"{lines}{known}\n".encode()

    def after(self, position: int, max_bytes: int) -> tuple[bytes, int]:
        """Frames of the events after `position`, up to `max_bytes` but at least one, and the
        position after them."""
        first = self.number - len(self._frames)
        frames: list[bytes] = []
        size = 0
        if position < first:
            missed = 0 if position == _ANOTHER_LIFE else first - position
            frames.append(self.frame(model.MissedEvent(events=missed), first))
            position = first
        while position < self.number and (not frames or size < max_bytes):
            frame = self._frames[position - first]
            frames.append(frame)
            size += len(frame)
            position += 1
        return b"".join(frames), position


class Listener:
    """One who listens: a position in the stream."""

    def __init__(self, stream: EventStream, position: int, client: str = "") -> None:
        self._stream = stream
        self.position = position
        self.client = client
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
