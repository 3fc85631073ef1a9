"""PING and PONG with one peer: is it there, how quick is it."""

from __future__ import annotations

import asyncio
from math import inf
from typing import Protocol

from ..config import NodeConfig
from ..errors import PeerBusyError
from ..runtime import Runtime
from .limits import PINGS_BURST, PINGS_PER_SECOND, PROBE_TIMEOUT
from .messages import MessageCodec, PingMessage, PongMessage
from .offences import Offence
from .rates import TokenBucket

__all__ = ["Heartbeat"]


class Pinged(Protocol):
    """Who is asked and answered."""

    def send_frame(self, frame: bytes, *, now: bool = False) -> None:
        """Queue an encoded frame."""

    def punish(self, offence: Offence, detail: str = "") -> None:
        """It did something wrong."""


class Heartbeat:
    """One PING is outstanding at a time, so that every PONG is the answer to it or to nothing."""

    __slots__ = (
        "_answers",
        "_config",
        "_next",
        "_patience",
        "_peer",
        "_ping",
        "_runtime",
        "_waiting",
        "latency",
        "minimum",
    )

    def __init__(self, peer: Pinged, config: NodeConfig, runtime: Runtime) -> None:
        self._peer = peer
        self._config = config
        self._runtime = runtime
        now = runtime.loop_time()
        self._answers = TokenBucket(PINGS_PER_SECOND, PINGS_BURST, now)
        self._ping: tuple[int, float] | None = None  # nonce, sent at
        self._next = now
        self._patience = config.ping_timeout  # for its PONG
        # Who waits for the answer to a PING that was sent after a time.
        self._waiting: list[tuple[float, asyncio.Future[bool]]] = []
        self.latency: float | None = None  # of the last PONG, in seconds
        self.minimum: float | None = None  # of all

    def may_answer(self) -> bool:
        """Whether one more PING may be answered."""
        return self._answers.take(self._runtime.loop_time())

    def answered(self, pong: PongMessage) -> bool:
        """A PONG has come; False if it answers nothing, which says nothing and costs points."""
        if self._ping is None or self._ping[0] != pong.nonce:
            self._peer.punish(Offence.WRONG_PONG, "a PONG to no PING")
            return False
        self.latency = self._runtime.loop_time() - self._ping[1]
        if self.minimum is None or self.latency < self.minimum:
            self.minimum = self.latency
        sent, self._ping = self._ping[1], None
        self._tell(sent, True)
        self._patience = self._config.ping_timeout
        return True

    def answer(self) -> asyncio.Future[bool]:
        """Done when it has answered a PING sent from now on: what was sent to it before has
        arrived, and its answers get here. False at `end`."""
        outcome: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((self._runtime.loop_time(), outcome))
        return outcome

    def end(self) -> None:
        """It is gone."""
        self._tell(inf, False)

    def _tell(self, sent: float, answered: bool) -> None:
        waiting, self._waiting = self._waiting, []
        for since, outcome in waiting:
            if since > sent:
                self._waiting.append((since, outcome))
            elif not outcome.done():
                outcome.set_result(answered)

    def refresh(self) -> None:
        """Ping it with the next tick: what it says of itself may have changed."""
        self._next = min(self._next, self._runtime.loop_time())

    def hurry(self) -> None:
        """It may be dead: ping it with the next tick, and wait for its PONG less than usual."""
        self._patience = min(self._patience, PROBE_TIMEOUT)
        self._next = min(self._next, self._runtime.loop_time())

    def tick(self, now: float, read_since: float) -> None:
        """Ping it when it is time, drop it if it has not answered. It has been read from without
        a pause since `read_since` (loop time)."""
        if self._ping is not None:
            waited = now - max(self._ping[1], read_since)
            if waited >= self._patience:
                self._peer.punish(Offence.NO_PONG, f"no PONG within {waited:.1f} s")
        elif now >= self._next:
            nonce = self._runtime.random.getrandbits(64)
            try:
                ping = MessageCodec.encode(PingMessage(nonce=nonce))
                self._peer.send_frame(ping, now=True)
            except PeerBusyError as error:
                self._peer.punish(Offence.NOT_READING, str(error))
            else:
                self._ping = (nonce, now)
                self._next = now + self._config.ping_interval
