"""Frames: bytes of a stream cut into frames, frames made."""

from __future__ import annotations

from collections.abc import Iterator

from moderntensor._ext import framing as compiled
from moderntensor._pure import framing as pure

from ..case import OURS, Case, Mark, Scale
from ..timing import calls

TITLE = "Framing"


def cases(scale: Scale) -> Iterator[Case]:
    frame = (1, b"x" * 8)
    yield Case(
        "encode one frame, 8 bytes",
        "frames/s",
        (
            calls(scale, OURS, compiled.encode_frame, *frame),
            calls(scale, "pure", pure.encode_frame, *frame),
        ),
        (Mark(2.0, ("pure",)),),
    )
