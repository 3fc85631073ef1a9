"""docs/protocol.md against the declarations: its tables, and the bytes of its examples."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from helpers.message_vectors import parse_hex
from helpers.schemas import One, fill

from moderntensor import wire
from moderntensor.backend import layout
from moderntensor.blockchain.block import BlockHeader
from moderntensor.blockchain.transaction import Transaction
from moderntensor.network.messages import (
    IDLE_CAPS,
    BlocksMessage,
    DisconnectCode,
    DisconnectMessage,
    GetHeadersMessage,
    GetPeersMessage,
    HeadersMessage,
    Message,
    MessageCodec,
    MessageType,
    NewBlockHashesMessage,
    PeerRecord,
    PingMessage,
    Reply,
    Status,
)

TEXT = (Path(__file__).parent.parent / "docs" / "protocol.md").read_text()
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20}


def table(*columns: str) -> list[list[str]]:
    """The rows of the one table with these column heads."""
    head = "| " + " | ".join(columns) + " |\n"
    assert TEXT.count(head) == 1, columns
    lines = TEXT.split(head)[1].splitlines()[1:]
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def record_table(section: str) -> list[list[str]]:
    """The first `| Field | Type |` table behind a heading."""
    lines = TEXT.split(f"\n## {section}\n")[1].split("| Field | Type |\n")[1].splitlines()[1:]
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def number(text: str) -> int:
    """`9 + 293 × 2048`, `4 MiB + 64 KiB`, `2,353`."""
    total = 0
    for term in text.replace(",", "").split("+"):
        product = 1
        for factor in term.split("×"):
            digits, _, unit = factor.strip().partition(" ")
            product *= int(digits) * UNITS.get(unit, 1)
        total += product
    return total


# --- the notation of fields ----------------------------------------------------------------


def split(text: str) -> list[str]:
    """At commas outside of brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([") - (character in ")]")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


NAMED = {
    "header": wire.schema_of(BlockHeader),
    "peer": wire.schema_of(PeerRecord),
}


def schema_of(text: str) -> Any:
    """The schema that the notation of a type stands for."""
    if text in NAMED:
        return NAMED[text]
    if text == "account":
        text = "(Address20, u64, u128, Hash32, Hash32)"
    if text.startswith("("):
        return ("tuple", tuple(schema_of(item) for item in split(text[1:-1])))
    if bound := re.fullmatch(r"(.*) ≤ ([0-9]+(?: [KM]iB)?)", text):
        return wire.Max(number(bound[2])).apply(None, schema_of(bound[1]))
    if limits := re.fullmatch(r"(u[0-9]+) \(([0-9]+)–([0-9]+)\)", text):
        return (*schema_of(limits[1])[:2], int(limits[2]), int(limits[3]))
    if generic := re.fullmatch(r"(?:list(8|16|32)|optional)\[(.*)\]", text):
        bits, item = generic[1], schema_of(generic[2])
        return ("list", int(bits) // 8, (1 << int(bits)) - 1, item) if bits else ("optional", item)
    return wire.schema_of(getattr(wire, text))


def field(text: str) -> tuple[str, Any, int | None]:
    """(name, schema, default or None) of one field of the table."""
    name, kind = text.split(" ", 1)
    default = re.search(r" = ([0-9]+)", kind)
    if default:
        kind = kind.replace(default[0], "")
    schema = schema_of(kind)
    return name, schema, int(default[1]) if default else None


def plain(schema: Any) -> Any:
    """Without `raw`, which says how a field is held and not how it is encoded."""
    if isinstance(schema, tuple) and schema and schema[0] == "raw":
        return plain(schema[1])
    return tuple(map(plain, schema)) if isinstance(schema, tuple) else schema


MESSAGE_ROWS = {
    row[0]: row for row in table("Type", "Hex", "Fields in order", "Cap", "Answered by")
}


def test_the_message_table_is_complete() -> None:
    assert [(name, int(row[1], 16)) for name, row in MESSAGE_ROWS.items()] == [
        (kind.name, kind.value) for kind in MessageType
    ]


@pytest.mark.parametrize("kind", MessageType, ids=lambda kind: kind.name)
def test_message_table(kind: MessageType) -> None:
    _, _, fields, cap, reply = MESSAGE_ROWS[kind.name]
    cls = wire.MESSAGES[kind]
    fields = re.sub(r"^reply\b", "request_id u32, status u8 (0–5), retry_ms u16", fields)
    told = [field(part) for part in split(fields)]
    least_id = 0 if kind == MessageType.HEADERS else 1
    expected = [
        (name, (*schema[:2], least_id, schema[3]) if name == "request_id" else schema)
        for name, schema, _ in told
    ]
    assert expected == [(name, plain(schema)) for name, schema in cls.__fields__]
    assert number(cap) == cls.CAP
    assert (cls.REPLY.name if cls.REPLY is not None else "") == reply
    parameters = inspect.signature(cls).parameters
    for name, _, default in told:
        if default is not None:
            assert parameters[name].default == default
        elif name != "request_id" and isinstance(parameters[name].default, int):
            assert parameters[name].default == 0
    assert issubclass(cls, Reply) == MESSAGE_ROWS[kind.name][2].startswith("reply")


@pytest.mark.parametrize(
    ("section", "cls"), [("5. Headers", BlockHeader), ("6. Transactions and blocks", Transaction)]
)
def test_record_tables(section: str, cls: Any) -> None:
    told = [(name, schema_of(kind)) for name, kind in record_table(section)]
    assert tuple(told) == cls.__fields__


def test_peer_and_account_records() -> None:
    assert "`peer` is (Key32, Bytes16, u16, u64)" in TEXT
    assert [schema for _, schema in PeerRecord.__fields__] == [
        schema_of(kind) for kind in ("Key32", "Bytes16", "u16", "u64")
    ]
    assert "`account` is (Address20, u64, u128, Hash32, Hash32)" in TEXT


def test_primitives() -> None:
    for name, size, _ in table("Name", "Bytes", "What it is"):
        if "[" in name or name.startswith("("):
            continue
        kind, width, *_ = wire.schema_of(getattr(wire, name))
        assert size == (f"{width}" if kind in ("u", "fixed") else f"{width} + n"), name
        if name[-2:].isdigit() or name[-1].isdigit():
            digits = int(re.sub(r"\D", "", name))
            assert width == (digits if kind == "fixed" else digits // 8), name


@pytest.mark.parametrize("enum", [Status, DisconnectCode])
def test_numbers(enum: Any) -> None:
    rows = (
        [row[:2] for row in table("Status", "Number", "Meaning")]
        if enum is Status
        else table("Code", "Number")
    )
    assert [(name, int(value)) for name, value in rows] == [(e.name, e.value) for e in enum]


def test_the_idle_cap_of_headers() -> None:
    told = re.search(r"idle cap is 7 \+ 2 \+ 8 × 293 = ([0-9,]+)", TEXT)
    assert told
    assert number(told[1]) == IDLE_CAPS[MessageType.HEADERS]


VALUES = {
    "192": 192,
    "7": 7,
    "2^64": 1 << 64,
    "three bytes 0a 0b 0c": b"\x0a\x0b\x0c",
    "sync/1": "sync/1",
    "relay/1, archive": ("relay/1", "archive"),
    "1, 2": (1, 2),
    "0": 0,
}


def test_examples_of_primitives() -> None:
    rows = table("Type", "Value", "Encoding")
    assert len(rows) == 10
    for kind, value, encoding in rows:
        it = layout.Layout(One, (("a", schema_of(kind)),))
        empty = b"" if kind.startswith("bytes") else None
        expected = empty if value == "none" else VALUES[value]
        data = bytes.fromhex(encoding.strip("`"))
        assert it.pack(fill(One, (expected,))) == data, (kind, value)
        assert it.unpack(data).a == expected


FRAMES: list[Message] = [
    PingMessage(nonce=7),
    DisconnectMessage(code=DisconnectCode.SHUTTING_DOWN),
    GetHeadersMessage(request_id=7, start_height=1000),
    GetHeadersMessage(request_id=9, locator=(b"\xbb" * 32, b"\xaa" * 32)),
    HeadersMessage(request_id=7),
    BlocksMessage(request_id=9, status=Status.BUSY, retry_ms=500),
    NewBlockHashesMessage(hashes=((b"\xbb" * 32, 1001),)),
    GetPeersMessage(request_id=2),
]


def test_examples_of_frames() -> None:
    rows = table("Message", "Frame")
    for (about, frame), message in zip(rows, FRAMES, strict=True):
        assert about.startswith(message.TYPE.name)
        assert parse_hex(frame.strip("`")) == MessageCodec.encode(message), about
        assert MessageCodec.decode(parse_hex(frame.strip("`"))) == message
    ping = MessageCodec.encode(PingMessage(nonce=7)).hex(" ")
    assert f"PING with nonce 7 is `{ping}`" in TEXT


def test_the_errors_that_it_quotes() -> None:
    with pytest.raises(ValueError, match="locator") as caught:
        GetHeadersMessage(request_id=1, locator=(bytes(32),) * 70).encode()
    assert f"`{caught.value}`" in TEXT


def test_its_links_lead_somewhere() -> None:
    anchors = {
        re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    }
    for target in re.findall(r"\]\(#([^)]*)\)", TEXT):
        assert target in anchors
