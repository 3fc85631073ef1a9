"""Processes that are killed, and processes that want what another holds."""

from __future__ import annotations

import os
import random
from hashlib import sha256
from pathlib import Path

import pytest
from helpers.storage import child, contents, fill, open_test_store, run_child

from moderntensor.errors import StorageError

pytestmark = pytest.mark.long

WRITER = """
from hashlib import sha256
from pathlib import Path
from helpers.storage import open_test_store

store = open_test_store(Path(sys.argv[1]))
with store.read() as txn:
    head = int.from_bytes(txn.get("b", b"head") or b"", "big")
while True:
    with store.write() as txn:
        for _ in range(50):
            head += 1
            key = head.to_bytes(8, "big")
            txn.put("a", sha256(key).digest(), key * (head % 700))
        txn.delete_range("a", bytes(1), bytes([head % 40]))
        txn.put("b", b"head", key)
    print(head, flush=True)
"""


def expected(head: int) -> dict[bytes, bytes]:
    rows: dict[bytes, bytes] = {}
    for start in range(1, head + 1, 50):
        for number in range(start, start + 50):
            key = number.to_bytes(8, "big")
            rows[sha256(key).digest()] = key * (number % 700)
        limit = bytes([(start + 49) % 40])
        rows = {key: value for key, value in rows.items() if not bytes(1) <= key < limit}
    return rows


def test_a_killed_writer_leaves_its_last_commit(tmp_path: Path) -> None:
    rng = random.Random(8)
    path = tmp_path / "store"
    before = 0
    for _ in range(6):
        with child(WRITER, path) as process:
            assert process.stdout is not None
            seen = 0
            for _ in range(rng.randrange(1, 12)):
                seen = int(process.stdout.readline())
            process.kill()
            rest = process.stdout.read().split("\n")
        seen = max([seen, *(int(line) for line in rest[:-1] if line)])
        with open_test_store(path) as store, store.read() as txn:
            head = int.from_bytes(txn.get("b", b"head") or b"", "big")
            assert head % 50 == 0
            assert head >= seen > before, "a commit that was reported is gone"
            assert dict(txn.range("a")) == expected(head)
        before = head


def test_a_killed_maker_leaves_a_directory_that_can_be_used(tmp_path: Path) -> None:
    """Killed at every step of making a store: the next one that opens it makes or finishes it."""
    code = """
import os, signal
from pathlib import Path
from helpers.storage import open_test_store

steps = int(sys.argv[2])
def count(event, arguments):
    global steps
    if event in ("open", "os.rename", "os.mkdir", "os.truncate", "os.remove"):
        steps -= 1
        if steps < 0:
            os.kill(os.getpid(), signal.SIGKILL)
import moderntensor.storage.lmdb_store
sys.addaudithook(count)
open_test_store(Path(sys.argv[1])).close()
print("done")
"""
    for steps in range(40):
        path = tmp_path / str(steps) / "store"
        path.parent.mkdir()
        with child(code, path, steps) as process:
            out, err = process.communicate(timeout=60)
        assert process.returncode in (0, -9), err
        with open_test_store(path) as store:
            rows = fill(store, 3)
        with open_test_store(path) as store, store.read() as txn:
            assert txn.range("a") == rows
        if out.strip() == "done":
            assert steps > 5, "no step was interrupted"
            return
    raise AssertionError("making a store takes more steps than this test knows")


def test_a_second_process_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "store"
    code = """
from pathlib import Path
from helpers.storage import open_test_store
from moderntensor.errors import StorageError
try:
    open_test_store(Path(sys.argv[1]))
except StorageError as error:
    print(error)
"""
    with open_test_store(path) as store:
        rows = fill(store, 10)
        before = contents(path)
        assert "in use by process" in run_child(code, path)
        assert contents(path) == before
        with store.write() as txn:
            txn.put("b", b"still", b"mine")
            assert txn.range("a") == rows
    assert run_child(code, path) == ""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes do not fork here")
def test_a_forked_process_may_not_use_what_its_parent_has_open(tmp_path: Path) -> None:
    code = """
import os
from pathlib import Path
from helpers.storage import open_test_store
from moderntensor.errors import StorageError

store = open_test_store(Path(sys.argv[1]))
child = os.fork()
if not child:
    for begin in (store.read, store.write):
        try:
            with begin():
                print("let in")
        except StorageError as error:
            print(error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
with store.read() as txn:
    print("goes on", txn.get("b", b"head"))
"""
    lines = run_child(code, tmp_path / "store").splitlines()
    assert len(lines) == 3
    assert all("opened by the parent process" in line for line in lines[:2])
    assert lines[2] == "goes on None"


def test_the_same_process_cannot_open_it_twice(tmp_path: Path) -> None:
    first = open_test_store(tmp_path / "store")
    for _ in range(2):  # a refused one must not let the lock go
        with pytest.raises(StorageError, match="in use"):
            open_test_store(tmp_path / "store")
    fill(first, 3)
    first.close()
    open_test_store(tmp_path / "store").close()


def test_a_forked_child_cannot_use_the_parent_s_store(tmp_path: Path) -> None:
    code = """
import os, warnings
from pathlib import Path
from helpers.storage import open_test_store
from moderntensor.errors import StorageError
warnings.simplefilter("ignore")
store = open_test_store(Path(sys.argv[1]))
if (pid := os.fork()) == 0:
    try:
        store.read().__enter__()
    except StorageError:
        os._exit(7)
    os._exit(1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    assert run_child(code, tmp_path / "store") == "7"
