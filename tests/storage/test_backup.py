"""examples/backup.py copies one commit, whole, of a store that another process writes to."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from helpers.storage import child, open_test_store, run_child

ROOT = Path(__file__).resolve().parents[2]
ROWS = 200

# Each commit gives all rows one value, moves them to other pages, and leaves pages to use again.
WRITER = f"""
from pathlib import Path
from helpers.storage import open_test_store
store = open_test_store(Path(sys.argv[1]))
for n in range(1_000_000):
    with store.write() as txn:
        for i in range({ROWS}):
            txn.put("a", i.to_bytes(8, "big"), n.to_bytes(8, "big") * (1 + (i + n) % 100))
        txn.put("b", b"n", n.to_bytes(8, "big"))
    if n in (0, 50):
        print(n, flush=True)
"""


@pytest.fixture
def backup() -> Any:
    spec = importlib.util.spec_from_file_location("backup", ROOT / "examples" / "backup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.backup


def value_of(path: Path) -> int:
    """Of all rows; opening walks every page of so small a file."""
    with open_test_store(path) as store, store.read() as txn:
        number = txn.get("b", b"n")
        rows = txn.range("a")
    assert number is not None
    assert [key for key, _ in rows] == [i.to_bytes(8, "big") for i in range(ROWS)]
    assert {value[:8] for _, value in rows} == {number}
    return int.from_bytes(number, "big")


def test_a_store_that_is_written_to_can_be_copied(tmp_path: Path, backup: Any) -> None:
    with child(WRITER, tmp_path / "live") as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "0\n"
            first = backup(tmp_path / "live", tmp_path / "first")
            assert writer.stdout.readline() == "50\n"
            copies = [tmp_path / f"copy-{n}" for n in range(10)]
            for copy in copies:
                assert backup(tmp_path / "live", copy) < 10 * first
        finally:
            writer.kill()
    values = [value_of(tmp_path / "first"), *map(value_of, copies)]
    assert values == sorted(values)
    assert values[0] < 50 <= values[1] < values[-1]


def test_a_backup_overwrites_nothing(tmp_path: Path, backup: Any) -> None:
    open_test_store(tmp_path / "store").close()
    backup(tmp_path / "store", tmp_path / "copy")
    with pytest.raises(FileExistsError):
        backup(tmp_path / "store", tmp_path / "copy")


def test_it_is_a_program(tmp_path: Path) -> None:
    open_test_store(tmp_path / "store").close()
    code = (
        "import runpy; sys.argv = ['backup.py', *sys.argv[1:]];"
        f"runpy.run_path({str(ROOT / 'examples' / 'backup.py')!r}, run_name='__main__')"
    )
    said = run_child(code, tmp_path / "store", tmp_path / "copy")
    assert said.endswith(" bytes")
    open_test_store(tmp_path / "copy").close()
