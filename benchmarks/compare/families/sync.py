"""Whole syncs from three peers over loopback, against what bounds them: signatures, the disk."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import lmdb

from moderntensor.backend import headers
from moderntensor.blockchain import tables
from moderntensor.blockchain.state import StateDB

from .. import all_cores
from ..case import OURS, Case, Contender, Mark, Scale
from ..sync_run import PEERS, Source, served

TITLE = "Sync from three peers"

VERIFYING = "Schnorr verification, all cores"
RECOVERING = "key recovery, all cores"
WRITING = "bare lmdb, the same rows"
BARE: Final = (
    "nothing but calls of the binding, in a process for each core, which a sync has to share with "
    f"its {PEERS} peers"
)

BOUND: Final = (
    "one thread writes the store: of 6.6 µs a header on the machine of the first figures it took "
    "5.2, 1.2 of them commits to the disk; bare lmdb wrote the same rows at 400k headers/s"
)

TRANSFERS = 10  # in a block
MAP_SIZE = 1 << 32


def cases(scale: Scale) -> Iterator[Case]:
    """Two chains, each built once; every sample is a process that syncs it from nothing."""
    with served(scale.pick(100_000, 6000), 0) as source:
        yield _empty(scale, source)
        yield _headers(scale, source)
    with served(scale.pick(6000, 300), TRANSFERS) as source:
        yield _transfers(scale, source)


def _rounds(scale: Scale) -> int:
    return scale.pick(5, 1)


def _bare(scale: Scale, kind: str) -> Contender:
    name = VERIFYING if kind == all_cores.VERIFY else RECOVERING
    seconds = scale.pick(1.5, 0.3)
    return Contender(name, lambda: all_cores.rate(kind, seconds), BARE)


def _empty(scale: Scale, source: Source) -> Case:
    def sync() -> float:
        last = source.sync()[-1]
        return float(last["blocks"] / last["seconds"])

    return Case(
        f"{source.head.height:,} signed empty blocks",
        "blocks/s",
        (Contender(OURS, sync), _bare(scale, all_cores.VERIFY)),
        (Mark(0.25, (VERIFYING,), percent=True),),
        rounds=_rounds(scale),
    )


def _transfers(scale: Scale, source: Source) -> Case:
    def sync() -> float:
        last = source.sync()[-1]
        assert last["transactions"] == TRANSFERS * source.head.height
        return float(last["transactions"] / last["seconds"])

    return Case(
        f"{source.head.height:,} blocks of {TRANSFERS} transfers, executed and stored",
        "transfers/s",
        (Contender(OURS, sync), _bare(scale, all_cores.RECOVER)),
        (Mark(0.25, (RECOVERING,), percent=True),),
        rounds=_rounds(scale),
    )


def _headers(scale: Scale, source: Source) -> Case:
    trusted = ("--headers", "--trusted", source.head.height, source.head.hash.hex())
    rows = _rows(source)

    def sync() -> float:
        last = source.sync(*trusted)[-1]
        return float(last["headers"] / last["header_seconds"])

    return Case(
        f"{source.head.height:,} headers below a trusted hash",
        "headers/s",
        (
            Contender(OURS, sync),
            Contender(
                WRITING,
                lambda: _write(source.directory / "bare", rows),
                "header by height and height by hash in the commits that a sync makes, in one "
                "thread that does nothing else",
            ),
        ),
        (Mark(500_000, bound=BOUND),),
        rounds=_rounds(scale),
        note=scale.pick(
            "", "so few that the first request, the skeleton and one commit are most of the time"
        ),
    )


def _rows(source: Source) -> list[tuple[bytes, bytes, bytes]]:
    """(key, header, hash) of all headers, ascending."""
    with (
        StateDB(source.directory / "source", map_size=MAP_SIZE) as state_db,
        state_db.store.read() as txn,
    ):
        found = txn.range(tables.CANONICAL, tables.height_key(1))
    return [(key, raw, headers.header_hash(raw)) for key, raw in found]


def _write(directory: Path, rows: list[tuple[bytes, bytes, bytes]]) -> float:
    """Headers per second of LMDB itself."""
    commit = 8192
    env = lmdb.open(str(directory), map_size=MAP_SIZE, max_dbs=2)
    try:
        by_height, by_hash = env.open_db(b"height"), env.open_db(b"hash")
        began = time.perf_counter()
        for start in range(0, len(rows), commit):
            part = rows[start : start + commit]
            with env.begin(write=True) as txn:
                with txn.cursor(by_height) as cursor:
                    cursor.putmulti([(key, raw) for key, raw, _ in part], append=True)
                with txn.cursor(by_hash) as cursor:
                    cursor.putmulti([(block_hash, key) for key, _, block_hash in part])
        return len(rows) / (time.perf_counter() - began)
    finally:
        env.close()
        for file in directory.iterdir():
            file.unlink()
