"""The chains that are synced: made once, kept in a cache directory, the same on every machine."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from moderntensor.backend import merkle
from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.crypto import sha256
from moderntensor.blockchain.genesis import ChainConfig
from moderntensor.blockchain.snapshots import Snapshot, SnapshotKeeper
from moderntensor.blockchain.state_load import load_state
from moderntensor.blockchain.state_slots import active
from moderntensor.blockchain.tables import TABLES, TX_INDEX
from moderntensor.blockchain.workload import (
    DEFAULT_TIMESTAMP,
    build_chain,
    demo_config,
    demo_keys,
)
from moderntensor.runtime import Runtime
from moderntensor.storage import Store, open_store

SENDERS, VALIDATORS = demo_keys(64), demo_keys(3, "validator")
MAP_SIZE = 16 << 30
TAIL = 100  # blocks on top of the last snapshot: 64 at least must follow it
READ_ROWS = 16_384
GENESIS, DATA, CHAIN, SNAPSHOTS = "genesis.json", "data", "chain", "snapshots"
_DESCRIPTION = "description.json"  # written last: without it the rest is not complete


@dataclass(frozen=True, slots=True)
class Source:
    """A chain in a directory of its own, with a snapshot, and what a sync of it must lead to."""

    directory: str
    height: int
    hash: str
    state_root: str
    accounts: int
    digest: str
    """Of all accounts, see `digest_of`."""
    transactions: int
    snapshot: int
    """Height of the snapshot."""

    @property
    def genesis(self) -> str:
        return str(Path(self.directory) / GENESIS)

    @property
    def data(self) -> Path:
        return Path(self.directory) / DATA


def rows_of(store: Store) -> Iterator[list[tuple[bytes, bytes]]]:
    """All accounts of the chain's state, in the order of their keys."""
    start = b""
    while True:
        with store.read() as txn:
            rows = txn.range(active(txn).accounts, start, limit=READ_ROWS)
        if not rows:
            return
        yield rows
        start = rows[-1][0] + b"\0"


def digest_of(store: Store) -> tuple[int, str]:
    """How many accounts there are, and one SHA-256 over every byte of them."""
    digest, count = hashlib.sha256(), 0
    for rows in rows_of(store):
        count += len(rows)
        digest.update(b"".join(b"".join(row) for row in rows))
    return count, digest.hexdigest()


def _cached(directory: Path, make: Callable[[Path], ChainConfig]) -> Source:
    """The source in `directory`, which `make` fills if it is not complete."""
    description = directory / _DESCRIPTION
    if description.exists():
        found = json.loads(description.read_text(encoding="utf-8"))
        return Source(**{**found, "directory": str(directory)})
    if not (directory / GENESIS).exists():  # written when the chain is complete
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        make(directory).save(directory / GENESIS)
    return describe(directory)


def describe(directory: Path) -> Source:
    """Give the chain in `directory` its newest snapshot and note all of it."""
    runtime = Runtime()
    config = ChainConfig.load(directory / GENESIS)
    try:
        with open_store(directory / DATA / CHAIN, TABLES, map_size=MAP_SIZE) as store:
            chain = Blockchain(store, config)
            keeper = SnapshotKeeper(chain, directory / DATA / SNAPSHOTS, runtime)
            keeper.load()
            while keeper.due() is not None and keeper.make(lambda: False):
                pass
            height = max(keeper.announced)[0]
            keeper.close()
            count, digest = digest_of(store)
            with store.read() as txn:
                transactions = txn.count(TX_INDEX)
            source = Source(
                directory=str(directory),
                height=chain.head.height,
                hash=chain.head.hash.hex(),
                state_root=chain.head.state_root.hex(),
                accounts=count,
                digest=digest,
                transactions=transactions,
                snapshot=height,
            )
    finally:
        runtime.close()
    text = json.dumps(asdict(source), indent=1) + "\n"
    (directory / _DESCRIPTION).write_text(text, encoding="utf-8")
    return source


@contextmanager
def snapshot_of(source: Source) -> Iterator[Snapshot]:
    """The newest snapshot of a source that nobody serves meanwhile."""
    runtime = Runtime()
    config = ChainConfig.load(source.genesis)
    try:
        with open_store(source.data / CHAIN, TABLES, map_size=MAP_SIZE) as store:
            keeper = SnapshotKeeper(Blockchain(store, config), source.data / SNAPSHOTS, runtime)
            keeper.load()
            try:
                newest = max(keeper.announced)[1]
                with keeper.lend(newest) as snapshot:
                    assert snapshot is not None
                    yield snapshot
            finally:
                keeper.close()
    finally:
        runtime.close()


def history(
    cache: Path, blocks: int, transfers: int, accounts: int, interval: int, data_bytes: int = 0
) -> Source:
    """`blocks` blocks whose `transfers` made `accounts` accounts, with so much data in each."""

    def make(directory: Path) -> ChainConfig:
        config = _config(interval)
        with open_store(directory / DATA / CHAIN, TABLES, map_size=MAP_SIZE) as store:
            for _ in build_chain(
                Blockchain(store, config),
                validators=VALIDATORS,
                accounts=SENDERS,
                blocks=blocks,
                transfers=transfers,
                new_accounts=accounts,
                data_bytes=data_bytes,
                batch=min(2048, blocks),
            ):
                pass
        return config

    name = f"history-{blocks}-{transfers}-{accounts}-{interval}"
    return _cached(cache / (f"{name}-{data_bytes}" if data_bytes else name), make)


def moved_on(source: Source, blocks: int, share: float) -> Source:
    """A copy of `source` after `blocks` more blocks, which changed a share of its accounts."""

    def make(directory: Path) -> ChainConfig:
        shutil.copytree(source.data / CHAIN, directory / DATA / CHAIN)
        config = ChainConfig.load(source.genesis)
        with open_store(directory / DATA / CHAIN, TABLES, map_size=MAP_SIZE) as store:
            every = round(1 / share)
            addresses = [row[1][:20] for rows in rows_of(store) for row in rows][::every]
            # Nobody knows in which order; neither should the blocks change them in that of keys.
            addresses.sort(key=lambda address: sha256(b"order" + address))
            for _ in build_chain(
                Blockchain(store, config),
                validators=VALIDATORS,
                accounts=SENDERS,
                blocks=blocks,
                transfers=len(addresses),
                recipients=addresses,
                batch=min(2048, blocks),
            ):
                pass
        return config

    name = f"{Path(source.directory).name}-{blocks}-{share:g}"
    return _cached(Path(source.directory).parent / name, make)


def large_state(cache: Path, accounts: int, interval: int) -> Source:
    """A genesis of which only the state root is written down, and some blocks on it."""

    def make(directory: Path) -> ChainConfig:
        records = sorted(_accounts(accounts))
        packed = b"".join(record for _, record in records)
        root = merkle.state_records(packed, rows=False)[0]
        config = ChainConfig(
            chain_id=1,
            timestamp=DEFAULT_TIMESTAMP,
            block_time=1,
            snapshot_interval=interval,
            validators=tuple(key.public_key for key in VALIDATORS),
            state_root=root,
        )
        with open_store(directory / DATA / CHAIN, TABLES, map_size=MAP_SIZE) as store:
            load_state(store, config, (record for _, record in records))
            for _ in build_chain(
                Blockchain(store, config),
                validators=VALIDATORS,
                accounts=SENDERS,
                blocks=interval + TAIL,
                transfers_per_block=2,
            ):
                pass
        return config

    return _cached(cache / f"state-{accounts}-{interval}", make)


def _accounts(count: int) -> Iterator[tuple[bytes, bytes]]:
    """(key, record) of so many accounts; the senders are among them."""
    senders = [key.address for key in SENDERS]
    for i in range(count):
        address = senders[i] if i < len(senders) else sha256(b"account/%d" % i)[:20]
        balance = 10**18 + i
        account = bytes(8) + balance.to_bytes(16, "big") + bytes(64)
        yield sha256(address), address + account


def _config(interval: int) -> ChainConfig:
    config = demo_config(SENDERS, VALIDATORS)
    return ChainConfig(
        chain_id=config.chain_id,
        timestamp=config.timestamp,
        block_time=config.block_time,
        snapshot_interval=interval,
        validators=config.validators,
        alloc=config.alloc,
    )
