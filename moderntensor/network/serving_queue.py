"""One peer's requests on their way to being answered: bounded, in order, one at a time."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Generic

from ..config import NodeConfig
from ..errors import NetworkError, ProtocolViolationError
from ..runtime import Runtime
from ..wire import MESSAGES
from .budget import TokenBucket
from .connection import WRITE_HIGH
from .dispatch import P, Router
from .limits import BUSY_BURST, BUSY_PER_SECOND, RETRY_BUSY_MS, UNREAD_BUSY_REPLIES, WRITE_TOGETHER
from .messages import DisconnectCode, MessageCodec, Reply, Request, Status
from .offences import Offence
from .tasks import TaskSet, ends_us

__all__ = ["ServingQueue", "refusal"]


def refusal(request: Request, status: Status, retry_ms: int = 0) -> Reply:
    """The reply to `request` that holds nothing but a status."""
    reply: Reply = MESSAGES[request.REPLY](  # type: ignore[index]
        request_id=request.request_id, status=status, retry_ms=retry_ms
    )
    return reply


class ServingQueue(Generic[P]):
    """What a peer has asked.

    More than our HELLO allows is answered BUSY at once, and who goes on nevertheless is dropped.
    A reply counts as in flight until most of what was sent has left, so a peer that does not
    read is soon told BUSY, and dropped when it does not even read that.
    """

    def __init__(self, peer: P, router: Router[P], config: NodeConfig, runtime: Runtime) -> None:
        self._peer = peer
        self._runtime = runtime
        self._excess = TokenBucket(BUSY_PER_SECOND, BUSY_BURST, runtime.loop_time())
        self._router = router
        self._max_inflight = config.max_inflight
        self._max_per_type = config.max_per_type
        self._queue: deque[Request] = deque()
        self._in_flight: dict[int, int] = {}
        self._total = 0
        self._unread = 0
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.busy_replies = 0

    def start(self, tasks: TaskSet) -> None:
        """Begin to answer."""
        self._task = tasks.start(self._run(), f"serving {self._peer.address}")

    def close(self) -> None:
        """Answer no more."""
        self._queue.clear()
        if self._task is not None:
            self._task.cancel()

    def put(self, request: Request) -> None:
        """Queue a request, or answer BUSY. Raises `ProtocolViolationError` for a flood, or for
        fewer of a peer that reads nothing."""
        kind = request.TYPE
        of_this_type = self._in_flight.get(kind, 0)
        if self._total >= self._max_inflight or of_this_type >= self._max_per_type:
            self._say_busy(request)
            return
        self._total += 1
        self._in_flight[kind] = of_this_type + 1
        self._queue.append(request)
        self._wake.set()

    def _say_busy(self, request: Request) -> None:
        self.busy_replies += 1
        if not self._excess.take(self._runtime.loop_time()):
            raise ProtocolViolationError(
                DisconnectCode.LIMITS, "asks far more than HELLO allows", Offence.REQUEST_FLOOD
            )
        if self._peer.connection.write_buffer_size <= WRITE_HIGH:
            self._unread = 0
        else:
            self._unread += 1
            if self._unread > UNREAD_BUSY_REPLIES:
                raise ProtocolViolationError(
                    DisconnectCode.LIMITS,
                    "asks on and on without reading the answers",
                    Offence.UNREAD_REQUESTS,
                )
        self._peer.send(refusal(request, Status.BUSY, RETRY_BUSY_MS))

    async def _run(self) -> None:
        peer = self._peer
        while True:
            self._wake.clear()
            unsent = 0
            while self._queue:
                request = self._queue.popleft()
                try:
                    reply = await self._reply_to(request)
                    unsent = (unsent + 1) % WRITE_TOGETHER
                    peer.send_frame(reply, now=unsent == 0 or not self._queue)
                    if peer.connection.write_buffer_size > WRITE_HIGH:
                        await peer.connection.drained()
                except ProtocolViolationError as error:
                    peer.breach(error)
                except NetworkError as error:
                    peer.log(logging.DEBUG, "%s not answered: %s", request.TYPE.name, error)
                    if peer.closed:
                        return
                finally:
                    self._total -= 1
                    self._in_flight[request.TYPE] -= 1
            await self._wake.wait()

    async def _reply_to(self, request: Request) -> bytes:
        try:
            return await self._router.answer(self._peer, request)
        except ProtocolViolationError:
            raise
        except (Exception, asyncio.CancelledError) as error:
            if ends_us(error):
                raise
            # Our own fault (a store that fails, a user's handler).
            self._peer.log(
                logging.ERROR, "%s could not be answered", request.TYPE.name, exc_info=True
            )
            return MessageCodec.encode(refusal(request, Status.BUSY, 4 * RETRY_BUSY_MS))
