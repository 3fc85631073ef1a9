"""The state tree straight from its definition: slow, recursive, and sharing no code with us.

`python tests/helpers/state_reference.py` prints what tests/vectors/state_tree.json must hold.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

ZERO = bytes(32)
Accounts = list[tuple[bytes, bytes]]


def account(nonce: int, balance: int) -> bytes:
    """The 88 bytes of an account without storage or code."""
    return nonce.to_bytes(8, "big") + balance.to_bytes(16, "big") + ZERO + ZERO


def bit(key: bytes, depth: int) -> int:
    return key[depth // 8] >> (7 - depth % 8) & 1


def subtree(accounts: Accounts, depth: int = 0) -> tuple[bytes, int]:
    """(hash, count) of the subtree at `depth` over accounts in any order."""
    if not accounts:
        return ZERO, 0
    if len(accounts) == 1:
        return sha256(b"\x00" + accounts[0][0] + accounts[0][1]).digest(), 1
    return sha256(b"\x01" + node(accounts, depth)).digest(), len(accounts)


def node(accounts: Accounts, depth: int) -> bytes:
    """The 80 bytes that the hash of two accounts or more is made of."""
    left, left_count = subtree([a for a in accounts if not bit(a[0], depth)], depth + 1)
    right, right_count = subtree([a for a in accounts if bit(a[0], depth)], depth + 1)
    return left + left_count.to_bytes(8, "big") + right + right_count.to_bytes(8, "big")


def nodes(accounts: Accounts, depth: int, threshold: int) -> list[tuple[int, bytes, bytes]]:
    """Every node with more than `threshold` accounts, halves before wholes."""
    if len(accounts) <= max(threshold, 1):
        return []
    prefix = int.from_bytes(accounts[0][0], "big") >> (256 - depth) << (256 - depth)
    return [
        *nodes([a for a in accounts if not bit(a[0], depth)], depth + 1, threshold),
        *nodes([a for a in accounts if bit(a[0], depth)], depth + 1, threshold),
        (depth, prefix.to_bytes(32, "big"), node(accounts, depth)),
    ]


def pack(accounts: Accounts) -> bytes:
    return b"".join(key + value for key, value in sorted(accounts))


def _cases() -> list[tuple[str, int, Accounts]]:
    spread = [(sha256(n.to_bytes(20, "big")).digest(), account(n, 1000 * n + 1)) for n in range(40)]
    low = bytes.fromhex("7f" + "ff" * 31)
    twin = bytes.fromhex("00" * 31 + "fe")
    deep = bytes.fromhex("ab" * 31)
    return [
        ("no accounts", 0, []),
        ("one account is its leaf at the root", 0, spread[:1]),
        ("one account is the same leaf anywhere", 200, [(ZERO, account(1, 2))]),
        (
            "two halves of one account each",
            0,
            [(low, account(1, 1)), (b"\x80" + ZERO[1:], account(2, 2))],
        ),
        (
            "two keys that differ in the last bit: 255 nodes with an empty half",
            0,
            [(twin, account(0, 1)), (twin[:31] + b"\xff", account(0, 2**128 - 1))],
        ),
        (
            "all 32 keys under one prefix of 251 bits, and one far away",
            0,
            [
                *((deep + bytes([0xA0 | n]), account(n, n + 1)) for n in range(32)),
                (ZERO, account(2**64 - 1, 7)),
            ],
        ),
        (
            "the subtree at depth 251 of the case before",
            251,
            [(deep + bytes([0xA0 | n]), account(n, n + 1)) for n in range(32)],
        ),
        (
            "each key one bit longer than the last: a comb",
            0,
            [((1 << n).to_bytes(32, "big"), account(n, 1)) for n in range(0, 256, 5)],
        ),
        ("forty addresses, keys as on a chain", 0, spread),
        (
            "three equal balances, an account of zeros",
            0,
            [(k, account(0, 0)) for k, _ in spread[:3]],
        ),
    ]


def vectors() -> dict[str, Any]:
    cases = []
    for name, depth, accounts in _cases():
        root, count = subtree(accounts, depth)
        prefix = int.from_bytes(accounts[0][0], "big") if accounts else 0
        cases.append(
            {
                "name": name,
                "depth": depth,
                "prefix": (prefix >> (256 - depth) << (256 - depth)).to_bytes(32, "big").hex(),
                "hash": root.hex(),
                "count": count,
                "nodes_over_16": len(nodes(sorted(accounts), depth, 16)),
                "accounts": [
                    {
                        "key": key.hex(),
                        "nonce": int.from_bytes(value[:8], "big"),
                        "balance": str(int.from_bytes(value[8:24], "big")),
                    }
                    for key, value in sorted(accounts)
                ],
            }
        )
    return {
        "about": "State subtrees by docs/protocol.md, State; balances are decimal strings, "
        "storage_root and code_hash of every account are 32 zero bytes.",
        "cases": cases,
    }


if __name__ == "__main__":
    print(json.dumps(vectors(), indent=1))
