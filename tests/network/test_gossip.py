"""News travel once to everyone, are checked on the way, and never go back."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise

import pytest
from helpers.news import (
    START,
    alone,
    block_at,
    chain_node,
    chain_of,
    compact,
    next_message,
    pool_of,
    transfer,
)
from helpers.rawpeer import QUIET, RawPeer, until
from helpers.sync_nodes import extend

from moderntensor.blockchain.transaction import Transaction
from moderntensor.errors import InvalidTransactionError
from moderntensor.network.gossip import transactions as gossip_transactions
from moderntensor.network.limits import RELAY_FEW, TRANSACTION_FULL_SIZE
from moderntensor.network.messages import (
    GetTransactionsMessage,
    Message,
    MessageCodec,
    MessageType,
    NewBlockHashesMessage,
    NewBlockMessage,
    NewTransactionMessage,
    PingMessage,
    PongMessage,
)
from moderntensor.network.p2p import P2PNode
from moderntensor.network.peer import Peer

NEWS = (MessageType.NEW_TRANSACTION, MessageType.NEW_BLOCK, MessageType.NEW_BLOCK_HASHES)


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


@pytest.mark.parametrize("push", [4, 0], ids=["in full", "announced"])
async def test_a_transaction_crosses_every_line_at_most_once(
    push: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gossip_transactions, "TRANSACTION_PUSH_MIN", push)
    monkeypatch.setattr(gossip_transactions, "RELAY_LATER", 0.02)
    nodes = [chain_node() for _ in range(5)]
    links = [(a, b) for a in range(5) for b in range(a)]
    async with net(*nodes, links=links) as ear:
        tx = transfer()
        assert await nodes[0].broadcast_transaction(tx) == 4
        await until(lambda: all(tx.hash in pool_of(node) for node in nodes))
        await until(
            lambda: all(tx.hash in p.known_transactions for node in nodes for p in node.table)
        )
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


async def test_what_others_made_goes_by_hash_to_a_few_and_later_to_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gossip_transactions, "RELAY_LATER", 3600.0)
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(chain_node())
        peers = [
            await stack.enter_async_context(await RawPeer.meet(node, node_id=bytes([i + 1]) * 32))
            for i in range(11)
        ]
        await until(lambda: len(node.peers) == len(peers))
        first, second = transfer(0), transfer(1)
        teller, *others = peers
        teller.send(NewTransactionMessage(transactions=(first.encode(),)))

        def told(tx: Transaction) -> int:
            return sum(tx.hash in peer.known_transactions for peer in node.table)

        await until(lambda: told(first) > 1)
        assert told(first) == 1 + RELAY_FEW
        teller.send(NewTransactionMessage(transactions=(second.encode(),)))
        await until(lambda: told(second) == 1 + RELAY_FEW)
        # Whoever is told of the one is told of what waits in the same message.
        assert all(
            first.hash in peer.known_transactions
            for peer in node.table
            if second.hash in peer.known_transactions
        )
        node.gossip.transactions._flush_later()  # its time has come
        assert told(first) == told(second) == len(peers)
        heard: list[int] = []
        for peer in others:
            seen: list[bytes] = []
            heard.append(0)
            while len(seen) < 2:
                news = await next_message(peer, NewTransactionMessage)
                assert not news.transactions
                seen += news.announced
                heard[-1] += 1
            assert sorted(seen) == sorted((first.hash, second.hash))
        assert min(heard) == 1  # both in one message, for who was not told at once


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
        news = await next_message(behind, NewBlockHashesMessage)
        assert news.hashes == ((head.hash, head.height),)
        ahead.send(PingMessage(nonce=77))
        assert (await next_message(ahead, PongMessage)).best_height == head.height


async def test_what_came_from_a_peer_does_not_go_back_to_it() -> None:
    async with alone() as (node, raw):
        tx, block = transfer(5), block_at(START + 1)
        raw.send(NewTransactionMessage(transactions=(tx.encode(),)), compact(block))
        await until(lambda: tx.hash in pool_of(node) and chain_of(node).head.hash == block.hash)
        await asyncio.sleep(0.05)
        raw.send(PingMessage(nonce=7))
        assert (await next_message(raw, PongMessage)).best_hash == block.hash


async def test_a_newcomer_hears_of_what_waits_unless_it_is_behind() -> None:
    async with chain_node() as node:
        tx = transfer()
        pool_of(node).add(tx)
        async with await RawPeer.meet(node, best_height=START) as raw:
            assert (await next_message(raw, NewTransactionMessage)).announced == (tx.hash,)
        async with await RawPeer.meet(node, best_height=0) as raw:
            raw.send(PingMessage(nonce=4))
            assert (await next_message(raw, PongMessage)).nonce == 4


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
            assert await next_message(peer, NewTransactionMessage) == message
            news = await next_message(peer, NewTransactionMessage)
            assert news in encoded


async def test_one_message_to_all_leaves_at_once_and_many_share_their_writes() -> None:
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(chain_node())
        others = [
            await stack.enter_async_context(await RawPeer.meet(node, node_id=bytes([i + 1]) * 32))
            for i in range(4)
        ]
        await until(lambda: len(node.peers) == len(others))
        connections = [peer.connection for peer in node.peers.values()]

        def writes() -> list[int]:
            return [connection.writes for connection in connections]

        messages = [NewTransactionMessage(announced=(bytes([n]) * 32,)) for n in range(50)]
        for _ in range(2):  # the second time after a turn of the loop
            before = writes()
            assert await node.broadcast(messages[0]) == len(others)
            assert writes() == [count + 1 for count in before]
            for message in messages[1:]:
                await node.broadcast(message)
            await asyncio.sleep(0.01)
            assert writes() == [count + 2 for count in before]
            for other in others:
                for message in messages:
                    assert await next_message(other, NewTransactionMessage) == message
