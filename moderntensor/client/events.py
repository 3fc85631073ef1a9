"""A node's events as an async iterator that outlives connections and restarts of the node."""

from __future__ import annotations

import asyncio
from collections import deque
from random import Random
from typing import Final, Self, get_args

import aiohttp
import msgspec

from ..errors import BadAnswerError, ClientError, NodeRefusedError, NodeUnreachableError
from .model import Event, HeadEvent, MissedEvent, ReorganisationEvent
from .sse import EventParser, EventTooLongError, ServerEvent
from .transport import LONGEST_OBEYED, MAX_STREAMS, Transport, document, path_of

__all__ = ["PASSING", "EventStream"]

PATH: Final = path_of("events")
# Seconds without a byte after which a connection is taken for dead: a node says something every 15.
SILENCE: Final = 45.0
FIRST_PAUSE: Final = 0.25  # seconds before the first attempt to connect again; then doubled
LONGEST_PAUSE: Final = 10.0
STEADY: Final = 5.0  # seconds that a connection holds before a break is taken for a new one
MAX_ID: Final = 256  # characters of an id that is sent back

# Refusals that time may heal. Any other is raised, since asking again would change nothing.
PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_DECODER: Final[msgspec.json.Decoder[Event]] = msgspec.json.Decoder(Event)
_NAMES: Final = frozenset(each.__struct_config__.tag for each in get_args(Event))


class EventStream:
    """What `Client.events` gives: iterate over it, or use it in an ``async with`` before, which
    closes it. One task may iterate at a time.

    Where nobody answers the first time, NodeUnreachableError is raised. From then on a connection
    that breaks is made again, after pauses of up to 10 s (or of what the node asks for, up to
    60 s), for as long as it takes; the node sends what came meanwhile, or `MissedEvent` where it
    no longer knows. `connected` says how things are, `trouble` what went wrong last.
    """

    def __init__(self, transport: Transport, chance: Random) -> None:
        self.connected = False
        self.trouble: ClientError | None = None
        self._transport = transport
        self._random = chance
        self._ready: deque[Event] = deque()
        self._last_id = ""
        self._response: aiohttp.ClientResponse | None = None
        self._parser = EventParser()
        self._connections = 0  # that were made
        self._since = 0.0  # the last of them
        self._pause = 0.0
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def __anext__(self) -> Event:
        while not self._ready:
            if self._closed:
                raise StopAsyncIteration
            await self._step()
        return self._ready.popleft()

    async def chain_moved(self) -> None:
        """Instead of iterating: return once the chain may have moved, since there is a new head, a
        reorganisation, something missed or a new connection; at once if it is closed."""
        while not self._closed:
            connections = self._connections
            await self._step()
            moved = connections != self._connections
            while self._ready:
                event = self._ready.popleft()
                moved |= isinstance(event, HeadEvent | ReorganisationEvent | MissedEvent)
            if moved:
                return

    def close(self) -> None:
        """End the iteration and give the connection back. Idempotent."""
        self._closed = True
        self._ready.clear()
        self._disconnect()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    async def connect(self) -> None:
        """Listen from now on, rather than from the first look at the iterator on. Raises what is
        in the way. Nothing happens where it is connected."""
        if self._response is None and not self._closed:
            response = await self._connect()
            if self._closed:  # meanwhile, by another task
                response.close()
                return
            self._response, self._parser = response, EventParser()
            self._transport.streams += 1
            self._connections += 1
            self._since = asyncio.get_running_loop().time()
            self.connected = True
            self.trouble = None

    async def _step(self) -> None:
        """Connect, or read once where it is connected; waits after what went wrong."""
        try:
            if self._response is None:
                await self.connect()
            else:
                await self._read(self._response)
        except ClientError as error:
            await self._recover(error)
        except BaseException:
            # Cancelled or beyond repair: nobody may be left holding a half-read connection.
            self._disconnect()
            raise

    async def _recover(self, error: ClientError) -> None:
        """Wait as long as is right after an error; raises it where that is no use."""
        held = asyncio.get_running_loop().time() - self._since
        if self.connected and held >= STEADY:
            self._pause = 0.0  # this break is a new one
        self._disconnect()
        if self._closed:
            return
        self.trouble = error
        final = isinstance(error, NodeRefusedError) and error.status not in PASSING
        if final or not self._connections:
            raise error
        await asyncio.sleep(self._next_pause(error))

    async def _connect(self) -> aiohttp.ClientResponse:
        said = f"GET {PATH}"
        if self._transport.streams >= MAX_STREAMS:
            raise ClientError(self._transport.node, said, f"{MAX_STREAMS} streams are open already")
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
        if self._last_id:
            headers["Last-Event-ID"] = self._last_id
        wait = self._transport.timeout
        limits = aiohttp.ClientTimeout(total=None, sock_connect=wait, sock_read=SILENCE)
        try:
            async with asyncio.timeout(wait):
                response = await self._transport.open("GET", PATH, headers=headers, timeout=limits)
                if response.status != 200:
                    async with response:
                        raise await self._transport.refusal(said, response)
        except TimeoutError:
            raise NodeUnreachableError(
                self._transport.node, said, f"no answer within {wait:g} s"
            ) from None
        except aiohttp.ClientError as error:
            raise self._transport.unreachable(said, error) from error
        if response.content_type != "text/event-stream":
            response.close()
            raise BadAnswerError(
                self._transport.node, said, f"answers {response.content_type!r}, not events"
            )
        return response

    async def _read(self, response: aiohttp.ClientResponse) -> None:
        said = f"GET {PATH}"
        try:
            data = await response.content.readany()
        except TimeoutError:
            raise NodeUnreachableError(
                self._transport.node, said, f"silent for {SILENCE:g} s"
            ) from None
        except aiohttp.ClientError as error:
            raise self._transport.unreachable(said, error) from error
        if not data:
            raise NodeUnreachableError(self._transport.node, said, "ended the events")
        try:
            for found in self._parser.feed(data):
                self._remember_id()
                self._take(found)
            self._remember_id()  # of what had no data
        except EventTooLongError as error:
            raise BadAnswerError(self._transport.node, said, str(error)) from error

    def _take(self, found: ServerEvent) -> None:
        if found.name not in _NAMES:
            return  # of a newer node
        try:
            self._ready.append(document(found.data, _DECODER))
        except ValueError as error:
            raise BadAnswerError(
                self._transport.node, f"GET {PATH}", f"event {found.name!r}: {error}"
            ) from error

    def _remember_id(self) -> None:
        found = self._parser.settled_id
        if found is not None and len(found) <= MAX_ID and found.isprintable():
            self._last_id = found

    def _next_pause(self, error: ClientError) -> float:
        """Doubled each time, and drawn, so that the clients of a node do not return all at once."""
        self._pause = min(LONGEST_PAUSE, 2 * self._pause or FIRST_PAUSE)
        drawn = self._pause * self._random.uniform(0.5, 1.0)
        asked = error.retry_after if isinstance(error, NodeRefusedError) else None
        return max(drawn, min(asked or 0.0, LONGEST_OBEYED))

    def _disconnect(self) -> None:
        self.connected = False
        response, self._response = self._response, None
        if response is not None:
            self._transport.streams -= 1
            response.close()
