"""`benchmarks/state_tree.py` in small: it runs, checks itself, and keeps what it measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import state_tree


def test_it_measures_and_keeps_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_tree, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(state_tree, "BATCHES", ((1, 1), (2, 1)))
    found = []
    for accounts in (400, 300):
        home = tmp_path / str(accounts)
        home.mkdir()
        found.append(state_tree.measure(accounts, home))
        state_tree.write(found[-1:])
    kept = json.loads((tmp_path / "results.json").read_text())["sizes"]
    assert [size["accounts"] for size in kept] == [300, 400]
    assert kept == found[::-1]
    for size in kept:
        assert [batch["blocks"] for batch in size["batches"]] == [1, 2]
        assert all(batch["microseconds"]["all"] > 0 for batch in size["batches"])
    assert state_tree.table(found).count("| 400 |") == 2
