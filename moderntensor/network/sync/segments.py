"""One range of headers between two pins, all of it from one peer."""

from __future__ import annotations

from ...backend import headers as engine
from ...blockchain.block import MAX_HEADER_SIZE
from ..messages import GetHeadersMessage, HeadersMessage
from ..offences import Offence
from .header_checks import HeaderChecker
from .source import Kind, Misbehaviour, Source
from .sources import SourcePool
from .window import Attempt, Job

HeaderBatch = engine.HeaderBatch
Anchor = engine.Anchor


class SegmentJob(Job):
    """The headers after `anchor` up to the one whose hash is `end_hash`."""

    kind = Kind.HEADERS

    def __init__(
        self,
        pool: SourcePool,
        checker: HeaderChecker,
        anchor: Anchor,
        count: int,
        end_hash: bytes,
        trusted_to: int,
    ) -> None:
        super().__init__(anchor.height + count)
        self.reply_bytes = count * MAX_HEADER_SIZE
        self._pool = pool
        self._checker = checker
        self._anchor = anchor
        self._count = count
        self._end_hash = end_hash
        self._trusted_to = trusted_to
        self.batch: HeaderBatch | None = None
        self.supplier: Source | None = None

    async def fetch(self, attempt: Attempt) -> None:
        """All from one peer, in as many requests as its pace asks for: then it alone answers for
        the range."""
        source = attempt.source
        parts: list[bytes] = []
        got = 0
        while got < self._count:
            began = attempt.moved
            size = self._pool.size(source, Kind.HEADERS, self._count - got)
            request = GetHeadersMessage(
                start_height=self._anchor.height + 1 + got,
                max_headers=size,
                on_chain=self._end_hash,
            )
            reply = await self._pool.ask(source, request, HeadersMessage)
            count = reply.count
            if not count:
                raise Misbehaviour(
                    Offence.BAD_HEADER,
                    f"no header {self._anchor.height + 1 + got}, which lies below its pin",
                )
            parts.append(reply.headers[2:])
            got += count
            attempt.moved = self._pool.now()
            self._pool.delivered(
                source, Kind.HEADERS, count, len(reply.headers), attempt.moved - began
            )
        attempt.answered()
        data = b"".join(parts)
        batch = await self._checker.segment(data, self._anchor, self._end_hash, self._trusted_to)
        if not self.done:
            self.batch, self.supplier, self.held_bytes, self.done = batch, source, len(data), True
