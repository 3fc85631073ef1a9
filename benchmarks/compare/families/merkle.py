"""Blocks and trees: a block taken apart, its body's root, the root of the state."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from hashlib import sha256
from types import ModuleType
from typing import Any

import rlp

from moderntensor._ext import merkle as compiled
from moderntensor._pure import merkle as pure
from moderntensor.blockchain.block import Block, BlockHeader
from moderntensor.blockchain.transaction import Transaction
from moderntensor.blockchain.workload import demo_keys

from ..case import OURS, Case, Mark, Scale
from ..plain.merkle import merkle_root
from ..records_rlp import RlpBlock, rlp_block, rlp_header, rlp_transaction, values
from ..timing import calls

TITLE = "Merkle"

TRANSACTIONS = 100
PURE = "pure"
RLP = "rlp"
RLP_AND_PLAIN = "rlp and a plain Merkle"


def cases(scale: Scale) -> Iterator[Case]:
    transactions = _transactions()
    yield from _blocks(scale, transactions)
    yield _body_root(scale, transactions)
    yield _list_proof(scale)
    yield _state_root(scale)
    yield _state_proof(scale)
    yield _state_update(scale)


# --- blocks ----------------------------------------------------------------------------------


def _transactions() -> tuple[Transaction, ...]:
    """Signed transfers among eight accounts."""
    keys = demo_keys(8)
    return tuple(
        Transaction.create(
            keys[n % 8], chain_id=1, nonce=n // 8, to=keys[(n + 1) % 8].address, value=10**18 + n
        )
        for n in range(TRANSACTIONS)
    )


def _header(txs_root: bytes) -> BlockHeader:
    unsigned = BlockHeader(
        height=1_000_000,
        timestamp=1_700_000_000,
        previous_hash=sha256(b"previous").digest(),
        state_root=sha256(b"state").digest(),
        txs_root=txs_root,
        receipts_root=sha256(b"receipts").digest(),
        validator=bytes(32),
        gas_used=21_000 * TRANSACTIONS,
        gas_limit=30_000_000,
    )
    return unsigned.sign(demo_keys(1, "validator")[0])


def _blocks(scale: Scale, transactions: tuple[Transaction, ...]) -> Iterator[Case]:
    ours = Block(
        header=_header(compiled.list_root([tx.encode() for tx in transactions])),
        transactions=transactions,
    )
    theirs = rlp_block(
        Block(
            header=_header(merkle_root([rlp.encode(rlp_transaction(tx)) for tx in transactions])),
            transactions=transactions,
        )
    )
    whole, encoded = ours.encode(), rlp.encode(theirs)
    header, body = ours.header.encode(), ours.body

    def check_decoded() -> None:
        assert Block.decode(whole) == ours
        found = rlp.decode(encoded, RlpBlock)
        assert tuple(found.transactions) == rlp_block(ours).transactions
        assert found.header.copy(
            txs_root=ours.header.txs_root, signature=ours.header.signature
        ) == rlp_header(ours.header)
        assert tuple(found.transactions[7]) == values(transactions[7])

    yield Case(
        f"block of {TRANSACTIONS} transactions, decoded",
        "blocks/s",
        (calls(scale, OURS, Block.decode, whole), calls(scale, RLP, rlp.decode, encoded, RlpBlock)),
        (Mark(20, (RLP,)),),
        check_decoded,
    )

    def check_both() -> None:
        check_decoded()
        assert _taken_apart(header, body) == ours
        assert _taken_apart_by_rlp(encoded) == theirs
        wrong = header.replace(ours.header.txs_root, bytes(32))
        for bad in (
            lambda: _taken_apart(wrong, body),
            lambda: _taken_apart_by_rlp(encoded.replace(theirs.header.txs_root, bytes(32))),
        ):
            _expect(ValueError, bad)

    yield Case(
        f"block of {TRANSACTIONS} transactions, decoded and checked against txs_root",
        "blocks/s",
        (
            calls(scale, OURS, _taken_apart, header, body),
            calls(
                scale,
                RLP_AND_PLAIN,
                _taken_apart_by_rlp,
                encoded,
                differs="its leaves are the RLP encodings of the transactions, which it has to "
                "make again from what it decoded",
            ),
        ),
        (Mark(20, (RLP_AND_PLAIN,)),),
        check_both,
    )


def _taken_apart(header: bytes, body: bytes) -> Block:
    """The block of a header and of a body that was asked for."""
    block = Block.assemble(header, body)
    if compiled.body_root(body)[0] != block.header.txs_root:
        raise ValueError("the body is not its header's")
    return block


def _taken_apart_by_rlp(data: bytes) -> RlpBlock:
    block = rlp.decode(data, RlpBlock)
    if merkle_root([rlp.encode(tx) for tx in block.transactions]) != block.header.txs_root:
        raise ValueError("the body is not its header's")
    return block


def _expect(error: type[Exception], call: Callable[[], object]) -> None:
    try:
        call()
    except error:
        return
    raise AssertionError(f"no {error.__name__}")


# --- lists -----------------------------------------------------------------------------------


def _body_root(scale: Scale, transactions: tuple[Transaction, ...]) -> Case:
    body = Block(header=_header(bytes(32)), transactions=transactions).body

    def check() -> None:
        assert compiled.body_root(body) == pure.body_root(body) == (_plain_root(body), TRANSACTIONS)

    return Case(
        f"root of a body of {TRANSACTIONS} transactions",
        "bodies/s",
        (
            calls(scale, OURS, compiled.body_root, body),
            calls(scale, PURE, pure.body_root, body),
            calls(scale, "plain", _plain_root, body),
        ),
        (Mark(8, (PURE,)),),
        check,
    )


def _plain_root(body: bytes) -> bytes:
    items, at = [], 4
    while at < len(body):
        size = int.from_bytes(body[at : at + 4], "big")
        items.append(body[at + 4 : at + 4 + size])
        at += 4 + size
    return merkle_root(items)


def _list_proof(scale: Scale) -> Case:
    leaves, index = [n.to_bytes(40, "big") for n in range(1000)], 700
    root = merkle_root(leaves)

    def contender(name: str, engine: ModuleType) -> Any:
        def prove() -> bool:
            proof = engine.list_proof(leaves, index)
            return bool(engine.verify_list_proof(root, leaves[index], index, len(leaves), proof))

        return calls(scale, name, prove), prove

    (ours, proves), (theirs, proves_too) = contender(OURS, compiled), contender(PURE, pure)

    def check() -> None:
        assert proves()
        assert proves_too()
        assert compiled.list_proof(leaves, index) == pure.list_proof(leaves, index)

    return Case(
        "proof in a list of 1,000, made and verified", "proofs/s", (ours, theirs), (), check
    )


# --- state -----------------------------------------------------------------------------------


def _account(number: int) -> bytes:
    return number.to_bytes(8, "big") + (10**18 + number).to_bytes(16, "big") + bytes(64)


def _packed(count: int) -> bytes:
    """So many accounts in the order of their keys: key ‖ account."""
    keys = sorted(sha256(n.to_bytes(20, "big")).digest() for n in range(count))
    return b"".join([key + _account(n) for n, key in enumerate(keys)])


def _state_root(scale: Scale) -> Case:
    count = scale.pick(1_000_000, 20_000)
    packed = _packed(count)

    def check() -> None:
        some = packed[: 120 * 20_000]
        assert compiled.state_subtree(some) == pure.state_subtree(some)

    return Case(
        f"state root of {count:,} accounts",
        "accounts/s",
        (
            calls(scale, OURS, compiled.state_subtree, packed, units=count),
            calls(scale, PURE, pure.state_subtree, packed, units=count),
        ),
        (Mark(10, (PURE,)),),
        check,
        rounds=3,
    )


def _state_proof(scale: Scale) -> Case:
    packed = _packed(1000)
    key, account = packed[120 * 700 :][:32], packed[120 * 700 + 32 :][:88]
    root, _ = compiled.state_subtree(packed)

    def contender(name: str, engine: ModuleType) -> Any:
        def prove() -> bool:
            proof = engine.state_proof(packed, key)
            return bool(engine.verify_state_proof(root, key, account, proof))

        return calls(scale, name, prove), prove

    (ours, proves), (theirs, proves_too) = contender(OURS, compiled), contender(PURE, pure)

    def check() -> None:
        assert proves()
        assert proves_too()
        assert compiled.state_proof(packed, key) == pure.state_proof(packed, key)

    return Case(
        "proof in a state of 1,000 accounts, made and verified",
        "proofs/s",
        (ours, theirs),
        (),
        check,
    )


class _Blocks:
    """A state tree that block after block changes, each 20 accounts of it."""

    CHANGED = 20

    def __init__(self, engine: ModuleType, count: int) -> None:
        self._addresses = [n.to_bytes(20, "big") for n in range(count)]
        self._random = random.Random(count)
        self._number = 0
        self.tree = engine.StateTree(0, None, None)  # all of it in memory: nothing is read
        self.tree.apply({address: _account(0) for address in self._addresses})

    def apply(self) -> bytes:
        self._number += 1
        account = _account(self._number)
        changed = self._random.sample(self._addresses, self.CHANGED)
        return bytes(self.tree.apply(dict.fromkeys(changed, account)))


def _state_update(scale: Scale) -> Case:
    count = scale.pick(100_000, 10_000)
    ours, theirs = _Blocks(compiled, count), _Blocks(pure, count)

    def check() -> None:
        assert [ours.apply() for _ in range(20)] == [theirs.apply() for _ in range(20)]

    return Case(
        f"state root after changes, {_Blocks.CHANGED} of {count:,} accounts at a time",
        "accounts/s",
        (
            calls(scale, OURS, ours.apply, units=_Blocks.CHANGED),
            calls(scale, PURE, theirs.apply, units=_Blocks.CHANGED),
        ),
        (),
        check,
        note="without a store; choosing the accounts takes some 10 µs for both.",
    )
