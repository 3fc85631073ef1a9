"""What a chain is made of, from bytes: headers, transactions, bodies, blocks, signatures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from moderntensor.blockchain.block import Block, BlockHeader, decode_body, encode_body
from moderntensor.blockchain.crypto import CURVE, KeyPair
from moderntensor.blockchain.transaction import Transaction, TransactionReceipt, identify
from moderntensor.errors import CryptoError, DecodeError, InvalidTransactionError

from ..reader import Reader
from ..twins import same
from . import Target
from .messages import layouts_of, round_trip

VECTORS = Path(__file__).parents[2] / "vectors" / "chain.json"

_LAYOUTS = {cls: layouts_of(cls) for cls in (Transaction, BlockHeader, Block, TransactionReceipt)}
_KEY = KeyPair.from_secret(b"\x11" * 32)


def transactions(data: bytes) -> None:
    found = round_trip(_LAYOUTS[Transaction], data)
    round_trip(_LAYOUTS[TransactionReceipt], data)
    if found is None:
        return
    try:
        sender: bytes | None = found.sender
    except CryptoError:
        sender = None
    again = Transaction.decode_hashed(data)
    identify([again])
    assert again.hash == found.hash, "two hashes of one transaction"
    assert getattr(again, "_sender", None) == sender, "two senders of one transaction"
    try:
        assert again.validate(again.chain_id, 30_000_000) == sender
    except InvalidTransactionError as error:
        assert error.rule, "a rule without a name"


def blocks(data: bytes) -> None:
    found = round_trip(_LAYOUTS[Block], data)
    header = round_trip(_LAYOUTS[BlockHeader], data)
    if header is not None:
        assert len(header.hash) == len(header.signing_hash) == 32
        header.verify_signature()
    size = 261 + data[196] if len(data) > 196 else 0
    try:
        assert Block.assemble(data[:size], data[size:]) == found, "two readings of one block"
    except DecodeError:
        assert found is None, "a block that does not come apart"
    try:
        body = decode_body(data)
    except DecodeError:
        return
    assert encode_body(body) == data, "another encoding of the same"
    kind, root = same(lambda e: e.merkle.body_root(data))
    assert kind == "value", "a body without a root"
    assert root[1] == len(body)


def signatures(data: bytes) -> None:
    """Packed items made of good ones and of the input's bytes."""
    reader = Reader(data)
    verify, recover = bytearray(), bytearray()
    for _ in range(reader.below(4)):
        message = reader.fixed(32) if reader.flag() else bytes(32)
        verify += _KEY.public_key + message + _KEY.sign(message)
        v, r, s = _KEY.sign_recoverable(message)
        recover += message + bytes([v]) + r + s
    for items in (verify, recover):
        for _ in range(reader.below(3)):
            at = reader.number(2) % (len(items) + 1)
            items[at : at + 1] = reader.chunk()
    for name, items in (("verify_many", verify), ("recover_many", recover)):
        packed = bytes(items)
        same(lambda e, n=name, p=packed: getattr(e.signatures, n)(CURVE, p))
    rest = reader.rest()
    same(lambda e: e.signatures.verify_many(CURVE, rest))
    same(lambda e: e.signatures.recover_many(CURVE, rest))


def _vectors(*kinds: str) -> Iterator[bytes]:
    found = json.loads(VECTORS.read_text(encoding="utf-8"))
    for kind in kinds:
        for entry in found[kind]:
            if len(entry["encoded"]) < 8000:
                yield bytes.fromhex(entry["encoded"])


def _block_seeds() -> Iterator[bytes]:
    yield from _vectors("headers")
    found = json.loads(VECTORS.read_text(encoding="utf-8"))
    header = bytes.fromhex(found["headers"][0]["encoded"])
    for block in found["blocks"]:
        body = bytes.fromhex(block["body"])
        if len(body) < 4000:
            yield body
            yield header + body


def _signature_seeds() -> Iterator[bytes]:
    yield bytes([3, 0, 0, 0, 0, 0])
    yield bytes([2, 1]) + bytes(range(32)) + bytes([0, 1, 0, 200, 1, 7, 1, 0, 32, 1, 2])
    yield bytes([0, 0, 0]) + bytes(97 * 128)[:388]


TARGETS = {
    "transactions": Target(transactions, lambda: _vectors("transactions", "receipts")),
    "blocks": Target(blocks, _block_seeds),
    "signatures": Target(signatures, _signature_seeds, longest=1024),
}
