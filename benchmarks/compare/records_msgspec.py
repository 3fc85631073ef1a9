"""Messages and transactions as msgspec structs: the fields of ours, in their order.

Declared as msgspec's documentation says is fastest: frozen, as arrays instead of maps, out of the
collector's sight. MessagePack has no integers of 128 bits, so a value is sixteen bytes here.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Hello(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A `HelloMessage`."""

    protocol_version: int
    network_id: int
    genesis_hash: bytes
    best_height: int
    best_hash: bytes
    listen_port: int
    node_id: bytes
    capabilities: tuple[str, ...]
    user_agent: str
    earliest_height: int
    max_inflight: int
    max_per_type: int
    observed_ip: bytes
    observed_port: int
    nonce: int


class GetHeaders(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A `GetHeadersMessage`."""

    request_id: int
    start_height: int
    max_headers: int
    stride: int
    on_chain: bytes | None
    locator: tuple[bytes, ...]


class Headers(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A `HeadersMessage`; its headers are one run of bytes, as in ours."""

    request_id: int
    status: int
    retry_ms: int
    headers: bytes


class NewTransaction(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A `NewTransactionMessage`; its transactions are encoded already, as in ours."""

    transactions: tuple[bytes, ...]
    announced: tuple[bytes, ...]


class Transaction(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A `Transaction`."""

    chain_id: int
    nonce: int
    to: bytes | None
    value: bytes
    gas_price: int
    gas_limit: int
    data: bytes
    v: int
    r: bytes
    s: bytes


def msgspec_record(record: Any, struct: type[Any]) -> Any:
    """One of our records as that struct."""
    values = {name: getattr(record, name) for name in struct.__struct_fields__}
    if struct is Transaction:
        values["value"] = values["value"].to_bytes(16, "big")
    return struct(**values)


def held(record: Any) -> dict[str, Any]:
    """What a struct holds, by name, as our record would hold it."""
    values = {name: getattr(record, name) for name in record.__struct_fields__}
    if type(record) is Transaction:
        values["value"] = int.from_bytes(values["value"], "big")
    return values
