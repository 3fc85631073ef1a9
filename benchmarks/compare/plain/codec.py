"""Frames by `struct`, messages as dataclasses that go through JSON."""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Self

HEADER = struct.Struct("!IB")  # payload bytes, message type
MAX_PAYLOAD = 10 * 1024 * 1024


class CodecError(ValueError):
    """Bytes that are no frame or no message."""


# --- frames --------------------------------------------------------------------------------


def encode_frame(kind: int, payload: bytes) -> bytes:
    """One frame."""
    if len(payload) > MAX_PAYLOAD:
        raise CodecError(f"{len(payload)} bytes are too many")
    return struct.pack("!IB", len(payload), kind) + payload


def encode_frames(frames: list[tuple[int, bytes]]) -> bytes:
    """Many frames, one after another."""
    return b"".join([encode_frame(kind, payload) for kind, payload in frames])


def decode_frames(data: bytes) -> list[tuple[int, bytes]]:
    """All frames of bytes that hold only whole ones."""
    frames = []
    at = 0
    while at < len(data):
        if len(data) - at < HEADER.size:
            raise CodecError("half a header")
        length, kind = struct.unpack("!IB", data[at : at + 5])
        if length > MAX_PAYLOAD:
            raise CodecError(f"{length} bytes are too many")
        at += 5
        payload = data[at : at + length]
        if len(payload) < length:
            raise CodecError("half a payload")
        at += length
        frames.append((kind, payload))
    return frames


# --- messages ------------------------------------------------------------------------------


@dataclass
class PlainMessage:
    """A message that travels as JSON; every field is a number, a string or a list of them."""

    KIND: ClassVar[int] = 0

    def encode(self) -> bytes:
        """The whole frame."""
        return encode_frame(self.KIND, json.dumps(asdict(self)).encode())

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """From a frame's payload."""
        try:
            return cls(**json.loads(payload))
        except (ValueError, TypeError) as error:
            raise CodecError(f"no {cls.__name__}: {error}") from error


@dataclass
class PlainHello(PlainMessage):
    """Who we are; hashes and keys in hexadecimal."""

    KIND: ClassVar[int] = 0x00
    protocol_version: int = 1
    network_id: int = 1
    genesis_hash: str = ""
    best_height: int = 0
    best_hash: str = ""
    listen_port: int = 0
    node_id: str = ""
    capabilities: list[str] = field(default_factory=list)
    user_agent: str = ""
    earliest_height: int = 0
    max_inflight: int = 16
    max_per_type: int = 8
    observed_ip: str = ""
    observed_port: int = 0
    nonce: int = 0


@dataclass
class PlainGetHeaders(PlainMessage):
    """Ask for headers."""

    KIND: ClassVar[int] = 0x12
    request_id: int = 0
    start_height: int = 0
    max_headers: int = 192
    stride: int = 1
    on_chain: str | None = None
    locator: list[str] = field(default_factory=list)


@dataclass
class PlainTransaction(PlainMessage):
    """A signed transfer."""

    KIND: ClassVar[int] = 0x20
    chain_id: int = 1
    nonce: int = 0
    to: str | None = None
    value: int = 0
    gas_price: int = 1
    gas_limit: int = 21_000
    data: str = ""
    v: int = 0
    r: str = ""
    s: str = ""


@dataclass
class PlainData(PlainMessage):
    """A request, its reply, or anything else with one blob: `text` is hexadecimal."""

    KIND: ClassVar[int] = 0x7F
    request_id: int = 0
    text: str = ""


def to_plain(record: Any, plain: type[PlainMessage]) -> Any:
    """One of our records as its plain counterpart: bytes become hexadecimal."""
    names = [field.name for field in fields(plain)]
    return plain(**{name: _jsonable(getattr(record, name)) for name in names})


def _jsonable(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [_jsonable(item) for item in value]
    return value
