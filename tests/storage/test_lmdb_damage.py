"""Directories that are not ours, not whole, or not to be had: an error, and nothing changed."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest
from helpers.storage import contents, fill, open_test_store, run_child

from moderntensor.errors import StorageError
from moderntensor.storage import lmdb_file, open_store

pytestmark = pytest.mark.long

PAGE = os.sysconf("SC_PAGESIZE")


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """The directory of a sound, closed store with a few hundred pages and a few commits."""
    path = tmp_path / "store"
    with open_test_store(path) as store:
        for size in (300, 200, 100):
            fill(store, 1000, size)
        with store.write() as txn:
            txn.put("b", b"big", bytes(3 * PAGE))
    return path


def refuse(path: Path, match: str | None = None) -> None:
    before = contents(path)
    with pytest.raises(StorageError, match=match):
        open_test_store(path)
    assert contents(path) == before, "something was overwritten"


# --- not ours ------------------------------------------------------------------------------


def test_a_directory_with_anything_else_in_it_is_foreign(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    refuse(tmp_path, "not empty")
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_another_program_s_lmdb_is_foreign(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path), map_size=1 << 20) as env, env.begin(write=True) as txn:
        txn.put(b"theirs", b"1")
    refuse(tmp_path, "no store of ours")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["data.mdb", "lock.mdb"]


@pytest.mark.parametrize("text", [b"", b"moderntensor/store/2\n", b"\xff" * 1000])
def test_another_format_is_named(closed: Path, text: bytes) -> None:
    (closed / "FORMAT").write_bytes(text)
    refuse(closed, "format")


def test_the_format_is_the_caller_s(tmp_path: Path) -> None:
    open_store(tmp_path / "s", ["a"], map_size=1 << 20, format_id="other/1").close()
    with pytest.raises(StorageError, match="other/1"):
        open_store(tmp_path / "s", ["a"], map_size=1 << 20)
    open_store(tmp_path / "s", ["a"], map_size=1 << 20, format_id="other/1").close()


def test_a_missing_data_file_is_not_made_anew(closed: Path) -> None:
    (closed / "data.mdb").unlink()
    refuse(closed, "missing")


def test_a_file_in_the_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    for path in (tmp_path / "file", tmp_path / "file" / "store"):
        with pytest.raises(StorageError):
            open_test_store(path)
    assert contents(tmp_path) == {"file": b"mine"}


def test_a_directory_in_the_place_of_a_file(closed: Path) -> None:
    (closed / "data.mdb").unlink()
    (closed / "data.mdb").mkdir()
    refuse(closed)


# --- not whole -----------------------------------------------------------------------------


@pytest.fixture(params=["small", "large"])
def size_class(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the test with the checks that a small file gets, and with those of a large one."""
    if request.param == "large":
        monkeypatch.setattr(lmdb_file, "_FULL_CHECK", 0)


@pytest.mark.usefixtures("size_class")
def test_a_truncated_file_is_refused_or_lacks_only_free_pages(closed: Path) -> None:
    data = (closed / "data.mdb").read_bytes()
    with open_test_store(closed) as store, store.read() as txn:
        rows = txn.range("a") + txn.range("b")
    refused = 0
    rng = random.Random(4)
    sizes = {0, 1, 100, PAGE, 2 * PAGE - 1, 2 * PAGE, 3 * PAGE, len(data) - PAGE, len(data) - 1}
    for size in sorted(sizes | {rng.randrange(len(data)) for _ in range(40)}):
        (closed / "data.mdb").write_bytes(data[:size])
        try:
            with open_test_store(closed) as store, store.read() as txn:
                assert txn.range("a") + txn.range("b") == rows, size
        except StorageError:
            assert (closed / "data.mdb").read_bytes() == data[:size]
            refused += 1
    assert refused > 30


def test_a_file_may_rightly_end_before_its_last_page(tmp_path: Path) -> None:
    """Pages taken and freed in one transaction are never written."""
    path = tmp_path / "store"
    with open_test_store(path) as store:
        rows = fill(store, 10)
        for _ in range(5):  # from the third on, there are free pages to choose from
            with store.write() as txn:
                for i in range(400):
                    txn.put("b", i.to_bytes(4, "big"), bytes(9000))
                for i in range(400):
                    txn.delete("b", i.to_bytes(4, "big"))
    size = (path / "data.mdb").stat().st_size
    meta = lmdb_file.check_data_file(path / "data.mdb")
    assert size < (meta.last_page + 1) * meta.page_size, "the case is not met"
    with open_test_store(path) as store:
        with store.read() as txn:
            assert txn.range("a") == rows
        rows = fill(store, 5000)
    with open_test_store(path) as store, store.read() as txn:
        assert txn.range("a") == rows


def patch(offset: int, data: bytes) -> Callable[[bytearray], None]:
    def damage(file: bytearray) -> None:
        file[offset : offset + len(data)] = data

    return damage


def newest(offset: int, form: str, value: int) -> Callable[[bytearray], None]:
    """Set a field of the newest meta page."""

    def damage(file: bytearray) -> None:
        first, second = (struct.unpack_from("=Q", file, base + 144)[0] for base in (0, PAGE))
        struct.pack_into(form, file, offset + (PAGE if second > first else 0), value)

    return damage


@pytest.mark.usefixtures("size_class")
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(patch(0, b"SQLite format 3\0" * 16), id="another file"),
        pytest.param(patch(0, bytes(PAGE)), id="meta page 0 zeroed"),
        pytest.param(patch(PAGE, bytes(PAGE)), id="meta page 1 zeroed"),
        pytest.param(patch(0, b"\xff" * PAGE), id="meta page 0 all ones"),
        pytest.param(patch(0, random.Random(1).randbytes(2 * PAGE)), id="both random"),
        pytest.param(newest(16, "=I", 0xDEADBEEF), id="magic"),
        pytest.param(newest(20, "=I", 3), id="data version of LMDB 1.0"),
        pytest.param(newest(10, "=H", 0), id="page flags"),
        pytest.param(newest(40, "=I", 0), id="page size 0"),
        pytest.param(newest(40, "=I", PAGE * 2), id="page size doubled"),
        pytest.param(newest(40, "=I", 4095), id="page size odd"),
        pytest.param(newest(40, "=I", 1 << 31), id="page size huge"),
        pytest.param(newest(80, "=Q", 1 << 40), id="root of free pages"),
        pytest.param(newest(128, "=Q", 1 << 40), id="main root"),
        pytest.param(newest(128, "=Q", 1), id="main root a meta page"),
        pytest.param(newest(136, "=Q", 1 << 40), id="last page beyond the file"),
        pytest.param(newest(136, "=Q", (1 << 64) - 1), id="last page at the limit"),
        pytest.param(newest(136, "=Q", 3), id="last page below the roots"),
        pytest.param(newest(144, "=Q", 0), id="transaction forgotten"),
        pytest.param(newest(144, "=Q", 1 << 50), id="transaction of the future"),
    ],
)
def test_a_damaged_meta_page_is_refused(closed: Path, damage: Callable[[bytearray], None]) -> None:
    data = bytearray((closed / "data.mdb").read_bytes())
    damage(data)
    (closed / "data.mdb").write_bytes(data)
    refuse(closed)


def test_damage_anywhere_ends_in_an_error_or_other_values_never_in_a_crash(closed: Path) -> None:
    """In a child process, since a crash is what it looks for."""
    code = """
import random
from pathlib import Path
from helpers.storage import open_test_store
from moderntensor.errors import StorageError

path = Path(sys.argv[1])
sound = (path / "data.mdb").read_bytes()
page = int(sys.argv[2])
refused = 0
for seed in range(120):
    rng = random.Random(seed)
    data = bytearray(sound)
    at = rng.randrange(2, len(data) // page) * page
    size = rng.choice([8, 64, page])
    data[at : at + size] = rng.choice([bytes(size), rng.randbytes(size)])
    (path / "data.mdb").write_bytes(data)
    try:
        with open_test_store(path) as store, store.write() as txn:
            txn.range("a"), txn.range("b")
            for i in range(100):
                txn.put("a", rng.randbytes(9), bytes(90))
            txn.delete_range("a")
    except StorageError:
        refused += 1
print(refused)
"""
    assert int(run_child(code, closed, PAGE)) > 20


# --- not to be had -------------------------------------------------------------------------


def test_a_directory_without_permission(tmp_path: Path, closed: Path) -> None:
    """As another user in a child process: permissions do not stop root."""
    code = """
import os
from pathlib import Path
from helpers.storage import open_test_store
from moderntensor.errors import StorageError

if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
for path in sys.argv[1:]:
    try:
        open_test_store(Path(path))
    except StorageError as error:
        print(error)
"""
    bare = tmp_path / "bare"
    bare.mkdir()
    before = contents(closed)
    for directory in (closed, bare):
        directory.chmod(0o555)
    (closed / "LOCK").chmod(0o444)
    (closed / "data.mdb").chmod(0o444)
    if os.geteuid() == 0:
        for parent in tmp_path.parents:
            if parent.stat().st_uid == 0 and parent.is_relative_to("/tmp/pytest-of-root"):  # noqa: S108
                parent.chmod(0o755)
        tmp_path.chmod(0o755)
    said = run_child(code, closed, bare, bare / "new").splitlines()
    assert len(said) == 3
    assert all("ermission denied" in line for line in said)
    assert contents(closed) == before
    assert list(bare.iterdir()) == []
    bare.chmod(0o755)
    closed.chmod(0o755)


def test_a_full_disk_leaves_the_last_commit(tmp_path: Path) -> None:
    """The limit on a file's size stands in for the disk's end."""
    code = """
import resource
from pathlib import Path
from helpers.storage import fill, open_test_store
from moderntensor.errors import StorageError

store = open_test_store(Path(sys.argv[1]))
rows = fill(store, 1000)
resource.setrlimit(resource.RLIMIT_FSIZE, (store.size_on_disk() + 65536, -1))
failures = 0
for size in (3000, 3000, 50_000):
    try:
        fill(store, 1000, size)
    except StorageError as error:
        failures += 1
    try:
        with store.read() as txn:
            assert txn.range("a") == rows
    except StorageError:
        pass
print(failures)
"""
    assert run_child(code, tmp_path / "store") == "3"
    with open_test_store(tmp_path / "store") as store:
        with store.read() as txn:
            assert len(txn.range("a")) == 1000
            assert txn.last("a") == ((999).to_bytes(8, "big"), bytes([999 % 251]) * 100)
        fill(store, 1000, 3000)


def test_a_disk_too_full_to_make_a_store(tmp_path: Path) -> None:
    code = """
import resource
from pathlib import Path
from helpers.storage import open_test_store
from moderntensor.errors import StorageError

for limit in (0, 100, 8192, 20000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, -1))
    try:
        open_test_store(Path(sys.argv[1]))
    except StorageError:
        print("refused")
"""
    assert run_child(code, tmp_path / "store").split() == ["refused"] * 4
    open_test_store(tmp_path / "store").close()


def test_the_table_of_readers_has_its_place_on_the_disk(closed: Path) -> None:
    """It is written through a map, where a disk without room for it would kill the process."""
    lock = closed / "data.mdb-lock"
    for _ in range(2):
        status = lock.stat()
        assert status.st_blocks * 512 >= status.st_size > 512 * 64
        lock.unlink()
        open_test_store(closed).close()


def test_a_damaged_table_of_readers_does_not_matter(closed: Path) -> None:
    for junk in (b"", b"junk", random.Random(3).randbytes(100_000)):
        (closed / "data.mdb-lock").write_bytes(junk)
        with open_test_store(closed) as store, store.read() as txn:
            assert txn.count("a") == 1000


def test_no_address_space_for_the_map(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        open_test_store(tmp_path / "store", map_size=1 << 60, max_map_size=1 << 60)
    open_test_store(tmp_path / "store").close()
