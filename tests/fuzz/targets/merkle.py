"""Merkle roots and proofs of lists, of bodies and of the state, and the state tree over a store."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from typing import Any

from helpers.state_reference import account, pack

from ..reader import Reader, chunk
from ..twins import Engines, outcome, same
from . import Target

COUNTS = (0, 1, 2, 3, 16, 2**32 - 1, 2**63, 2**64 - 1, 2**64)
MOST_ROUNDS = 24


def lists(data: bytes) -> None:
    reader = Reader(data)
    wanted, count, odd = reader.below(40), reader.below(40), reader.below(8)
    leaves = []
    while reader.left and len(leaves) < 33:
        leaves.append(reader.chunk())
    _, root = same(lambda e: e.merkle.list_root(leaves))
    kind, proof = same(lambda e: e.merkle.list_proof(leaves, wanted), IndexError)
    if kind != "value":
        return
    leaf = leaves[wanted]
    assert same(lambda e: e.merkle.verify_list_proof(root, leaf, wanted, len(leaves), proof))[1]
    claimed = (COUNTS[odd], count) if odd else (wanted, count)
    found = same(lambda e: e.merkle.verify_list_proof(root, leaf, *claimed, proof))
    if found[1] and claimed[1] == len(leaves):  # a proof holds for whoever knows the count
        assert leaves[claimed[0]] == leaf, "proves another leaf"
    if proof:
        proof[odd % len(proof)] = data[-33:]
        same(lambda e: e.merkle.verify_list_proof(root, leaf, wanted, len(leaves), proof))


def bodies(data: bytes) -> None:
    kind, found = same(lambda e: e.merkle.body_root(data))
    same(lambda e: e.merkle.body_digests(data, b"id", b"signing"))
    if kind == "value":
        reader, items = Reader(data[4:]), []
        while reader.left:
            items.append(reader.chunk(4))
        assert found == (same(lambda e: e.merkle.list_root(items))[1], len(items))


def _accounts(reader: Reader) -> list[tuple[bytes, bytes]]:
    """Accounts under keys that crowd together."""
    held: dict[bytes, bytes] = {}
    for _ in range(reader.below(24)):
        shape, byte = reader.below(3), reader.number(1)
        key = (
            bytes(31) + bytes([byte]) if shape == 0
            else (1 << byte).to_bytes(32, "big") if shape == 1
            else sha256(bytes([byte])).digest()
        )  # fmt: skip
        held[key] = account(reader.below(4), byte)
    return sorted(held.items())


def state(data: bytes) -> None:
    """Packed accounts, sorted or not, whole or not, and proofs of what is and is not there."""
    reader = Reader(data)
    accounts = _accounts(reader)
    packed = bytearray(pack(accounts))
    for _ in range(reader.below(3)):
        at = reader.number(2) % (len(packed) + 1)
        match reader.below(3):
            case 0:
                packed[at : at + 1] = reader.take(1)
            case 1:
                del packed[at : at + reader.below(130)]
            case _:
                packed[at:at] = reader.chunk()
    items = bytes(packed)
    depth, threshold = reader.number(2) % 300, reader.pick(COUNTS)
    prefix = reader.pick((bytes(32), items[:32], b"\x80" + bytes(31), b"short"))
    key = reader.pick((items[120:152] or bytes(32), bytes(32), b"\xff" * 32, items[:31]))
    kind, found = same(lambda e: e.merkle.state_subtree(items))
    same(lambda e: e.merkle.state_subtree(items, depth, prefix))
    same(lambda e: e.merkle.state_nodes(items, depth, prefix, threshold))
    same(lambda e: e.merkle.state_nodes(items))
    proved, proof = same(lambda e: e.merkle.state_proof(items, key))
    if kind == "value" and proved == "value":
        held = {items[at : at + 32]: items[at + 32 : at + 120] for at in range(0, len(items), 120)}
        root = found[0]
        for claim in (held.get(key), None, account(1, 2)):
            answer = same(lambda e, c=claim: e.merkle.verify_state_proof(root, key, c, proof))
            assert answer[1] == (claim == held.get(key)), "a false claim proved, or a true one not"
        if proof:
            bad = [*proof]
            bad[reader.below(len(bad))] = reader.chunk()
            same(lambda e: e.merkle.verify_state_proof(root, key, held.get(key), bad))
    same(lambda e: e.merkle.verify_state_proof(key, key, None, [items[:80], items[80:160]]))


class _Store:
    """What the state tree reads and is written to."""

    def __init__(self) -> None:
        self.nodes: dict[bytes, bytes] = {}
        self.accounts: dict[bytes, bytes] = {}

    def read_node(self, key: bytes) -> bytes | None:
        return self.nodes.get(key)

    def read_accounts(self, start: bytes, stop: bytes | None) -> list[tuple[bytes, bytes]]:
        keys = sorted(self.accounts)
        end = len(keys) if stop is None else bisect_left(keys, stop)
        return [(key, self.accounts[key]) for key in keys[bisect_left(keys, start) : end]]

    def take(self, tree: Any) -> Any:
        nodes, accounts = tree.take_changes()
        for table, changes in ((self.nodes, nodes), (self.accounts, accounts)):
            for key, value in changes:
                if value is None:
                    table.pop(key, None)
                else:
                    table[key] = value
        return nodes, accounts

    def damage(self, reader: Reader) -> None:
        """One stored thing becomes another."""
        table = self.nodes if reader.flag() else self.accounts
        if not table:
            return
        key = sorted(table)[reader.number(1) % len(table)]
        match reader.below(4):
            case 0:
                del table[key]
            case 1:
                at = reader.below(len(table[key]) or 1)
                table[key] = table[key][:at] + reader.take(1) + table[key][at + 1 :]
            case 2:
                table[key] = table[key][: reader.below(110)]
            case _:
                table[key] += reader.chunk()


def _tree_life(engines: Engines, data: bytes) -> list[Any]:
    reader, store = Reader(data), _Store()
    tree = engines.merkle.StateTree(0, store.read_node, store.read_accounts)
    seen: list[Any] = []
    damaged = False
    while reader.left and len(seen) < MOST_ROUNDS:
        match reader.below(6):
            case 0 | 1 | 2:
                changes: dict[bytes, bytes | None] = {}
                for _ in range(reader.below(24)):
                    address = bytes([reader.number(1)]) * 20
                    changes[address] = account(1, reader.below(9) + 1) if reader.flag() else None
                seen.append(outcome(partial(tree.apply, changes)))
            case 3:
                seen.append(store.take(tree))
            case 4:
                store.take(tree)
                again = partial(
                    engines.merkle.StateTree, tree.count, store.read_node, store.read_accounts
                )
                seen.append(outcome(again))
                if seen[-1][0] == "value":
                    tree = seen.pop()[1]
                    seen.append((tree.root, tree.count))
            case _:
                damaged = True
                store.damage(reader)
        if seen and seen[-1][0] in ("StorageError", "DecodeError"):
            return seen  # after an error a tree is not used again
    if not damaged:
        store.take(tree)
        whole = pack([(key, record[20:]) for key, record in store.accounts.items()])
        assert engines.merkle.state_subtree(whole) == (tree.root, tree.count), "another root"
    seen.append((tree.root, tree.count))
    return seen


def state_tree(data: bytes) -> None:
    same(lambda engines: _tree_life(engines, data))


def _list_seeds() -> Iterator[bytes]:
    for count in (0, 1, 2, 3, 7, 8, 17):
        yield bytes([count // 2, count, 0]) + b"".join(chunk(bytes([n]) * n) for n in range(count))


def _body_seeds() -> Iterator[bytes]:
    yield bytes(4)
    for sizes in ((65,), (118, 200), (65, 66, 67, 300), (0, 1)):
        yield len(sizes).to_bytes(4, "big") + b"".join(chunk(bytes(n), 4) for n in sizes)


def _state_seeds() -> Iterator[bytes]:
    for shape in range(3):
        for count in (0, 2, 11):
            rows = b"".join(bytes([shape, n * 11 % 256, n]) for n in range(count))
            yield bytes([count]) + rows + bytes(8)
            yield bytes([count]) + rows + bytes([1, 0, 5, 0, 9, 0, 4, 1, 1, 0])


def _tree_seeds() -> Iterator[bytes]:
    fill = b"".join(
        bytes([0, 23]) + b"".join(bytes([n + at, 1, n]) for n in range(23)) for at in (0, 40, 90)
    )
    empty = bytes([0, 23]) + b"".join(bytes([n, 0]) for n in range(23))
    yield fill
    yield fill + b"\3\4" + empty + b"\3"
    yield fill + b"\4" + empty + b"\4" + fill
    for how in range(4):
        yield fill + bytes([3, 5, how & 1, 0, how, 7, 1, 4]) + empty


TARGETS = {
    "merkle-lists": Target(lists, _list_seeds, longest=2048),
    "merkle-bodies": Target(bodies, _body_seeds, longest=2048),
    "merkle-state": Target(state, _state_seeds, longest=512),
    "state-tree": Target(state_tree, _tree_seeds, longest=1024),
}
