"""Framing: one full read (256 KiB) into frames, and frames into one buffer.

Beside the twins stands the plain asyncio design, `StreamReader.readexactly` twice a frame.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest

READ = 256 * 1024
SIZES = pytest.mark.parametrize(
    "size", [0, 64, 1024, 65_536], ids=["empty", "64 B", "1 KiB", "64 KiB"]
)


def items(size: int) -> list[tuple[int, bytes]]:
    """The frames of one read; each with a payload of its own."""
    return [(1, bytes([n % 256]) * size) for n in range(READ // (size + 5))]


def note(benchmark: Any, frames: int, size: int) -> None:
    if not benchmark.stats:  # benchmarks that only run as tests are not timed
        return
    seconds = benchmark.stats["min"]
    benchmark.extra_info["frames_per_second"] = round(frames / seconds)
    benchmark.extra_info["gigabytes_per_second"] = round(frames * (size + 5) / seconds / 1e9, 3)


@SIZES
def test_decode(engine: Any, benchmark: Any, size: int) -> None:
    benchmark.group = f"decode one read, {size} B payloads"
    framing, batch = engine.framing, items(size)
    wire = framing.encode_frames(batch)
    decoder = framing.FrameDecoder({1: size})
    decoder.get_buffer(-1)[: len(wire)] = wire
    frames = benchmark(decoder.buffer_updated, len(wire))
    assert len(frames) == len(batch)
    note(benchmark, len(batch), size)


@SIZES
def test_decode_by_stream_reader(benchmark: Any, size: int) -> None:
    from moderntensor._pure.framing import encode_frames

    benchmark.group = f"decode one read, {size} B payloads"
    batch = items(size)
    wire = encode_frames(batch)
    header = struct.Struct(">IB")

    async def read() -> list[tuple[int, bytes]]:
        reader = asyncio.StreamReader()
        reader.feed_data(wire)
        frames = []
        for _ in batch:
            length, frame_type = header.unpack(await reader.readexactly(5))
            frames.append((frame_type, await reader.readexactly(length - 1)))
        return frames

    with asyncio.Runner() as runner:
        assert benchmark(lambda: runner.run(read())) == batch
    note(benchmark, len(batch), size)


@SIZES
def test_encode_batch(engine: Any, benchmark: Any, size: int) -> None:
    benchmark.group = f"encode one batch, {size} B payloads"
    batch = items(size)
    assert len(benchmark(engine.framing.encode_frames, batch)) == len(batch) * (size + 5)
    note(benchmark, len(batch), size)


@SIZES
def test_encode_one(engine: Any, benchmark: Any, size: int) -> None:
    benchmark.group = f"encode one frame, {size} B payload"
    assert len(benchmark(engine.framing.encode_frame, 1, bytes(size))) == size + 5
