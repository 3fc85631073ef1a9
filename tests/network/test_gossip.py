"""News travel once to everyone, are checked on the way, and never go back."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise

import pytest
from helpers.rawpeer import QUIET, RawPeer, until
from helpers.sync_nodes import ACCOUNTS, CONFIG, VALIDATORS, extend, grown

from moderntensor.blockchain.block import Block
from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.mempool import Mempool
from moderntensor.blockchain.transaction import Transaction
from moderntensor.errors import InvalidTransactionError
from moderntensor.network import gossip_transactions
from moderntensor.network.known import KnownSet
from moderntensor.network.limits import FAR_AHEAD, TRANSACTION_FULL_SIZE
from moderntensor.network.messages import (
    BlocksMessage,
    DisconnectCode,
    GetBlocksMessage,
    GetTransactionsMessage,
    Message,
    MessageCodec,
    MessageType,
    NewBlockHashesMessage,
    NewBlockMessage,
    NewTransactionMessage,
    PingMessage,
    PongMessage,
    Status,
    TransactionsMessage,
)
from moderntensor.network.p2p import P2PNode
from moderntensor.network.peer import Peer

START = 4  # blocks that every node has
NEWS = (MessageType.NEW_TRANSACTION, MessageType.NEW_BLOCK, MessageType.NEW_BLOCK_HASHES)


def chain_node(blocks: int = START, transfers: int = 0) -> P2PNode:
    """A node with a chain and a mempool that follows it."""
    chain = grown(blocks, transfers)
    mempool = Mempool(chain)
    node = P2PNode(config=QUIET)
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


class Ear:
    """Counts what arrives at nodes: (node, from whom, hash of what)."""

    def __init__(self, *nodes: P2PNode) -> None:
        self.heard: Counter[tuple[P2PNode, bytes, bytes]] = Counter()
        for node in nodes:
            for kind in NEWS:
                node.register_handler(kind, self._listener(node))

    def _listener(self, node: P2PNode):  # type: ignore[no-untyped-def]
        async def listen(peer: Peer, message: Message) -> None:
            if isinstance(message, NewTransactionMessage):
                items = [Transaction.decode(raw).hash for raw in message.transactions]
                items += message.announced
            elif isinstance(message, NewBlockMessage):
                items = [message.header.hash]
            else:
                assert isinstance(message, NewBlockHashesMessage)
                items = [block_hash for block_hash, _ in message.hashes]
            for item in items:
                self.heard[node, peer.node_id, item] += 1

        return listen


@asynccontextmanager
async def net(*nodes: P2PNode, links: list[tuple[int, int]]) -> AsyncIterator[Ear]:
    ear = Ear(*nodes)
    async with AsyncExitStack() as stack:
        for node in nodes:
            await stack.enter_async_context(node)
        for one, two in links:
            await nodes[one].connect_peer("127.0.0.1", nodes[two].listen_port)
        for one, two in links:
            await until(lambda a=nodes[one], b=nodes[two]: a.node_id in b.table.by_id)
        yield ear


async def settled(*nodes: P2PNode) -> None:
    """A PING there and back on every line behind what was sent: nothing is on its way."""
    for _ in range(3):
        for node in nodes:
            for peer in node.table:
                before = peer.connection.frames_received
                peer.send(PingMessage(nonce=1))
                await until(lambda p=peer, b=before: p.connection.frames_received > b)
        await asyncio.sleep(0.02)


# --- among honest nodes ------------------------------------------------------------------------


@pytest.mark.parametrize("push", [4, 0], ids=["in full", "announced"])
async def test_a_transaction_crosses_every_line_at_most_once(
    push: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gossip_transactions, "TRANSACTION_PUSH_MIN", push)
    nodes = [chain_node() for _ in range(5)]
    links = [(a, b) for a in range(5) for b in range(a)]
    async with net(*nodes, links=links) as ear:
        tx = transfer()
        assert await nodes[0].broadcast_transaction(tx) == 4
        await until(lambda: all(tx.hash in pool_of(node) for node in nodes))
        await settled(*nodes)
        assert max(ear.heard.values()) == 1
        assert not any(node is nodes[0] for node, _, _ in ear.heard)  # never back
        # On each line it went one way: whoever sent it first. Both may have sent at once.
        assert len(ear.heard) <= len(links) * 2 - 4
        heard = sum(ear.heard.values())
        assert await nodes[0].broadcast_transaction(tx) == 0
        assert await nodes[3].broadcast_transaction(tx) == 0
        await settled(*nodes)
        assert sum(ear.heard.values()) == heard


async def test_a_transaction_goes_down_a_line_of_nodes_and_not_back() -> None:
    nodes = [chain_node() for _ in range(4)]
    async with net(*nodes, links=list(pairwise(range(4)))) as ear:
        small, large = transfer(0), transfer(1, size=TRANSACTION_FULL_SIZE)
        for tx in (small, large):
            await nodes[0].broadcast_transaction(tx)
        await until(lambda: all(tx.hash in pool_of(nodes[3]) for tx in (small, large)))
        await settled(*nodes)
        expected = {
            (there, here.node_id, tx.hash)
            for here, there in pairwise(nodes)
            for tx in (small, large)
        }
        assert ear.heard == dict.fromkeys(expected, 1)


async def test_a_bad_transaction_does_not_leave_the_house() -> None:
    nodes = [chain_node(), chain_node()]
    async with net(*nodes, links=[(0, 1)]) as ear:
        with pytest.raises(InvalidTransactionError):
            await nodes[0].broadcast_transaction(transfer(nonce=10_000))
        await settled(*nodes)
        assert not ear.heard


async def test_nodes_without_a_chain_still_tell_their_peers() -> None:
    one, two = P2PNode(config=QUIET), chain_node()
    async with net(one, two, links=[(0, 1)]):
        tx = transfer()
        assert await one.broadcast_transaction(tx) == 1
        await until(lambda: tx.hash in pool_of(two))


@pytest.mark.parametrize("transfers", [0, 3])
async def test_a_new_head_reaches_everyone_once(transfers: int) -> None:
    nodes = [chain_node() for _ in range(4)]
    async with net(*nodes, links=[(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)]) as ear:
        for height in range(START + 1, START + 4):
            # Whoever extends its chain need not say so: what becomes the head is news.
            await nodes[0].runtime.run_writer(extend, chain_of(nodes[0]), 1, transfers)
            await until(
                lambda h=height: all(chain_of(node).head.height == h for node in nodes), 20.0
            )
        await settled(*nodes)
        assert len({chain_of(node).head for node in nodes}) == 1
        assert max(ear.heard.values()) == 1
        assert not any(node is nodes[0] for node, _, _ in ear.heard)
        block = chain_of(nodes[0]).get_block(START + 3)
        assert block is not None
        assert await nodes[0].broadcast_block(block) == 0


async def test_a_compact_block_is_filled_from_the_mempool() -> None:
    one, two = chain_node(), chain_node()
    asked: list[Message] = []

    async def note(peer: Peer, message: Message) -> None:
        asked.append(message)

    one.register_handler(MessageType.GET_TRANSACTIONS, note)
    block = block_at(START + 1, 3)
    for tx in block.transactions[:2]:
        pool_of(two).add(tx)
    async with net(one, two, links=[(0, 1)]):
        await one.runtime.run_writer(chain_of(one).import_block, block)
        await until(lambda: chain_of(two).head.hash == block.hash)
        (request,) = asked
        assert isinstance(request, GetTransactionsMessage)
        assert request.hashes == (block.transactions[2].hash,)


async def test_a_long_jump_of_the_head_is_told_by_hash_and_only_to_those_behind() -> None:
    async with (
        chain_node() as node,
        await RawPeer.meet(node, node_id=b"b" * 32, best_height=START) as behind,
        await RawPeer.meet(node, node_id=b"a" * 32, best_height=START + 50) as ahead,
    ):
        await until(lambda: len(node.peers) == 2)
        await node.runtime.run_writer(extend, chain_of(node), 10)
        head = chain_of(node).head
        news = await _next(behind, NewBlockHashesMessage)
        assert news.hashes == ((head.hash, head.height),)
        ahead.send(PingMessage(nonce=77))
        assert (await _next(ahead, PongMessage)).best_height == head.height


async def _next(raw: RawPeer, kind: type[Message]):  # type: ignore[no-untyped-def]
    """The next message that is no PING; it must be of this kind."""
    while isinstance(message := await raw.read_any(), PingMessage):
        pass
    assert isinstance(message, kind), message
    return message


# --- a single peer and its tricks --------------------------------------------------------------


@asynccontextmanager
async def alone() -> AsyncIterator[tuple[P2PNode, RawPeer]]:
    async with chain_node() as node, await RawPeer.meet(node, best_height=START) as raw:
        await until(lambda: node.peers)
        yield node, raw


def compact(block: Block) -> NewBlockMessage:
    return NewBlockMessage(
        header=block.header, transaction_ids=tuple(tx.hash for tx in block.transactions)
    )


async def test_what_came_from_a_peer_does_not_go_back_to_it() -> None:
    async with alone() as (node, raw):
        tx, block = transfer(5), block_at(START + 1)
        raw.send(NewTransactionMessage(transactions=(tx.encode(),)), compact(block))
        await until(lambda: tx.hash in pool_of(node) and chain_of(node).head.hash == block.hash)
        await asyncio.sleep(0.05)
        raw.send(PingMessage(nonce=7))
        assert (await _next(raw, PongMessage)).best_hash == block.hash


async def test_an_announced_transaction_is_asked_for_once_and_elsewhere_if_need_be() -> None:
    async with alone() as (node, first), await RawPeer.meet(node, node_id=b"o" * 32) as second:
        await until(lambda: len(node.peers) == 2)
        tx = transfer()
        first.send(NewTransactionMessage(announced=(tx.hash,)))
        request = await _next(first, GetTransactionsMessage)
        assert request.hashes == (tx.hash,)
        second.send(NewTransactionMessage(announced=(tx.hash,)), PingMessage(nonce=3))
        assert (await _next(second, PongMessage)).nonce == 3  # not asked as well
        await asyncio.sleep(0.05)
        first.send(TransactionsMessage(request_id=request.request_id, status=Status.NOT_FOUND))
        request = await _next(second, GetTransactionsMessage)
        second.send(TransactionsMessage(request_id=request.request_id, transactions=(tx.encode(),)))
        await until(lambda: tx.hash in pool_of(node))
        assert not node.gossip.transactions._wanted
        assert all(peer.wanted_from == 0 for peer in node.table)


async def test_another_transaction_than_asked_for_is_a_breach() -> None:
    async with alone() as (_, raw):
        raw.send(NewTransactionMessage(announced=(transfer(0).hash,)))
        request = await _next(raw, GetTransactionsMessage)
        raw.send(
            TransactionsMessage(request_id=request.request_id, transactions=(transfer(1).encode(),))
        )
        assert await raw.read_goodbye() == DisconnectCode.PROTOCOL_ERROR


@pytest.mark.parametrize("fault", ["bytes", "chain", "gas"])
async def test_what_no_honest_node_relays_costs_the_connection(fault: str) -> None:
    async with alone() as (node, raw):
        good = transfer()
        if fault == "bytes":
            bad = good.encode()[:-1]
        elif fault == "chain":
            bad = Transaction.create(
                ACCOUNTS[0], chain_id=999, nonce=0, to=ACCOUNTS[1].address, value=1
            ).encode()
        else:
            bad = Transaction.create(
                ACCOUNTS[0],
                chain_id=CONFIG.chain_id,
                nonce=0,
                to=ACCOUNTS[1].address,
                value=1,
                gas_limit=20_999,
            ).encode()
        raw.send(NewTransactionMessage(transactions=(bad,)))
        assert await raw.read_goodbye() == DisconnectCode.BAD_TRANSACTION
        assert not len(pool_of(node))


async def test_what_may_be_a_matter_of_timing_is_forgiven() -> None:
    async with alone() as (node, raw):
        used = extend(grown(START), 1, 1).get_block(START + 1)
        assert used is not None
        await node.runtime.run_writer(extend, chain_of(node), 1, 1)
        await _next(raw, NewBlockMessage)
        far = transfer(3, nonce=5000)
        raw.send(
            NewTransactionMessage(transactions=(used.transactions[0].encode(), far.encode())),
            PingMessage(nonce=4),
        )
        assert (await _next(raw, PongMessage)).nonce == 4
        assert not len(pool_of(node))


async def test_a_compact_block_is_completed_by_asking_for_what_is_missing() -> None:
    async with alone() as (node, raw):
        block = block_at(START + 1, 4)
        pool_of(node).add(block.transactions[0])
        raw.send(compact(block))
        request = await _next(raw, GetTransactionsMessage)
        assert request.hashes == tuple(tx.hash for tx in block.transactions[1:])
        # In two goes: what does not come at first is asked for again.
        raw.send(
            TransactionsMessage(
                request_id=request.request_id,
                status=Status.PARTIAL,
                transactions=tuple(tx.encode() for tx in block.transactions[1:3]),
            )
        )
        request = await _next(raw, GetTransactionsMessage)
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
        request = await _next(first, GetTransactionsMessage)
        second.send(compact(block), PingMessage(nonce=3))
        await _next(second, PongMessage)
        await asyncio.sleep(0.05)
        first.send(TransactionsMessage(request_id=request.request_id, status=Status.NOT_FOUND))
        whole = await _next(first, GetBlocksMessage)
        assert (whole.start_height, whole.end_height) == (START + 1, START + 1)
        first.send(BlocksMessage(request_id=whole.request_id, status=Status.NOT_FOUND))
        request = await _next(second, GetTransactionsMessage)
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
        request = await _next(raw, GetBlocksMessage)
        assert request.start_height == START + 1
        raw.send(BlocksMessage(request_id=request.request_id, blocks=(block.encode(),)))
        await until(lambda: chain_of(node).head.hash == block.hash)


async def test_what_is_far_ahead_is_noted_and_left_to_the_sync() -> None:
    async with alone() as (node, raw):
        height = START + FAR_AHEAD + 1
        raw.send(NewBlockHashesMessage(hashes=((b"f" * 32, height),)), PingMessage(nonce=5))
        assert (await _next(raw, PongMessage)).nonce == 5
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
        assert (await _next(raw, PongMessage)).nonce == 5
        await until(lambda: not node.gossip.blocks._waiting)
        await asyncio.sleep(0.05)
        assert node.peers


async def test_a_hook_takes_complete_blocks() -> None:
    async with alone() as (node, raw):
        taken: list[tuple[Block, Peer]] = []

        async def hook(block: Block, peer: Peer) -> None:
            taken.append((block, peer))

        node.on_new_block = hook
        block = block_at(START + 2, 1)
        raw.send(NewTransactionMessage(transactions=()), compact(block))
        request = await _next(raw, GetTransactionsMessage)
        raw.send(
            TransactionsMessage(
                request_id=request.request_id, transactions=(block.transactions[0].encode(),)
            )
        )
        await until(lambda: taken)
        assert taken == [(block, node.peers[raw.address])]
        assert chain_of(node).head.height == START


def test_what_is_known_is_bounded() -> None:
    known = KnownSet(3)
    assert known.add(b"a")
    assert not known.add(b"a")
    known.update([b"b", b"c", b"d"])
    assert len(known) == 3
    assert b"a" not in known
    assert b"d" in known
    known.discard(b"d")
    assert known.add(b"d")


def test_of_much_that_is_known_the_oldest_goes_first() -> None:
    known = KnownSet(64)
    hashes = [number.to_bytes(4, "big") for number in range(1000)]
    for count, item in enumerate(hashes, 1):
        assert known.add(item)
        assert len(known) <= 64
        remembered = min(count, 60)  # all but a sixteenth, which is forgotten in one go
        assert all(one in known for one in hashes[count - remembered : count])


async def test_a_newcomer_hears_of_what_waits_unless_it_is_behind() -> None:
    async with chain_node() as node:
        tx = transfer()
        pool_of(node).add(tx)
        async with await RawPeer.meet(node, best_height=START) as raw:
            assert (await _next(raw, NewTransactionMessage)).announced == (tx.hash,)
        async with await RawPeer.meet(node, best_height=0) as raw:
            raw.send(PingMessage(nonce=4))
            assert (await _next(raw, PongMessage)).nonce == 4


async def test_what_a_peer_repeats_is_not_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with alone() as (node, raw):
        judged: list[bytes] = []
        add = Mempool.add

        def counted(mempool: Mempool, tx: Transaction) -> bool:
            judged.append(tx.hash)
            return add(mempool, tx)

        monkeypatch.setattr(Mempool, "add", counted)
        far = transfer(3, nonce=5000)
        raw.send(*[NewTransactionMessage(transactions=(far.encode(),))] * 50)
        raw.send(NewTransactionMessage(transactions=(transfer().encode(),)))
        await until(lambda: transfer().hash in pool_of(node))
        assert judged == [far.hash, transfer().hash]


async def test_what_goes_to_many_peers_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[Message] = []
    encode = MessageCodec.encode

    def counted(message: Message) -> bytes:
        encoded.append(message)
        return encode(message)

    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(chain_node())
        peers = [
            await stack.enter_async_context(await RawPeer.meet(node, node_id=bytes([i + 1]) * 32))
            for i in range(12)
        ]
        await until(lambda: len(node.peers) == len(peers))
        monkeypatch.setattr(MessageCodec, "encode", counted)
        message = NewTransactionMessage(transactions=(transfer().encode(),))
        assert await node.broadcast(message) == len(peers)
        assert encoded == [message]
        encoded.clear()
        # Whole to some and by hash to the others: two messages, however many they go to.
        tx = transfer()
        assert await node.broadcast_transaction(tx) == len(peers)
        assert encoded == [
            NewTransactionMessage(transactions=(tx.encode(),)),
            NewTransactionMessage(announced=(tx.hash,)),
        ]
        monkeypatch.undo()
        for peer in peers:
            assert await _next(peer, NewTransactionMessage) == message
            news = await _next(peer, NewTransactionMessage)
            assert news in encoded
