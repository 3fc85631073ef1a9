"""Checking a stored chain again, trusting nothing of what is stored: `chain verify`."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from ..backend import headers
from ..blockchain.chain import Blockchain, ChainHead
from ..blockchain.prepared import decode_body
from ..blockchain.state_build import Rows, build_state
from ..blockchain.state_slots import active, staging
from ..blockchain.tables import ADDRESS_INDEX, CANONICAL, TABLES, TX_INDEX
from ..errors import DecodeError, ValidationError
from ..storage import ReadTransaction, Store, open_store
from .output import count, progress, working

VERIFY_BATCH = 512  # blocks executed and committed at once
COMPARE_BATCH = 4096  # entries of a table held at once
# What the blocks determine, entry by entry; the other tables also hold what was never executed.
DERIVED = (CANONICAL, TX_INDEX, ADDRESS_INDEX)


def verify_chain(chain: Blockchain) -> str:
    """Check a chain from its genesis, executing it wherever it can be; what was checked, in words.

    ValidationError names the first thing that is wrong.
    """
    logging.getLogger("moderntensor.blockchain").setLevel(logging.ERROR)  # said by the error itself
    with (
        tempfile.TemporaryDirectory() as scratch,
        open_store(Path(scratch) / "chain", TABLES) as store,
    ):
        derived = Blockchain(store, chain.config)
        if chain.earliest_height == 0 and derived.has_state:
            return _verify_by_execution(chain, derived)
        return _verify_by_proof(chain, derived)


def _verify_by_execution(chain: Blockchain, derived: Blockchain) -> str:
    progress("verifying", chain.head.height, _replay(chain, derived, _execute))
    _same_head(chain, derived.head)
    with chain.store.read() as stored, derived.store.read() as other:
        names = [(name, name) for name in DERIVED]
        names += zip(active(stored), active(other), strict=True)
        with working("comparing what is stored with what follows from the blocks"):
            for ours, theirs in names:
                _compare(ours, stored, theirs, other)
    return (
        f"{count(chain.head.height)} blocks verified: every header, signature, transaction, "
        "account and index entry"
    )


def _verify_by_proof(chain: Blockchain, derived: Blockchain) -> str:
    """Where the first blocks cannot be executed: all headers, the state under the head's root,
    and that the bodies that are here are those of their headers."""
    progress("verifying", chain.head.height, _replay(chain, derived, _compare_bodies))
    _same_head(chain, derived.header_head)
    with working("building the state again from its accounts"):
        accounts = _verify_state(chain, derived.store)
    bodies = (
        f"bodies from block {count(chain.earliest_height)} on; older ones are not here, so that "
        "their blocks were not executed again"
        if chain.earliest_height
        else "body; none was executed again, since the genesis file has no first balances"
    )
    return (
        f"{count(chain.head.height)} blocks verified: every header and signature, "
        f"{'all ' if chain.earliest_height else 'every '}{bodies}\n"
        f"{count(accounts)} accounts verified: they lead to the state root of the head"
    )


def _replay(
    source: Blockchain,
    target: Blockchain,
    check: Callable[[Blockchain, Blockchain, int, headers.HeaderBatch], ChainHead],
) -> Iterator[ChainHead]:
    """Put all headers on another chain, and check what belongs to them."""
    for start in range(1, source.head.height + 1, VERIFY_BATCH):
        batch = headers.HeaderBatch(source.headers_range(start, VERIFY_BATCH))
        if len(batch) < min(VERIFY_BATCH, source.head.height + 1 - start):
            raise ValidationError(f"the header of block {start + len(batch)} is missing")
        target.add_headers(batch)
        yield check(source, target, start, batch)


def _execute(
    source: Blockchain, target: Blockchain, start: int, batch: headers.HeaderBatch
) -> ChainHead:
    bodies = [_body(source, block_hash) for block_hash in batch.hashes()]
    target.apply_bodies(start, bodies)
    return target.head


def _compare_bodies(
    source: Blockchain, target: Blockchain, start: int, batch: headers.HeaderBatch
) -> ChainHead:
    for i, block_hash in enumerate(batch.hashes()):
        if start + i >= source.earliest_height:
            body = decode_body(_body(source, block_hash))
            if body.root != batch.txs_root(i) or body.fault is not None:
                raise ValidationError(f"the body of block {block_hash.hex()} is not its header's")
    return target.header_head


def _body(source: Blockchain, block_hash: bytes) -> bytes:
    body = source.body_of(block_hash)
    if body is None:
        raise ValidationError(f"the body of block {block_hash.hex()} is missing")
    return body


def _same_head(chain: Blockchain, reached: ChainHead) -> None:
    if reached != chain.head:
        raise ValidationError(
            f"the blocks lead to {reached.hash.hex()} at height {reached.height}, but "
            f"the stored head is {chain.head.hash.hex()} at {chain.head.height}"
        )


def _verify_state(chain: Blockchain, scratch: Store) -> int:
    """Build the state again from its accounts alone; how many there are."""
    if not chain.has_state:
        raise ValidationError("the accounts of the first state are not here")
    with scratch.read() as read:
        slot = staging(read)

    def put(rows: Rows, nodes: Rows) -> None:
        with scratch.write() as txn:
            txn.append_many(slot.accounts, rows)
            txn.put_many(slot.nodes, nodes)

    with chain.store.read() as stored:
        try:
            root, accounts = build_state(_records(stored), put)
        except DecodeError as error:
            raise ValidationError(f"table {active(stored).accounts!r}: {error}") from error
        if root != chain.head.state_root:
            raise ValidationError(
                f"the stored accounts lead to the state root {root.hex()}, not to "
                f"{chain.head.state_root.hex()} of the head"
            )
        with scratch.read() as built:
            for ours, theirs in zip(active(stored), slot, strict=True):
                _compare(ours, stored, theirs, built)
    return accounts


def _records(stored: ReadTransaction) -> Iterator[bytes]:
    table, start = active(stored).accounts, b""
    while rows := stored.range(table, start, limit=COMPARE_BATCH):
        yield b"".join([record for _, record in rows])
        start = rows[-1][0] + b"\0"


def _compare(
    table: str, stored: ReadTransaction, derived_table: str, derived: ReadTransaction
) -> None:
    """ValidationError if a table is not what the blocks lead to."""
    start = b""
    while True:
        ours = stored.range(table, start, limit=COMPARE_BATCH)
        theirs = derived.range(derived_table, start, limit=COMPARE_BATCH)
        if ours != theirs:
            entry = min(set(ours) ^ set(theirs))
            raise ValidationError(
                f"entry {entry[0].hex()} of table {table!r} is not what the blocks lead to"
            )
        if not ours:
            return
        start = ours[-1][0] + b"\0"
