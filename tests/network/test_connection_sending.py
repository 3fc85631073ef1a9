"""Whatever is sent, however: what leaves, its order, limits and counts, tried against a model over
a real socket whose reader stops and goes on."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Callable, Sequence

import pytest
from helpers.sockets import Client, Owner, dialled, eventually, pair

from moderntensor.backend import framing
from moderntensor.errors import EncodeError, PeerBusyError, PeerDisconnectedError
from moderntensor.network.channel import PlaintextChannel
from moderntensor.network.connection import Connection

encode = framing.encode_frame
HIGH, LIMIT = 300_000, 2_000_000
# Around what is joined, taken as it is, and more than one write.
SIZES = [0, 1, 60, 60, 60, 1_000, 16_379, 16_384, 20_000, 70_000, 98_299, 98_304, 400_000]
CHUNK = bytes(range(251)) * 1_600


class RecordChannel(PlaintextChannel):
    """What is sealed gets longer, and may be more pieces than one call of the kernel takes."""

    def seal(self, parts: Sequence[bytes | memoryview]) -> Sequence[bytes]:
        data = b"".join(parts)
        data = len(data).to_bytes(4, "big") + bytes(36) + data
        size = 50 if len(parts) == 1 else 5_000
        return [data[at : at + size] for at in range(0, len(data), size)]


def opened(data: bytes) -> bytes:
    frames, at = [], 0
    while at < len(data):
        end = at + 40 + int.from_bytes(data[at : at + 4], "big")
        frames.append(data[at + 40 : end])
        at = end
    return b"".join(frames)


def never_all(chance: random.Random) -> Callable[[int, Sequence[bytes]], int]:
    """A kernel that takes any part of what it is given, or nothing for now."""
    real = os.writev

    def writev(fd: int, buffers: Sequence[bytes]) -> int:
        data = b"".join(buffers)
        if chance.random() < 0.2:
            raise BlockingIOError
        return real(fd, [data[: chance.randint(1, len(data))]])

    return writev


class Model:
    """Sends at random and knows what must arrive."""

    def __init__(self, connection: Connection, chance: random.Random) -> None:
        self.sent: list[bytes] = []
        self.refused = 0
        self._connection = connection
        self._chance = chance
        self._ways = (self._send, self._send_now, self._send_payload, self._send_many)

    def step(self) -> None:
        self._chance.choice(self._ways)()

    def _payload(self) -> bytes:
        at = self._chance.randrange(251)
        return CHUNK[at : at + self._chance.choice(SIZES)]

    def _send(self) -> None:
        frame = encode(2, self._payload())
        self._try([frame], lambda: self._connection.send(frame))

    def _send_now(self) -> None:
        frame = encode(2, self._payload())
        self._try([frame], lambda: self._connection.send_now(frame))

    def _send_payload(self) -> None:
        payload = self._payload()
        self._try([encode(7, payload)], lambda: self._connection.send_payload(7, payload))

    def _send_many(self) -> None:
        frames = [encode(2, self._payload()) for _ in range(self._chance.choice((0, 1, 3, 30)))]
        self._try(frames, lambda: self._connection.send_many(frames))

    def _try(self, frames: list[bytes], send: Callable[[], None]) -> None:
        """Taken to the last byte that the limit allows, or refused without a trace."""
        before, size = self._connection.write_buffer_size, sum(map(len, frames))
        if before + size <= LIMIT or not frames:
            send()
            self.sent += frames
        else:
            with pytest.raises(PeerBusyError):
                send()
            assert self._connection.write_buffer_size == before
            self.refused += 1


async def read_all(client: Client) -> bytes:
    return await client.read(1 << 30)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kernel", ["real", "never-all", "no-writev"])
@pytest.mark.parametrize("records", [False, True], ids=["plain", "records"])
async def test_any_sequence_of_sends(
    records: bool, kernel: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    if kernel == "never-all":
        monkeypatch.setattr(os, "writev", never_all(chance))
    elif kernel == "no-writev":
        monkeypatch.delattr(os, "writev", raising=False)
    channel = RecordChannel if records else PlaintextChannel
    owner = Owner(channel=channel, write_high=HIGH, write_limit=LIMIT)
    connection = owner.connection
    model = Model(connection, chance)
    received = b""
    for _ in range(chance.randrange(40)):  # waits for the socket
        model.step()
        if chance.random() < 0.3:
            await asyncio.sleep(0)
    async with dialled(owner) as client:
        while len(model.sent) < 200 or not model.refused:
            for _ in range(chance.randrange(12)):
                model.step()
            if chance.random() < 0.5:
                await asyncio.sleep(0)
            elif chance.random() < 0.2:
                received += await client.read(min(connection.bytes_sent - len(received), 700_000))
        if chance.random() < 0.5:
            waiting = asyncio.create_task(connection.drained())
            received += await client.read(connection.bytes_sent - len(received))
            await asyncio.wait_for(waiting, 10)
            assert connection.write_buffer_size <= HIGH
        connection.close()  # what waits leaves all the same
        with pytest.raises(PeerDisconnectedError):
            connection.send_payload(2, CHUNK)
        received += await read_all(client)
        assert connection.bytes_sent == len(received)
        assert connection.write_buffer_size == 0
        assert connection.frames_sent == len(model.sent)
    assert (opened(received) if records else received) == b"".join(model.sent)


async def test_a_large_payload_is_not_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    real, told = os.writev, []

    def writev(fd: int, buffers: Sequence[bytes]) -> int:
        told.append(list(buffers))
        return real(fd, buffers)

    monkeypatch.setattr(os, "writev", writev)
    left, right = Owner(), Owner()
    small, large = bytes(16_383), bytes(16_384)
    async with pair(left, right):
        left.connection.send_payload(2, large)
        left.connection.send_payload(2, small)
        assert left.connection.write_buffer_size == 16_384 + 16_383 + 2 * 5
        assert await right.until(2) == [(2, large), (2, small)]
        assert told == [[encode(2, large)[:5], large, encode(2, small)]]
        assert told[0][1] is large
        assert left.connection.frames_sent == 2
        assert left.connection.writes == 1


@pytest.mark.parametrize("size", [0, 20_000])
def test_what_no_frame_can_hold_is_not_sent(size: int) -> None:
    async def run() -> None:
        connection = Owner().connection
        for kind, payload in (
            (256, bytes(size)),
            (-1, bytes(size)),
            (True, bytes(size)),
            (2, bytearray(size)),
            (2, bytes(10 * 1024 * 1024 + 1)),
        ):
            with pytest.raises(EncodeError) as ours:
                connection.send_payload(kind, payload)  # type: ignore[arg-type]
            with pytest.raises(EncodeError) as usual:
                encode(kind, payload)  # type: ignore[arg-type]
            assert str(ours.value) == str(usual.value)
        assert connection.write_buffer_size == 0
        connection.abort()

    asyncio.run(run())


async def test_the_limit_holds_however_many_turns_the_socket_takes_to_open() -> None:
    owner = Owner(write_limit=200_000)
    frame = encode(2, bytes(59_995))
    for _ in range(3):
        owner.connection.send(frame)
        await asyncio.sleep(0)
    with pytest.raises(PeerBusyError):
        owner.connection.send(frame)
    assert owner.connection.write_buffer_size == 180_000
    owner.connection.abort()


async def test_a_reset_that_a_write_meets_first(caplog: pytest.LogCaptureFixture) -> None:
    owner = Owner()
    async with dialled(owner) as client:
        owner.connection.pause_reading()
        client.reset()
        with caplog.at_level(logging.WARNING):
            owner.connection.send_many([encode(2, bytes(1 << 20))] * 15)
            await eventually(lambda: owner.connection.closed)
        assert isinstance(owner.closed[0], ConnectionError)
        assert caplog.records == []  # asyncio warns of writes to a transport that has failed
        assert owner.connection.write_buffer_size == 0
