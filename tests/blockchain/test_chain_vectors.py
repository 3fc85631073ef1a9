"""Golden bytes and hashes of genesis, headers, transactions, receipts and blocks.

The bytes are put together here a second time, with `struct` alone, so that the vectors do not
merely repeat what the code did on the day they were written.
"""

from __future__ import annotations

import json
import struct
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from moderntensor.blockchain.block import Block, BlockHeader, decode_body, encode_body
from moderntensor.blockchain.crypto import KeyPair
from moderntensor.blockchain.genesis import ChainConfig
from moderntensor.blockchain.merkle import MerkleTree
from moderntensor.blockchain.transaction import Transaction, TransactionReceipt
from moderntensor.errors import DecodeError
from moderntensor.wire import Record

GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "vectors" / "chain.json").read_text()
)
KINDS: list[tuple[type[Record], str]] = [
    (BlockHeader, "headers"),
    (Transaction, "transactions"),
    (TransactionReceipt, "receipts"),
]
RECORDS = [(kind, vector) for kind, name in KINDS for vector in GOLDEN[name]]
every_record = pytest.mark.parametrize(
    ("kind", "vector"), RECORDS, ids=[f"{k.__name__}: {v['name']}" for k, v in RECORDS]
)


def each(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("vector", GOLDEN[name], ids=lambda v: v["name"])


def named(section: str, name: str) -> dict[str, Any]:
    (found,) = (vector for vector in GOLDEN[section] if vector["name"] == name)
    return found  # type: ignore[no-any-return]


def values(vector: dict[str, Any]) -> dict[str, Any]:
    return {k: bytes.fromhex(v) if isinstance(v, str) else v for k, v in vector["fields"].items()}


def header_bytes(f: dict[str, Any]) -> bytes:
    encoded: bytes = (
        struct.pack(">IQQ", f["version"], f["height"], f["timestamp"])
        + f["previous_hash"] + f["state_root"] + f["txs_root"] + f["receipts_root"]
        + f["validator"]
        + struct.pack(">QQB", f["gas_used"], f["gas_limit"], len(f["extra_data"]))
        + f["extra_data"] + f["signature"]
    )  # fmt: skip
    return encoded


def transaction_bytes(f: dict[str, Any]) -> bytes:
    encoded: bytes = (
        struct.pack(">QQ", f["chain_id"], f["nonce"])
        + (b"\0" if f["to"] is None else b"\1" + f["to"])
        + f["value"].to_bytes(16, "big")
        + struct.pack(">QQI", f["gas_price"], f["gas_limit"], len(f["data"]))
        + f["data"] + bytes([f["v"]]) + f["r"] + f["s"]
    )  # fmt: skip
    return encoded


def receipt_bytes(f: dict[str, Any]) -> bytes:
    return f["transaction_hash"] + struct.pack(">BQ", f["status"], f["gas_used"])  # type: ignore[no-any-return]


BY_HAND = {
    BlockHeader: header_bytes,
    Transaction: transaction_bytes,
    TransactionReceipt: receipt_bytes,
}


@every_record
def test_records_are_their_golden_bytes(kind: type[Any], vector: dict[str, Any]) -> None:
    encoded = bytes.fromhex(vector["encoded"])
    assert BY_HAND[kind](values(vector)) == encoded
    assert kind(**values(vector)).encode() == encoded
    assert kind.decode(encoded) == kind(**values(vector))
    assert list(vector["fields"]) == [name for name, _ in kind.__fields__]


@every_record
def test_records_on_both_twins(engine: Any, kind: type[Any], vector: dict[str, Any]) -> None:
    layout = engine.layout.Layout(kind, kind.__fields__)
    encoded = bytes.fromhex(vector["encoded"])
    assert layout.pack(kind(**values(vector))) == encoded
    decoded = layout.unpack(encoded)
    assert type(decoded) is kind
    assert decoded == kind(**values(vector))
    for cut in range(len(encoded)):
        with pytest.raises(DecodeError):
            layout.unpack(encoded[:cut])
    for more in (b"\0", b"\xff", encoded):
        with pytest.raises(DecodeError, match="trailing"):
            layout.unpack(encoded + more)


@each("headers")
def test_header_hashes(engine: Any, vector: dict[str, Any]) -> None:
    encoded, header = bytes.fromhex(vector["encoded"]), BlockHeader(**values(vector))
    assert 261 <= len(encoded) <= 293
    assert len(encoded) == vector["unsigned_size"] + 64
    signing_hash = sha256(b"moderntensor/header/1" + encoded[:-64]).digest()
    assert header.signing_hash.hex() == vector["signing_hash"] == signing_hash.hex()
    assert header.hash.hex() == vector["hash"] == sha256(encoded).hexdigest()
    assert header.verify_signature() is vector["signature_valid"]
    batch = engine.headers.HeaderBatch.join([encoded])
    assert batch.hash(0) == header.hash
    assert batch.signing_hash(0) == header.signing_hash
    assert batch.signature(0) == header.signature
    assert batch.validator(0) == header.validator


@each("transactions")
def test_transaction_hashes(vector: dict[str, Any]) -> None:
    encoded, transaction = bytes.fromhex(vector["encoded"]), Transaction(**values(vector))
    assert len(encoded) == vector["unsigned_size"] + 65
    signing_hash = sha256(b"moderntensor/tx-sign/1" + encoded[:-65]).digest()
    assert transaction.signing_hash.hex() == vector["signing_hash"] == signing_hash.hex()
    named_hash = sha256(b"moderntensor/tx-id/1" + encoded).digest()
    assert transaction.hash.hex() == vector["hash"] == named_hash.hex()
    assert transaction.sender.hex() == vector["sender"]
    assert transaction.intrinsic_gas == vector["intrinsic_gas"]


@each("keys")
def test_keys(vector: dict[str, Any]) -> None:
    key = KeyPair.from_secret(sha256(vector["name"].encode()).digest())
    assert key.secret.hex() == vector["secret"]
    assert key.public_key.hex() == vector["public_key"]
    assert key.address.hex() == vector["address"]


@each("blocks")
def test_blocks(engine: Any, vector: dict[str, Any]) -> None:
    header = bytes.fromhex(named("headers", vector["header"])["encoded"])
    raw = [bytes.fromhex(named("transactions", name)["encoded"]) for name in vector["transactions"]]
    receipts = [
        bytes.fromhex(named("receipts", name)["encoded"]) for name in vector["transactions"]
    ]
    body = struct.pack(">I", len(raw)) + b"".join(struct.pack(">I", len(t)) + t for t in raw)
    assert body.hex() == vector["body"]
    block = Block.assemble(header, body)
    assert block.body == body == encode_body(decode_body(body))
    assert block.encode() == header + body
    assert Block.decode(header + body) == block
    assert sha256(header + body).hexdigest() == vector["sha256_of_encoded"]
    assert block.header.txs_root.hex() == vector["txs_root"]
    assert block.header.receipts_root.hex() == vector["receipts_root"]
    assert engine.merkle.body_root(body) == (block.header.txs_root, len(raw))
    assert MerkleTree(raw).root == block.header.txs_root
    assert MerkleTree(receipts).root == block.header.receipts_root
    layout = engine.layout.Layout(Block, Block.__fields__)
    assert layout.unpack(header + body) == block
    assert layout.pack(block) == header + body


@each("genesis")
def test_genesis(engine: Any, vector: dict[str, Any]) -> None:
    config = ChainConfig.from_json(json.dumps(vector["file"]))
    constants = (
        struct.pack(">QIQI", config.chain_id, config.block_time, config.gas_limit,
                    config.snapshot_interval)
        + struct.pack(">H", len(config.validators)) + b"".join(config.validators)
    )  # fmt: skip
    extra_data = sha256(b"moderntensor/genesis/1" + constants).digest()
    leaves = sorted(
        sha256(address).digest() + bytes(8) + balance.to_bytes(16, "big") + bytes(64)
        for address, balance in config.alloc.items()
    )
    state_root, count = engine.merkle.state_subtree(b"".join(leaves))
    assert count == len(config.alloc)
    expected = header_bytes(
        {
            "version": 1,
            "height": 0,
            "timestamp": config.timestamp,
            "previous_hash": bytes(32),
            "state_root": state_root,
            "txs_root": bytes(32),
            "receipts_root": bytes(32),
            "validator": bytes(32),
            "gas_used": 0,
            "gas_limit": config.gas_limit,
            "extra_data": extra_data,
            "signature": bytes(64),
        }
    )
    header = config.genesis_header
    assert header.encode() == expected == bytes.fromhex(vector["header"])
    assert header.extra_data.hex() == vector["extra_data"]
    assert header.state_root.hex() == vector["state_root"]
    assert config.genesis_hash.hex() == vector["hash"] == sha256(expected).hexdigest()
    assert config.genesis_block.encode() == expected + bytes(4)
    assert json.loads(config.to_json()) == vector["file"]


def test_a_state_root_by_hand() -> None:
    """Three accounts, hashed without the engine, whatever their paths share."""
    config = ChainConfig.from_json(json.dumps(GOLDEN["genesis"][0]["file"]))
    leaves = {
        int.from_bytes(sha256(address).digest(), "big"): sha256(address).digest()
        + bytes(8) + balance.to_bytes(16, "big") + bytes(64)
        for address, balance in config.alloc.items()
    }  # fmt: skip

    def tree(keys: list[int], depth: int) -> bytes:
        if not keys:
            return bytes(32)
        if len(keys) == 1:
            return sha256(b"\0" + leaves[keys[0]]).digest()
        right = [key for key in keys if key >> (255 - depth) & 1]
        left = [key for key in keys if key not in right]
        parts = [tree(half, depth + 1) + len(half).to_bytes(8, "big") for half in (left, right)]
        return sha256(b"\1" + b"".join(parts)).digest()

    assert config.genesis_header.state_root == tree(sorted(leaves), 0)
