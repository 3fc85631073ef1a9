"""News that repeat, lead nowhere, come too early, contradict each other or are signed by nobody."""

from __future__ import annotations

import time

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
from helpers.sync_nodes import CONFIG, VALIDATORS, extend, grown

from moderntensor.blockchain.block import Block
from moderntensor.blockchain.crypto import KeyPair
from moderntensor.blockchain.mempool import Mempool
from moderntensor.blockchain.state import StateDB
from moderntensor.blockchain.transaction import Transaction
from moderntensor.blockchain.validation import BlockValidator
from moderntensor.network.gossip import early as gossip_early
from moderntensor.network.gossip import score as gossip_score
from moderntensor.network.limits import EARLY_BLOCKS_PER_PEER, UNKNOWN_PARENTS_BURST
from moderntensor.network.messages import (
    BlocksMessage,
    DisconnectCode,
    GetBlocksMessage,
    GetHeadersMessage,
    NewBlockMessage,
    NewTransactionMessage,
    PingMessage,
    PongMessage,
)
from moderntensor.network.offences import Offence
from moderntensor.network.p2p import P2PNode
from moderntensor.network.peer import Peer
from moderntensor.network.sync import SyncManager
from moderntensor.runtime import Runtime


def validator_of(timestamp: int) -> KeyPair:
    """Whose turn it is."""
    return VALIDATORS[CONFIG.slot_of(timestamp) % len(VALIDATORS)]


def stray(number: int) -> Block:
    """A well-signed block on a parent that nobody has."""
    good = block_at(START + 1)
    header = good.header.replace(
        height=START + 3, previous_hash=bytes([number]) * 32, extra_data=b"stray"
    )
    return good.replace(header=header.sign(validator_of(header.timestamp)))


def ahead(seconds: int) -> Block:
    """The next block as one would make it whose clock is `seconds` ahead of ours; as empty."""
    good = block_at(START + 1)
    timestamp = int(time.time()) + seconds
    header = good.header.replace(timestamp=timestamp).sign(validator_of(timestamp))
    return good.replace(header=header)


# --- over and over -----------------------------------------------------------------------------


async def test_the_same_news_over_and_over_are_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gossip_score, "REPEATS_BURST", 20.0)
    async with alone() as (node, raw):
        tx, block = transfer(), block_at(START + 1)
        await node.broadcast_transaction(tx)  # that it tells of this as well is no repeat
        raw.send(NewTransactionMessage(transactions=(tx.encode(),)), compact(block))
        await until(lambda: chain_of(node).head.hash == block.hash)
        assert node.peers[raw.address].known_transactions.repeats == 0
        raw.send(*[NewTransactionMessage(announced=(tx.hash,))] * 10, *[compact(block)] * 9)
        raw.send(PingMessage(nonce=4))
        await next_message(raw, NewTransactionMessage)
        assert (await next_message(raw, PongMessage)).nonce == 4
        assert not node.reputation.counts.offences
        raw.send(*[compact(block)] * 4)
        await until(lambda: node.reputation.counts.offences[Offence.REPEATED_NEWS])


async def test_what_was_refused_is_not_looked_at_again_until_the_head_moves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judged: list[bytes] = []
    add = Mempool.add

    def counted(mempool: Mempool, tx: Transaction) -> bool:
        judged.append(tx.hash)
        return add(mempool, tx)

    monkeypatch.setattr(Mempool, "add", counted)
    async with alone() as (node, first), await RawPeer.meet(node, node_id=b"o" * 32) as second:
        await until(lambda: len(node.peers) == 2)
        far = NewTransactionMessage(transactions=(transfer(nonce=5000).encode(),))
        first.send(far)
        await until(lambda: judged)
        second.send(far, PingMessage(nonce=5))
        await next_message(second, PongMessage)
        assert len(judged) == 1
        await node.runtime.run_writer(extend, chain_of(node), 1)
        await next_message(second, NewBlockMessage)
        async with await RawPeer.meet(node, node_id=b"p" * 32) as third:
            third.send(far)
            await until(lambda: len(judged) == 2)


# --- blocks that lead nowhere, or come early ---------------------------------------------------


async def test_a_block_of_an_unknown_parent_is_left_to_the_sync_and_scored_if_repeated() -> None:
    async with alone() as (node, raw):
        claims: list[Peer] = []
        node.gossip.on_claim = claims.append
        for number in range(int(UNKNOWN_PARENTS_BURST)):
            raw.send(compact(stray(number)))
        await until(lambda: len(claims) == UNKNOWN_PARENTS_BURST)
        assert node.peers[raw.address].best_height == START + 3
        assert not node.reputation.counts.offences
        raw.send(compact(stray(99)), PingMessage(nonce=6))
        assert (await next_message(raw, PongMessage)).nonce == 6  # nothing was asked for
        await until(lambda: node.reputation.counts.offences == {Offence.UNKNOWN_PARENT: 1})


async def test_an_unknown_parent_leads_to_one_locator_request() -> None:
    node = P2PNode(config=QUIET)
    validator = BlockValidator(StateDB(None), CONFIG)
    extend(validator.chain, START)
    sync = SyncManager(node, validator, config=QUIET.replace(follow_interval=60.0))
    async with node, sync, await RawPeer.meet(node, best_height=START) as raw:
        raw.send(compact(stray(1)))
        request = await next_message(raw, GetHeadersMessage)
        assert request.locator[0] == validator.chain.head.hash
        raw.send(PingMessage(nonce=6))
        assert (await next_message(raw, PongMessage)).nonce == 6


@pytest.mark.parametrize("kind", ["stray", "early"])
async def test_only_whose_turn_it_is_can_make_us_wait(kind: str) -> None:
    async with alone() as (node, raw):
        block = stray(1) if kind == "stray" else ahead(60)
        right = validator_of(block.header.timestamp)
        wrong = next(key for key in VALIDATORS if key is not right)
        raw.send(compact(block.replace(header=block.header.sign(wrong))))
        assert await raw.read_goodbye() == DisconnectCode.BAD_HEADER
        assert node.reputation.counts.offences == {Offence.BAD_HEADER: 1}


async def test_a_block_that_came_early_is_asked_for_when_its_time_has_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shift = [0.0]
    monkeypatch.setattr(gossip_early, "_NAP", 0.02)
    monkeypatch.setattr(Runtime, "wall_time", lambda self: time.time() + shift[0])
    async with alone() as (node, raw):
        block = ahead(300)
        raw.send(compact(block), PingMessage(nonce=5))
        assert (await next_message(raw, PongMessage)).nonce == 5
        await until(lambda: len(node.gossip.blocks._early) == 1)
        shift[0] = 300.0  # as if somebody had set our clock
        request = await next_message(raw, GetBlocksMessage)
        raw.send(BlocksMessage(request_id=request.request_id, blocks=(block.encode(),)))
        await until(lambda: chain_of(node).head.hash == block.hash)
        assert not node.reputation.counts.offences


async def test_early_blocks_are_bounded_and_the_distant_future_is_not_kept() -> None:
    async with alone() as (node, raw):
        early = node.gossip.blocks._early
        peer = node.peers[raw.address]
        now = node.runtime.wall_time()
        early.hold(peer, b"x" * 32, START + 1, now + 10_000.0)
        assert len(early) == 0
        for number in range(2 * EARLY_BLOCKS_PER_PEER):
            early.hold(peer, bytes([number]) * 32, START + 1, now + 100.0)
        assert len(early) == EARLY_BLOCKS_PER_PEER


async def test_what_is_early_everywhere_tells_of_a_slow_clock(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with chain_node() as node:
        block = ahead(120)
        peers = []
        try:
            for number in range(5):
                assert not node.clock_offset.off
                peers.append(await RawPeer.meet(node, node_id=bytes([number + 1]) * 32))
                peers[-1].send(compact(block), PingMessage(nonce=5))
                await next_message(peers[-1], PongMessage)
                await until(lambda n=number: node.clock_offset.peers == n + 1)
        finally:
            for peer in peers:
                await peer.close()
        reading = node.clock_offset
        assert reading.off
        assert reading.seconds is not None
        assert 100 < reading.seconds <= 120
        assert [r.message for r in caplog.records if "s slow" in r.message]


# --- one key, two blocks; one content, two signatures ------------------------------------------


async def test_two_blocks_of_one_validator_at_one_height_are_kept_as_evidence() -> None:
    async with alone() as (node, raw):
        one, other = block_at(START + 1, 1), block_at(START + 1)
        assert one.header.validator == other.header.validator
        pool_of(node).add(one.transactions[0])
        raw.send(compact(one))
        await until(lambda: chain_of(node).head.hash == one.hash)
        raw.send(compact(other))
        await until(chain_of(node).evidence)
        (pair,) = chain_of(node).evidence()
        assert {pair.first, pair.second} == {one.header.encode(), other.header.encode()}
        assert chain_of(node).head.hash == one.hash  # the first seen
        assert not node.reputation.counts.offences  # whoever passes it on is not to blame


async def test_another_signature_around_a_header_fools_no_memory() -> None:
    async with alone() as (node, liar), await RawPeer.meet(node, node_id=b"o" * 32) as honest:
        good = block_at(START + 1)
        bad = good.header.replace(signature=good.header.signature[::-1])
        assert bad.signing_hash == good.header.signing_hash
        assert bad.hash != good.hash
        liar.send(NewBlockMessage(header=bad))
        assert await liar.read_goodbye() == DisconnectCode.BAD_HEADER
        assert node.reputation.counts.offences == {Offence.BAD_SIGNATURE: 1}
        assert not chain_of(node).is_invalid(bad.hash)  # nothing to remember: it names only itself
        honest.send(compact(good))
        await until(lambda: chain_of(node).head.hash == good.hash)


async def test_another_signature_around_a_transaction_fools_no_memory() -> None:
    async with alone() as (node, raw):
        good = transfer()
        bad = good.replace(r=good.s, s=good.r[:1] + good.s[1:])
        assert bad.signing_hash == good.signing_hash
        assert bad.hash != good.hash
        raw.send(NewTransactionMessage(transactions=(bad.encode(), good.encode())))
        await until(lambda: good.hash in pool_of(node))
        assert bad.hash not in pool_of(node)
        assert pool_of(node).hashes() == [good.hash]


# --- what comes back ---------------------------------------------------------------------------


async def test_what_a_reorganisation_has_undone_is_told_again() -> None:
    lost = block_at(START + 1, 1)
    (tx,) = lost.transactions
    longer = extend(grown(START), 2)
    async with chain_node() as node:
        await node.runtime.run_writer(chain_of(node).import_block, lost)
        async with await RawPeer.meet(node, best_height=START + 1) as raw:
            await until(lambda: node.peers)
            for height in (START + 1, START + 2):
                block = longer.get_block(height)
                assert block is not None
                await node.runtime.run_writer(chain_of(node).import_block, block)
            assert chain_of(node).head.hash == longer.head.hash
            news = await next_message(raw, NewTransactionMessage)
            assert news.announced == (tx.hash,)
            assert tx.hash in pool_of(node)
