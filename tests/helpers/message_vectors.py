"""Reads tests/vectors/messages.json, whose notation it explains itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from moderntensor.blockchain.block import BlockHeader
from moderntensor.network.messages import Message, MessageType, PeerRecord
from moderntensor.wire import MESSAGES

VECTORS_FILE = Path(__file__).parent.parent / "vectors" / "messages.json"


class Vector(NamedTuple):
    type: MessageType
    about: str
    values: dict[str, Any]
    parts: dict[str, bytes]  # field name -> its encoding
    frame: bytes

    @property
    def cls(self) -> type[Message]:
        return MESSAGES[self.type]

    @property
    def message(self) -> Message:
        return self.cls(**self.values)

    @property
    def payload(self) -> bytes:
        return b"".join(self.parts.values())

    def __str__(self) -> str:
        return f"{self.type.name}: {self.about}"


def parse_hex(notation: str) -> bytes:
    out = bytearray()
    for token in notation.split():
        digits, _, times = token.partition("*")
        out += bytes.fromhex(digits) * (int(times) if times else 1)
    return bytes(out)


def parse_value(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(parse_value(item) for item in value)
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    match kind:
        case "hex":
            return parse_hex(inner)
        case "repeat":
            return (parse_value(inner[0]),) * inner[1]
        case "repeat_text":
            return inner[0] * inner[1]
        case "record":
            fields = {name: parse_value(part) for name, part in inner.items()}
            return (PeerRecord if "node_id" in fields else BlockHeader)(**fields)
    raise ValueError(f"{kind} is not in the notation")


def load() -> list[Vector]:
    return [
        Vector(
            MessageType[entry["type"]],
            entry["about"],
            {field["name"]: parse_value(field["value"]) for field in entry["fields"]},
            {field["name"]: parse_hex(field["bytes"]) for field in entry["fields"]},
            parse_hex(entry["frame"]),
        )
        for entry in json.loads(VECTORS_FILE.read_text())["vectors"]
    ]


VECTORS = load()
