"""Transactions that a single peer pushes, announces, repeats or makes up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from helpers.news import (
    START,
    STRICT,
    alone,
    chain_of,
    next_message,
    pool_of,
    transfer,
)
from helpers.rawpeer import RawPeer, until
from helpers.sync_nodes import ACCOUNTS, CONFIG, extend, grown

from moderntensor.blockchain.mempool import Mempool
from moderntensor.blockchain.transaction import Transaction
from moderntensor.network.gossip import transactions as gossip_transactions
from moderntensor.network.messages import (
    DisconnectCode,
    GetTransactionsMessage,
    NewBlockMessage,
    NewTransactionMessage,
    PingMessage,
    PongMessage,
    Status,
    TransactionsMessage,
)
from moderntensor.network.offences import Offence


async def test_an_announced_transaction_is_asked_for_once_and_elsewhere_if_need_be() -> None:
    async with alone() as (node, first), await RawPeer.meet(node, node_id=b"o" * 32) as second:
        await until(lambda: len(node.peers) == 2)
        tx = transfer()
        first.send(NewTransactionMessage(announced=(tx.hash,)))
        request = await next_message(first, GetTransactionsMessage)
        assert request.hashes == (tx.hash,)
        second.send(NewTransactionMessage(announced=(tx.hash,)), PingMessage(nonce=3))
        assert (await next_message(second, PongMessage)).nonce == 3  # not asked as well
        await asyncio.sleep(0.05)
        first.send(TransactionsMessage(request_id=request.request_id, status=Status.NOT_FOUND))
        request = await next_message(second, GetTransactionsMessage)
        second.send(TransactionsMessage(request_id=request.request_id, transactions=(tx.encode(),)))
        await until(lambda: tx.hash in pool_of(node))
        assert not node.gossip.transactions.fetcher.wanted
        assert all(peer.wanted_from == 0 for peer in node.table)


async def test_another_transaction_than_asked_for_is_a_breach() -> None:
    async with alone() as (_, raw):
        raw.send(NewTransactionMessage(announced=(transfer(0).hash,)))
        request = await next_message(raw, GetTransactionsMessage)
        raw.send(
            TransactionsMessage(request_id=request.request_id, transactions=(transfer(1).encode(),))
        )
        assert await raw.read_goodbye() == DisconnectCode.PROTOCOL_ERROR


async def test_malformed_bytes_cost_the_connection() -> None:
    async with alone() as (node, raw):
        raw.send(NewTransactionMessage(transactions=(transfer().encode()[:-1],)))
        assert await raw.read_goodbye() == DisconnectCode.BAD_TRANSACTION
        assert node.reputation.counts.offences[Offence.MALFORMED] == 1


def never_valid(fault: str) -> Transaction:
    """What no state of the chain could admit."""
    good = transfer()
    changes: dict[str, Any] = {"chain": {"chain_id": 999}, "gas": {"gas_limit": 20_999}}
    if fault == "signature":
        return good.replace(s=b"\xff" * 32)  # high, or nobody's
    fields = {"chain_id": CONFIG.chain_id, "nonce": 0, "to": ACCOUNTS[1].address, "value": 1}
    return Transaction.create(ACCOUNTS[0], **{**fields, **changes[fault]})


@pytest.mark.parametrize("fault", ["chain", "gas", "signature"])
async def test_who_relays_what_is_never_valid_is_scored(fault: str) -> None:
    async with alone(STRICT) as (node, raw):
        bad = never_valid(fault)
        raw.send(NewTransactionMessage(transactions=(bad.encode(),)))
        raw.send(PingMessage(nonce=4))
        assert (await next_message(raw, PongMessage)).nonce == 4
        await until(lambda: node.reputation.counts.offences[Offence.BAD_TRANSACTION] == 1)
        # The third time it has to go. Another one's signature is another transaction each time.
        for number in (1, 2):
            other = bad.replace(value=1 + number)
            raw.send(NewTransactionMessage(transactions=(other.encode(),)))
        assert await raw.read_goodbye() == DisconnectCode.BAD_TRANSACTION
        assert not len(pool_of(node))


async def test_what_may_be_a_matter_of_timing_is_forgiven() -> None:
    async with alone() as (node, raw):
        used = extend(grown(START), 1, 1).get_block(START + 1)
        assert used is not None
        await node.runtime.run_writer(extend, chain_of(node), 1, 1)
        await next_message(raw, NewBlockMessage)
        far = transfer(3, nonce=5000)
        raw.send(
            NewTransactionMessage(transactions=(used.transactions[0].encode(), far.encode())),
            PingMessage(nonce=4),
        )
        assert (await next_message(raw, PongMessage)).nonce == 4
        assert not len(pool_of(node))


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


async def test_time_passes_for_the_pool_of_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gossip_transactions, "MEMPOOL_UPKEEP", 0.01)
    async with alone() as (node, _):
        pool_of(node).add(transfer())
        pool_of(node)._lifetime = 0.05
        await until(lambda: not len(pool_of(node)))
