"""Blocks that a single peer announces, whole or not, good or not, in time or not."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from helpers.news import (
    START,
    alone,
    block_at,
    chain_of,
    compact,
    next_message,
    pool_of,
)
from helpers.rawpeer import RawPeer, until
from helpers.sync_nodes import CONFIG, VALIDATORS

from moderntensor.blockchain.block import Block
from moderntensor.network.limits import FAR_AHEAD
from moderntensor.network.messages import (
    BlocksMessage,
    DisconnectCode,
    GetBlocksMessage,
    GetTransactionsMessage,
    NewBlockHashesMessage,
    NewBlockMessage,
    NewTransactionMessage,
    PingMessage,
    PongMessage,
    Status,
    TransactionsMessage,
)
from moderntensor.network.peer import Peer


async def test_a_compact_block_is_completed_by_asking_for_what_is_missing() -> None:
    async with alone() as (node, raw):
        block = block_at(START + 1, 4)
        pool_of(node).add(block.transactions[0])
        raw.send(compact(block))
        request = await next_message(raw, GetTransactionsMessage)
        assert request.hashes == tuple(tx.hash for tx in block.transactions[1:])
        # In two goes: what does not come at first is asked for again.
        raw.send(
            TransactionsMessage(
                request_id=request.request_id,
                status=Status.PARTIAL,
                transactions=tuple(tx.encode() for tx in block.transactions[1:3]),
            )
        )
        request = await next_message(raw, GetTransactionsMessage)
        assert request.hashes == (block.transactions[3].hash,)
        raw.send(
            TransactionsMessage(
                request_id=request.request_id, transactions=(block.transactions[3].encode(),)
            )
        )
        await until(lambda: chain_of(node).head.hash == block.hash)


async def test_a_block_that_its_announcer_lost_comes_from_another() -> None:
    async with alone() as (node, first), await RawPeer.meet(node, node_id=b"o" * 32) as second:
        await until(lambda: len(node.peers) == 2)
        block = block_at(START + 1, 1)
        first.send(compact(block))
        request = await next_message(first, GetTransactionsMessage)
        second.send(compact(block), PingMessage(nonce=3))
        await next_message(second, PongMessage)
        await asyncio.sleep(0.05)
        first.send(TransactionsMessage(request_id=request.request_id, status=Status.NOT_FOUND))
        whole = await next_message(first, GetBlocksMessage)
        assert (whole.start_height, whole.end_height) == (START + 1, START + 1)
        first.send(BlocksMessage(request_id=whole.request_id, status=Status.NOT_FOUND))
        request = await next_message(second, GetTransactionsMessage)
        second.send(
            TransactionsMessage(
                request_id=request.request_id, transactions=(block.transactions[0].encode(),)
            )
        )
        await until(lambda: chain_of(node).head.hash == block.hash)
        await until(lambda: not node.gossip.blocks._waiting)


async def test_a_block_announced_by_hash_is_fetched_whole() -> None:
    async with alone() as (node, raw):
        block = block_at(START + 1, 2)
        raw.send(NewBlockHashesMessage(hashes=((b"l" * 32, START), (block.hash, START + 1))))
        request = await next_message(raw, GetBlocksMessage)
        assert request.start_height == START + 1
        raw.send(BlocksMessage(request_id=request.request_id, blocks=(block.encode(),)))
        await until(lambda: chain_of(node).head.hash == block.hash)


async def test_what_is_far_ahead_is_noted_and_left_to_the_sync() -> None:
    async with alone() as (node, raw):
        height = START + FAR_AHEAD + 1
        raw.send(NewBlockHashesMessage(hashes=((b"f" * 32, height),)), PingMessage(nonce=5))
        assert (await next_message(raw, PongMessage)).nonce == 5
        await until(lambda: node.peers[raw.address].best_height == height)
        assert node.peers[raw.address].best_hash == b"f" * 32


async def test_a_block_with_a_bad_signature_costs_the_connection() -> None:
    async with alone() as (_, raw):
        header = block_at(START + 1).header.replace(signature=b"\x01" * 64)
        raw.send(NewBlockMessage(header=header))
        assert await raw.read_goodbye() == DisconnectCode.BAD_HEADER


async def test_an_invalid_block_costs_the_connection_and_so_does_telling_of_it_again() -> None:
    async with alone() as (node, raw):
        good = block_at(START + 1)
        key = next(k for k in VALIDATORS if k.public_key == good.header.validator)
        bad = good.header.replace(state_root=b"\x01" * 32).sign(key)
        raw.send(NewBlockMessage(header=bad))
        assert await raw.read_goodbye() == DisconnectCode.BAD_BLOCK
        assert chain_of(node).is_invalid(bad.hash)
        async with await RawPeer.meet(node, node_id=b"o" * 32) as other:
            other.send(NewBlockMessage(header=bad))
            assert await other.read_goodbye() == DisconnectCode.BAD_BLOCK
        assert chain_of(node).head.height == START


async def test_a_block_of_the_future_is_nobodys_fault() -> None:
    async with alone() as (node, raw):
        good = block_at(START + 1)
        timestamp = int(node.runtime.wall_time()) + 3600
        key = VALIDATORS[CONFIG.slot_of(timestamp) % len(VALIDATORS)]
        raw.send(
            NewBlockMessage(header=good.header.replace(timestamp=timestamp).sign(key)),
            PingMessage(nonce=5),
        )
        assert (await next_message(raw, PongMessage)).nonce == 5
        await until(lambda: not node.gossip.blocks._waiting)
        await asyncio.sleep(0.05)
        assert node.peers


async def test_a_low_block_of_a_branch_left_for_good_costs_nothing() -> None:
    # Its sender may just not have heard of the longer branch that we are on, and will follow it.
    async with alone() as (node, raw):
        chain = chain_of(node)
        chain.config = replace(chain.config, max_reorg_depth=START - 2)
        ours = block_at(START).header
        low = chain.get_header(2)
        assert low is not None
        key = next(key for key in VALIDATORS if key.public_key == low.validator)
        raw.send(NewBlockMessage(header=low.replace(extra_data=b"late").sign(key)))
        raw.send(PingMessage(nonce=5))
        assert (await next_message(raw, PongMessage)).nonce == 5
        await until(lambda: not node.gossip.blocks._waiting)
        await asyncio.sleep(0.05)
        assert node.peers
        assert chain.head.hash == ours.hash


async def test_a_hook_takes_complete_blocks() -> None:
    async with alone() as (node, raw):
        taken: list[tuple[Block, Peer]] = []

        async def hook(block: Block, peer: Peer) -> None:
            taken.append((block, peer))

        node.on_new_block = hook
        block = block_at(START + 1, 1)
        raw.send(NewTransactionMessage(transactions=()), compact(block))
        request = await next_message(raw, GetTransactionsMessage)
        raw.send(
            TransactionsMessage(
                request_id=request.request_id, transactions=(block.transactions[0].encode(),)
            )
        )
        await until(lambda: taken)
        assert taken == [(block, node.peers[raw.address])]
        assert chain_of(node).head.height == START
