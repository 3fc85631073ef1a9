"""What either end has to do: which messages are sent, and how a receiver counts them."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

HOST = "127.0.0.1"
DISTINCT = 64  # messages of one size that differ; they are sent in turns
_BURST_BYTES = 256 * 1024


def listener() -> socket.socket:
    """A listening socket on a free port of `HOST`, for streams that nothing paces."""
    sock = socket.create_server((HOST, 0))
    unpaced(sock)
    return sock


def unpaced(sock: _HasOptions) -> None:
    """Send by `cubic`, Linux's default, or `reno`, whatever the machine's default is: `bbr` sends
    by timers, at the rate that it believes the line to have, so that on loopback all kinds would
    be measured as equally slow. Accepted sockets inherit it."""
    if not hasattr(socket, "TCP_CONGESTION"):
        return
    for name in (b"cubic", b"reno"):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name)
            return


def messages(size: int) -> list[bytes]:
    """The messages of `size` bytes: the same for every kind, all different from each other."""
    source = random.Random(size)
    return [source.randbytes(size) for _ in range(DISTINCT)]


def burst(size: int) -> int:
    """How many messages a program has ready at once, before it asks whether it must wait: 64,
    fewer where they are large. Divides `DISTINCT`."""
    return max(1, min(DISTINCT, _BURST_BYTES // size))


class _HasOptions(Protocol):
    def setsockopt(self, level: int, option: int, value: bytes, /) -> None:
        """As a socket's."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a receiver took, and the seconds from its first messages (`first` of them came with
    the first call) to its last."""

    count: int
    size: int
    first: int
    seconds: float
    kept: list[bytes] | None = None

    @property
    def rate(self) -> float:
        """Messages per second after the first; 0 if all came with those."""
        return (self.count - self.first) / self.seconds if self.seconds else 0.0

    @property
    def digest(self) -> str | None:
        """Of the messages that were kept, with their lengths."""
        if self.kept is None:
            return None
        whole = sha256()
        for message in self.kept:
            whole.update(len(message).to_bytes(4, "big"))
            whole.update(message)
        return whole.hexdigest()


class Sender(ABC):
    """The end that listens and sends."""

    @abstractmethod
    async def listen(self) -> int:
        """Listen on `HOST`; the port."""

    @abstractmethod
    async def send(self, messages: list[bytes], count: int) -> None:
        """Send `count` messages, `messages` again and again: `count` is a multiple of them."""


class Receiver(ABC):
    """The end that dials and counts."""

    @abstractmethod
    async def connect(self, port: int) -> None:
        """Dial."""

    @abstractmethod
    async def receive(self, size: int, count: int, *, keep: bool) -> Receipt:
        """Take `count` messages of `size` bytes as `bytes` each, adding up their lengths; `keep`
        them all, for the check."""


async def pull(one: Callable[[], Awaitable[bytes]], count: int, *, keep: bool) -> Receipt:
    """For connections that are asked for message after message."""
    if keep:
        began = time.perf_counter()
        kept = [await one() for _ in range(count)]
        return Receipt(count, sum(map(len, kept)), 1, time.perf_counter() - began, kept)
    size = len(await one())
    began = time.perf_counter()
    for _ in range(count - 1):
        size += len(await one())
    return Receipt(count, size, 1, time.perf_counter() - began)


class Tally:
    """For connections that call us: the callback counts in here, and calls `look` where `count`
    has reached `edge`, or always while messages are `kept`."""

    def __init__(self) -> None:
        self.count = self.size = 0
        self.edge = 1
        self.kept: list[bytes] | None = None
        self._expected = self._first = 0
        self._began = self._seconds = 0.0
        self._finished = asyncio.Event()

    async def receive(self, count: int, *, keep: bool) -> Receipt:
        self.count = self.size = self._first = 0
        self.edge, self._expected = 1, count
        self.kept = [] if keep else None
        self._finished.clear()
        await self._finished.wait()
        return Receipt(self.count, self.size, self._first, self._seconds, self.kept)

    def look(self, payloads: list[bytes]) -> None:
        """`payloads` are counted already."""
        now = time.perf_counter()
        if self.kept is not None:
            self.kept += payloads
        if not self._first:
            self._first, self._began, self.edge = self.count, now, self._expected
        if self.count >= self._expected:
            self._seconds = now - self._began
            self._finished.set()
