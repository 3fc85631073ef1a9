"""Nodes with a short chain and a pool, what is new to them, and a bare socket that tells of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from helpers.rawpeer import QUIET, M, RawPeer, until
from helpers.sync_nodes import ACCOUNTS, CONFIG, extend, grown
from moderntensor.blockchain.block import Block
from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.mempool import Mempool
from moderntensor.blockchain.transaction import Transaction
from moderntensor.config import NodeConfig
from moderntensor.network.messages import NewBlockMessage, PingMessage, PongMessage
from moderntensor.network.p2p import P2PNode

START = 4  # blocks that every node has
# Points are kept by host: a local one is spared.
STRICT = QUIET.replace(exempt_local=False)


def chain_node(blocks: int = START, transfers: int = 0, *, settings: NodeConfig = QUIET) -> P2PNode:
    """A node with a chain and a mempool that follows it."""
    chain = grown(blocks, transfers)
    mempool = Mempool(chain)
    node = P2PNode(config=settings)
    node.attach_chain(chain, mempool)
    return node


def chain_of(node: P2PNode) -> Blockchain:
    assert node.chain is not None
    return node.chain


def pool_of(node: P2PNode) -> Mempool:
    assert node.mempool is not None
    return node.mempool


def block_at(height: int, transfers: int = 0) -> Block:
    """The block that a node of `chain_node` would have next, and those after it."""
    chain = extend(grown(START), height - START, transfers)
    block = chain.get_block(height)
    assert block is not None
    return block


def transfer(sender: int = 0, nonce: int = 0, size: int = 0) -> Transaction:
    gas = 21_000 + 4 * size
    return Transaction.create(
        ACCOUNTS[sender],
        chain_id=CONFIG.chain_id,
        nonce=nonce,
        to=ACCOUNTS[1].address,
        value=1,
        gas_limit=gas,
        data=bytes(size),
    )


@asynccontextmanager
async def alone(settings: NodeConfig = QUIET) -> AsyncIterator[tuple[P2PNode, RawPeer]]:
    async with (
        chain_node(settings=settings) as node,
        await RawPeer.meet(node, best_height=START) as raw,
    ):
        await until(lambda: node.peers)
        yield node, raw


def compact(block: Block) -> NewBlockMessage:
    return NewBlockMessage(
        header=block.header, transaction_ids=tuple(tx.hash for tx in block.transactions)
    )


async def next_message(raw: RawPeer, kind: type[M]) -> M:
    """The next message that is no PING, which are answered; it must be of this kind."""
    while isinstance(message := await raw.read_any(), PingMessage):
        raw.send(PongMessage(nonce=message.nonce))
    assert isinstance(message, kind), message
    return message
