"""Blocks made by hand on any parent, and a naive model of the chain to compare the real one with.

The model shares nothing with the code under test but keys, hashes and the records' encoding:
its state is a dict that is copied for every block, its roots come from the reference helpers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from helpers import state_reference
from moderntensor.backend import merkle
from moderntensor.blockchain import tables
from moderntensor.blockchain.block import Block, BlockHeader
from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.crypto import KeyPair, validator_address
from moderntensor.blockchain.genesis import ChainConfig
from moderntensor.blockchain.lookup import HeaderBatch
from moderntensor.blockchain.transaction import Transaction, TransactionReceipt
from moderntensor.blockchain.workload import demo_config, demo_keys
from moderntensor.runtime import Runtime
from moderntensor.storage import Store, open_store

State = dict[bytes, tuple[int, int]]

ACCOUNTS = demo_keys(4)
VALIDATORS = demo_keys(3, "validator")
STRANGER = demo_keys(1, "stranger")[0]


class SetClock(Runtime):
    """A runtime whose wall clock shows what it is told to."""

    def __init__(self, now: float) -> None:
        super().__init__(1)
        self.now = now

    def wall_time(self) -> float:
        return self.now


def state_root(state: State) -> bytes:
    """From the definition, over all accounts that exist."""
    root, _ = state_reference.subtree(
        [
            (sha256(address).digest(), state_reference.account(nonce, balance))
            for address, (nonce, balance) in state.items()
            if nonce or balance
        ]
    )
    return root


class ChainMaker:
    """Makes blocks on any block that it made before, keeping the state after each."""

    def __init__(
        self,
        validators: Sequence[KeyPair] = (),
        *,
        snapshot_interval: int = 1024,
        **settings: Any,
    ) -> None:
        self.keys = validators
        config = demo_config(ACCOUNTS, validators, **settings)
        self.config: ChainConfig = replace(config, snapshot_interval=snapshot_interval)
        self.genesis = Block(header=self.config.genesis_header)
        self.states: dict[bytes, State] = {
            self.genesis.hash: {a: (0, balance) for a, balance in self.config.alloc.items()}
        }
        self.blocks: dict[bytes, Block] = {self.genesis.hash: self.genesis}

    def transfer(
        self,
        parent: Block,
        sender: int = 0,
        to: int | bytes | None = 1,
        ahead: int = 0,
        **fields: Any,
    ) -> Transaction:
        """The next transaction of an account after `parent`, or the one `ahead` further."""
        key = ACCOUNTS[sender]
        nonce = self.states[parent.hash].get(key.address, (0, 0))[0] + ahead
        return Transaction.create(
            key,
            **{
                "chain_id": self.config.chain_id,
                "nonce": nonce,
                "to": ACCOUNTS[to].address if isinstance(to, int) else to,
                "value": 1000,
                **fields,
            },
        )

    def block(
        self,
        parent: Block,
        transactions: Sequence[Transaction] = (),
        *,
        gap: int = 1,
        key: KeyPair | None = None,
        **changes: Any,
    ) -> Block:
        """A signed block `gap` slots after its parent. `changes` replace header fields before
        it is signed, or its signature."""
        config = self.config
        slot = config.slot_of(parent.header.timestamp) + gap
        if key is None:
            key = self.keys[slot % len(self.keys)] if self.keys else VALIDATORS[0]
        state = dict(self.states[parent.hash])
        receipts = [
            self._execute(state, tx, validator_address(key.public_key)) for tx in transactions
        ]
        encoded = [tx.encode() for tx in transactions]
        fields: dict[str, Any] = {
            "height": parent.height + 1,
            "timestamp": config.timestamp + slot * config.block_time,
            "previous_hash": parent.hash,
            "state_root": self.root_of(state),
            "txs_root": merkle.list_root(encoded),
            "receipts_root": merkle.list_root([receipt.encode() for receipt in receipts]),
            "validator": key.public_key,
            "gas_used": sum(receipt.gas_used for receipt in receipts),
            "gas_limit": config.gas_limit,
        }
        signature = changes.pop("signature", None)
        validator = changes.get("validator")
        header = BlockHeader(**{**fields, **changes})
        signed = header.sign(key) if validator is None else header
        if signature is not None:
            signed = signed.replace(signature=signature)
        block = Block(header=signed, transactions=tuple(transactions))
        self.states[block.hash] = {a: funds for a, funds in state.items() if funds != (0, 0)}
        self.blocks[block.hash] = block
        return block

    def root_of(self, state: State) -> bytes:
        """The root of a state, of which a subclass may know more than its definition."""
        return state_root(state)

    @staticmethod
    def _execute(state: State, tx: Transaction, validator: bytes) -> TransactionReceipt:
        """Without any check: what is wrong in a test is wrong on purpose."""

        def move(address: bytes, amount: int) -> None:
            nonce, balance = state.get(address, (0, 0))
            state[address] = (nonce, max(0, balance + amount))

        fee = tx.intrinsic_gas * tx.gas_price
        nonce, balance = state.get(tx.sender, (0, 0))
        state[tx.sender] = (nonce + 1, balance)
        if tx.to is not None:
            move(tx.sender, -tx.value)
            move(tx.to, tx.value)
        move(tx.sender, -fee)
        move(validator, fee)
        return TransactionReceipt(transaction_hash=tx.hash, gas_used=tx.intrinsic_gas)

    def run(
        self, parent: Block, count: int, *, gap: int = 1, transfers: int = 0, value: int = 1000
    ) -> list[Block]:
        """`count` blocks in a row, the first `gap` slots after `parent`, with so many transfers
        each. Runs of the same value have transactions in common."""
        made = []
        for _ in range(count):
            size = len(ACCOUNTS)
            transactions = [
                self.transfer(parent, n % size, (n + 1) % size, n // size, value=value)
                for n in range(transfers)
            ]
            parent = self.block(parent, transactions, gap=gap)
            made.append(parent)
            gap = 1
        return made


def headers_of(blocks: Sequence[Block]) -> HeaderBatch:
    return HeaderBatch.join([block.header.encode() for block in blocks])


def bodies_of(blocks: Sequence[Block]) -> list[bytes]:
    return [block.body for block in blocks]


@contextmanager
def opened(kind: str, tmp_path: Path, name: str = "store") -> Iterator[Store]:
    """A store of either kind with the chain's tables."""
    path = tmp_path / name if kind == "lmdb" else None
    with open_store(path, tables.TABLES, map_size=64 << 20) as store:
        yield store


def dump(store: Store, *names: str) -> Mapping[str, list[tuple[bytes, bytes]]]:
    """Everything in some tables, or in all."""
    with store.read() as txn:
        return {name: txn.range(name) for name in names or tables.TABLES}


EXECUTED = (
    tables.CANONICAL,
    tables.TX_INDEX,
    tables.ADDRESS_INDEX,
    tables.ACCOUNTS,
    tables.NODES,
)


def check_books(chain: Blockchain) -> None:
    """What must hold of the store after every commit, whatever happened before."""
    with chain.store.read() as txn:
        heads = {name: txn.range(name) for name in (tables.CANONICAL, tables.PENDING, tables.SIDE)}
        index = dict(txn.range(tables.INDEX))
        bodies = dict(txn.range(tables.BODIES))
        undo = [key for key, _ in txn.range(tables.UNDO)]
        final = txn.get(tables.META, tables.META_FINAL) or bytes(8)
    batches = {name: [HeaderBatch.join([raw]) for _, raw in rows] for name, rows in heads.items()}
    executed = batches[tables.CANONICAL]
    pending = batches[tables.PENDING]
    known = [b for rows in batches.values() for b in rows]
    assert index == {b.hash(0): b.height(0).to_bytes(8, "big") for b in known}
    for name in (tables.CANONICAL, tables.PENDING):
        assert [key for key, _ in heads[name]] == [
            b.height(0).to_bytes(8, "big") for b in batches[name]
        ]
        for below, above in zip(batches[name], batches[name][1:], strict=False):
            assert above.previous_hash(0) == below.hash(0)
    assert executed[-1].hash(0) == chain.head.hash
    assert len(executed) == chain.head.height + 1
    if pending:
        fork = pending[0].height(0) - 1
        assert pending[0].previous_hash(0) == executed[fork].hash(0)
        assert pending[-1].height(0) > chain.head.height
        assert fork + 1 == len(executed) or executed[fork + 1].hash(0) != pending[0].hash(0)
        assert chain.header_head.hash == pending[-1].hash(0)
    else:
        assert chain.header_head == chain.head
    stored = executed + batches[tables.SIDE]
    wanted = {
        b.height(0).to_bytes(8, "big") + b.hash(0) for b in stored if b.txs_root(0) != bytes(32)
    }
    assert set(bodies) == wanted
    limit = int.from_bytes(final, "big")
    assert (
        {
            b.height(0).to_bytes(8, "big") + b.hash(0)
            for b in executed
            if b.height(0) > limit and b.txs_root(0) != bytes(32)
        }
        <= set(undo)
        <= set(bodies)
    )
