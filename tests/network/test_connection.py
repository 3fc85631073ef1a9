"""One connection over real loopback sockets: splits, floods, faults, sending, the seam."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from helpers.sockets import Owner, dialled, pair

from moderntensor.backend import framing
from moderntensor.errors import (
    FrameError,
    NetworkError,
    PeerBusyError,
    PeerDisconnectedError,
)
from moderntensor.network.channel import Channel

encode = framing.encode_frame


# --- frames in -----------------------------------------------------------------------------


async def test_frames_arrive_whatever_the_split() -> None:
    items = [(1, b"one"), (0, b""), (2, bytes(range(256)) * 4), (1, b"")]
    stream = framing.encode_frames(items)
    for step in (1, 3, len(stream)):
        owner = Owner()
        async with dialled(owner) as client:
            for start in range(0, len(stream), step):
                await client.send(stream[start : start + step])
                await asyncio.sleep(0)
            assert await owner.until(len(items)) == items
            assert owner.connection.bytes_received == len(stream)
            assert owner.connection.frames_received == len(items)
            assert owner.errors == owner.closed == []


async def test_a_flood_of_small_and_large_frames() -> None:
    items = [(1, b"x" * (n % 64)) for n in range(30_000)] + [(2, bytes(1 << 20))] * 8
    owner = Owner()
    async with dialled(owner) as client:
        await client.send(framing.encode_frames(items))
        assert await owner.until(len(items)) == items


async def test_hello_gates_what_is_glued_behind_it() -> None:
    def admit(owner: Owner, frames: list[framing.Frame]) -> None:
        if frames[-1].type == 0:
            assert frames == [framing.Frame(0, b"hello")]
            owner.connection.decoder.set_cap(1, 8)
            owner.connection.resume()

    stream = framing.encode_frames([(0, b"hello"), (1, b"behind"), (1, b"again")])
    owner = Owner(caps={0: 100}, pause_after=0, on_frames=admit)
    async with dialled(owner) as client:
        await client.send(stream)
        assert await owner.until(3) == [(0, b"hello"), (1, b"behind"), (1, b"again")]

    refused = Owner(caps={0: 100}, pause_after=0)
    async with dialled(refused) as client:
        await client.send(encode(1, b"no hello"))
        assert await client.read(1) == b""
        client.sock.close()
        reason = await refused.until_closed()
        assert isinstance(reason, FrameError)
        assert reason.reason == "unknown"
        assert refused.frames == []


async def test_what_resume_brings_comes_after_the_frame_that_paused() -> None:
    told: list[str] = []

    def on_frames(owner: Owner, frames: list[framing.Frame]) -> None:
        told.append(f"begin {frames}")
        owner.connection.resume()
        told.append("end")

    owner = Owner(pause_after=0, on_frames=on_frames)
    async with dialled(owner) as client:
        await client.send(framing.encode_frames([(0, b"hello"), (1, b"behind")]))
        await owner.until(2)
    assert told == [
        "begin [Frame(type=0x00, payload=b'hello')]",
        "end",
        "begin [Frame(type=0x01, payload=b'behind')]",
        "end",
    ]


async def test_reading_can_be_paused() -> None:
    owner = Owner(pause_after=0)
    async with dialled(owner) as client:
        owner.connection.pause_reading()
        owner.connection.pause_reading()
        await client.send(framing.encode_frames([(0, b"hello"), (1, b"behind")]))
        for _ in range(20):
            await asyncio.sleep(0)
        assert owner.connection.bytes_received == 0
        owner.connection.resume_reading()
        await owner.until(1)
        # Both reasons to pause must end before bytes come again.
        await client.send(encode(1, b"later"))
        owner.connection.pause_reading()
        owner.connection.resume()
        assert owner.frames == [(0, b"hello"), (1, b"behind")]
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(owner.frames) == 2
        owner.connection.resume_reading()
        assert (await owner.until(3))[2] == (1, b"later")


async def test_while_paused_the_peer_waits_in_the_kernel() -> None:
    items = [(0, b"hello")] + [(2, bytes(100_000))] * 200
    owner = Owner(pause_after=0, buffer_size=65_536)
    async with dialled(owner) as client:
        sending = asyncio.create_task(client.send(framing.encode_frames(items)))
        await owner.until(1)
        for _ in range(100):
            await asyncio.sleep(0)
        assert owner.frames == items[:1]
        assert owner.connection.decoder.held <= 65_536
        assert owner.errors == []
        owner.connection.resume()
        assert await owner.until(len(items)) == items
        await sending
        owner.connection.resume()  # not paused: nothing happens
        assert len(owner.frames) == len(items)


async def test_a_peer_that_leaves_while_paused_is_noticed_on_resume() -> None:
    owner = Owner(pause_after=0)
    async with dialled(owner) as client:
        await client.send(framing.encode_frames([(0, b"hello"), (1, b"bye")]))
        client.sock.shutdown(socket.SHUT_WR)
        await owner.until(1)
        owner.connection.resume()
        assert owner.frames == [(0, b"hello"), (1, b"bye")]
        assert await owner.until_closed() is None


# --- bad bytes -----------------------------------------------------------------------------


async def test_a_fault_is_told_once_and_the_last_word_arrives() -> None:
    farewell = encode(1, b"your frame is bad")
    owner = Owner(on_error=lambda owner, _: owner.connection.send(farewell))
    async with dialled(owner) as client:
        # What the peer still sends must not make the kernel throw our last frame away.
        await client.send(encode(1, b"good") + encode(9, b"bad") + bytes(1 << 20))
        assert await client.read(100) == farewell
        client.sock.close()
        reason = await owner.until_closed()
    assert owner.frames == [(1, b"good")]
    assert owner.errors == [reason]
    assert isinstance(reason, FrameError)
    assert reason.args == ("unknown", 9, 3, 0)


async def test_length_over_the_cap_is_refused_at_its_header() -> None:
    owner = Owner()
    async with dialled(owner) as client:
        await client.send(struct.pack(">IB", (1 << 20) + 2, 2))
        assert await client.read(1) == b""
        client.sock.close()
        reason = await owner.until_closed()
    assert isinstance(reason, FrameError)
    assert reason.args == ("too-large", 2, (1 << 20) + 1, 1 << 20)


# --- frames out ----------------------------------------------------------------------------


async def test_what_one_turn_sends_leaves_in_one_write() -> None:
    left, right = Owner(), Owner()
    items = [(1, str(n).encode()) for n in range(500)]
    async with pair(left, right):
        for item in items:
            left.connection.send(encode(*item))
        assert left.connection.write_buffer_size == len(framing.encode_frames(items))
        assert left.connection.writes == 0
        assert await right.until(len(items)) == items
        assert left.connection.writes == 1
        assert left.connection.frames_sent == 500
        assert left.connection.bytes_sent == right.connection.bytes_received
        right.connection.send_many(encode(*item) for item in items)
        assert await left.until(len(items)) == items
        assert right.connection.writes == 1
        assert left.connection.remote_address == right.connection.local_address
        assert left.connection.local_address == right.connection.remote_address


async def test_a_peer_that_does_not_read_is_bounded_and_then_served() -> None:
    owner = Owner(write_high=300_000, write_limit=4_000_000)
    frame = encode(2, bytes(range(256)) * 256)
    async with dialled(owner) as client:
        sent = 0
        with pytest.raises(PeerBusyError):
            while True:
                owner.connection.send(frame)
                sent += 1
                await asyncio.sleep(0)
        assert 4_000_000 - len(frame) < owner.connection.write_buffer_size <= 4_000_000
        with pytest.raises(PeerBusyError):
            owner.connection.send_many([frame, frame])
        waiting = asyncio.create_task(owner.connection.drained())
        await asyncio.sleep(0.01)
        assert not waiting.done()

        assert await client.read(sent * len(frame)) == frame * sent
        await asyncio.wait_for(waiting, 10)
        assert owner.connection.write_buffer_size <= 300_000
        # What waited here meanwhile was coalesced, though one frame was sent a turn.
        assert owner.connection.writes < sent
        assert owner.connection.frames_sent == sent
        await owner.connection.drained()  # at once


async def test_frames_of_all_sizes_leave_in_order() -> None:
    """Across the bounds of what is written at once, and whether they are joined or not."""
    left, right = Owner(), Owner()
    sizes = [0, 60, 300_000, 5, 262_139, 1, 20_000, 20_000, 64, 100_000, 200_000, *[1000] * 600]
    items = [(2, bytes([n % 251]) * size) for n, size in enumerate(sizes)]
    frames = [encode(*item) for item in items]
    async with pair(left, right):
        for frame in frames:
            left.connection.send(frame)
        right.connection.send_many(frames)
        assert await right.until(len(items)) == items
        assert await left.until(len(items)) == items
        for owner in (left, right):
            assert owner.connection.frames_sent == len(items)
            assert owner.connection.bytes_sent == sum(map(len, frames))
            assert owner.connection.write_buffer_size == 0
            assert owner.connection.writes < 20


async def test_what_is_enough_for_a_write_does_not_wait_for_the_end_of_the_turn() -> None:
    left, right = Owner(), Owner()
    items = [(2, bytes(8_000))] * 13
    async with pair(left, right):
        left.connection.send_many([encode(*item) for item in items])
        assert left.connection.writes == 1
        assert left.connection.write_buffer_size == 8_005
        assert await right.until(13) == items
        assert left.connection.writes == 2


@pytest.mark.parametrize("gathered", [True, False])
async def test_large_frames_that_the_kernel_takes_in_parts(
    gathered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not gathered:
        monkeypatch.delattr("os.writev", raising=False)
    owner = Owner()
    frames = [encode(2, bytes([n]) * 70_001) for n in range(150)]
    async with dialled(owner) as client:
        owner.connection.send_many(frames)
        await asyncio.sleep(0)
        assert owner.connection.write_buffer_size > 70_000  # beyond what the kernel takes
        assert await client.read(150 * 70_006) == b"".join(frames)
        assert owner.connection.bytes_sent == 150 * 70_006
        assert owner.connection.write_buffer_size == 0
        assert owner.connection.writes == 30


async def test_the_limit_holds_to_the_byte() -> None:
    owner = Owner(write_limit=700_000)
    frame = encode(2, bytes(99_995))
    owner.connection.send_many([frame] * 3)
    for _ in range(4):
        owner.connection.send(frame)
    for refused in ([b"x"], [frame, frame]):
        with pytest.raises(PeerBusyError, match="700000 bytes wait"):
            owner.connection.send_many(refused)
        with pytest.raises(PeerBusyError, match="700000 bytes wait"):
            owner.connection.send(refused[0])
    assert owner.connection.write_buffer_size == 700_000
    async with dialled(owner) as client:
        assert await client.read(700_000) == frame * 7
        owner.connection.send(frame)
        assert await client.read(100_000) == frame
        owner.connection.close()
        for send in (owner.connection.send, lambda one: owner.connection.send_many([one])):
            with pytest.raises(PeerDisconnectedError):
                send(frame)


async def test_a_wait_cancelled_in_the_turn_that_ends_it() -> None:
    owner = Owner(write_high=0)
    async with dialled(owner):
        owner.connection.send_many([encode(2, bytes(1 << 20))] * 12)
        waiting = asyncio.create_task(owner.connection.drained())
        await asyncio.sleep(0.01)
        waiting.cancel()
        owner.connection.abort()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await owner.until_closed() is None


async def test_cancelled_waits_leave_the_connection_alone() -> None:
    owner = Owner(write_high=0)
    async with dialled(owner) as client:
        frame = encode(2, bytes(1 << 20))
        owner.connection.send_many([frame] * 12)
        waits = [
            asyncio.create_task(owner.connection.drained()),
            asyncio.create_task(owner.connection.wait_closed()),
        ]
        await asyncio.sleep(0.01)
        for task in waits:
            assert not task.done()
            task.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        assert [task.cancelled() for task in waits] == [True, True]
        assert await client.read(12 * len(frame)) == frame * 12
        await asyncio.wait_for(owner.connection.drained(), 10)
        await client.send(encode(1, b"still here"))
        assert await owner.until(1) == [(1, b"still here")]


# --- the seam for a secure channel ---------------------------------------------------------


class MaskedChannel(Channel):
    """Both sides send one byte; then everything is masked with the sum of both."""

    def __init__(self, decoder: framing.FrameDecoder, byte: int) -> None:
        super().__init__(decoder)
        self._byte = byte
        self._mask: int | None = None
        self._memory = bytearray(1000)
        self.seals = 0

    @property
    def ready(self) -> bool:
        return self._mask is not None

    @property
    def remote_key(self) -> bytes | None:
        return None if self._mask is None else bytes([self._mask - self._byte] * 32)

    def start(self, write: Callable[[bytes], None]) -> None:
        write(bytes([self._byte]))

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._memory)

    def received(self, n: int) -> list[framing.Frame]:
        data = bytes(self._memory[:n])
        if self._mask is None:
            if data[0] == 0xFF:
                self.error = NetworkError("no channel of this kind")
                return []
            self._mask = self._byte + data[0]
            data = data[1:]
        return self.decoder.feed(self._masked(data))

    def seal(self, parts: Sequence[bytes | memoryview]) -> Sequence[bytes]:
        self.seals += 1
        return [self._masked(b"".join(parts))]

    def _masked(self, data: bytes) -> bytes:
        assert self._mask is not None
        return bytes(byte ^ self._mask for byte in data)


async def test_a_channel_with_a_handshake() -> None:
    left = Owner(channel=lambda decoder: MaskedChannel(decoder, 3))
    right = Owner(channel=lambda decoder: MaskedChannel(decoder, 40))
    items = [(1, b"queued before the channel is ready"), (2, bytes(5000))]
    for item in items:
        left.connection.send(encode(*item))
    async with pair(left, right):
        assert right.connection.remote_key == bytes([3] * 32)
        assert left.connection.remote_key == bytes([40] * 32)
        assert await right.until(2) == items
        right.connection.send(encode(1, b"back"))
        right.connection.send(encode(1, b"again"))
        assert await left.until(2) == [(1, b"back"), (1, b"again")]
        assert isinstance(right.connection.channel, MaskedChannel)
        assert right.connection.channel.seals == 1


async def test_a_channel_that_fails() -> None:
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    owner = Owner(channel=lambda decoder: MaskedChannel(decoder, 3))
    owner.connected.set()  # never is, otherwise
    async with dialled(owner) as client:
        await client.send(b"\xff")
        assert await client.read(10) == b"\x03"
        client.sock.close()
        reason = await owner.until_closed()
    assert str(reason) == "no channel of this kind"
    assert told == []  # the owner's affair, not a fault of the program
    assert owner.frames == []
