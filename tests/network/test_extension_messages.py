"""Messages of applications: how they are declared, and their bytes."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.engines import Engines
from helpers.extended import CHAT, DICE, KIB, LOG, SAY, GetLog, Log, Roll, Say

from moderntensor.errors import (
    ConfigError,
    DecodeError,
    EncodeError,
    FrameError,
)
from moderntensor.network.extensions import (
    MAX_EXTENSION_CAP,
    MAX_EXTENSIONS,
    Extension,
    ExtensionSet,
    RequestId,
    StatusCode,
    extension_message,
)
from moderntensor.network.messages import (
    CAPS,
    HelloMessage,
    Message,
    MessageCodec,
    MessageType,
    PingMessage,
    Reply,
    Request,
    Status,
)
from moderntensor.network.p2p import P2PNode
from moderntensor.network.rates import Rate
from moderntensor.wire import MESSAGES, list16, str8, u8, u16, u64


def declare(base: type = Message, kind: int = SAY, cap: int = 16, **options: Any) -> Any:
    fields: dict[type, dict[str, Any]] = {
        Message: {"n": u8},
        Request: {"request_id": RequestId, "n": u8},
        Reply: {"request_id": RequestId, "status": StatusCode, "retry_ms": u16, "n": u8},
    }
    annotations = options.pop("fields", fields.get(base, {"n": u8}))
    body = {"__annotations__": annotations, "__module__": __name__, **options.pop("defaults", {})}
    return extension_message(kind, cap=cap, **options)(type("Made", (base,), body))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"kind": 0x7F}, "type 0x7f, needs 0x80 to 0xff"),
        ({"kind": 0x100}, "needs 0x80 to 0xff"),
        ({"cap": MAX_EXTENSION_CAP + 1}, f"needs 1 to {MAX_EXTENSION_CAP}"),
        ({"cap": 0}, "cap 0, needs 1 to"),
        ({"rate": Rate(0, 1, 1, 1)}, "a rate of nothing"),
        ({"rate": Rate(1, 0.5, 1, 1)}, "a rate of nothing"),
        ({"base": object}, "none of Message, Request, Reply"),
        ({"reply": Log}, "a notice has no reply"),
        ({"base": Request}, "a request needs reply="),
        ({"base": Request, "reply": Say}, "a request needs reply="),
        ({"base": Request, "reply": Log, "fields": {"n": u8}}, "begin with request_id"),
        ({"base": Request, "reply": Log, "fields": {"request_id": u64}}, "begin with request_id"),
        ({"base": Reply}, "n: needs a default"),
        ({"base": Reply, "defaults": {"n": 0}, "rate": Rate(1, 1, 1, 1)}, "nor a rate"),
        ({"base": Reply, "defaults": {"n": 0}, "reply": Log}, "neither a reply"),
        ({"base": Reply, "fields": {"request_id": RequestId, "n": u8}}, "does not begin with"),
    ],
)
def test_a_wrong_declaration_says_what_is_wrong(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        declare(**options)


@pytest.mark.parametrize(
    "name",
    [
        *("chat", "chat/", "chat/0", "chat/01", "/1", "chat/10000"),
        *("Chat/1", "1chat/1", "chat /1", "chät/1", "chat/1\n", "c" * 28 + "/1"),
        *("sync/1", "sync/2", "relay/9", "state/1", "archive/1"),
    ],
)
def test_a_name_is_a_name_and_a_version_and_none_of_ours(name: str) -> None:
    with pytest.raises(ConfigError, match="extension"):
        Extension(name, [Say])


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ([], "has no messages"),
        ([PingMessage], "PingMessage is no message of extensions"),
        ([GetLog], "Log is missing"),
        ([Say, Roll], "type 0x80 is Say of 'chat/1', and also Roll of 'chat/1'"),
        ([declare(kind=0x90), declare(kind=0x91)], "two messages are called Made"),
    ],
)
def test_an_extension_is_whole(messages: list[type[Message]], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        Extension("chat/1", messages)
    with pytest.raises(ConfigError, match="handler_timeout"):
        Extension("chat/1", [Say], handler_timeout=0)


def test_a_node_has_each_type_and_each_name_once() -> None:
    with pytest.raises(ConfigError, match=r"0x80 is Say of 'chat/1', and also Roll of 'dice/1'"):
        P2PNode(extensions=[CHAT, DICE])
    with pytest.raises(ConfigError, match="'chat/1' is there twice"):
        P2PNode(extensions=[CHAT, CHAT])
    many = [Extension(f"one/{n + 1}", [declare(kind=SAY + n)]) for n in range(MAX_EXTENSIONS + 1)]
    ExtensionSet(many[:-1])
    with pytest.raises(ConfigError, match="17 extensions, at most 16"):
        ExtensionSet(many)


def test_nothing_is_known_beyond_the_node() -> None:
    """The tables of the protocol are what they were."""
    assert set(MESSAGES) == set(CAPS) == set(MessageType)
    with pytest.raises(FrameError, match="0x80 is not admitted"):
        MessageCodec.decode(MessageCodec.encode(Say(room="x", text="y")))


def test_a_hello_has_room_for_as_many_as_there_may_be() -> None:
    names = tuple(f"{'c' * 27}/{1000 + n}" for n in range(MAX_EXTENSIONS))
    for name in names:
        Extension(name, [Say])
    ours = ("sync/1", "relay/1", "state/1", "archive")
    hello = HelloMessage(
        node_id=bytes(32), nonce=1, user_agent="a" * 255, capabilities=(*ours, *names)
    )
    assert len(hello.encode()) <= HelloMessage.CAP


def test_a_refusal_holds_nothing() -> None:
    refusal = Log(request_id=7, status=Status.NOT_FOUND)
    assert MessageCodec.decode_as(Log, refusal.encode()) == refusal
    full = Log(request_id=7, status=Status.NOT_FOUND, lines=("a",))
    with pytest.raises(EncodeError, match="NOT_FOUND with lines"):
        MessageCodec.encode(full)
    with pytest.raises(DecodeError, match="NOT_FOUND with lines"):
        MessageCodec.decode_as(Log, full.encode())


def test_a_fault_of_its_own_counts_as_well() -> None:
    @extension_message(LOG, cap=64)
    class Picky(Reply):
        request_id: RequestId
        status: StatusCode = Status.OK
        retry_ms: u16 = 0
        lines: list16[str8] = ()

        def fault(self) -> str | None:
            return "too much talk" if len(self.lines) > 1 else None

    MessageCodec.encode(Picky(request_id=1, lines=("a",)))
    for status, complaint in ((Status.OK, "too much talk"), (Status.BUSY, "BUSY with lines")):
        with pytest.raises(EncodeError, match=complaint):
            MessageCodec.encode(Picky(request_id=1, status=status, lines=("a", "b")))


def test_a_reply_that_could_not_refuse_is_none() -> None:
    class Wordy(Reply):
        request_id: RequestId
        status: StatusCode = Status.OK
        retry_ms: u16 = 0
        lines: list16[str8] = ()

        def fault(self) -> str | None:
            return None if self.lines else "says nothing"

    with pytest.raises(ConfigError, match="cannot refuse: Wordy: says nothing"):
        extension_message(LOG, cap=64)(Wordy)


def test_a_reply_whose_refusal_is_over_its_cap_is_none() -> None:
    class Long(Reply):
        request_id: RequestId
        status: StatusCode = Status.OK
        retry_ms: u16 = 0
        text: str8 = "x" * 60

    with pytest.raises(ConfigError, match="cannot refuse: Long: 68 bytes, at most 64"):
        extension_message(LOG, cap=64)(Long)


# Frames as they have to be for ever: whoever changes one gives the extension another version.
GOLDEN: list[tuple[Message, str]] = [
    (Say(room="tea", text="two please"), "00000011 80 03746561 000a 74776f20706c65617365"),
    (GetLog(request_id=7, room="tea"), "00000009 81 00000007 03746561"),
    (
        Log(request_id=7, lines=("a", "bc")),
        "00000011 82 00000007 00 0000 0002 0001 61 0002 6263",
    ),
    (
        Log(request_id=0xFFFFFFFF, status=Status.BUSY, retry_ms=250),
        "0000000a 82 ffffffff 04 00fa 0000",
    ),
    (Roll(dice=6), "00000002 80 06"),
]


@pytest.mark.parametrize(("message", "text"), GOLDEN, ids=[type(m).__name__ for m, _ in GOLDEN])
def test_their_bytes_are_what_both_twins_make_and_read(
    engine: Engines, message: Message, text: str
) -> None:
    frame = bytes.fromhex(text)
    cls = type(message)
    layout = engine.layout.Layout(cls, cls.__fields__)
    assert engine.framing.encode_frame(cls.TYPE, layout.pack(message)) == frame
    assert layout.unpack(frame[5:]) == message
    assert MessageCodec.encode(message) == frame
    for wrong, complaint in ((frame[5:] + b"\0", "1 trailing byte"), (frame[5:-1], "needs")):
        with pytest.raises(DecodeError, match=complaint):
            layout.unpack(wrong)


def test_both_twins_admit_the_types_that_are_shared_and_no_others(engine: Engines) -> None:
    """Each of the 128, by its header alone."""
    caps = {SAY: KIB, LOG: 0, 0xFF: 1}
    for kind in range(0x80, 0x100):
        for size in sorted({0, 1, 2, KIB, KIB + 1}):
            decoder = engine.framing.FrameDecoder(caps)
            assert not decoder.feed((size + 1).to_bytes(4, "big") + bytes([kind])) or not size
            if kind not in caps:
                assert str(decoder.error) == f"frame type 0x{kind:02x} is not admitted"
            elif size > caps[kind]:
                assert (
                    str(decoder.error) == f"frame of type 0x{kind:02x} announces {size} payload "
                    f"bytes, over its cap of {caps[kind]}"
                )
            else:
                assert decoder.error is None
                continue
            assert decoder.pending == decoder.held == 0
