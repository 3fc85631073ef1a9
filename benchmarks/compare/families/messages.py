"""Messages and transactions: from the object that a program handles to bytes, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
import rlp

from moderntensor._pure.layout import Layout as PureLayout
from moderntensor.blockchain.transaction import Transaction
from moderntensor.network.messages import (
    GetHeadersMessage,
    HeadersMessage,
    HelloMessage,
    NewTransactionMessage,
)
from moderntensor.wire import Record

from .. import records_msgspec as structs
from .. import records_protobuf as protobuf
from ..case import OURS, Case, Mark, Scale
from ..plain.codec import HEADER, PlainGetHeaders, PlainHello, PlainTransaction, to_plain
from ..records_rlp import RlpTransaction, rlp_transaction
from ..timing import calls

TITLE = "Messages"

NO_BOUNDS = "checks types, but neither the ranges of numbers nor the lengths of hashes and lists"
LAZY = "makes Python values only when they are read; no ranges, no lengths"
JSON = "hashes in hexadecimal; makes the whole frame, no lengths or ranges"
RLP = "numbers without leading zeros; no ranges of numbers"

HEADERS_CARRIED = 192
TRANSACTIONS_CARRIED = 10

HELLO = HelloMessage(
    genesis_hash=b"\x01" * 32,
    best_height=123_456,
    best_hash=b"\x02" * 32,
    listen_port=30303,
    node_id=b"\x03" * 32,
    capabilities=("sync/1", "relay/1", "state/1"),
    user_agent="moderntensor/0.1.0",
    observed_ip=bytes(10) + b"\xff\xff\x7f\x00\x00\x01",
    observed_port=40_000,
    nonce=0x0123456789ABCDEF,
)
GET_HEADERS = GetHeadersMessage(
    request_id=77,
    start_height=123_456,
    locator=tuple(bytes([n]) * 32 for n in range(12)),
)
TRANSACTION = Transaction(
    chain_id=1,
    nonce=42,
    to=b"\x04" * 20,
    value=3 * 10**18,
    gas_limit=21_000,
    v=1,
    r=b"\x05" * 32,
    s=b"\x06" * 32,
)


def cases(scale: Scale) -> Iterator[Case]:
    yield from _both_ways(
        scale,
        "HELLO",
        HELLO,
        structs.Hello,
        plain=PlainHello,
        encode_marks=(Mark(1.4, ("msgspec",)),),
        decode_marks=(Mark(1.1, ("msgspec",)),),
    )
    yield from _both_ways(
        scale,
        "GET_HEADERS, 12 hashes",
        GET_HEADERS,
        structs.GetHeaders,
        plain=PlainGetHeaders,
        encode_marks=(Mark(2.5, ("msgspec",)),),
        decode_marks=(Mark(1.2, ("msgspec",)),),
    )
    yield from _both_ways(
        scale,
        "transaction",
        TRANSACTION,
        structs.Transaction,
        plain=PlainTransaction,
        encode_marks=(Mark(1.0, ("msgspec",)), Mark(20.0, ("rlp",))),
        decode_marks=(Mark(1.05, ("msgspec",)), Mark(20.0, ("rlp",))),
        note="no side keeps an encoding for the next call (rlp: cache=False)",
    )
    yield from _both_ways(
        scale,
        f"NEW_TRANSACTION, {TRANSACTIONS_CARRIED} transactions",
        NewTransactionMessage(transactions=(TRANSACTION.encode(),) * TRANSACTIONS_CARRIED),
        structs.NewTransaction,
    )
    yield from _both_ways(
        scale,
        f"HEADERS, {HEADERS_CARRIED} headers",
        HeadersMessage(request_id=77, headers=_headers(HEADERS_CARRIED)),
        structs.Headers,
        note="ours walks through every header, whose parts have lengths; others carry any bytes",
    )


def _headers(count: int) -> bytes:
    """Encoded headers behind their count; only their form matters here."""
    header = bytes(196) + bytes([0]) + bytes(64)
    return count.to_bytes(2, "big") + header * count


@dataclass(frozen=True, slots=True)
class Codec:
    """One way to encode a record: the object that is encoded, and what a decoded one holds."""

    name: str
    made: Any
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    held: Callable[[Any], dict[str, Any]]
    differs: str = ""
    before: int = 0  # bytes of its encoding that its own decoder is not given

    @property
    def encoded(self) -> bytes:
        return self.encode(self.made)[self.before :]


def _both_ways(
    scale: Scale,
    name: str,
    record: Record,
    struct: type[Any],
    *,
    plain: type[Any] | None = None,
    encode_marks: tuple[Mark, ...] = (),
    decode_marks: tuple[Mark, ...] = (),
    note: str = "",
) -> Iterator[Case]:
    """A case for each direction."""
    codecs = list(_codecs(record, struct, plain))
    held = _held(record)

    def check() -> None:
        for codec in codecs:
            decoded = codec.decode(codec.encoded)
            assert decoded == codec.made, codec.name
            assert codec.held(decoded) == held, codec.name

    sizes = ", ".join(f"{codec.name} {len(codec.encoded)}" for codec in codecs)
    yield Case(
        f"{name}, encode",
        "messages/s",
        tuple(
            calls(scale, codec.name, codec.encode, codec.made, differs=codec.differs)
            for codec in codecs
        ),
        encode_marks,
        check,
        note=f"bytes: {sizes}{'; ' if note else ''}{note}",
    )
    yield Case(
        f"{name}, decode",
        "messages/s",
        tuple(
            calls(scale, codec.name, codec.decode, codec.encoded, differs=codec.differs)
            for codec in codecs
        ),
        decode_marks,
        check,
    )


def _codecs(record: Record, struct: type[Any], plain: type[Any] | None) -> Iterator[Codec]:
    cls = type(record)
    # What a program calls: `record.encode()` and `Class.decode(data)`.
    yield Codec(OURS, record, cls.encode, cls.decode, _held)
    pure = PureLayout(cls, cls.__fields__, cls.MAX_SIZE)
    yield Codec("pure", record, pure.pack, pure.unpack, _held)
    yield Codec(
        "msgspec",
        structs.msgspec_record(record, struct),
        msgspec.msgpack.Encoder().encode,
        msgspec.msgpack.Decoder(struct).decode,
        structs.held,
        NO_BOUNDS,
    )
    made = protobuf.protobuf_record(record, struct.__name__)
    proto = type(made)
    yield Codec("protobuf", made, proto.SerializeToString, proto.FromString, protobuf.held, LAZY)
    if plain is not None:
        yield Codec(
            "plain",
            to_plain(record, plain),
            plain.encode,
            plain.decode,
            lambda decoded: _from_plain(decoded, record),
            JSON,
            before=HEADER.size,
        )
    if isinstance(record, Transaction):
        yield Codec(
            "rlp",
            rlp_transaction(record),
            partial(rlp.encode, cache=False),
            partial(rlp.decode, sedes=RlpTransaction),
            lambda decoded: {**decoded.as_dict(), "to": decoded.to or None},
            RLP,
        )


def _held(record: Record) -> dict[str, Any]:
    return {name: getattr(record, name) for name, _ in record.__fields__}


def _from_plain(decoded: Any, like: Record) -> dict[str, Any]:
    """What a plain message holds, its hexadecimal texts as the bytes that ours would hold."""

    def as_ours(value: Any, ours: Any) -> Any:
        if isinstance(ours, bytes):
            return bytes.fromhex(value)
        if isinstance(ours, tuple):
            return tuple(map(as_ours, value, ours))
        return value

    return {name: as_ours(getattr(decoded, name), value) for name, value in _held(like).items()}
