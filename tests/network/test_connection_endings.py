"""Deadlines of a connection, and every way in which it ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import weakref
from typing import Any

import pytest
from helpers.sockets import Clock, Owner, dialled, eventually, pair

from moderntensor.backend import framing
from moderntensor.errors import (
    NetworkError,
    PeerDisconnectedError,
    ProtocolViolationError,
)
from moderntensor.network.connection import CLOSE_BYTES

encode = framing.encode_frame
BRIEF = 0.02  # s until a peer that does not end its side is no longer waited for


@pytest.fixture
async def clock() -> Clock:
    return Clock()


# --- deadlines -----------------------------------------------------------------------------


async def test_a_frame_begun_and_never_finished_ends_the_connection(clock: Clock) -> None:
    owner = Owner(close_timeout=BRIEF)
    async with dialled(owner) as client:
        await client.send(encode(1, b"whole") + encode(1, b"unfinished")[:7])
        await eventually(lambda: owner.connection.decoder.pending == 7)
        await clock.advance(29)
        assert not owner.connection.closing
        await clock.advance(2)
        reason = await owner.until_closed()
    assert owner.frames == [(1, b"whole")]
    assert isinstance(reason, ProtocolViolationError)
    assert (reason.code, str(reason)) == (8, "a frame was not complete within 30 s (code 8)")


async def test_bytes_that_trickle_do_not_extend_the_deadline(clock: Clock) -> None:
    owner = Owner(close_timeout=BRIEF)
    async with dialled(owner) as client:
        for n, byte in enumerate(encode(1, bytes(60))[:16]):
            assert not owner.connection.closing
            await client.send(bytes([byte]))
            await eventually(lambda n=n: owner.connection.decoder.pending == n + 1)
            await clock.advance(1.9)  # 28.5 s before the last one, 30.4 s after it
        assert isinstance(await owner.until_closed(), ProtocolViolationError)


async def test_the_deadline_is_of_one_frame_not_of_the_line(clock: Clock) -> None:
    """Frames that are each quick, but always leave another one begun, are no slow frame."""
    owner = Owner(close_timeout=BRIEF)
    item = encode(1, b"0123456789")
    async with dialled(owner) as client:
        await client.send(item[:4])
        for n in range(10):
            await client.send(item[4:] + item[:4])
            await owner.until(n + 1)
            await clock.advance(20)
        await client.send(item[4:])
        await owner.until(11)
        await clock.advance(1000)  # idle between frames is no offence
        assert not owner.connection.closing
        # The deadline works again for the next one.
        await client.send(item[:4])
        await eventually(lambda: owner.connection.decoder.pending == 4)
        await clock.advance(31)
        assert isinstance(await owner.until_closed(), ProtocolViolationError)


@pytest.mark.parametrize("finished", [True, False])
async def test_a_long_frame_gets_time_for_its_length(clock: Clock, finished: bool) -> None:
    owner = Owner(close_timeout=BRIEF)
    wire = encode(2, bytes(1 << 20))  # 64 s more
    async with dialled(owner) as client:
        await client.send(wire[:1000])
        await eventually(lambda: owner.connection.decoder.pending == 1000)
        await clock.advance(93)
        assert not owner.connection.closing
        if finished:
            await client.send(wire[1000:])
            assert await owner.until(1) == [(2, bytes(1 << 20))]
        else:
            await clock.advance(2)
            assert isinstance(await owner.until_closed(), ProtocolViolationError)


async def test_a_peer_that_never_reads_is_given_up_a_slow_one_not(clock: Clock) -> None:
    owner = Owner(write_high=100_000)
    frame = encode(2, bytes(1 << 20))
    async with dialled(owner) as client:
        owner.connection.send_many([frame] * 15)
        waiting = asyncio.create_task(owner.connection.drained())
        for _ in range(3):
            await asyncio.sleep(0.01)
            before = owner.connection.write_buffer_size
            assert before > 1 << 20
            await client.read(2 << 20)
            await eventually(lambda before=before: owner.connection.write_buffer_size < before)
            await clock.advance(29)
            await clock.advance(2)
            assert not owner.connection.closing
        # Nor is one that took all and was then sent nothing.
        rest = 15 * len(frame) - 3 * (2 << 20)
        assert len(await client.read(rest)) == rest
        await waiting
        for _ in range(3):
            await clock.advance(31)
        assert not owner.connection.closing

        owner.connection.send_many([frame] * 15)
        waiting = asyncio.create_task(owner.connection.drained())
        await asyncio.sleep(0.01)
        # It may still hold what the kernel took meanwhile as progress: once, not twice.
        await clock.advance(31)
        await clock.advance(31)
        reason = await owner.until_closed()
        with pytest.raises(PeerDisconnectedError):
            await waiting
    assert isinstance(reason, PeerDisconnectedError)
    assert str(reason) == "the peer read nothing for 30 s"


# --- every way to end ----------------------------------------------------------------------


async def test_close_delivers_what_was_sent() -> None:
    left, right = Owner(), Owner()
    async with pair(left, right):
        left.connection.send_many([encode(2, bytes(1 << 20))] * 5)
        left.connection.close()
        left.connection.close(ValueError("the first reason counts"))
        assert left.connection.closing
        with pytest.raises(PeerDisconnectedError):
            left.connection.send(encode(1, b"late"))
        with pytest.raises(PeerDisconnectedError):
            await left.connection.drained()
        assert await left.until_closed() is None
        assert await right.until_closed() is None
        assert right.frames == [(2, bytes(1 << 20))] * 5
        assert left.connection.closed
        assert left.connection.remote_address is not None


async def test_half_close_still_gets_its_reply() -> None:
    def reply(owner: Owner, frames: list[framing.Frame]) -> None:
        owner.connection.send_many(encode(frame.type, frame.payload) for frame in frames)

    owner = Owner(on_frames=reply)
    async with dialled(owner) as client:
        await client.send(encode(1, b"question"))
        client.sock.shutdown(socket.SHUT_WR)
        assert await client.read(100) == encode(1, b"question")
        assert await owner.until_closed() is None


async def test_end_within_a_frame_is_no_clean_end() -> None:
    owner = Owner()
    async with dialled(owner) as client:
        await client.send(encode(1, b"cut off")[:-1])
        client.sock.close()
        reason = await owner.until_closed()
    assert isinstance(reason, PeerDisconnectedError)
    assert "11 bytes into a frame" in str(reason)


async def test_reset_by_the_peer() -> None:
    owner = Owner()
    async with dialled(owner) as client:
        await client.send(encode(1, b"x"))
        await owner.until(1)
        client.reset()
        assert isinstance(await owner.until_closed(), ConnectionResetError)


async def test_frames_are_not_looked_at_after_close() -> None:
    owner = Owner()
    async with dialled(owner) as client:
        owner.connection.close()
        await client.send(encode(1, b"too late") + bytes(100))
        assert await client.read(1) == b""
        client.sock.close()
        assert await owner.until_closed() is None
    assert owner.frames == owner.errors == []


async def test_close_while_paused_sees_the_end() -> None:
    owner = Owner(pause_after=0, close_timeout=1000)
    async with dialled(owner) as client:
        await client.send(encode(0, b"hello") + bytes(1000))
        await owner.until(1)
        owner.connection.close()
        assert await client.read(1) == b""
        client.sock.close()
        assert await owner.until_closed() is None


async def test_pausing_reading_stops_the_deadline(clock: Clock) -> None:
    owner = Owner(close_timeout=BRIEF)
    wire = encode(1, b"0123456789")
    async with dialled(owner) as client:
        await client.send(wire[:7])
        await eventually(lambda: owner.connection.decoder.pending == 7)
        owner.connection.pause_reading()
        await clock.advance(100)
        owner.connection.resume_reading()
        await clock.advance(29)
        assert not owner.connection.closing
        await clock.advance(2)
        assert isinstance(await owner.until_closed(), ProtocolViolationError)


async def test_close_after_an_unseen_reset() -> None:
    owner = Owner()
    async with dialled(owner) as client:
        client.reset()
        owner.connection.close()
        assert await owner.until_closed() is None


async def test_reset_while_closing_is_a_clean_end() -> None:
    owner = Owner()
    async with dialled(owner) as client:
        owner.connection.close()
        client.reset()
        assert await owner.until_closed() is None


@pytest.mark.parametrize("sending", [False, True])
async def test_a_peer_that_never_closes_its_end_is_cut(clock: Clock, sending: bool) -> None:
    owner = Owner()
    async with dialled(owner):
        if sending:
            owner.connection.send_many([encode(2, bytes(1 << 20))] * 12)
        reason = ProtocolViolationError(1, "enough")
        owner.connection.close(reason)
        await clock.advance(1.5)
        assert not owner.connection.closed
        await clock.advance(1)
        assert await owner.until_closed() is reason


async def test_who_sends_on_and_on_after_the_close_is_not_read_any_more(clock: Clock) -> None:
    owner = Owner()
    async with dialled(owner) as client:
        owner.connection.close()
        before = owner.connection.bytes_received
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(0.3):
                for _ in range(400):
                    await client.send(bytes(256 * 1024))
        taken = owner.connection.bytes_received - before
        assert CLOSE_BYTES < taken <= CLOSE_BYTES + framing.DEFAULT_BUFFER_SIZE
        await clock.advance(3)
        await owner.until_closed()


async def test_abort_drops_what_waits() -> None:
    owner = Owner()
    async with dialled(owner) as client:
        reason = NetworkError("gone")
        owner.connection.send(encode(1, b"never leaves"))
        owner.connection.abort(reason)
        owner.connection.abort()
        assert owner.connection.write_buffer_size == 0
        assert await owner.until_closed() is reason
        with contextlib.suppress(ConnectionError):
            assert await client.read(1) == b""


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_ended_before_it_was_connected(how: str) -> None:
    owner = Owner()
    getattr(owner.connection, how)()
    assert owner.closed == [None]
    owner.connected.set()
    async with dialled(owner) as client:
        with contextlib.suppress(ConnectionError):
            assert await client.read(1) == b""
    assert owner.closed == [None]


async def test_an_exception_of_the_owner_surfaces() -> None:
    def broken(_: Owner, __: list[framing.Frame]) -> None:
        raise ZeroDivisionError("bug")

    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    owner = Owner(on_frames=broken)
    async with dialled(owner) as client:
        await client.send(encode(1, b"x"))
        assert isinstance(await owner.until_closed(), ZeroDivisionError)
    assert [type(context["exception"]) for context in told] == [ZeroDivisionError]


async def test_a_closed_connection_leaves_nothing(clock: Clock) -> None:
    left, right = Owner(), Owner()
    async with pair(left, right):
        left.connection.send(encode(2, bytes(1000)) + encode(2, bytes(1000))[:10])
        await right.until(1)
        right.connection.close()
        await left.until_closed()
        await right.until_closed()
    assert clock.pending == []
    gone = [weakref.ref(owner.connection) for owner in (left, right)]
    for _ in range(3):
        await asyncio.sleep(0)  # the loop lets go of its last callbacks
    gc.disable()  # no cycle may need the collector: hostile peers come and go
    try:
        del left, right
        assert [reference() for reference in gone] == [None, None]
    finally:
        gc.enable()
