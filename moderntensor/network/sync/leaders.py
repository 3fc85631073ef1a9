"""Whose chain of headers to follow: the first of several claimants that answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from ...errors import FinalityError, UnknownParentError
from ..messages import HeadersMessage
from ..offences import Offence
from .header_checks import FutureHeaders
from .source import Claim, Kind, Misbehaviour, Refused, Source, Unanswered
from .sources import SourcePool
from .window import EARLY_LEAST, EARLY_TIMES

# A locator that nobody has answered goes to one claimant more so many times within one patience,
# or sooner where the usual time is known: so much each silent one costs, and as many are asked at
# a time.
ASKED_AT_ONCE: Final = 4

# What a leader's answers may come to, beside headers; all that `judge` knows.
OUTCOMES: Final = (
    Unanswered,
    Refused,
    UnknownParentError,
    FutureHeaders,
    FinalityError,
    Misbehaviour,
)


def judge(pool: SourcePool, claim: Claim, fault: BaseException, height: int) -> None:
    """What comes of it for a leader that could not be followed; `height`: of our last header."""
    leader = claim.source
    match fault:
        case Unanswered():
            # It rests: another leader, if there is one. That we left other headers for its chain,
            # which it then does not show, must not go on for ever.
            if leader.owed_height > height:
                pool.broke_claim(leader)
            leader.owed_height = 0
        case Refused():
            pool.broke_claim(leader, claim.hash)
        case UnknownParentError():
            pool.dismiss(leader)  # we have let go meanwhile of what they stand on
        case FutureHeaders():
            pool.dismiss(leader, hopeless=True)
        case FinalityError():
            pool.part(leader, Offence.FORKS_TOO_DEEP, str(fault))
        case Misbehaviour():
            pool.convict(leader, fault)
        case _:
            raise fault


async def first_answer(
    pool: SourcePool,
    target: Claim,
    above: int,
    ask: Callable[[Source], Awaitable[HeadersMessage]],
    items: int,
) -> tuple[Claim, HeadersMessage] | None:
    """`ask` the target, and while it is silent others who claim more than block `above`. Returns
    the first answer, of up to `items` headers, and whose it is; None where all who were asked
    failed, each of them judged.

    Who was asked before the one that answered is forgotten without reproach, and not followed
    again for a while as long as there are others. It runs out of patience when it is the last."""
    asked: dict[asyncio.Task[HeadersMessage], Claim] = {}
    known: set[Source] = set()
    found: tuple[Claim, HeadersMessage] | None = None
    more: Claim | None = target
    try:
        while True:
            if more is not None:
                known.add(more.source)
                asked[asyncio.ensure_future(ask(more.source))] = more
            if not asked:
                return None
            early = max(EARLY_LEAST, EARLY_TIMES * pool.usual_seconds(Kind.HEADERS, items))
            seconds = min(early, pool.patience.seconds / ASKED_AT_ONCE)
            await asyncio.wait(asked, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            earlier: list[Source] = []
            for task, claim in tuple(asked.items()):  # in the order of asking
                if not task.done():
                    earlier.append(claim.source)
                    continue
                del asked[task]
                try:
                    reply = task.result()
                except OUTCOMES as fault:
                    judge(pool, claim, fault, above)
                    continue
                if found is None:
                    found = claim, reply
                    for source in earlier:
                        pool.passed_over(source)
            if found is not None:
                return found
            more = pool.other_claim(above, known) if len(asked) < ASKED_AT_ONCE else None
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
