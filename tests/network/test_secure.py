"""The encrypted stream by its bytes: handshake messages, records, and those who change them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers.secure import (
    DIALLER,
    DIALLER_EPHEMERAL,
    LISTENER,
    LISTENER_EPHEMERAL,
    End,
    connected,
    ends,
    handshake,
    shake_hands,
)
from hypothesis import given
from hypothesis import strategies as st

from moderntensor.backend import framing
from moderntensor.errors import HandshakeError, SecureChannelError
from moderntensor.network.identity import NodeIdentity
from moderntensor.network.messages import DisconnectCode
from moderntensor.network.secure import RECORD_MAX, looks_like

encode = framing.encode_frame

# A session between nodes whose secrets are 01…, 02… and whose ephemeral ones are 03…, 04….
GOLDEN_HANDSHAKE = (
    "00205dfedd3b6bd47f6fa28ee15d969d5bb0ea53774d488bdaf9df1c6e0124b3ef22",
    "0060ac01b2209e86354fb853237b5de0f4fab13c7fcbf433a61c019369617fecf10bffcf3d9d7e44"
    "ddd1fc370c31ff19ac9b3d6f8d4020d927ab41dd396933d649b80732416f5386d18ac3986c37577a"
    "347b4dcf9e2691853043682a37b64ead1d58",
    "004083e4288f16618a236f39315c841e0cf02e8bc3b147052ab0a386bbdd54ed693eb7d06a0fc365"
    "623ba95769bbffd80a1f653e711794316681ad8208a1705d2a15",
)
GOLDEN_RECORDS = (
    "0000001dcd67c644ad7aa4d3ee39757cd07348b950de54e2dde7ae55f42e268da2",
    "0000001d190d054e47c343d74172a3c3061de52cf79f1cafd3b12fae79155fc5f1",
)


def wrong(end: End) -> str:
    """What it says of the bytes that it was given."""
    error = end.channel.error
    assert error is not None
    assert isinstance(error, SecureChannelError | HandshakeError)
    return str(error)


# --- handshake -----------------------------------------------------------------------------


def test_golden_bytes() -> None:
    dialler, listener = ends()
    assert [m.hex() for m in shake_hands(dialler, listener)] == list(GOLDEN_HANDSHAKE)
    ping = framing.encode_frame(1, bytes(7) + b"\x07")
    assert [dialler.seal(ping).hex(), listener.seal(ping).hex()] == list(GOLDEN_RECORDS)
    assert [len(bytes.fromhex(m)) for m in GOLDEN_HANDSHAKE] == [2 + 32, 2 + 96, 2 + 64]
    assert dialler.channel.remote_key == LISTENER.node_id
    assert listener.channel.remote_key == DIALLER.node_id
    text = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
    examples = set(re.findall(r"`([0-9a-f ]+)` \|$", text, re.MULTILINE))
    shown = {example.replace(" ", "") for example in examples}
    assert {*GOLDEN_HANDSHAKE, *GOLDEN_RECORDS} <= shown


def test_neither_key_is_readable() -> None:
    said = b"".join(shake_hands(*ends()))
    for key in (DIALLER.node_id, LISTENER.node_id):
        assert key not in said
    for secret in (DIALLER_EPHEMERAL, LISTENER_EPHEMERAL):
        assert NodeIdentity(secret).node_id in said


def test_byte_by_byte() -> None:
    dialler, listener = ends()
    for writer, reader in ((dialler, listener), (listener, dialler), (dialler, listener)):
        for byte in writer.take():
            assert not (dialler.channel.ready and listener.channel.ready)
            reader.receive(bytes([byte]))
    assert dialler.channel.ready
    assert listener.channel.ready
    for byte in dialler.send(1, b"hello") + dialler.send(2, b"there"):
        listener.receive(bytes([byte]))
    assert listener.frames == [(1, b"hello"), (2, b"there")]


def test_records_glued_to_the_last_message() -> None:
    dialler, listener = ends()
    listener.receive(dialler.take())
    dialler.receive(listener.take())
    listener.receive(dialler.take() + dialler.send(1, b"at once") + dialler.send(1, b"again"))
    assert listener.frames == [(1, b"at once"), (1, b"again")]
    assert listener.channel.pending == 0


@pytest.mark.parametrize("initiator", [True, False])
@pytest.mark.parametrize("change", [-1, 1, 0x100])
def test_a_message_of_another_length_is_refused_at_its_second_byte(
    change: int, initiator: bool
) -> None:
    end = End(initiator=initiator)
    length = (96 if initiator else 32) + change
    end.receive(length.to_bytes(2, "big"))
    assert "not our encrypted transport" in wrong(end)


@pytest.mark.parametrize(
    ("first", "kind"),
    [
        (encode(0, bytes(200)), "plaintext"),
        (b"\x16\x03\x01\x02\x00\x01\x00", "TLS"),
        (b"GET / HTTP/1.1\r\n", "HTTP"),
        (b"PRI * HTTP/2.0\r\n", "HTTP"),
        (b"SSH-2.0-OpenSSH\r\n", "SSH"),
        (b"\xde\xad\xbe\xef", "something else (it begins dead)"),
    ],
)
@pytest.mark.parametrize("initiator", [True, False])
def test_who_speaks_something_else_is_told_apart(initiator: bool, first: bytes, kind: str) -> None:
    end = End(initiator=initiator)
    end.take()
    end.receive(first)
    assert wrong(end) == f"the other side speaks {kind}, not our encrypted transport"
    assert end.take() == b""
    assert not end.channel.ready


def test_one_byte_tells_nothing_yet() -> None:
    end = End(initiator=False)
    end.receive(b"\0")
    assert end.channel.error is None
    assert end.channel.pending == 1
    assert looks_like(b"\xff\xff") is None


def test_another_than_expected_learns_nothing_of_us() -> None:
    dialler = End(initiator=True, expected_id=b"\x77" * 32)
    listener = End(initiator=False)
    listener.receive(dialler.take())
    dialler.receive(listener.take())
    assert wrong(dialler) == f"another node_id than expected (code {DisconnectCode.IDENTITY})"
    assert dialler.take() == b""
    assert listener.channel.remote_key is None
    assert dialler.channel.remote_key is None


def test_the_expected_one() -> None:
    dialler = End(initiator=True, expected_id=LISTENER.node_id)
    shake_hands(dialler, End(initiator=False))
    assert dialler.channel.ready


def test_ourselves() -> None:
    dialler = End(initiator=True)
    listener = End(initiator=False, identity=DIALLER)
    listener.receive(dialler.take())
    dialler.receive(listener.take())
    assert wrong(dialler) == f"connected to itself (code {DisconnectCode.SELF})"
    assert dialler.take() == b""


def test_a_listener_refuses_itself_too() -> None:
    dialler, listener = handshake(LISTENER, initiator=True), End(initiator=False)
    listener.receive(b"\x00\x20" + dialler.write())
    dialler.read(listener.take()[2:])
    listener.receive(b"\x00\x40" + dialler.write())
    assert "connected to itself" in wrong(listener)
    assert not listener.channel.ready


def test_a_reflected_handshake() -> None:
    dialler = End(initiator=True)
    dialler.receive(dialler.take())
    assert "the encrypted transport" in wrong(dialler)


def test_another_prologue() -> None:
    dialler, listener = End(initiator=True), handshake(LISTENER, initiator=False, prologue=b"other")
    listener.read(dialler.take()[2:])
    dialler.receive(b"\x00\x60" + listener.write())
    assert wrong(dialler) == "authentication failed"
    assert dialler.take() == b""


def test_a_low_order_key() -> None:
    listener = End(initiator=False)
    listener.receive(b"\x00\x20" + bytes(32))
    assert wrong(listener) == "a low-order key"
    assert listener.take() == b""


@pytest.mark.parametrize("message", range(3))
def test_a_replayed_handshake(message: int) -> None:
    """What was recorded of a session opens no other: the listener's ephemeral key is new."""
    recorded = shake_hands(*ends())
    listener = End(initiator=False)
    listener.channel._noise._entropy = lambda size: b"\x99" * size  # type: ignore[union-attr]
    listener.receive(recorded[0])
    assert listener.channel.error is None
    listener.receive(recorded[2])
    assert wrong(listener) == "authentication failed"


# --- records -------------------------------------------------------------------------------


def test_frames_span_records_and_records_hold_many() -> None:
    dialler, listener = connected()
    large = bytes(range(256)) * 2000
    stream = encode(1, b"one") + encode(1, b"two") + encode(2, large) + encode(1, b"three")
    sealed = b"".join(
        dialler.seal(stream[at : at + 100_001]) for at in range(0, len(stream), 100_001)
    )
    listener.receive(sealed)
    assert listener.frames == [(1, b"one"), (1, b"two"), (2, large), (1, b"three")]
    assert len(sealed) == len(stream) + 6 * (4 + 16)


def test_two_of_the_longest_that_we_send_fill_one_read() -> None:
    dialler, _ = connected()
    limit = dialler.channel.seal_limit
    assert 2 * len(dialler.seal(bytes(limit))) == framing.DEFAULT_BUFFER_SIZE


def test_what_a_record_says_is_its_length_alone() -> None:
    dialler, _ = connected()
    first, second = dialler.send(1, b"same"), dialler.send(1, b"same")
    assert first[:4] == second[:4] == (5 + 4 + 16).to_bytes(4, "big")
    assert first[4:] != second[4:]
    assert b"same" not in first + second


@given(data=st.data())
def test_however_the_stream_is_split(data: st.DataObject) -> None:
    dialler, listener = connected()
    payloads = data.draw(st.lists(st.binary(max_size=40), min_size=1, max_size=8))
    stream = b"".join(dialler.send(2, payload) for payload in payloads)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12).map(sorted))
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        listener.receive(stream[begin:end])
    assert listener.frames == [(2, payload) for payload in payloads]
    assert listener.channel.pending == 0


@given(data=st.data())
def test_any_change_ends_the_stream_where_it_is(data: st.DataObject) -> None:
    """What came before it is delivered, nothing after it, however the stream is split."""
    dialler, listener = connected()
    payloads = [b"first", b"second", b"third"]
    records = [dialler.send(2, payload) for payload in payloads]
    stream = bytearray(b"".join(records))
    position = data.draw(st.integers(0, len(stream) - 1))
    stream[position] ^= data.draw(st.integers(1, 255))
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=5).map(sorted))
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        listener.receive(bytes(stream[begin:end]))
    hit = sum(position >= sum(map(len, records[: i + 1])) for i in range(3))
    assert listener.frames == [(2, payload) for payload in payloads[:hit]]
    if listener.channel.error is None:  # a longer record was promised, and has not come
        assert position - sum(map(len, records[:hit])) < 4
        assert listener.channel.ended() is not None
    else:
        assert "authentication failed" in wrong(listener) or "a record of" in wrong(listener)


@pytest.mark.parametrize("how", ["replayed", "dropped", "reordered", "reflected", "of another"])
def test_a_record_out_of_its_place(how: str) -> None:
    dialler, listener = connected()
    first, second = dialler.send(1, b"one"), dialler.send(1, b"two")
    stream = {
        "replayed": first + first,
        "dropped": second,
        "reordered": second + first,
        "reflected": listener.send(1, b"one"),
        "of another": connected()[0].send(1, b"one")[:-1] + b"\0",
    }[how]
    listener.receive(stream)
    assert listener.frames == ([(1, b"one")] if how == "replayed" else [])
    assert wrong(listener) == "authentication failed"


@pytest.mark.parametrize("length", [0, 1, 15, 16, RECORD_MAX + 17, 2**31, 2**32 - 1])
def test_a_length_that_no_record_has_is_refused_before_anything_is_held(length: int) -> None:
    for split in (4, 1):
        _, listener = connected()
        data = length.to_bytes(4, "big") + bytes(1000)
        for at in range(0, len(data), split):
            listener.receive(data[at : at + split])
            if listener.channel.error is not None:
                break
        assert wrong(listener) == f"a record of {length} bytes"
        assert listener.channel.pending <= 4
        assert listener.frames == []


def test_the_longest_and_the_shortest_record() -> None:
    dialler, listener = connected()
    frame = encode(2, bytes(RECORD_MAX - 5))
    length = (RECORD_MAX + 16).to_bytes(4, "big")
    sealed = length + dialler.channel._sending.encrypt(frame, length)
    assert sealed[:4] == (RECORD_MAX + 16).to_bytes(4, "big")
    listener.receive(sealed)
    for at in range(10):
        listener.receive(dialler.seal(frame[at : at + 1]))
    listener.receive(
        dialler.seal(frame[10 : RECORD_MAX // 2]) + dialler.seal(frame[RECORD_MAX // 2 :])
    )
    assert listener.frames == [(2, bytes(RECORD_MAX - 5))] * 2


def test_what_is_held_of_a_record_is_what_came() -> None:
    dialler, listener = connected()
    sealed = dialler.send(2, bytes(100_000))
    assert listener.channel.expected == 0
    for size in (3, 1, 1000, 40_000):
        listener.receive(sealed[:size])
        sealed = sealed[size:]
    assert listener.channel.pending == 41_004
    assert listener.channel.expected == 100_000 + 5 + 16
    assert str(listener.channel.ended()) == (
        "the other side closed the connection 41004 bytes into a record"
    )
    listener.receive(sealed)
    assert listener.channel.pending == 0
    assert listener.channel.ended() is None


def test_an_unfinished_frame_counts_though_its_records_are_whole() -> None:
    dialler, listener = connected()
    listener.receive(dialler.seal(encode(2, bytes(5000))[:1000]))
    assert listener.channel.pending == 1000
    assert listener.channel.expected == 5000
    assert "1000 bytes into a frame" in str(listener.channel.ended())


def test_the_end_of_a_stream_within_the_handshake() -> None:
    dialler, listener = ends()
    assert str(dialler.channel.ended()) == (
        "the other side closed the connection during the encrypted handshake; it may speak"
        " plaintext, or have no place for us"
    )
    assert str(listener.channel.ended()) == (
        "the other side closed the connection during the encrypted handshake"
    )


def test_frames_behind_a_pause_wait_unopened() -> None:
    """So that what the decoder may hold is not exceeded, nor does a fault show before its time."""
    dialler, listener = connected(pause_after=1)
    records = dialler.send(1, b"hello") + dialler.send(2, bytes(200_000)) + dialler.send(1, b"end")
    listener.receive(records + b"\0\0\0\0")
    assert listener.frames == [(1, b"hello")]
    assert listener.decoder.held == 0
    assert listener.channel.error is None
    listener.resume()
    assert listener.frames == [(1, b"hello"), (2, bytes(200_000)), (1, b"end")]
    assert wrong(listener) == "a record of 0 bytes"


def test_both_directions_change_their_keys_on_their_own() -> None:
    """Before record k times the interval; the nonces go on."""
    dialler, listener = connected(rekey_interval=3)
    plain, _ = connected()
    for number in range(8):
        sealed = dialler.send(1, b"%d" % number)
        assert (sealed == plain.send(1, b"%d" % number)) == (number < 3)
        listener.receive(sealed)
    dialler.receive(listener.send(1, b"back"))
    assert listener.frames == [(1, b"%d" % number) for number in range(8)]
    assert dialler.frames == [(1, b"back")]


@pytest.mark.parametrize("records", [2, 3])
def test_who_does_not_change_its_key_is_not_understood(records: int) -> None:
    _, listener = connected(rekey_interval=3)
    never, _ = connected()
    for number in range(records + 1):
        listener.receive(never.send(1, b"%d" % number))
    assert len(listener.frames) == min(records + 1, 3)
    assert (listener.channel.error is None) == (records < 3)
