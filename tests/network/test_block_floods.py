"""News that are made up: what a node asks for because of them, and what it keeps of the answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from helpers.rawpeer import QUIET, RawPeer, until
from helpers.sync_nodes import ACCOUNTS, CONFIG, extend, grown

from moderntensor.blockchain.block import MAX_BLOCK_SIZE, Block
from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.mempool import Mempool
from moderntensor.blockchain.transaction import TRANSACTION_GAS, Transaction
from moderntensor.network.limits import ANNOUNCED_BLOCKS_PER_PEER
from moderntensor.network.messages import (
    BlocksMessage,
    DisconnectCode,
    GetBlocksMessage,
    GetTransactionsMessage,
    Message,
    NewBlockHashesMessage,
    NewBlockMessage,
    NewTransactionMessage,
    Status,
    TransactionsMessage,
)
from moderntensor.network.p2p import P2PNode
from moderntensor.network.peer import Peer
from moderntensor.network.protocol import (
    MAX_ANNOUNCED_TRANSACTIONS,
    MAX_TRANSACTIONS_ASKED,
    SOFT_REPLY_LIMIT,
)

START = 4
M = TypeVar("M", bound=Message)


@asynccontextmanager
async def alone(chain: Blockchain | None = None) -> AsyncIterator[tuple[P2PNode, RawPeer]]:
    """A node with a chain and a pool, and a raw peer of it."""
    chain = chain or grown(START)
    node = P2PNode(config=QUIET)
    node.attach_chain(chain, Mempool(chain))
    async with node, await RawPeer.meet(node, best_height=START) as raw:
        yield node, raw


async def next_of(raw: RawPeer, kind: type[M]) -> M:
    while True:
        message = await raw.read_any()
        assert message is not None
        if isinstance(message, kind):
            return message


def block_after(chain: Blockchain) -> Block:
    longer = extend(grown(chain.head.height), 1)
    block: Block | None = longer.get_block(chain.head.height + 1)
    assert block is not None
    return block


async def test_made_up_blocks_of_one_peer_do_not_keep_out_those_of_others() -> None:
    async with alone() as (node, liar), await RawPeer.meet(node, node_id=b"h" * 32) as honest:
        for number in range(100):
            liar.send(NewBlockHashesMessage(hashes=((number.to_bytes(32, "big"), START + 1),)))
        asked = [await next_of(liar, GetBlocksMessage) for _ in range(ANNOUNCED_BLOCKS_PER_PEER)]
        assert len({request.request_id for request in asked}) == ANNOUNCED_BLOCKS_PER_PEER
        await until(lambda: len(node.peers[liar.address].known_blocks) == 100)
        waiting = node.gossip.blocks._waiting
        assert len(waiting) == ANNOUNCED_BLOCKS_PER_PEER
        assert node.chain is not None
        block = block_after(node.chain)
        honest.send(NewBlockHashesMessage(hashes=((block.hash, block.height),)))
        request = await next_of(honest, GetBlocksMessage)
        honest.send(BlocksMessage(request_id=request.request_id, blocks=(block.encode(),)))
        await until(lambda: node.chain is not None and node.chain.head.hash == block.hash)


async def test_what_was_under_way_when_a_node_stopped_is_news_again_when_it_starts() -> None:
    chain = grown(START)
    block = block_after(chain)
    node = P2PNode(config=QUIET)
    node.attach_chain(chain, Mempool(chain))

    def too_late(peer: Peer) -> None:  # their tasks are cancelled before they have begun
        node.gossip.blocks._begin(peer, block.hash, block.height)
        node.gossip.transactions.fetcher.ask_for(peer, [b"t" * 32])

    node.on_peer_disconnected.append(too_late)
    async with node:
        raw = await RawPeer.meet(node)
        await until(lambda: node.peers)
        leaving = asyncio.ensure_future(raw.read_goodbye())
        leaving.add_done_callback(lambda _: raw.writer.close())
    await leaving
    node.on_peer_disconnected.clear()
    async with node, await RawPeer.meet(node) as raw:
        raw.send(NewTransactionMessage(announced=(b"t" * 32,)))
        assert (await next_of(raw, GetTransactionsMessage)).hashes == (b"t" * 32,)
        raw.send(NewBlockHashesMessage(hashes=((block.hash, block.height),)))
        assert (await next_of(raw, GetBlocksMessage)).start_height == block.height


async def test_a_header_that_breaks_a_rule_makes_nobody_ask_for_its_block() -> None:
    async with alone() as (node, raw):
        assert node.chain is not None
        header = block_after(node.chain).header
        wrong = header.replace(timestamp=header.timestamp + CONFIG.block_time)  # another's slot
        ids = tuple(bytes([number]) * 32 for number in range(5))
        raw.send(NewBlockMessage(header=wrong.sign(ACCOUNTS[0]), transaction_ids=ids))
        while (message := await raw.read_any()) is not None:
            assert not isinstance(message, GetTransactionsMessage | GetBlocksMessage)
            last = message
        assert getattr(last, "code", None) == DisconnectCode.BAD_HEADER


async def test_more_transactions_than_a_block_has_gas_for_are_not_asked_for() -> None:
    async with alone() as (node, raw):
        assert node.chain is not None
        count = CONFIG.gas_limit // TRANSACTION_GAS + 1
        ids = tuple(number.to_bytes(32, "big") for number in range(count))
        header = block_after(node.chain).header
        raw.send(NewBlockMessage(header=header, transaction_ids=ids))
        assert await raw.read_goodbye() == DisconnectCode.BAD_BLOCK


async def test_a_compact_block_is_not_filled_beyond_the_size_of_a_block() -> None:
    async with alone() as (node, raw):
        assert node.chain is not None
        header = block_after(node.chain).header
        txs = [
            Transaction(
                chain_id=CONFIG.chain_id,
                nonce=number,
                to=None,
                value=0,
                gas_price=1,
                gas_limit=1,
                data=bytes(130_000),
                v=0,
                r=bytes(32),
                s=bytes(32),
            )
            for number in range(40)
        ]
        by_hash = {tx.hash: tx.encode() for tx in txs}
        raw.send(NewBlockMessage(header=header, transaction_ids=tuple(by_hash)))
        sent = 0
        while (message := await raw.read_any()) is not None:
            last = message
            if isinstance(message, GetTransactionsMessage):
                room = SOFT_REPLY_LIMIT // 131_000
                found = tuple(by_hash[tx_hash] for tx_hash in message.hashes[:room])
                sent += sum(map(len, found))
                raw.send(
                    TransactionsMessage(
                        request_id=message.request_id, status=Status.PARTIAL, transactions=found
                    )
                )
        assert getattr(last, "code", None) == DisconnectCode.BAD_BLOCK
        assert sent <= MAX_BLOCK_SIZE + SOFT_REPLY_LIMIT


async def test_as_much_as_one_message_announces_is_asked_for() -> None:
    async with alone() as (_, raw):
        hashes = tuple(n.to_bytes(32, "big") for n in range(MAX_ANNOUNCED_TRANSACTIONS))
        raw.send(NewTransactionMessage(announced=hashes), NewTransactionMessage(announced=hashes))
        asked: list[bytes] = []
        for _ in range(MAX_ANNOUNCED_TRANSACTIONS // MAX_TRANSACTIONS_ASKED):
            asked += (await next_of(raw, GetTransactionsMessage)).hashes
        assert sorted(asked) == sorted(hashes)
