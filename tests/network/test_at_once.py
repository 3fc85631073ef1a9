"""Messages that are handled as they are read, where nothing of their peer waits."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from helpers.news import alone, next_message, transfer
from helpers.rawpeer import QUIET, RawPeer, until

from moderntensor.errors import ProtocolViolationError
from moderntensor.network.dispatch import Router
from moderntensor.network.messages import (
    DisconnectCode,
    DisconnectMessage,
    GetTransactionsMessage,
    MessageType,
    NewTransactionMessage,
)
from moderntensor.network.p2p import P2PNode

KIND = MessageType.NEW_TRANSACTION


def news(n: int) -> NewTransactionMessage:
    return NewTransactionMessage(announced=(bytes([n]) * 32,))


def whole() -> NewTransactionMessage:
    return NewTransactionMessage(transactions=(transfer().encode(),))


async def slow(peer: Any, message: Any) -> None:
    """A handler that is never called here."""


def quick(peer: Any, message: Any) -> bool:
    return True


def test_only_where_no_other_handler_is() -> None:
    async def other(peer: Any, message: Any) -> None:
        """One of a user's."""

    router: Router[Any] = Router(slow)  # type: ignore[arg-type]
    router.add(KIND, slow, at_once=quick)
    assert router.at_once == {KIND: quick}
    router.add(KIND, other)
    assert router.at_once == {}
    router.remove(KIND, other)
    assert router.at_once == {KIND: quick}
    router.remove(KIND, slow)
    assert router.at_once == {}


async def test_what_is_left_is_handled_in_order_behind_what_waits() -> None:
    """While the slow handler has a message, those behind it wait for their turn, quick or not."""
    async with P2PNode(config=QUIET) as node, AsyncExitStack() as stack:
        seen: list[tuple[str, int]] = []
        gate = asyncio.Event()

        async def later(peer: Any, message: NewTransactionMessage) -> None:
            seen.append(("later", len(message.announced) and message.announced[0][0]))
            await gate.wait()

        def now(peer: Any, message: NewTransactionMessage) -> bool:
            if message.transactions:
                return False
            seen.append(("now", message.announced[0][0]))
            return True

        node.router.remove(KIND, node.gossip.transactions.on_news)
        node.router.add(KIND, later, at_once=now)
        raw = await stack.enter_async_context(await RawPeer.meet(node))
        await until(lambda: node.peers and next(iter(node.peers.values()))._inbox.idle)
        raw.send(news(1))
        await until(lambda: len(seen) == 1)
        raw.send(whole(), news(2), news(3))
        await until(lambda: len(next(iter(node.peers.values()))._inbox) == 2)
        gate.set()
        await until(lambda: len(seen) == 4)
        assert seen == [("now", 1), ("later", 0), ("later", 2), ("later", 3)]
        raw.send(news(4))
        await until(lambda: len(seen) == 5)
        assert seen[-1] == ("now", 4)


@pytest.mark.parametrize("breaks", [True, False])
async def test_what_it_raises(breaks: bool) -> None:
    """A breach drops the peer; a fault of the handler's own does not."""
    async with P2PNode(config=QUIET) as node, AsyncExitStack() as stack:

        def now(peer: Any, message: Any) -> bool:
            if breaks:
                raise ProtocolViolationError(DisconnectCode.PROTOCOL_ERROR, "no such thing")
            raise ValueError("a fault")

        node.router.remove(KIND, node.gossip.transactions.on_news)
        node.router.add(KIND, slow, at_once=now)
        raw = await stack.enter_async_context(await RawPeer.meet(node))
        await until(lambda: node.peers and next(iter(node.peers.values()))._inbox.idle)
        raw.send(news(1))
        if breaks:
            told = await next_message(raw, DisconnectMessage)
            assert told.reason == "no such thing"
        else:
            raw.send(news(2))
            await until(lambda: next(iter(node.peers.values())).info.messages_received >= 2)
            assert node.peers


async def test_what_comes_along_with_what_a_peer_was_dropped_for_is_not_looked_at() -> None:
    async with P2PNode(config=QUIET) as node, AsyncExitStack() as stack:
        seen: list[str] = []

        async def later(peer: Any, message: Any) -> None:
            seen.append("later")

        def now(peer: Any, message: Any) -> bool:
            seen.append("now")
            peer.disconnect(DisconnectCode.LIMITS)
            return True

        node.router.remove(KIND, node.gossip.transactions.on_news)
        node.router.add(KIND, later, at_once=now)
        raw = await stack.enter_async_context(await RawPeer.meet(node))
        await until(lambda: node.peers and next(iter(node.peers.values()))._inbox.idle)
        raw.send(news(1), news(2), whole())
        assert await raw.read_goodbye() == DisconnectCode.LIMITS
        await until(lambda: not node.peers)
        assert seen == ["now"]


async def test_an_announcement_is_asked_for_and_heard_once() -> None:
    async with alone() as (node, raw):
        await until(lambda: next(iter(node.peers.values()))._inbox.idle)
        raw.send(news(7))
        asked = await next_message(raw, GetTransactionsMessage)
        assert asked.hashes == (bytes([7]) * 32,)
        peer = next(iter(node.peers.values()))
        assert peer.wanted_from == 1
        assert bytes([7]) * 32 in peer.known_transactions
