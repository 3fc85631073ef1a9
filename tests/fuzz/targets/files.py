"""What people and disks hand to a node: genesis files, addresses as text, its own small files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from moderntensor.blockchain.genesis import ChainConfig
from moderntensor.errors import ConfigError
from moderntensor.network import addresses

from ..reader import Reader
from . import Target

VECTORS = Path(__file__).parents[2] / "vectors" / "chain.json"

_GENESIS_FIELDS = (
    "chain_id", "timestamp", "block_time", "gas_limit", "snapshot_interval", "max_reorg_depth",
    "validators", "alloc", "checkpoints",
)  # fmt: skip
_KEYS = (
    "a94375495be3e004b32d658fcd4c1e5c1bc3f5dbb6d1e3bc9f5bd9a9e4d3d6c2",
    "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
    "0x" + "79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798",
)


def _json_value(reader: Reader, depth: int = 0) -> Any:  # noqa: PLR0911 - one for each kind
    match reader.below(11 if depth < 3 else 8):
        case 0:
            return reader.below(64)
        case 1:
            return reader.number(8)
        case 2:
            return reader.pick((2**64 - 1, 2**64, 2**128, -1, 0, 1.5, 1e400, True, None))
        case 3:
            return reader.chunk().decode("latin-1")
        case 4:
            return str(reader.number(4))
        case 5:
            return reader.fixed(20).hex()
        case 6:
            return "0x" + reader.fixed(32).hex()
        case 7:
            return reader.pick(_KEYS)
        case 8:
            return [_json_value(reader, depth + 1) for _ in range(reader.below(4))]
    return {
        str(_json_value(reader, 3)): _json_value(reader, depth + 1) for _ in range(reader.below(4))
    }


def _genesis_text(data: bytes) -> str | None:
    """The input as a genesis file, or a genesis file made as the input says."""
    if data[:1] != b"\0":
        with suppress(UnicodeDecodeError):
            return data.decode()
        return None
    reader = Reader(data[1:])
    document: dict[str, Any] = {"chain_id": 1, "timestamp": 1_700_000_000}
    while reader.left and len(document) < 16:
        name = reader.pick((*_GENESIS_FIELDS, "other"))
        match reader.below(4):
            case 0:
                document.pop(name, None)
            case 1 if name == "validators":
                document[name] = [reader.pick(_KEYS) for _ in range(reader.below(3))]
            case 1 if name in ("alloc", "checkpoints"):
                document[name] = {
                    reader.fixed(20).hex() if name == "alloc" else str(reader.number(2)): (
                        str(reader.number(16)) if name == "alloc" else reader.fixed(32).hex()
                    )
                    for _ in range(reader.below(4))
                }
            case _:
                document[name] = _json_value(reader)
    return json.dumps(document)


def genesis(data: bytes) -> None:
    text = _genesis_text(data)
    if text is None:
        return
    try:
        config = ChainConfig.from_json(text)
    except ConfigError:
        return
    again = ChainConfig.from_json(config.to_json())
    assert again == config, "written and read, it is another chain"
    assert again.genesis_hash == config.genesis_hash
    assert config.rules.validators == config.validators


def address_text(data: bytes) -> None:
    """``host:port``, with and without the id of who is there, and addresses in 16 bytes."""
    text = data.decode("latin-1")
    with suppress(ConfigError):
        host, port = addresses.parse_address(text)
        assert 0 < port < 65536
        assert addresses.parse_address(addresses.format_address(host, port)) == (host, port)
        _judge(host, text)
    with suppress(ConfigError):
        found = addresses.parse_node_address(text)
        assert 0 < found.port < 65536
        assert found.node_id is None or len(found.node_id) == 32
        if found.node_id is None:
            assert addresses.parse_address(text) == (found.host, found.port)
    ip = data[:16].ljust(16, b"\0")
    host = addresses.from_wire(ip)
    assert addresses.to_wire(host) == ip, "another address on the wire"
    assert addresses.canonical(host) == host, "two spellings of one address"
    _judge(host, text)


def _judge(host: str, source: str) -> None:
    name = addresses.canonical(host)
    if name is not None:
        assert addresses.canonical(name) == name
        assert addresses.netgroup(name) == addresses.netgroup(host)
        assert addresses.from_wire(addresses.to_wire(host)) == name
    addresses.is_local(host)
    addresses.is_loopback(host)
    addresses.may_learn(host, source)
    addresses.may_learn(source, host)


def _genesis_seeds() -> Iterator[bytes]:
    for entry in json.loads(VECTORS.read_text(encoding="utf-8"))["genesis"]:
        yield json.dumps(entry["file"]).encode()
    yield b"\0"
    for field in range(len(_GENESIS_FIELDS)):
        yield bytes([0, field, 1, 2]) + bytes(range(60))
        yield bytes([0, field, 2, 8, 2, 0, 1, 3, 3]) + b"abcdef" * 8


def _address_seeds() -> Iterator[bytes]:
    for text in (
        "127.0.0.1:30303", "[::1]:1", "example.org:65535", "[::ffff:10.0.0.1]:80", "1.2.3.4:0",
        "[fe80::1%eth0]:30303", "::1:3", f"{'ab' * 32}@10.1.2.3:4", f"{'ab' * 31}@h:4", "@h:1",
        f"{'0' * 64}@[2001:db8::1]:30303", "a:b:c", "\xff:1", ":1", "h:", "h:99999", "h:٣",
    ):  # fmt: skip
        yield text.encode("latin-1", "replace")
    for ip in ("00" * 16, "00" * 10 + "ffff7f000001", "20010db8" + "00" * 12, "fe80" + "00" * 14):
        yield bytes.fromhex(ip)


TARGETS = {
    "genesis": Target(
        genesis,
        _genesis_seeds,
        longest=2048,
        words=(*(f'"{name}":'.encode() for name in _GENESIS_FIELDS), b"{", b"}", b"[", b'"0x'),
        native=False,
    ),
    "addresses": Target(
        address_text,
        _address_seeds,
        longest=200,
        words=(b"@", b"::", b"[", b"]", b":30303", b"%", b"ffff", b"0x"),
        native=False,
    ),
}
