"""The 21 messages against their golden bytes, on both twins."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from helpers.message_vectors import VECTORS, VECTORS_FILE, Vector
from helpers.schemas import same

from moderntensor.errors import DecodeError, EncodeError, FrameError
from moderntensor.network import protocol
from moderntensor.network.messages import (
    CAPS,
    HELLO_CAPS,
    IDLE_CAPS,
    DisconnectMessage,
    GetHeadersMessage,
    GetPeersMessage,
    HeadersMessage,
    HelloMessage,
    Message,
    MessageCodec,
    MessageType,
    PingMessage,
    Reply,
    Request,
    Status,
    TransactionsMessage,
    reply_cap,
)
from moderntensor.wire import MESSAGES

each_vector = pytest.mark.parametrize("vector", VECTORS, ids=str)


def layout(engine: Any, cls: type[Message]) -> Any:
    return engine.layout.Layout(cls, cls.__fields__)


def test_every_message_has_golden_bytes() -> None:
    for kind in MessageType:
        assert sum(vector.type == kind for vector in VECTORS) >= 2, kind.name
    assert len({str(vector) for vector in VECTORS}) == len(VECTORS)


def test_every_status_occurs_in_a_golden_reply() -> None:
    seen = {vector.values.get("status") for vector in VECTORS}
    assert seen >= set(Status)


def test_the_file_says_the_same_twice() -> None:
    """Its frames, written out, are its fields behind a header."""
    for entry, vector in zip(json.loads(VECTORS_FILE.read_text())["vectors"], VECTORS, strict=True):
        header = (len(vector.payload) + 1).to_bytes(4, "big") + bytes([vector.type])
        assert vector.frame == header + vector.payload, entry["about"]


@each_vector
def test_encodes(engine: Any, vector: Vector) -> None:
    assert layout(engine, vector.cls).pack(vector.message) == vector.payload
    assert engine.framing.encode_frame(vector.type, vector.payload) == vector.frame
    assert MessageCodec.encode(vector.message) == vector.frame
    assert MessageCodec.encode_payload(vector.message) == vector.payload


@each_vector
def test_decodes(engine: Any, vector: Vector) -> None:
    for decoded in (
        layout(engine, vector.cls).unpack(vector.payload),
        MessageCodec.decode(vector.frame),
        MessageCodec.decode_payload(vector.type, vector.payload),
    ):
        assert type(decoded) is vector.cls
        assert decoded == vector.message
        for name, value in vector.values.items():
            assert same(getattr(decoded, name), value) or getattr(decoded, name) == value


@each_vector
def test_fields_are_encoded_where_the_file_says(vector: Vector) -> None:
    """Each field alone takes the bytes given for it: order and widths are the file's."""
    assert list(vector.parts) == [name for name, _ in vector.cls.__fields__]
    position = 0
    for index, (name, encoding) in enumerate(vector.parts.items()):
        cut = vector.payload[: position + len(encoding)]
        if index + 1 < len(vector.parts):
            following = list(vector.parts)[index + 1]
            with pytest.raises(DecodeError, match=rf"^{vector.cls.__name__}\.{following}\b"):
                vector.cls.decode(cut)
        if encoding:
            with pytest.raises(DecodeError, match=rf"^{vector.cls.__name__}\.{name}\b"):
                vector.cls.decode(cut[:-1])
        position += len(encoding)


def refused(call: Callable[[bytes], object], data: bytes) -> bool:
    """Without the cost of pytest.raises, for tens of thousands of calls."""
    try:
        call(data)
    except DecodeError:
        return True
    return False


@each_vector
def test_every_truncation_is_refused(engine: Any, vector: Vector) -> None:
    unpack = layout(engine, vector.cls).unpack
    for size in range(len(vector.payload)):
        assert refused(unpack, vector.payload[:size]), size
    for size in range(len(vector.frame)):
        assert refused(MessageCodec.decode, vector.frame[:size]), size


@each_vector
def test_every_trailing_byte_is_refused(engine: Any, vector: Vector) -> None:
    unpack = layout(engine, vector.cls).unpack
    for byte in range(256):
        assert refused(unpack, vector.payload + bytes([byte])), byte
    with pytest.raises(DecodeError, match=rf"^{vector.cls.__name__}: 1 trailing byte$"):
        unpack(vector.payload + b"\0")
    for behind in (b"\0", b"\xff", vector.frame):
        assert refused(MessageCodec.decode, vector.frame + behind)


def decoder(engine: Any) -> Any:
    return engine.framing.FrameDecoder({int(kind): cap for kind, cap in CAPS.items()})


def in_pieces(engine: Any, data: bytes, size: int) -> list[tuple[int, bytes]]:
    it = decoder(engine)
    frames: list[tuple[int, bytes]] = []
    for start in range(0, len(data), size):
        frames += [(frame.type, frame.payload) for frame in it.feed(data[start : start + size])]
    assert it.error is None
    assert it.pending == 0
    return frames


@each_vector
def test_whole_and_byte_by_byte(engine: Any, vector: Vector) -> None:
    expected = [(vector.type, vector.payload)]
    assert in_pieces(engine, vector.frame, len(vector.frame)) == expected
    assert in_pieces(engine, vector.frame, 1) == expected


@pytest.mark.parametrize("size", [1, 7, 4096, 1 << 20])
def test_all_glued_together(engine: Any, size: int) -> None:
    stream = b"".join(vector.frame for vector in VECTORS)
    frames = in_pieces(engine, stream, size)
    assert frames == [(vector.type, vector.payload) for vector in VECTORS]
    for (kind, payload), vector in zip(frames, VECTORS, strict=True):
        assert MessageCodec.decode_payload(kind, payload) == vector.message


def test_the_protocol_s_own_examples() -> None:
    frame = MessageCodec.encode(PingMessage(nonce=7))
    assert frame.hex(" ") == "00 00 00 09 01 00 00 00 00 00 00 00 07"
    with pytest.raises(DecodeError, match=r"^PongMessage.nonce: needs 8 bytes at offset 0, 0 left"):
        MessageCodec.decode(bytes.fromhex("0000000102"))  # an empty PONG is a frame, no message


# --- declarations --------------------------------------------------------------------------


def test_declarations_are_complete() -> None:
    assert set(MESSAGES) == set(MessageType)
    for kind in MessageType:
        cls = MESSAGES[kind]
        assert cls.TYPE is kind
        assert cls.__name__ == kind.name.title().replace("_", "") + "Message"
        assert issubclass(cls, Message)
        assert cls.__doc__
        assert issubclass(cls, Request) == (cls.REPLY is not None and kind != MessageType.PING)
        assert kind.name.startswith("GET_") == issubclass(cls, Request)
        if issubclass(cls, Request):
            assert issubclass(MESSAGES[cls.REPLY], Reply)
            assert cls.LAYOUT.names[0] == "request_id"
        if issubclass(cls, Reply):
            assert cls.LAYOUT.names[:3] == ("request_id", "status", "retry_ms")
            assert len(cls.LAYOUT.names) == 4


def largest(schema: Any) -> int:
    """The most bytes that any value of `schema` takes."""
    kind, *rest = schema
    if kind in ("u", "fixed"):
        return int(rest[0])
    if kind in ("bytes", "str"):
        return int(rest[0] + rest[-1])
    if kind == "list":
        return int(rest[0] + rest[1] * largest(rest[2]))
    inner = {
        "optional": lambda: 1 + largest(rest[0]),
        "raw": lambda: largest(rest[0]),
        "tuple": lambda: sum(map(largest, rest[0])),
        "record": lambda: sum(largest(field) for _, field in rest[1]),
    }
    return inner[kind]()


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind in MessageType
        if kind.name.startswith("GET_")
        or kind.name in ("PING", "PONG", "DISCONNECT", "HEADERS", "NEW_BLOCK_HASHES", "STATE")
        or kind.name in ("STATE_NODES", "PEERS")
    ],
)
def test_caps_admit_the_largest_message(kind: MessageType) -> None:
    assert largest(("record", None, MESSAGES[kind].__fields__)) <= CAPS[kind] <= 10 << 20


def test_caps_before_and_after_hello() -> None:
    assert HELLO_CAPS == {MessageType.HELLO: 2048}
    assert set(IDLE_CAPS) == set(MessageType) - {MessageType.HELLO}
    for kind, cap in IDLE_CAPS.items():
        if kind == MessageType.HEADERS:
            assert cap == 7 + 2 + 8 * 293
        elif issubclass(MESSAGES[kind], Reply):
            assert cap == 0
        else:
            assert cap == CAPS[kind]


def test_caps_of_replies_follow_the_request() -> None:
    assert reply_cap(GetHeadersMessage(max_headers=192)) == 7 + 2 + 192 * 293
    assert reply_cap(GetHeadersMessage(max_headers=2048)) == CAPS[MessageType.HEADERS]
    # An announcement may come in between, whatever was asked.
    assert reply_cap(GetHeadersMessage(max_headers=1)) == IDLE_CAPS[MessageType.HEADERS]
    assert reply_cap(GetPeersMessage()) == CAPS[MessageType.PEERS]


# --- what layouts cannot say ---------------------------------------------------------------


def hello(**changes: Any) -> HelloMessage:
    return HelloMessage(node_id=b"\x01" * 32, nonce=7).replace(**changes)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (GetPeersMessage(), "GetPeersMessage.request_id: 0, at least 1"),
        (PingMessage(nonce=-1), "PingMessage.nonce: -1, at least 0"),
        (
            GetHeadersMessage(request_id=1, locator=(bytes(32),) * 70),
            "GetHeadersMessage.locator: 70 items, at most 64",
        ),
        (
            GetHeadersMessage(request_id=1, max_headers=2049),
            "GetHeadersMessage.max_headers: 2049, at most 2048",
        ),
        (GetHeadersMessage(request_id=1, stride=0), "GetHeadersMessage.stride: 0, at least 1"),
        (
            DisconnectMessage(code=1, reason="\x1b[31m"),
            "DisconnectMessage.reason: character 0x1b at 0 is not printable ASCII",
        ),
        (hello(capabilities=("x" * 255,) * 8), "HelloMessage: 2202 bytes, at most 2048"),
        (
            TransactionsMessage(request_id=1, transactions=(bytes(131_069),)),
            "TransactionsMessage.transactions[0]: 131069 bytes, at most 131068",
        ),
        (
            TransactionsMessage(request_id=1, status=6),
            "TransactionsMessage.status: 6, at most 5",
        ),
        (
            TransactionsMessage(request_id=1, status=Status.BUSY, transactions=(b"",)),
            "TransactionsMessage: BUSY with items",
        ),
        (
            TransactionsMessage(request_id=1, status=Status.PARTIAL),
            "TransactionsMessage: PARTIAL without an item",
        ),
        (
            HeadersMessage(request_id=0, status=Status.NOT_FOUND),
            "HeadersMessage: an announcement is OK",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refuses_to_encode(message: Message, text: str) -> None:
    with pytest.raises(EncodeError) as caught:
        MessageCodec.encode(message)
    assert str(caught.value) == text


def golden(kind: str, about: str) -> Vector:
    (vector,) = (v for v in VECTORS if v.type.name == kind and v.about.startswith(about))
    return vector


def refusal(kind: MessageType, payload: bytes) -> str:
    with pytest.raises(DecodeError) as caught:
        MessageCodec.decode_payload(kind, payload)
    return str(caught.value)


def changed(vector: Vector, **parts: bytes) -> bytes:
    return b"".join((vector.parts | parts).values())


def test_refuses_items_beside_a_failure() -> None:
    kinds = [kind for kind in MessageType if issubclass(MESSAGES[kind], Reply)]
    for kind in kinds:
        vector = next(v for v in VECTORS if v.type == kind and v.parts["status"] == b"\0")
        for status in (Status.NOT_FOUND, Status.PRUNED, Status.BUSY, Status.TOO_LARGE):
            text = refusal(kind, changed(vector, status=bytes([status])))
            assert text == f"{vector.cls.__name__}: {status.name} with items"
        assert "at most 5" in refusal(kind, changed(vector, status=b"\x06"))
        if kind != MessageType.HEADERS:
            assert refusal(kind, changed(vector, request_id=bytes(4))).endswith("0, at least 1")


def test_refuses_an_empty_partial_reply() -> None:
    vector = golden("PEERS", "nobody")
    text = refusal(MessageType.PEERS, changed(vector, status=b"\x01"))
    assert text == "PeersMessage: PARTIAL without an item"
    vector = golden("HEADERS", "nothing")
    text = refusal(MessageType.HEADERS, changed(vector, status=b"\x01"))
    assert text == "HeadersMessage: PARTIAL without an item"


def test_state_is_never_partial() -> None:
    vector = golden("STATE", "two accounts")
    text = refusal(MessageType.STATE, changed(vector, status=b"\x01"))
    assert text == "StateMessage: STATE is never PARTIAL"


def test_announcements_of_headers_are_small_and_ok() -> None:
    vector = golden("HEADERS", "an announcement")
    header = vector.parts["headers"][2:]
    for count in range(10):
        payload = changed(vector, headers=count.to_bytes(2, "big") + header * count)
        if count <= 8:
            decoded = MessageCodec.decode_payload(MessageType.HEADERS, payload)
            assert isinstance(decoded, HeadersMessage)
            assert decoded.count == count
        else:
            text = refusal(MessageType.HEADERS, payload)
            assert text == "HeadersMessage: an announcement of 9 headers, at most 8"
    assert refusal(MessageType.HEADERS, changed(vector, status=b"\x01")).endswith("is OK")


def test_bits_beyond_the_depth_are_refused() -> None:
    vector = golden("GET_STATE", "below a prefix")
    for depth in range(256):
        last_bit = 1 << (256 - depth) if depth else 0  # the last that may be set
        for prefix, good in ((last_bit, True), (last_bit | 1 << (255 - depth), False), (0, True)):
            payload = changed(
                vector, depth=bytes([depth]), prefix=(prefix % (1 << 256)).to_bytes(32, "big")
            )
            if good:
                MessageCodec.decode_payload(MessageType.GET_STATE, payload)
            else:
                text = refusal(MessageType.GET_STATE, payload)
                assert text == f"GetStateMessage: prefix has bits beyond depth {depth}"
    nodes = golden("GET_STATE_NODES", "two halves")
    payload = nodes.payload[:-1] + b"\xff"
    text = refusal(MessageType.GET_STATE_NODES, payload)
    assert text == "GetStateNodesMessage: paths[2] has bits beyond depth 255"


def test_refuses_frames_that_are_no_message() -> None:
    for frame, reason in [
        ("00000000", "empty"),
        ("00000001 05", "unknown"),
        ("00000001 ff", "unknown"),
        ("0000000a 01" + "00" * 9, "too-large"),
    ]:
        with pytest.raises(FrameError) as caught:
            MessageCodec.decode(bytes.fromhex(frame))
        assert caught.value.reason == reason
    with pytest.raises(FrameError, match="9 payload bytes, over its cap of 8"):
        MessageCodec.decode_payload(MessageType.PING, bytes(9))


def test_limits_are_those_of_the_layouts() -> None:
    """Constants that others use are the bounds that encoding enforces."""
    fields = {
        (kind, name): schema for kind in MessageType for name, schema in MESSAGES[kind].__fields__
    }
    kinds = MessageType
    assert fields[kinds.GET_BLOCKS, "max_blocks"][3] == protocol.MAX_BLOCKS == 512
    assert fields[kinds.GET_HEADERS, "max_headers"][3] == protocol.MAX_HEADERS == 2048
    assert fields[kinds.GET_HEADERS, "locator"][2] == protocol.MAX_LOCATOR == 64
    assert fields[kinds.GET_BLOCK_BODIES, "hashes"][2] == protocol.MAX_BODIES == 256
    assert fields[kinds.PEERS, "peers"][2] == protocol.MAX_PEERS == 250
