"""The encrypted transport: a handshake and records that somebody on the line changes and cuts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from moderntensor.errors import NetworkError
from moderntensor.network.identity import NodeIdentity
from moderntensor.network.noise import CipherState
from moderntensor.network.secure import SecureChannel, Workspace

from ..reader import Reader, chunk
from ..twins import Engines, outcome, same
from . import Target

US, THEM = NodeIdentity(b"\x01" * 32), NodeIdentity(b"\x02" * 32)
CAPS = {1: 8, 3: 5000, 4: 2**20}
ROOM = 4096  # bytes of a read
REKEY = 3  # records
# x coordinates of points of low order, and of one that is not encoded canonically.
_P = 2**255 - 19
LOW_ORDER = tuple(x.to_bytes(32, "little") for x in (0, 1, _P, _P + 3))


_WORKSPACE = Workspace()


def _channel(
    engines: Engines, identity: NodeIdentity, *, initiator: bool, expected: bytes | None = None
) -> tuple[SecureChannel, bytearray]:
    """One end that reads to memory of its own, and what it has written of its handshake."""
    written = bytearray()
    channel = SecureChannel(
        engines.framing.FrameDecoder(CAPS, buffer_size=ROOM),
        identity,
        initiator=initiator,
        entropy=lambda size: identity.node_id[:size],
        shared=memoryview(bytearray(ROOM)),
        workspace=_WORKSPACE,
        expected_id=expected,
        rekey_interval=REKEY,
    )
    channel.start(written.extend)
    return channel, written


def _altered(reader: Reader, data: bytes) -> bytes:
    """`data`, mostly with something changed, cut out, repeated or put in."""
    changed = bytearray(data)
    for _ in range(reader.below(3)):
        at = reader.number(2) % (len(changed) + 1)
        match reader.below(6):
            case 0:
                changed[at : at + 1] = reader.take(1)
            case 1:
                del changed[at : at + reader.number(1)]
            case 2:
                changed[at:at] = changed[: reader.number(1)]
            case 3:
                changed[at : at + 32] = reader.pick(LOW_ORDER)
            case 4:
                del changed[at:]
            case _:
                changed[at:at] = reader.chunk()
    return bytes(changed)


def _deliver(channel: SecureChannel, data: bytes, reader: Reader) -> list[Any]:
    """Let a channel read bytes, cut somewhere; the frames that come of them."""
    frames: list[Any] = []
    at = 0
    while at < len(data) and channel.error is None and channel.decoder.error is None:
        size = min(reader.number(1) or ROOM, len(data) - at)
        channel.get_buffer(-1)[:size] = data[at : at + size]
        at += size
        frames += [(f.type, f.payload) for f in channel.received(size)]
        if channel.decoder.paused and reader.flag():
            frames += [(f.type, f.payload) for f in channel.resume()]
        assert channel.pending <= 2 * (2**20 + ROOM), "more is held than there can be"
        channel.expected  # noqa: B018 - must not raise
    return frames


def _handshake(engines: Engines, data: bytes) -> list[Any]:
    reader = Reader(data)
    expected = reader.pick((None, THEM.node_id, b"\x44" * 32))
    dialler, says = _channel(engines, US, initiator=True, expected=expected)
    listener, answers = _channel(engines, US if reader.below(8) == 1 else THEM, initiator=False)
    honest = True
    for _ in range(2):
        for source, target in ((says, listener), (answers, dialler)):
            sent = bytes(source)
            source.clear()
            seen = _altered(reader, sent)
            honest = honest and seen == sent
            _deliver(target, seen, reader)
    for channel, other in ((dialler, THEM), (listener, US)):
        if channel.ready:
            assert channel.remote_key == other.node_id, "ready for somebody without a key"
        assert channel.error is None or isinstance(channel.error, NetworkError)
        assert channel.ended() is None or isinstance(channel.ended(), NetworkError)
    if honest and listener.remote_key != listener._identity.node_id and expected != b"\x44" * 32:
        assert listener.ready or dialler.error or listener.error, "an honest handshake stands still"
    return [
        (channel.ready, channel.remote_key, type(channel.error).__name__, str(channel.error))
        for channel in (dialler, listener)
    ]


def handshake(data: bytes) -> None:
    """All three messages, changed on the way."""
    same(lambda engines: _handshake(engines, data))


def _open(channel: SecureChannel, sending: bytes, receiving: bytes) -> SecureChannel:
    """A channel past its handshake, without its cost."""
    channel._noise = None
    channel._sending, channel._receiving = CipherState(sending), CipherState(receiving)
    return channel


def _records(engines: Engines, data: bytes) -> Any:
    reader = Reader(data)
    sender = _open(_channel(engines, US, initiator=True)[0], b"\x05" * 32, b"\x06" * 32)
    target = _open(_channel(engines, THEM, initiator=False)[0], b"\x06" * 32, b"\x05" * 32)
    target.decoder.pause_after = reader.pick((-1, -1, 1, 3))
    sent: list[tuple[int, bytes]] = []
    wire = b""
    for _ in range(reader.below(8)):
        frames = []
        for _ in range(reader.below(4) + 1):
            kind = reader.pick((1, 3, 4, 9))  # the last is not admitted
            payload = reader.chunk()[: 8 if kind == 1 else 255] * reader.pick((1, 1, 1, 15))
            payload = payload[:8] if kind == 1 else payload
            frames.append((kind, payload))
        sent += frames
        wire += b"".join(sender.seal([engines.framing.encode_frames(frames)]))
    seen = _altered(reader, wire)
    got = _deliver(target, seen, reader)
    while target.decoder.paused and target.error is None:
        got += [(f.type, f.payload) for f in target.resume()]
    assert got == sent[: len(got)], "a frame that was not sent, or not then"
    if seen == wire and all(kind != 9 for kind, _ in sent):
        fault = target.error or target.decoder.error
        # Behind a pause a decoder keeps no more than its room; a record may be larger.
        assert len(got) == len(sent) or fault is not None, "frames that never arrive"
    ended = target.ended()
    target.discard()
    return got, str(target.error), str(target.decoder.error), str(ended)


def records(data: bytes) -> None:
    """Sealed frames, changed on the way: what comes out is the beginning of what went in."""
    same(lambda engines: _records(engines, data))


def streams(data: bytes) -> None:
    """Any bytes at all to a listener, and to whoever dialled."""
    reader = Reader(data)
    initiator, cut = reader.flag(), reader.rest()

    def listen(engines: Engines) -> Any:
        channel, written = _channel(engines, US, initiator=initiator)
        found = outcome(lambda: _deliver(channel, cut, Reader(cut)))
        assert not channel.ready, "a handshake out of nothing"
        return found, bytes(written), str(channel.error), str(channel.ended())

    same(listen)


def _handshake_seeds() -> Iterator[bytes]:
    yield bytes(60)
    yield bytes([1]) + bytes(60)
    for message in range(3):
        for how in range(6):
            yield bytes([0, 0]) + bytes(2 * message) + bytes([1, 0, 9, how, 3, 5, 7, 9]) + bytes(30)


def _record_seeds() -> Iterator[bytes]:
    one = bytes([1, 1]) + chunk(b"abcdef") + b"\0" + bytes([2]) + chunk(b"x" * 200) + b"\3"
    for pause in (0, 2, 3):
        for count in (1, 3, 7):
            yield bytes([pause, count]) + one * count + bytes(40)
            yield bytes([pause, count]) + one * count + bytes([0, 10, 1, 9, 1, 200, 1, 3] * 6)
            yield bytes([pause, count]) + one * count + bytes([1, 0, 40, 0, 9]) + bytes(40)
            yield bytes([pause, count]) + one * count + bytes([1, 0, 0, 2, 200, 60, 60])
    yield bytes([0, 1, 0, 3]) + chunk(b"not admitted") + bytes(20)


def _stream_seeds() -> Iterator[bytes]:
    for start in (b"\0\x20", b"\0\x60", b"GET / HTTP/1.1", b"\x16\x03\x01", b"\0\0\0\x20\0"):
        for initiator in (b"\0", b"\1"):
            yield initiator + start + bytes(100)


TARGETS = {
    "noise-handshake": Target(handshake, _handshake_seeds, longest=512, native=False),
    "secure-records": Target(records, _record_seeds, longest=2048),
    "secure-streams": Target(streams, _stream_seeds, longest=1024, native=False),
}
