"""The state tree over a store, changed in memory: what many blocks touch is read and written once.

Where changes go, the tree is loaded: a `_Branch` for each stored node on their way, a `_Bucket` of
accounts at its end, with the hash of each so that only changed ones are hashed again.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Final, NamedTuple

from ..errors import DecodeError, StorageError
from .state_tree import MAX_COUNT, ZERO, need_bytes, need_int, need_sized

NODE_LIMIT: Final = 16
"""Nodes over no more accounts than this are not stored: to hash so few anew costs less."""

_ADDRESS: Final = 20
_ACCOUNT: Final = 88
_NODE: Final = 80
_KEY_BITS: Final = 256

_Half = tuple[bytes, int]  # hash and count of a subtree
_Row = tuple[bytes, bytes]  # key and leaf hash of an account
_EMPTY: Final[_Half] = (ZERO, 0)


class _Branch:
    """A subtree of more than `NODE_LIMIT` accounts: its halves, and their subtrees once loaded."""

    __slots__ = ("dirty", "halves", "parts")

    def __init__(self, halves: list[_Half], parts: list[_Branch | _Bucket | None]) -> None:
        self.halves = halves
        self.parts = parts
        self.dirty = False

    def encode(self) -> bytes:
        return b"".join(digest + count.to_bytes(8, "big") for digest, count in self.halves)


class _Bucket:
    """A subtree of at most `NODE_LIMIT` accounts, ascending."""

    __slots__ = ("rows",)

    def __init__(self, rows: list[_Row]) -> None:
        self.rows = rows


class _Change(NamedTuple):
    key: bytes
    record: bytes | None  # address and account; None: it is gone


class StateTree:
    """The state tree in the middle of its changes.

    `count` is how many accounts the store holds. `read_node(key)` gets a stored node (80 bytes,
    as in `state_nodes`) by its depth u8 ‖ prefix, or None. `read_accounts(start, stop)` gets
    (key, address ‖ account) of all keys in [start, stop), ascending; a `stop` of None is the end.
    What they raise passes through. After any error the tree must not be used again.

    StorageError where stored nodes and accounts contradict each other.
    """

    def __init__(
        self,
        count: int,
        read_node: Callable[[bytes], bytes | None],
        read_accounts: Callable[[bytes, bytes | None], Sequence[tuple[bytes, bytes]]],
    ) -> None:
        count = need_int("count", count)
        if not 0 <= count <= MAX_COUNT:
            raise DecodeError(f"count: {count}, must be 0 to {MAX_COUNT}")
        self._read_node = read_node
        self._read_accounts = read_accounts
        self._accounts: dict[bytes, bytes | None] = {}  # changed ones, for the store
        self._gone: set[bytes] = set()  # keys of nodes that are no longer there
        self._busy = False
        self._effective = 0  # changes that made a difference
        self._top = self._load(count, 0, ZERO)
        self._half = self._hash(self._top, 0)

    @property
    def root(self) -> bytes:
        """The root over all accounts; 32 zero bytes for none."""
        return self._half[0]

    @property
    def count(self) -> int:
        """How many accounts there are."""
        return self._half[1]

    def apply(self, changes: Mapping[bytes, bytes | None]) -> bytes:
        """Set accounts (address, 20 bytes, to 88 bytes; None: it is gone); the new root."""
        pending = dict(changes)
        if self._busy:
            raise RuntimeError("the state tree is changed from within a change")
        self._busy = True
        try:
            ascending = sorted(_change(*pair) for pair in pending.items())
            if ascending:
                self._top, self._half = self._update(self._top, self._half, 0, ascending)
        finally:
            self._busy = False
        return self._half[0]

    def take_changes(
        self,
    ) -> tuple[list[tuple[bytes, bytes | None]], list[tuple[bytes, bytes | None]]]:
        """What the store has to be told since the last call: nodes by depth u8 ‖ prefix, accounts
        (address ‖ account) by key, both ascending; None for what is no longer there."""
        nodes: list[tuple[bytes, bytes | None]] = [(key, None) for key in self._gone]
        self._collect(self._top, 0, 0, nodes)
        accounts = sorted(self._accounts.items())
        self._gone = set()
        self._accounts = {}
        return sorted(nodes), accounts

    def _collect(
        self,
        part: _Branch | _Bucket | None,
        depth: int,
        prefix: int,
        nodes: list[tuple[bytes, bytes | None]],
    ) -> None:
        if isinstance(part, _Branch) and part.dirty:
            part.dirty = False
            nodes.append((bytes((depth,)) + prefix.to_bytes(32, "big"), part.encode()))
            for bit in (0, 1):
                below = prefix | bit << _KEY_BITS - 1 - depth
                self._collect(part.parts[bit], depth + 1, below, nodes)

    def _load(self, count: int, depth: int, key: bytes) -> _Branch | _Bucket:
        """The subtree of `count` accounts at `depth` on the way to `key`, from the store."""
        if not count:
            return _Bucket([])
        prefix = _prefix(depth, key)
        if count > NODE_LIMIT:
            if depth == _KEY_BITS:
                raise StorageError(f"the state tree counts {count} accounts of one key")
            raw = self._read_node(bytes((depth,)) + prefix)
            if raw is None:
                raise StorageError(f"the state tree lacks its node {prefix.hex()}/{depth}")
            return _decode_node(raw, count, depth, prefix)
        stop = int.from_bytes(prefix, "big") + (1 << _KEY_BITS - depth)
        end = stop.to_bytes(32, "big") if stop < 1 << _KEY_BITS else None
        rows: list[_Row] = []
        for found, record in self._read_accounts(prefix, end):
            need_bytes("key", found)
            need_bytes("record", record)
            if len(found) != 32 or len(record) != _ADDRESS + _ACCOUNT:
                raise StorageError(
                    f"the state tree has an account of {len(found)} and {len(record)} bytes"
                )
            if _prefix(depth, found) != prefix or (rows and found <= rows[-1][0]):
                raise StorageError(f"the state tree has account {found.hex()} out of order")
            rows.append((found, _leaf(found, record)))
        if len(rows) != count:
            raise StorageError(
                f"the state tree counts {count} accounts where {len(rows)} are stored"
            )
        return _Bucket(rows)

    def _update(
        self,
        part: _Branch | _Bucket | None,
        half: _Half,
        depth: int,
        changes: Sequence[_Change],
    ) -> tuple[_Branch | _Bucket, _Half]:
        """A subtree, whose hash and count were `half`, after changes in it, ascending."""
        seen, key = self._effective, changes[0].key
        if part is None:
            part = self._load(half[1], depth, key)
        if isinstance(part, _Bucket):
            part.rows = self._change_rows(part.rows, changes)
            if self._effective == seen:
                return part, half
            if len(part.rows) > NODE_LIMIT:
                part = self._split(part.rows, depth)
            return part, self._hash(part, depth)
        split = bisect_left(changes, _middle(depth, key), key=_key_of)
        for bit, under in enumerate((changes[:split], changes[split:])):
            if under:
                part.parts[bit], part.halves[bit] = self._update(
                    part.parts[bit], part.halves[bit], depth + 1, under
                )
        if self._effective == seen:
            return part, half
        part.dirty = True
        if part.halves[0][1] + part.halves[1][1] <= NODE_LIMIT:
            merged = self._merge(part, depth, key)
            return merged, self._hash(merged, depth)
        return part, self._hash(part, depth)

    def _change_rows(self, rows: list[_Row], changes: Sequence[_Change]) -> list[_Row]:
        held = dict(rows)
        for key, record in changes:
            if record is None:
                if held.pop(key, None) is None:
                    continue
            else:
                leaf = _leaf(key, record)
                if held.get(key) == leaf:
                    continue
                held[key] = leaf
            self._accounts[key] = record
            self._effective += 1
        return sorted(held.items())

    def _split(self, rows: list[_Row], depth: int) -> _Branch | _Bucket:
        """A subtree over rows, with branches down to where few enough are left."""
        if len(rows) <= NODE_LIMIT:
            return _Bucket(rows)
        key = rows[0][0]
        split = bisect_left(rows, _middle(depth, key), key=_key_of)
        parts = [self._split(part, depth + 1) for part in (rows[:split], rows[split:])]
        branch = _Branch([self._hash(part, depth + 1) for part in parts], [*parts])
        branch.dirty = True
        self._gone.discard(bytes((depth,)) + _prefix(depth, key))
        return branch

    def _merge(self, branch: _Branch, depth: int, key: bytes) -> _Bucket:
        """The bucket of a branch that has become small, whose node goes."""
        rows: list[_Row] = []
        starts = (_prefix(depth, key), _middle(depth, key))
        for part, (_, count), start in zip(branch.parts, branch.halves, starts, strict=True):
            small = self._load(count, depth + 1, start) if part is None else part
            if isinstance(small, _Bucket):  # so few accounts are never anything else
                rows += small.rows
        self._gone.add(bytes((depth,)) + _prefix(depth, key))
        return _Bucket(rows)

    def _hash(self, part: _Branch | _Bucket, depth: int) -> _Half:
        if isinstance(part, _Branch):
            node = sha256(b"\1" + part.encode()).digest()
            return node, part.halves[0][1] + part.halves[1][1]
        return _hash_rows(part.rows, depth)


def _key_of(row: tuple[bytes, object]) -> bytes:
    return row[0]


def _change(address: bytes, account: bytes | None) -> _Change:
    need_sized("address", address, _ADDRESS)
    key = sha256(address).digest()
    if account is None:
        return _Change(key, None)
    need_sized("account", account, _ACCOUNT)
    return _Change(key, address + account)


def _leaf(key: bytes, record: bytes) -> bytes:
    return sha256(b"\0" + key + record[_ADDRESS:]).digest()


def _prefix(depth: int, key: bytes) -> bytes:
    """The first `depth` bits of a key, zeros behind them."""
    free = _KEY_BITS - depth
    return (int.from_bytes(key, "big") >> free << free).to_bytes(32, "big")


def _middle(depth: int, key: bytes) -> bytes:
    """The lowest key of the right half of the subtree at `depth` around `key`."""
    bit = _KEY_BITS - 1 - depth
    return ((int.from_bytes(key, "big") >> bit | 1) << bit).to_bytes(32, "big")


def _decode_node(raw: bytes, count: int, depth: int, prefix: bytes) -> _Branch:
    need_bytes("node", raw)
    halves = [(raw[at : at + 32], int.from_bytes(raw[at + 32 : at + 40], "big")) for at in (0, 40)]
    sound = len(raw) == _NODE and all((digest == ZERO) == (n == 0) for digest, n in halves)
    if not sound or halves[0][1] + halves[1][1] != count:
        raise StorageError(f"the state tree's node {prefix.hex()}/{depth} is not over {count}")
    return _Branch(halves, [None, None])


def _hash_rows(rows: Sequence[_Row], depth: int) -> _Half:
    """Hash and count of the subtree at `depth` over rows."""
    if not rows:
        return _EMPTY
    if len(rows) == 1:
        return rows[0][1], 1
    split = bisect_left(rows, _middle(depth, rows[0][0]), key=_key_of)
    halves = [_hash_rows(part, depth + 1) for part in (rows[:split], rows[split:])]
    node = b"".join(digest + count.to_bytes(8, "big") for digest, count in halves)
    return sha256(b"\1" + node).digest(), len(rows)
