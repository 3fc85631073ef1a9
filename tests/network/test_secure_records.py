"""Records as a whole stream: what is too finely cut, and what lent memory must not become."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.secure import connected

from moderntensor.backend import framing
from moderntensor.errors import ProtocolViolationError
from moderntensor.network.channel import LARGE
from moderntensor.network.secure import _SHORT_IN_A_ROW
from moderntensor.network.send_queue import SendQueue

encode = framing.encode_frame


def test_crumbs_of_a_frame_end_the_stream() -> None:
    """Opening 12,000 records of a byte each would take the loop for 40 ms a read."""
    dialler, listener = connected()
    many = _SHORT_IN_A_ROW + 1
    frame = encode(2, bytes(2 * many))
    listener.receive(b"".join(dialler.seal(frame[at : at + 1]) for at in range(many + 100)))
    error = listener.channel.error
    assert isinstance(error, ProtocolViolationError)
    assert str(error) == f"{many} records in a row under 1024 bytes that end no frame (code 1)"
    assert listener.channel._receiving.nonce == many


def test_a_short_frame_may_come_byte_by_byte() -> None:
    dialler, listener = connected()
    frame = encode(2, bytes(_SHORT_IN_A_ROW - 4))
    listener.receive(b"".join(dialler.seal(frame[at : at + 1]) for at in range(len(frame))))
    assert listener.frames == [(2, bytes(_SHORT_IN_A_ROW - 4))]


def test_short_records_between_frames_and_long_ones_within_are_welcome() -> None:
    dialler, listener = connected()
    frame = encode(1, bytes(11))
    for _ in range(10):
        listener.receive(b"".join(dialler.seal(frame[at : at + 1]) for at in range(len(frame))))
    long = encode(2, bytes(100 * 1024))
    listener.receive(
        b"".join(dialler.seal(long[at : at + 1024]) for at in range(0, len(long), 1024))
    )
    assert listener.frames == [(1, bytes(11))] * 10 + [(2, bytes(100 * 1024))]


class KeepingTransport:
    """Takes nothing off our hands: what it is given it keeps as it is, as asyncio's does from
    Python 3.12 on where the kernel has no room."""

    def __init__(self) -> None:
        self.kept: list[bytes | memoryview] = []

    def write(self, data: bytes | memoryview) -> None:
        self.kept.append(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str) -> None:
        return None

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def is_closing(self) -> bool:
        return False


@pytest.mark.parametrize("way", ["put", "put_now"])
@pytest.mark.parametrize("size", range(LARGE - 40, LARGE + 8, 8))
async def test_what_waits_in_the_transport_is_not_overwritten(way: str, size: int) -> None:
    dialler, listener = connected()
    transport: Any = KeepingTransport()
    queue = SendQueue(dialler.channel, high=1, limit=1 << 20, stall=1.0, on_stalled=lambda: None)
    queue.attach(transport)
    payloads = [bytes([number]) * size for number in range(3)]
    for payload in payloads:
        getattr(queue, way)(encode(2, payload))
        queue.flush()
    queue.close(flush=False)
    listener.receive(b"".join(map(bytes, transport.kept)))
    assert listener.frames == [(2, payload) for payload in payloads]


async def test_large_frames_come_in_shorter_records_than_small_ones() -> None:
    dialler, listener = connected()
    transport: Any = KeepingTransport()
    queue = SendQueue(dialler.channel, high=1, limit=1 << 20, stall=1.0, on_stalled=lambda: None)
    queue.attach(transport)
    small, large = bytes(1000), bytes(100 * 1024)
    queue.put_many([encode(2, small)] * 90)
    queue.flush()
    together = [len(record) for record in transport.kept]
    queue.put_payload(2, large)
    queue.put_payload(2, large)
    queue.flush()
    queue.close(flush=False)
    slices = [len(record) for record in transport.kept[len(together) :]]
    assert together == [4 + 90 * 1005 + 16]
    assert slices == [64 * 1024] * 3 + [4 + 2 * (5 + len(large)) - 3 * (64 * 1024 - 20) + 16]
    listener.receive(b"".join(map(bytes, transport.kept)))
    assert listener.frames == [(2, small)] * 90 + [(2, large)] * 2
