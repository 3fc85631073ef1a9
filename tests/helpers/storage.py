"""Stores for tests, and child processes that use them."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from moderntensor.storage import Store, open_store

TABLES = ("a", "b")
MAP_SIZE = 1 << 30


def open_test_store(path: Path | None, **options: Any) -> Store:
    return open_store(path, TABLES, **({"map_size": MAP_SIZE} | options))


def foreign_store(path: Path) -> Store:
    """A store that the package knows nothing of: the one of examples/sqlite_store.py."""
    path.mkdir()
    store: Store = _example().SqliteStore(path / "data.sqlite", TABLES)
    return store


@cache
def _example() -> Any:
    path = Path(__file__).resolve().parents[2] / "examples" / "sqlite_store.py"
    spec = importlib.util.spec_from_file_location("sqlite_store", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fill(store: Store, count: int, size: int = 100) -> list[tuple[bytes, bytes]]:
    """Put `count` rows into table a, in one commit; the rows."""
    rows = [(i.to_bytes(8, "big"), bytes([i % 251]) * size) for i in range(count)]
    with store.write() as txn:
        for key, value in rows:
            txn.put("a", key, value)
    return rows


def child(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start Python on `code`, with `sys` imported and these helpers in reach.

    `sys.argv[1:]` are the arguments. Its output is piped.
    """
    reach = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
    return subprocess.Popen(
        [sys.executable, "-c", reach + code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def run_child(code: str, *arguments: object) -> str:
    """Run Python on `code` to its end, which must be a success; what it printed."""
    with child(code, *arguments) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, f"exit {process.returncode}: {err}"
    return out.strip()


def contents(directory: Path) -> dict[str, bytes]:
    """Every file in a directory, but for the lock's note of who holds it."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.name != "LOCK"
    }
