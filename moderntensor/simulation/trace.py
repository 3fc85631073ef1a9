"""What happens in a simulation, line by line: the same seed gives the same lines."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final
from zlib import crc32

from ..errors import SimulationError

__all__ = ["RECORD_CAP", "Trace"]

RECORD_CAP: Final = 1 << 30
"""Bytes of text that are recorded at most; the hash goes on."""
_LINES: Final = 1024  # hashed at a time


class Trace:
    """Lines of text, the SHA-256 of all of them, and the text itself where it is asked for.

    A line is the simulated time in seconds, what happened, and to whom. Segments of a connection
    are told with their length and CRC-32, which takes in every byte that a host receives.
    """

    def __init__(self, clock: Callable[[], float], record: bool | Path = False) -> None:
        """`record`: keep the text in memory (True), or write it to this file."""
        self._clock = clock
        self._hash = sha256()
        self._lines: list[str] = []
        self._text: list[bytes] | None = [] if record is True else None
        self._room = RECORD_CAP if record else 0
        self._file = record.open("wb") if isinstance(record, Path) else None
        self._path = record if isinstance(record, Path) else None
        self._broken: OSError | None = None
        self.on_record: Callable[[float, str, str], None] | None = None
        """Called with time, kind and text of each line that is not about bytes."""

    # --- what happens ----------------------------------------------------------------------

    def record(self, kind: str, text: str) -> None:
        """A line: `kind` is one word, `text` has none but characters of one line."""
        now = self._clock()
        self._add(f"{now:.9f} {kind} {text}\n")
        if self.on_record is not None:
            self.on_record(now, kind, text)

    def fault(self, kind: str, text: str) -> None:
        """A fault begins or ends, as `kind` says."""
        self.record("fault", f"{kind} {text}")

    def connection(self, kind: str, a: str, b: str) -> None:
        """A connection between two places begins or ends."""
        self._add(f"{self._clock():.9f} {kind} {a} {b}\n")

    def segment(self, sender: str, receiver: str, data: bytes | bytearray | memoryview) -> None:
        """Bytes arrive; none: the end of the stream."""
        lines = self._lines  # as `_add`: most lines are of this kind
        lines.append(f"{self._clock():.9f} > {sender} {receiver} {len(data)} {crc32(data):08x}\n")
        if len(lines) >= _LINES:
            self._flush()

    def _add(self, line: str) -> None:
        lines = self._lines
        lines.append(line)
        if len(lines) >= _LINES:
            self._flush()

    # --- what is left ----------------------------------------------------------------------

    def digest(self) -> str:
        """The SHA-256 of all lines so far, in hex: that of the file, where one is written."""
        self._flush()
        return self._hash.hexdigest()

    @property
    def text(self) -> str:
        """All lines so far. SimulationError unless they are kept in memory."""
        self._flush()
        if self._text is None:
            raise SimulationError("the text of the trace is not kept: the world needs record=True")
        return b"".join(self._text).decode()

    def check(self) -> None:
        """SimulationError if not all lines went into the file. Raised by nobody else: those whose
        lines they are would take it for a failure of theirs."""
        if self._broken is not None:
            reason = self._broken.strerror or self._broken
            raise SimulationError(f"trace file {self._path}: {reason}") from self._broken

    def close(self) -> None:
        """Finish the file; `check` says whether it is whole. Idempotent."""
        self._flush()
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError as error:
                self._failed(file, error)

    def _flush(self) -> None:
        if not self._lines:
            return
        data = "".join(self._lines).encode()
        self._lines.clear()
        self._hash.update(data)
        if not self._room:
            return
        kept = data[: self._room]
        self._room -= len(kept)
        if self._file is not None:
            self._write(self._file, kept)
        elif self._text is not None:
            self._text.append(kept)

    def _write(self, file: BinaryIO, data: bytes) -> None:
        try:
            file.write(data)
        except OSError as error:
            self._failed(file, error)

    def _failed(self, file: BinaryIO, error: OSError) -> None:
        self._broken = self._broken or error
        self._file, self._room = None, 0  # no line more
        with suppress(OSError):  # it writes what waits, and ends the file even where it cannot
            file.close()
