"""The state tree over a store leaves nothing behind, whatever way it takes and wherever it ends."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

import pytest
from helpers.leaks import leaves_nothing
from helpers.state_reference import account

from moderntensor.errors import DecodeError, StorageError

ADDRESSES = [number.to_bytes(20, "big") for number in range(90)]
ONE, TWO = account(1, 1), account(2, 2)


class Failing:
    """Stands for a store that breaks down after so many answers."""

    def __init__(self, nodes: dict[bytes, Any], rows: list[Any], answers: int) -> None:
        self._nodes = nodes
        self._rows = rows
        self._answers = answers

    def _answer(self) -> None:
        if not self._answers:
            raise StorageError("no more")
        self._answers -= 1

    def node(self, key: bytes) -> Any:
        self._answer()
        return self._nodes[key]

    def accounts(self, start: bytes, stop: bytes | None) -> list[Any]:
        self._answer()
        last = len(self._rows) if stop is None else bisect_left(self._rows, (stop, b""))
        return self._rows[bisect_left(self._rows, (start, b"")) : last]


def test_a_state_tree_leaves_nothing(engine: Any) -> None:
    full = dict.fromkeys(ADDRESSES, ONE)
    other = dict.fromkeys(ADDRESSES[::3], TWO)
    gone = dict.fromkeys(ADDRESSES[5:])
    make = engine.merkle.StateTree
    first = make(0, None, None)
    first.apply(full)
    nodes, rows = first.take_changes()

    def store(answers: int = 1000) -> Any:
        held = Failing(dict(nodes), rows, answers)
        return make(len(rows), held.node, held.accounts)

    def work() -> None:
        tree = store()
        for changes in (other, gone, full, {}, other):  # changed, merged, split, nothing
            tree.apply(changes)
        tree.take_changes()
        tree.apply(gone)
        tree = store(4)
        with pytest.raises(StorageError):
            tree.apply(other)
        with pytest.raises(StorageError):
            store(0)
        tree = store()
        for bad in ({ADDRESSES[0]: ONE, b"short": ONE}, {ADDRESSES[0]: ONE, ADDRESSES[1]: b""}):
            with pytest.raises(DecodeError):
                tree.apply(bad)

    leaves_nothing(work, ONE, TWO, ADDRESSES[0], rows[0], rows[0][1], nodes[0][1], times=12)


def test_digests_of_a_body_leave_nothing(engine: Any) -> None:
    items = [bytes([number]) * (65 + number) for number in range(5)]
    body = len(items).to_bytes(4, "big") + b"".join(
        len(item).to_bytes(4, "big") + item for item in items
    )

    def work() -> None:
        engine.merkle.body_digests(body, b"id", b"signing")
        for bad in (body[:-1], body + b"\0", body.replace(b"\0\0\0\x41", b"\0\0\0\x40", 1)):
            with pytest.raises(DecodeError):
                engine.merkle.body_digests(bad, b"id", b"signing")

    leaves_nothing(work, body, items[0])
