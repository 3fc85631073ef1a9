"""Announcers who do not deliver: they delay nothing for long, and it is held against them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from helpers.news import START, alone, block_at, chain_of, compact, next_message, pool_of, transfer
from helpers.rawpeer import RawPeer, until

from moderntensor.network.gossip import blocks as gossip_blocks
from moderntensor.network.gossip import completion as gossip_completion
from moderntensor.network.gossip import fetch as gossip_fetch
from moderntensor.network.gossip import score as gossip_score
from moderntensor.network.messages import (
    BlocksMessage,
    DisconnectCode,
    GetBlocksMessage,
    GetTransactionsMessage,
    NewBlockHashesMessage,
    NewTransactionMessage,
    PingMessage,
    PongMessage,
    Status,
    TransactionsMessage,
)
from moderntensor.network.offences import Offence
from moderntensor.network.p2p import P2PNode
from moderntensor.network.protocol import MAX_TRANSACTIONS_ASKED


@asynccontextmanager
async def two() -> AsyncIterator[tuple[P2PNode, RawPeer, RawPeer]]:
    """A node and two bare sockets."""
    async with alone() as (node, first), await RawPeer.meet(node, node_id=b"o" * 32) as second:
        await until(lambda: len(node.peers) == 2)
        yield node, first, second


async def heard(raw: RawPeer) -> None:
    """What `raw` has sent so far was handled."""
    raw.send(PingMessage(nonce=3))
    assert (await next_message(raw, PongMessage)).nonce == 3


@asynccontextmanager
async def answering(raw: RawPeer) -> AsyncIterator[None]:
    """Whatever is asked, `raw` answers PINGs alone."""

    async def answer() -> None:
        while (message := await raw.read_any()) is not None:
            if isinstance(message, PingMessage):
                raw.send(PongMessage(nonce=message.nonce))

    task = asyncio.create_task(answer())
    yield
    task.cancel()
    await asyncio.wait([task])


# --- transactions ------------------------------------------------------------------------------


async def test_a_silent_announcer_does_not_delay_a_transaction_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert gossip_fetch.TRANSACTION_FETCH_TIMEOUT <= 5.0
    monkeypatch.setattr(gossip_fetch, "TRANSACTION_FETCH_TIMEOUT", 0.6)
    monkeypatch.setattr(gossip_score, "TRANSACTION_FETCH_TIMEOUT", 0.1)
    async with two() as (node, silent, second):
        tx, more = transfer(), transfer(1)
        silent.send(NewTransactionMessage(announced=(tx.hash,)))
        await next_message(silent, GetTransactionsMessage)
        second.send(NewTransactionMessage(announced=(tx.hash, more.hash)))
        request = await next_message(second, GetTransactionsMessage)
        assert request.hashes == (more.hash,)  # one announcer at a time
        second.send(
            TransactionsMessage(request_id=request.request_id, transactions=(more.encode(),))
        )
        request = await next_message(second, GetTransactionsMessage)
        assert request.hashes == (tx.hash,)
        second.send(TransactionsMessage(request_id=request.request_id, transactions=(tx.encode(),)))
        await until(lambda: len(pool_of(node)) == 2)
        assert not node.reputation.counts.offences  # it may have been its line
        async with answering(silent):
            await until(lambda: node.reputation.counts.offences == {Offence.UNDELIVERED: 1})
        assert not node.gossip.transactions.fetcher.wanted
        assert all(peer.wanted_from == 0 for peer in node.table)
        peer = node.peers[second.address]
        assert peer.last_transaction_at is not None
        assert node.peers[silent.address].last_transaction_at is None


async def test_nobody_waits_for_a_pong_of_who_has_left() -> None:
    """The suspicion of a silent peer would be a task for the rest of the node's life."""
    async with alone() as (node, raw):
        peer = node.peers[raw.address]
        peer.disconnect(DisconnectCode.SHUTTING_DOWN)
        async with asyncio.timeout(5.0):
            assert not await peer.reachable()


async def test_another_announcer_is_asked_before_the_first_has_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gossip_fetch, "TRANSACTION_STALL_TIME", 0.05)
    monkeypatch.setattr(gossip_fetch, "TRANSACTION_FETCH_TIMEOUT", 60.0)
    async with two() as (node, slow, second):
        tx = transfer()
        slow.send(NewTransactionMessage(announced=(tx.hash,)))
        first = await next_message(slow, GetTransactionsMessage)
        await asyncio.sleep(0.1)  # nobody else has it yet
        second.send(NewTransactionMessage(announced=(tx.hash,)))
        request = await next_message(second, GetTransactionsMessage)
        assert request.hashes == (tx.hash,)
        for raw, asked in ((second, request), (slow, first)):  # the late one is no offence
            raw.send(TransactionsMessage(request_id=asked.request_id, transactions=(tx.encode(),)))
            await heard(raw)
        await until(lambda: tx.hash in pool_of(node))
        await until(lambda: not any(peer.wanted_from for peer in node.table))
        assert not node.gossip.transactions.fetcher.wanted
        assert not node.reputation.counts.offences


async def test_a_slow_line_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gossip_fetch, "TRANSACTION_FETCH_TIMEOUT", 0.4)
    async with alone() as (node, raw):
        tx = transfer()
        raw.send(NewTransactionMessage(announced=(tx.hash,)))
        await next_message(raw, GetTransactionsMessage)
        raw.write((2 * 1024 * 1024).to_bytes(4, "big") + b"\x24" + bytes(100_000))  # half a reply
        await until(lambda: not node.gossip.transactions.fetcher.wanted)
        assert not node.reputation.counts.offences


async def test_a_busy_announcer_is_asked_again() -> None:
    async with alone() as (node, raw):
        tx = transfer()
        raw.send(NewTransactionMessage(announced=(tx.hash,)))
        request = await next_message(raw, GetTransactionsMessage)
        raw.send(
            TransactionsMessage(request_id=request.request_id, status=Status.BUSY, retry_ms=10)
        )
        request = await next_message(raw, GetTransactionsMessage)
        raw.send(TransactionsMessage(request_id=request.request_id, transactions=(tx.encode(),)))
        await until(lambda: tx.hash in pool_of(node))
        assert not node.reputation.counts.offences


async def test_what_is_announced_piece_by_piece_is_asked_for_together() -> None:
    async with alone() as (node, raw):
        hashes = [number.to_bytes(32, "big") for number in range(MAX_TRANSACTIONS_ASKED)]
        for tx_hash in hashes:
            raw.send(NewTransactionMessage(announced=(tx_hash,)))
        asked: list[bytes] = []
        requests = 0
        while len(asked) < len(hashes):
            request = await next_message(raw, GetTransactionsMessage)
            asked += request.hashes
            requests += 1
            await until(lambda: len(node.peers[raw.address].known_transactions) == len(hashes))
            raw.send(TransactionsMessage(request_id=request.request_id, status=Status.NOT_FOUND))
        assert sorted(asked) == hashes
        assert requests <= 4
        await until(lambda: not node.gossip.transactions.fetcher.wanted)


async def test_who_delivers_one_by_one_does_not_delay_what_others_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gossip_fetch, "TRANSACTION_FETCH_TIMEOUT", 0.2)
    async with two() as (node, slow, second):
        tx, *own = (transfer(0, nonce) for nonce in range(20))
        slow.send(NewTransactionMessage(announced=tuple(each.hash for each in (tx, *own))))
        request = await next_message(slow, GetTransactionsMessage)
        second.send(NewTransactionMessage(announced=(tx.hash,)))
        await heard(second)
        for each in own:
            await asyncio.sleep(0.05)  # each in time, and all of them much later
            slow.send(
                TransactionsMessage(
                    request_id=request.request_id,
                    status=Status.PARTIAL,
                    transactions=(each.encode(),),
                )
            )
            request = await next_message(slow, GetTransactionsMessage)
            if tx.hash not in request.hashes:
                break
        else:
            pytest.fail("nobody else was asked")
        while not isinstance(other := await second.read_any(), GetTransactionsMessage):
            assert isinstance(other, (NewTransactionMessage, PingMessage))  # what came by now
        assert other.hashes == (tx.hash,)
        second.send(TransactionsMessage(request_id=other.request_id, transactions=(tx.encode(),)))
        rest = tuple(each.encode() for each in own)[-len(request.hashes) :]
        slow.send(TransactionsMessage(request_id=request.request_id, transactions=rest))
        await until(lambda: len(pool_of(node)) == 20)
        await until(lambda: not node.gossip.transactions.fetcher.wanted)
        assert all(peer.wanted_from == 0 for peer in node.table)
        assert not node.reputation.counts.offences


# --- blocks ------------------------------------------------------------------------------------


async def test_a_block_whose_transactions_are_here_waits_for_no_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gossip_completion, "BLOCK_STALL_TIME", 60.0)
    monkeypatch.setattr(gossip_completion, "BLOCK_FETCH_TIMEOUT", 60.0)
    async with two() as (node, slow, second):
        block = block_at(START + 1, 3)
        for tx in block.transactions:
            pool_of(node).add(tx)
        slow.send(NewBlockHashesMessage(hashes=((block.hash, block.height),)))
        await next_message(slow, GetBlocksMessage)  # and has time
        second.send(compact(block))
        await until(lambda: chain_of(node).head.hash == block.hash)
        second.send(PingMessage(nonce=9))
        assert (await next_message(second, PongMessage)).nonce == 9  # it was asked for nothing
        await until(lambda: not node.gossip.blocks._waiting)
        assert not node.reputation.counts.offences


async def test_who_says_which_transactions_it_has_is_asked_in_turn_for_those_that_are_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gossip_completion, "BLOCK_STALL_TIME", 0.1)
    async with two() as (node, slow, second):
        block = block_at(START + 1, 3)
        pool_of(node).add(block.transactions[0])
        slow.send(NewBlockHashesMessage(hashes=((block.hash, block.height),)))
        await next_message(slow, GetBlocksMessage)
        second.send(compact(block))
        request = await next_message(second, GetTransactionsMessage)
        assert request.hashes == tuple(tx.hash for tx in block.transactions[1:])
        second.send(
            TransactionsMessage(
                request_id=request.request_id,
                transactions=tuple(tx.encode() for tx in block.transactions[1:]),
            )
        )
        await until(lambda: chain_of(node).head.hash == block.hash)


async def test_who_announces_second_is_asked_as_well_when_the_first_stalls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert gossip_completion.BLOCK_STALL_TIME <= 1.0
    monkeypatch.setattr(gossip_completion, "BLOCK_STALL_TIME", 0.1)
    monkeypatch.setattr(gossip_completion, "BLOCK_FETCH_TIMEOUT", 60.0)
    async with two() as (node, staller, second):
        block = block_at(START + 1, 2)
        staller.send(compact(block))
        await next_message(staller, GetTransactionsMessage)
        second.send(compact(block))
        request = await next_message(second, GetTransactionsMessage)
        txs = tuple(tx.encode() for tx in block.transactions)
        second.send(TransactionsMessage(request_id=request.request_id, transactions=txs))
        await until(lambda: chain_of(node).head.hash == block.hash)
        assert node.peers[second.address].last_block_at is not None
        assert node.peers[staller.address].last_block_at is None
        await until(lambda: not node.gossip.blocks._waiting)
        assert node.gossip.blocks.held == 0


async def test_who_announces_a_block_and_is_silent_is_scored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gossip_completion, "BLOCK_FETCH_TIMEOUT", 0.1)
    monkeypatch.setattr(gossip_score, "TRANSACTION_FETCH_TIMEOUT", 0.1)
    async with alone() as (node, raw):
        block = block_at(START + 1)
        raw.send(NewBlockHashesMessage(hashes=((block.hash, block.height),)))
        await next_message(raw, GetBlocksMessage)
        async with answering(raw):
            await until(lambda: node.reputation.counts.offences == {Offence.UNDELIVERED: 1})
        await until(lambda: not node.gossip.blocks._waiting)


@pytest.mark.parametrize("late", [False, True])
async def test_a_line_that_broke_over_the_question_is_no_offence(
    late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who never got it answers no PING that was sent after it; who got it late answers late."""
    monkeypatch.setattr(gossip_fetch, "TRANSACTION_FETCH_TIMEOUT", 0.1)
    monkeypatch.setattr(gossip_score, "TRANSACTION_FETCH_TIMEOUT", 0.1)
    async with alone() as (node, raw):
        tx = transfer()
        raw.send(NewTransactionMessage(announced=(tx.hash,)))
        request = await next_message(raw, GetTransactionsMessage)
        (peer,) = node.table
        await until(lambda: peer in node.gossip.blocks._score._suspects)
        if late:
            raw.send(TransactionsMessage(request_id=request.request_id, transactions=()))
        else:
            await raw.close()
        async with answering(raw):
            await until(lambda: peer not in node.gossip.blocks._score._suspects)
        assert not node.reputation.counts.offences


@pytest.mark.parametrize("way", ["ids", "whole"])
async def test_false_transactions_convict_who_named_them_and_nobody_else(way: str) -> None:
    async with two() as (node, liar, honest):
        block = block_at(START + 1, 2)
        other = transfer(5)
        for tx in (*block.transactions, other):
            pool_of(node).add(tx)
        if way == "ids":
            ids = (block.transactions[0].hash, other.hash)
            liar.send(compact(block).replace(transaction_ids=ids))
        else:
            liar.send(NewBlockHashesMessage(hashes=((block.hash, block.height),)))
            request = await next_message(liar, GetBlocksMessage)
            false = block.replace(transactions=(other,))
            liar.send(BlocksMessage(request_id=request.request_id, blocks=(false.encode(),)))
        assert await liar.read_goodbye() == DisconnectCode.BAD_BLOCK
        assert node.reputation.counts.offences == {Offence.BAD_BODY: 1}
        # The header is as good as before.
        assert not chain_of(node).is_invalid(block.hash)
        honest.send(compact(block))
        await until(lambda: chain_of(node).head.hash == block.hash)


async def test_what_many_blocks_hold_is_bounded() -> None:
    async with alone() as (node, raw):
        node.gossip.blocks._most = 3_000
        block = block_at(START + 1, 4)
        raw.send(compact(block))
        request = await next_message(raw, GetTransactionsMessage)
        txs = tuple(tx.encode() for tx in block.transactions)
        raw.send(TransactionsMessage(request_id=request.request_id, transactions=txs))
        await until(lambda: not node.gossip.blocks._waiting)
        assert node.gossip.blocks.held == 0
        assert chain_of(node).head.height == START
        assert node.peers[raw.address].best_hash == block.hash  # the sync will get it
        assert not node.reputation.counts.offences


async def test_a_block_waits_for_the_one_below_it() -> None:
    async with two() as (node, first, second):
        below, above = block_at(START + 1, 1), block_at(START + 2, 1)
        first.send(compact(below))
        lower = await next_message(first, GetTransactionsMessage)
        second.send(compact(above))
        upper = await next_message(second, GetTransactionsMessage)
        for raw, request, block in ((second, upper, above), (first, lower, below)):
            txs = tuple(tx.encode() for tx in block.transactions)
            raw.send(TransactionsMessage(request_id=request.request_id, transactions=txs))
            await heard(raw)
        await until(lambda: chain_of(node).head.hash == above.hash)
        assert not node.reputation.counts.offences


async def test_a_wrong_height_told_first_keeps_no_block_away() -> None:
    async with two() as (node, liar, honest):
        block = block_at(START + 1)
        liar.send(NewBlockHashesMessage(hashes=((block.hash, block.height + 1),)))
        await next_message(liar, GetBlocksMessage)
        honest.send(NewBlockHashesMessage(hashes=((block.hash, block.height),)))
        await heard(honest)
        request = await next_message(honest, GetBlocksMessage)
        assert request.start_height == request.end_height == block.height
        honest.send(BlocksMessage(request_id=request.request_id, blocks=(block.encode(),)))
        await until(lambda: chain_of(node).head.hash == block.hash)


async def test_a_crowd_of_stallers_keeps_no_block_from_us(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whom we have dialled is asked, though strangers who announced before have all places."""
    monkeypatch.setattr(gossip_completion, "BLOCK_STALL_TIME", 0.02)
    monkeypatch.setattr(gossip_completion, "BLOCK_FETCH_TIMEOUT", 60.0)
    async with AsyncExitStack() as stack:
        node, first = await stack.enter_async_context(alone())
        block = block_at(START + 1)
        news = NewBlockHashesMessage(hashes=((block.hash, block.height),))
        crowd = [first]
        for number in range(6):
            raw = await RawPeer.meet(node, node_id=bytes([number]) * 32)
            crowd.append(await stack.enter_async_context(raw))
        await until(lambda: len(node.peers) == len(crowd))
        *strangers, dialled = crowd
        node.peers[dialled.address].outbound = True
        for raw in strangers:
            raw.send(news)
            await heard(raw)
        dialled.send(news)
        request = await next_message(dialled, GetBlocksMessage)
        dialled.send(BlocksMessage(request_id=request.request_id, blocks=(block.encode(),)))
        await until(lambda: chain_of(node).head.hash == block.hash)


async def test_the_sync_is_told_of_what_gossip_does_not_get(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gossip_blocks, "ANNOUNCED_BLOCKS_PER_PEER", 1)
    async with alone() as (node, inventor):
        told: list[str] = []
        node.gossip.on_claim = lambda peer: told.append(peer.address)
        for height in (START + 1, START + 2):
            inventor.send(NewBlockHashesMessage(hashes=((bytes([height]) * 32, height),)))
        await until(lambda: told == [inventor.address])  # no room for the second
        request = await next_message(inventor, GetBlocksMessage)
        inventor.send(BlocksMessage(request_id=request.request_id, status=Status.NOT_FOUND))
        await until(lambda: told == [inventor.address] * 2)  # and nothing came of the first
        assert not node.gossip.blocks._waiting
