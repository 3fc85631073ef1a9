"""Bans on disk: what a node and its operator's commands both write, one at a time."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from ..errors import ConfigError, DecodeError, StorageError
from ..runtime import Runtime
from .bans import Ban, Bans, room_for
from .limits import BANS, BANS_FILE_BYTES, BANS_WATCH
from .state_file import Directory, load, place

__all__ = ["BanFile", "BanKeeper", "decode_bans", "encode_bans"]

logger = logging.getLogger(__name__)

_FORMAT: Final = "moderntensor/bans/1"
_FIELDS: Final = {"key": str, "until": int, "seconds": int, "reason": str, "times": int}


def encode_bans(bans: Iterable[Ban]) -> bytes:
    """The file that holds `bans`, for people to read as well."""
    rows = [{name: getattr(ban, name) for name in _FIELDS} for ban in bans]
    return json.dumps({"format": _FORMAT, "bans": rows}, indent=1).encode() + b"\n"


def decode_bans(data: bytes) -> list[Ban]:
    """The bans in a file. Raises `DecodeError` for anything that `encode_bans` cannot have
    written: other fields, values out of range, a key twice, more than `BANS` of them."""
    if len(data) > BANS_FILE_BYTES:
        raise DecodeError(f"bans: more than {BANS_FILE_BYTES} bytes")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"bans: no JSON ({type(error).__name__})") from error
    if not isinstance(content, dict) or set(content) != {"format", "bans"}:
        raise DecodeError('bans: needs "format" and "bans"')
    rows = content["bans"]
    if content["format"] != _FORMAT or not isinstance(rows, list):
        raise DecodeError(f"bans: no list in the format {_FORMAT}")
    if len(rows) > BANS:
        raise DecodeError(f"bans: {len(rows)}, at most {BANS}")
    bans = [_ban(row) for row in rows]
    if len({ban.key for ban in bans}) != len(bans):
        raise DecodeError("bans: a key twice")
    return bans


def _ban(row: Any) -> Ban:
    if not isinstance(row, dict) or row.keys() != _FIELDS.keys():
        raise DecodeError(f"bans: needs {', '.join(_FIELDS)} of each")
    for name, kind in _FIELDS.items():
        if type(row[name]) is not kind:
            raise DecodeError(f"bans: {name} is no {kind.__name__}")
    try:
        return Ban(**row)
    except ConfigError as error:
        raise DecodeError(f"bans: {error}") from error


Changes = Mapping[str, Ban | None]
"""Bans that are set, or lifted (None), by key."""


class BanFile:
    """``bans.json`` in a data directory, guarded by a lock beside it.

    Methods block: the node calls them on a worker thread. They raise `StorageError`.
    """

    def __init__(self, directory: Path | Directory) -> None:
        self._file = place(directory, "bans.json")
        self._seen: Hashable | None = None

    def read(self) -> list[Ban]:
        """The bans on disk. Raises `DecodeError` as well."""
        data = self._file.read(BANS_FILE_BYTES)
        return [] if data is None else decode_bans(data)

    def change(self, changes: Changes, now: float) -> list[Ban]:
        """Read, change and write in one, as nobody else does meanwhile; what was there before.
        `now` is a Unix time. Raises `DecodeError` as well."""
        with self._file.locked():
            before = self.read()
            self._write(before, changes, now)
        return before

    def exchange(self, changes: Changes, own: Iterable[Ban], now: float) -> list[Ban] | None:
        """Write `changes`; what is on disk then, or None if it is what was seen last.

        A file that cannot be used is set aside (one line in the log), and `own` takes its place.
        """
        if not changes and self._file.stamp() == self._seen:
            return None
        with self._file.locked():
            stamp = self._file.stamp()
            bans: list[Ban] | None = load(self._file, BANS_FILE_BYTES, decode_bans)
            if bans is None and stamp is not None:
                bans = self._write(own, changes, now)
            elif changes:
                bans = self._write(bans or [], changes, now)
            self._seen = self._file.stamp()
        return bans or []

    def _write(self, bans: Iterable[Ban], changes: Changes, now: float) -> list[Ban]:
        table = {ban.key: ban for ban in bans}
        for key, ban in changes.items():
            table.pop(key, None)
            if ban is not None:
                table[key] = ban
        bans = room_for(table.values(), now)
        self._file.write(encode_bans(bans))
        return bans


class BanKeeper:
    """Keeps a node's bans on disk, and takes over what its operator's commands write there."""

    def __init__(
        self,
        bans: Bans,
        runtime: Runtime,
        directory: Path | Directory,
        *,
        on_changed: Callable[[Iterable[str], Iterable[str]], None],
    ) -> None:
        """`on_changed(banned, lifted)` is called with the keys whose bans the file has changed."""
        self._bans = bans
        self._runtime = runtime
        self._file = BanFile(directory)
        self._on_changed = on_changed
        self._wake = asyncio.Event()
        self._failing = False
        bans.on_change = self._wake.set

    async def load(self) -> None:
        """Take over what an earlier run has left. Raises `StorageError`."""
        await self._exchange()

    async def run(self) -> None:
        """Write what changes here, look for what changes there, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(BANS_WATCH):
                    await self._wake.wait()
            self._wake.clear()
            self._bans.tidy()
            await self._try()

    async def close(self) -> None:
        """Write what has not been written yet."""
        if self._bans.changes:
            await self._try()

    async def _try(self) -> None:
        """A disk that is full costs no peer its place: the changes are written when they can be."""
        try:
            await self._exchange()
        except StorageError as error:
            if not self._failing:
                logger.error("bans are not kept on disk: %s", error)
            self._failing = True
        else:
            self._failing = False

    async def _exchange(self) -> None:
        changes = dict(self._bans.changes)
        now = self._runtime.wall_time()
        own = self._bans.everything()
        table = await self._runtime.run(self._file.exchange, changes, own, now)
        # Written: forget it, unless it has changed again meanwhile.
        for key, ban in changes.items():
            if self._bans.changes.get(key, ...) is ban:
                del self._bans.changes[key]
        if table is not None:
            banned, lifted = self._bans.take_over(table)
            if banned or lifted:
                self._on_changed(banned, lifted)
