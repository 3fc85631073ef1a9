"""Snapshots are what the state was at their height, whatever happens while they are made."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
from helpers import state_reference
from helpers.forks import headers_of, opened
from helpers.snapshots import ALL, INTERVAL, CrowdedMaker, check_announced, records_of
from helpers.storage import child
from helpers.sync_nodes import until

from moderntensor.blockchain import tables
from moderntensor.blockchain.block import Block
from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.snapshots import SnapshotKeeper, file, keeper, making
from moderntensor.blockchain.snapshots.image import MemoryImage
from moderntensor.errors import StorageError
from moderntensor.runtime import Runtime


def never() -> bool:
    return False


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few hundred accounts come in many pieces then."""
    monkeypatch.setattr(making, "CHUNK", 24)
    monkeypatch.setattr(making, "_SPILL", 1000)
    monkeypatch.setattr(making, "_SYNC", 5000)
    monkeypatch.setattr(making, "_COPY", 300)
    monkeypatch.setattr(making, "HEADERS_AT_ONCE", 3)
    for module in (making, file):
        monkeypatch.setattr(module, "NODE_FLOOR", 8)
    for name, value in (("_RECORD_STEP", 16), ("_ROW_STEP", 4)):
        monkeypatch.setattr(file, name, value)
    monkeypatch.setattr(file, "_RECORDS_READ", 64)
    monkeypatch.setattr(file, "_ROWS_READ", 16)


@pytest.fixture
def maker() -> CrowdedMaker:
    return CrowdedMaker()


@pytest.fixture(params=["memory", "lmdb"])
def chain(
    request: pytest.FixtureRequest, maker: CrowdedMaker, tmp_path: Path
) -> Iterator[Blockchain]:
    with opened(request.param, tmp_path) as store:
        yield Blockchain(store, maker.config)


def add(chain: Blockchain, blocks: list[Block]) -> list[Block]:
    for block in blocks:
        chain.import_block(block)
    return blocks


def kept_in(chain: Blockchain, tmp_path: Path) -> SnapshotKeeper:
    """In memory where the chain is."""
    directory = None if chain.store.path is None else tmp_path / "snapshots"
    return SnapshotKeeper(chain, directory, Runtime(1))


def files_in(tmp_path: Path) -> list[str]:
    directory = tmp_path / "snapshots"
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


def test_a_snapshot_is_the_state_of_its_block(
    chain: Blockchain, maker: CrowdedMaker, tmp_path: Path
) -> None:
    snapshots = kept_in(chain, tmp_path)
    assert snapshots.due() is None
    assert not snapshots.make(never)
    blocks = add(chain, maker.grow(maker.genesis, INTERVAL + 5))
    assert snapshots.due() == INTERVAL
    assert snapshots.make(never)
    assert snapshots.due() is None
    assert not snapshots.make(never)
    check_announced(snapshots, maker, INTERVAL)
    assert snapshots.announced == ((INTERVAL, blocks[INTERVAL - 1].hash),)
    with snapshots.lend(blocks[0].hash) as nothing:
        assert nothing is None
    snapshots.close()
    assert not snapshots.announced


def test_keys_in_crowds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "CHUNK", 2)  # whole subtrees are empty, or of one account
    maker = CrowdedMaker(spread=0)
    with opened("memory", tmp_path) as store:
        chain = Blockchain(store, maker.config)
        add(chain, maker.grow(maker.genesis, INTERVAL, transfers=1))
        snapshots = kept_in(chain, tmp_path)
        assert snapshots.make(never)
        check_announced(snapshots, maker, INTERVAL)


def test_blocks_that_come_meanwhile_change_nothing(
    chain: Blockchain, maker: CrowdedMaker, tmp_path: Path
) -> None:
    snapshots = kept_in(chain, tmp_path)
    blocks = maker.grow(maker.genesis, INTERVAL + 30, transfers=12)
    add(chain, blocks[:INTERVAL])
    coming = iter(blocks[INTERVAL:])

    def one_more() -> bool:
        for block in coming:
            chain.import_block(block)
            break
        return False

    assert snapshots.make(one_more)
    assert chain.head.height > INTERVAL + 10  # it did take as many pieces
    check_announced(snapshots, maker, INTERVAL)
    snapshots.close()


def test_a_reorganisation_above_changes_nothing(
    chain: Blockchain, maker: CrowdedMaker, tmp_path: Path
) -> None:
    snapshots = kept_in(chain, tmp_path)
    blocks = add(chain, maker.grow(maker.genesis, INTERVAL + 3, transfers=12))
    other = maker.grow(blocks[INTERVAL], 9, salt=1, transfers=12)  # off block 9
    third = maker.grow(blocks[INTERVAL - 1], 16, salt=2, transfers=12)  # off the very block
    coming = iter([*other, *third])

    def one_more() -> bool:
        for block in coming:
            chain.import_block(block)
            break
        return False

    assert snapshots.make(one_more)
    assert chain.head.hash == third[-1].hash
    check_announced(snapshots, maker, INTERVAL)
    snapshots.close()


def test_a_reorganisation_below_ends_it_and_the_next_one_is_right(
    chain: Blockchain, maker: CrowdedMaker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    snapshots = kept_in(chain, tmp_path)
    blocks = add(chain, maker.grow(maker.genesis, INTERVAL + 1))
    other = maker.grow(blocks[INTERVAL - 3], 6, salt=1)
    pieces = 0

    def reorganise() -> bool:
        nonlocal pieces
        pieces += 1
        if pieces == 3:
            add(chain, other)
        return False

    assert not snapshots.make(reorganise)
    assert chain.head.hash == other[-1].hash
    assert f"block {INTERVAL} is no longer on the chain" in caplog.text
    assert (snapshots.announced, files_in(tmp_path)) == ((), [])
    assert snapshots.due() == INTERVAL
    assert snapshots.make(never)
    check_announced(snapshots, maker, INTERVAL)
    # And one that is made already leaves with its block.
    third = maker.grow(blocks[2], 10, salt=2)
    add(chain, third)
    snapshots.refresh()
    assert snapshots.announced == ()
    snapshots.sweep(1.0)
    # ...and is there again as soon as its block is.
    add(chain, maker.grow(other[-1], 2))
    snapshots.refresh()
    check_announced(snapshots, maker, INTERVAL)
    snapshots.sweep(1.0 + keeper.LEASE)
    add(chain, maker.grow(maker.blocks[chain.head.hash], INTERVAL))
    assert snapshots.make(never)
    check_announced(snapshots, maker, INTERVAL, 2 * INTERVAL)
    snapshots.close()


def test_what_was_forgotten_ends_it(
    chain: Blockchain, maker: CrowdedMaker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    snapshots = kept_in(chain, tmp_path)
    add(chain, maker.grow(maker.genesis, INTERVAL + 4))
    with chain.store.write() as txn:
        txn.delete_range(tables.UNDO, stop=tables.height_key(INTERVAL + 3))
    assert not snapshots.make(never)
    assert "what block 9 has changed is forgotten" in caplog.text
    assert (snapshots.due(), snapshots.announced, files_in(tmp_path)) == (None, (), [])


def test_what_changes_too_much_ends_it(
    chain: Blockchain,
    maker: CrowdedMaker,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(making, "CHANGED_MOST", 10)
    snapshots = kept_in(chain, tmp_path)
    add(chain, maker.grow(maker.genesis, INTERVAL + 6))
    assert not snapshots.make(never)
    assert "change too much" in caplog.text
    add(chain, maker.grow(maker.blocks[chain.head.hash], 3))
    assert snapshots.make(never)
    check_announced(snapshots, maker, 2 * INTERVAL)
    snapshots.close()


def test_another_root_is_thrown_away(
    chain: Blockchain, maker: CrowdedMaker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    snapshots = kept_in(chain, tmp_path)
    add(chain, maker.grow(maker.genesis, INTERVAL))
    with chain.store.write() as txn:
        key, value = txn.range(tables.ACCOUNTS, limit=9)[-1]
        txn.put(tables.ACCOUNTS, key, value[:27] + b"\x09" + value[28:])
    assert not snapshots.make(never)
    assert "has another root" in caplog.text
    assert (snapshots.announced, files_in(tmp_path)) == ((), [])


def test_far_behind_none_is_made(chain: Blockchain, maker: CrowdedMaker, tmp_path: Path) -> None:
    blocks = maker.grow(maker.genesis, 3 * INTERVAL)
    add(chain, blocks[:INTERVAL])
    snapshots = kept_in(chain, tmp_path)
    chain.add_headers(headers_of(blocks[INTERVAL:]))
    assert snapshots.due() is None
    chain.drop_pending(2 * INTERVAL + 1)
    assert snapshots.due() == INTERVAL


def test_however_short_the_interval_few_are_there(
    chain: Blockchain,
    maker: CrowdedMaker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keeper, "RETIRED_MOST", 1)
    snapshots = kept_in(chain, tmp_path)
    blocks = maker.grow(maker.genesis, 4 * INTERVAL, transfers=1)
    for first in range(0, 4 * INTERVAL, INTERVAL):
        add(chain, blocks[first : first + INTERVAL])
        assert snapshots.make(never)
        snapshots.sweep(1.0)
    there = []
    for block in blocks[INTERVAL - 1 :: INTERVAL]:
        with snapshots.lend(block.hash) as snapshot:
            there.append(snapshot is not None)
    most = keeper.KEPT + keeper.RETIRED_MOST
    assert there == [False] * (4 - most) + [True] * most
    assert len(files_in(tmp_path)) in (0, most)
    snapshots.close()


def test_two_are_kept_and_a_third_retires_the_oldest(
    chain: Blockchain, maker: CrowdedMaker, tmp_path: Path
) -> None:
    snapshots = kept_in(chain, tmp_path)
    blocks = maker.grow(maker.genesis, 4 * INTERVAL)
    for first in range(0, 4 * INTERVAL, INTERVAL):
        add(chain, blocks[first : first + INTERVAL])
        assert snapshots.make(never)
        snapshots.sweep(1.0)
    check_announced(snapshots, maker, 3 * INTERVAL, 4 * INTERVAL)
    oldest, older = blocks[INTERVAL - 1].hash, blocks[2 * INTERVAL - 1].hash

    def there(block_hash: bytes) -> bool:
        with snapshots.lend(block_hash) as snapshot:
            return snapshot is not None

    # Its time is over, but it is there for as long as somebody asks once a minute...
    for minute in range(10):
        assert there(oldest)
        assert not snapshots.was_here(oldest)
        snapshots.sweep(1.0 + minute * (keeper.IDLE - 1))
    assert not there(older)  # which nobody did
    assert snapshots.was_here(older)
    with snapshots.lend(oldest) as snapshot:
        assert snapshot is not None
        snapshots.sweep(1.0 + keeper.LEASE)  # ...and ten minutes at most
        assert not there(oldest)
        assert snapshot.records(*ALL, 10**6) == records_of(maker.states[oldest])
    assert snapshots.was_here(oldest)
    assert not snapshots.was_here(blocks[INTERVAL].hash)
    assert not snapshots.was_here(blocks[-1].hash)
    assert not snapshots.was_here(bytes(32))
    assert len(files_in(tmp_path)) in (0, 2)
    snapshots.close()


@pytest.fixture
def on_disk(maker: CrowdedMaker, tmp_path: Path) -> Iterator[Blockchain]:
    with opened("lmdb", tmp_path) as store:
        chain = Blockchain(store, maker.config)
        add(chain, maker.grow(maker.genesis, INTERVAL))
        yield chain


def test_a_restart_finds_them(on_disk: Blockchain, maker: CrowdedMaker, tmp_path: Path) -> None:
    first = kept_in(on_disk, tmp_path)
    assert first.make(never)
    add(on_disk, maker.grow(maker.blocks[on_disk.head.hash], INTERVAL))
    assert first.make(never)
    first.close()
    names = files_in(tmp_path)
    assert len(names) == 2
    (tmp_path / "snapshots" / "unrelated.txt").write_text("kept")
    shutil.copy(tmp_path / "snapshots" / names[0], tmp_path / "snapshots" / f"9{names[0]}")
    (tmp_path / "snapshots" / f"{names[0]}.part").write_bytes(b"half")
    (tmp_path / "snapshots" / f"{names[0]}.nodes").write_bytes(b"half")
    second = kept_in(on_disk, tmp_path)
    second.load()
    check_announced(second, maker, INTERVAL, 2 * INTERVAL)
    assert second.due() is None
    assert files_in(tmp_path) == [*names, "unrelated.txt"]
    second.close()


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda data: b"",
    "half a page": lambda data: data[: file.PAGE // 2],
    "its end is missing": lambda data: data[:-1],
    "one byte more": lambda data: data + b"\0",
    "another magic": lambda data: b"M" + data[1:],
    "another height": lambda data: data[:31] + bytes([data[31] ^ 1]) + data[32:],
    "no zeros": lambda data: data[: file.PAGE - 33] + b"\1" + data[file.PAGE - 32 :],
    "an account": lambda data: data[: file.PAGE + 40] + b"\x77" + data[file.PAGE + 41 :],
    "a node": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_removed_and_made_anew(
    on_disk: Blockchain,
    maker: CrowdedMaker,
    tmp_path: Path,
    damage: Callable[[bytes], bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = kept_in(on_disk, tmp_path)
    assert first.make(never)
    first.close()
    (name,) = files_in(tmp_path)
    path = tmp_path / "snapshots" / name
    path.write_bytes(damage(path.read_bytes()))
    second = kept_in(on_disk, tmp_path)
    second.load()
    assert f"removing the snapshot {path}" in caplog.text
    assert (second.announced, files_in(tmp_path), second.due()) == ((), [], INTERVAL)
    assert second.make(never)
    check_announced(second, maker, INTERVAL)
    second.close()


def test_those_of_another_chain_are_removed(
    on_disk: Blockchain, maker: CrowdedMaker, tmp_path: Path
) -> None:
    first = kept_in(on_disk, tmp_path)
    assert first.make(never)
    first.close()
    with opened("lmdb", tmp_path, "other") as store:
        other = Blockchain(store, maker.config)
        second = kept_in(other, tmp_path)
        second.load()
        assert (second.announced, files_in(tmp_path)) == ((), [])
        second.close()


def alter(snapshot: BinaryIO) -> None:
    snapshot.seek(file.PAGE + 40)
    snapshot.write(b"\x77")
    snapshot.flush()
    os.utime(snapshot.fileno(), ns=(0, 1))  # as if some milliseconds had gone by


@pytest.mark.parametrize(
    ("damage", "says"),
    [(lambda snapshot: snapshot.truncate(file.PAGE + 5), "ends before byte"), (alter, "changed")],
    ids=["truncated", "altered"],
)
def test_what_turns_out_damaged_is_no_longer_lent(
    on_disk: Blockchain,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[BinaryIO], object],
    says: str,
) -> None:
    snapshots = kept_in(on_disk, tmp_path)
    assert snapshots.make(never)
    ((_, block_hash),) = snapshots.announced
    with snapshots.lend(block_hash) as snapshot:
        assert snapshot is not None
        path = tmp_path / "snapshots" / files_in(tmp_path)[0]
        with path.open("r+b") as opened_again:
            damage(opened_again)
        with pytest.raises(StorageError, match=says) as caught:
            snapshot.records(*ALL, 10**6)
        snapshots.damaged(block_hash, caught.value)
        snapshots.damaged(block_hash, caught.value)
    assert "of no use" in caplog.text
    assert (snapshots.announced, files_in(tmp_path)) == ((), [])


def test_a_full_disk_ends_it(
    on_disk: Blockchain, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "snapshots").write_text("a file is where the directory should be")
    snapshots = kept_in(on_disk, tmp_path)
    assert not snapshots.make(never)
    assert "no snapshot of block 8" in caplog.text
    assert snapshots.due() is None


def test_giving_up_leaves_nothing(on_disk: Blockchain, tmp_path: Path) -> None:
    snapshots = kept_in(on_disk, tmp_path)
    pieces = iter([False, False, True])
    assert not snapshots.make(lambda: next(pieces))
    assert (snapshots.announced, files_in(tmp_path), snapshots.due()) == ((), [], INTERVAL)


KILLED = """
from pathlib import Path
from helpers.forks import headers_of, opened
from helpers.snapshots import CrowdedMaker
from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.snapshots import SnapshotKeeper, making
from moderntensor.runtime import Runtime
making.CHUNK = 24
root = Path(sys.argv[1])
with opened("lmdb", root) as store:
    chain = Blockchain(store, CrowdedMaker().config)
    pieces = 0
    def wait():
        global pieces
        pieces += 1
        if pieces == 5:
            print("half", flush=True)
            sys.stdin.read()
    SnapshotKeeper(chain, root / "snapshots", Runtime(1)).make(wait)
"""


def test_a_kill_during_the_making_leaves_nothing_announced(
    maker: CrowdedMaker, tmp_path: Path
) -> None:
    with opened("lmdb", tmp_path) as store:
        add(Blockchain(store, maker.config), maker.grow(maker.genesis, INTERVAL))
    with child(KILLED, tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n", process.communicate()[1]
        process.kill()
        process.communicate()
    assert files_in(tmp_path)
    assert not any(name.endswith(".snapshot") for name in files_in(tmp_path))
    with opened("lmdb", tmp_path) as store:
        snapshots = kept_in(Blockchain(store, maker.config), tmp_path)
        snapshots.load()
        assert (snapshots.announced, files_in(tmp_path)) == ((), [])
        assert snapshots.make(never)
        check_announced(snapshots, maker, INTERVAL)
        snapshots.close()


def test_any_prefix_is_served_as_the_tree_has_it(
    on_disk: Blockchain, maker: CrowdedMaker, tmp_path: Path
) -> None:
    snapshots = kept_in(on_disk, tmp_path)
    assert snapshots.make(never)
    state = maker.states[on_disk.head.hash]
    keyed = state_reference.keyed({a: state_reference.account(*f) for a, f in state.items()})
    address_of = dict(zip((k for k, _ in keyed), _split(records_of(state)), strict=True))
    dice = random.Random(5)
    with snapshots.lend(on_disk.head.hash) as snapshot:
        assert snapshot is not None
        for _ in range(400):
            depth = dice.choice([0, 1, 2, 3, 4, 5, 6, 7, 8, 20, 21, 27, 33, 43, 44, 255])
            near = int.from_bytes(dice.choice(keyed)[0], "big") ^ dice.choice([0, 0, 1 << 248])
            prefix = (near >> 256 - depth << 256 - depth).to_bytes(32, "big")
            stop = tables.subtree_end(depth, prefix)
            inside = [(k, v) for k, v in keyed if prefix <= k and (stop is None or k < stop)]
            expected = b"".join(address_of[key] for key, _ in inside)
            assert snapshot.records(depth, prefix, len(inside)) == expected
            if inside:
                assert snapshot.records(depth, prefix, len(inside) - 1) is None
            node = state_reference.node(inside, depth) if len(inside) > 1 else None
            assert snapshot.node(depth, prefix) == node
    snapshots.close()


def _split(records: bytes) -> list[bytes]:
    return [records[i : i + 108] for i in range(0, len(records), 108)]


def test_a_state_of_no_accounts() -> None:
    info = file.SnapshotInfo(8, b"\x08" * 32, bytes(32), 0)
    empty = bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    image = MemoryImage(file.encode_page(info, 0, empty))
    steps = file.Snapshot.opening(image)
    with pytest.raises(StopIteration) as ended:
        next(steps)
    snapshot = ended.value.value
    assert snapshot.records(*ALL, 5) == b""
    assert snapshot.node(*ALL) is None


async def test_the_task_makes_them_and_ends_when_it_is_told(
    on_disk: Blockchain, maker: CrowdedMaker, tmp_path: Path
) -> None:
    runtime = Runtime(1)
    snapshots = SnapshotKeeper(on_disk, tmp_path / "snapshots", runtime)
    task = asyncio.create_task(snapshots.run())

    async def announced(*heights: int) -> None:
        await until(lambda: [height for height, _ in snapshots.announced] == list(heights))

    await announced(INTERVAL)
    blocks = maker.grow(maker.blocks[on_disk.head.hash], 2 * INTERVAL, transfers=6)
    for block in blocks:
        await runtime.run_writer(on_disk.import_block, block)
    await announced(2 * INTERVAL, 3 * INTERVAL)
    check_announced(snapshots, maker, 2 * INTERVAL, 3 * INTERVAL)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    snapshots.close()
    # Cancelled in the midst of making one, it leaves nothing of it.
    shutil.rmtree(tmp_path / "snapshots")
    again = SnapshotKeeper(on_disk, tmp_path / "snapshots", runtime)
    task = asyncio.create_task(again.run())
    await until(lambda: files_in(tmp_path))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert all(name.endswith(".snapshot") for name in files_in(tmp_path))
    again.close()
    runtime.close()
