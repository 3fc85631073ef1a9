"""Subtrees of the state as they travel: records of address and account, keys not among them."""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from ..errors import DecodeError
from .state_tree import ACCOUNT, ZERO, Nodes, fold_accounts, need_place, need_threshold

_ADDRESS: Final = 20
_STORED: Final = _ADDRESS + ACCOUNT
_FUNDS: Final = 24  # nonce and balance; storage_root and code_hash are the rest of an account


def state_records(
    records: bytes, depth: int = 0, prefix: bytes = ZERO, threshold: int = 16, rows: bool = True
) -> tuple[bytes, int, list[tuple[bytes, bytes]], list[tuple[bytes, bytes]]]:
    """What a subtree of the state is, as it travels: (hash, count, nodes, rows).

    `records` are 108 bytes each, address ‖ account, ascending by key = SHA-256(address), all
    under the first `depth` bits (0 to 256) of `prefix`, whose other bits are zero. `nodes` are
    those over more than `threshold` accounts, (depth u8 ‖ prefix, 80 bytes), ascending. `rows`
    are (key, record) of all accounts, or none where `rows` is false.

    DecodeError, which names the first such record, where one is out of order, not under the
    prefix, or cannot be an account: one with nonce 0 and balance 0 does not exist, and
    storage_root and code_hash are zero for now.
    """
    low, end = need_place("records", records, _STORED, depth, prefix)
    threshold = need_threshold(threshold)
    made = []
    keys: list[int] = []
    for i, at in enumerate(range(0, len(records), _STORED)):
        record = records[at : at + _STORED]
        key = sha256(record[:_ADDRESS]).digest()
        number = int.from_bytes(key, "big")
        if not low <= number < end:
            raise DecodeError(f"records[{i}]: key lies outside the prefix")
        if keys and number <= keys[-1]:
            raise DecodeError(f"records[{i}]: keys must ascend strictly")
        if not any(record[_ADDRESS : _ADDRESS + _FUNDS]):
            raise DecodeError(f"records[{i}]: an account of nonce 0 and balance 0 does not exist")
        if any(record[_ADDRESS + _FUNDS :]):
            raise DecodeError(f"records[{i}]: storage_root and code_hash must be zero")
        keys.append(number)
        made.append((key, record))
    nodes: Nodes = []
    packed = b"".join([key + record[_ADDRESS:] for key, record in made])
    digest = fold_accounts(keys, packed, depth, threshold, nodes)
    found = sorted((bytes((level,)) + start, node) for level, start, node in nodes)
    return digest, len(keys), found, made if rows else []
