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


def records(state: dict[bytes, bytes]) -> bytes:
    """address ‖ account of all, ascending by key: as they travel."""
    return b"".join(
        address + value
        for address, value in sorted(state.items(), key=lambda item: sha256(item[0]).digest())
    )


def keyed(state: dict[bytes, bytes]) -> Accounts:
    return sorted((sha256(address).digest(), value) for address, value in state.items())


def proof(accounts: Accounts, key: bytes) -> list[bytes]:
    """Nodes from the root down along the key, then the other account where another is there."""
    return _path(accounts, key, 0)[1]


def _path(accounts: Accounts, key: bytes, depth: int) -> tuple[tuple[bytes, int], list[bytes]]:
    # What `subtree` gives, and the proof from there down.
    if len(accounts) < 2:
        return subtree(accounts), [k + value for k, value in accounts if k != key]
    halves: list[Accounts] = [[], []]
    for item in accounts:
        halves[bit(item[0], depth)].append(item)
    side = bit(key, depth)
    below, items = _path(halves[side], key, depth + 1)
    pair = [below, subtree(halves[1 - side], depth + 1)]
    raw = b"".join(digest + count.to_bytes(8, "big") for digest, count in pair[:: 1 - 2 * side])
    return (sha256(b"\x01" + raw).digest(), len(accounts)), [raw, *items]


# Addresses (numbers of 20 bytes) whose keys share that many leading bits, found by trying 2**23.
SHARED = {
    43: (316553, 1272730),
    33: (6844731, 5184808, 1208805),
    27: (2906243, 4016112, 931678, 1706143, 363789),
    20: (
        5235222, 7324444, 4631588, 5930064, 7654651, 3546321, 8007797, 7319217, 1665496, 5604041,
        7136248, 4266256, 769116, 5919164, 3977038, 1305464, 872071, 557603, 2951326, 2047592,
    ),
}  # fmt: skip


def shared_state(bits: int) -> dict[bytes, bytes]:
    """The accounts of such addresses."""
    return {n.to_bytes(20, "big"): account(n % 7, n) for n in SHARED[bits]}


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


def _record_cases() -> list[tuple[str, int, int, dict[bytes, bytes]]]:
    few = {n.to_bytes(20, "big"): account(n, 1000 * n + 1) for n in range(40)}
    crowd = {address: value for bits in SHARED for address, value in shared_state(bits).items()}
    return [
        ("no records", 0, 16, {}),
        ("one record", 0, 16, dict([*shared_state(43).items()][:1])),
        ("forty addresses", 0, 16, few),
        ("forty addresses, every node", 0, 1, few),
        ("two keys that share 43 bits: as many nodes with an empty half", 0, 1, shared_state(43)),
        ("the same two from the depth where they part", 43, 1, shared_state(43)),
        ("twenty keys that share 20 bits", 20, 16, shared_state(20)),
        ("crowds beside each other", 0, 4, crowd),
    ]


def record_vectors() -> list[dict[str, Any]]:
    cases = []
    for name, depth, threshold, state in _record_cases():
        accounts = keyed(state)
        root, count = subtree(accounts, depth)
        prefix = int.from_bytes(accounts[0][0], "big") if accounts else 0
        found = sorted(
            (bytes([level]) + start, raw) for level, start, raw in nodes(accounts, depth, threshold)
        )
        cases.append(
            {
                "name": name,
                "depth": depth,
                "prefix": (prefix >> (256 - depth) << (256 - depth)).to_bytes(32, "big").hex(),
                "threshold": threshold,
                "records": [
                    (address + state[address]).hex()
                    for address in sorted(state, key=lambda item: sha256(item).digest())
                ],
                "hash": root.hex(),
                "count": count,
                "nodes": len(found),
                "nodes_sha256": sha256(b"".join(key + raw for key, raw in found)).hexdigest(),
            }
        )
    return cases


def proof_vectors() -> list[dict[str, Any]]:
    """Of each whole tree: its first and last account, and keys next to them or far away."""
    cases = []
    for name, depth, accounts in _cases():
        if depth:
            continue
        held = dict(sorted(accounts))
        ends = [*held][:1] + [*held][-1:]
        near = [bytes([key[0] ^ 0x80]) + key[1:] for key in ends]
        near += [key[:31] + bytes([key[31] ^ 4]) for key in ends]
        for key in dict.fromkeys([*ends, *near, b"\x5a" * 32]):
            items = proof(sorted(accounts), key)
            cases.append(
                {
                    "tree": name,
                    "key": key.hex(),
                    "account": held[key].hex() if key in held else None,
                    "items": len(items),
                    "proof": [item.hex() for item in items] if len(items) <= 8 else None,
                    "sha256": sha256(b"".join(items)).hexdigest(),
                }
            )
    return cases


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
        "storage_root and code_hash of every account are 32 zero bytes. A proof is given whole "
        "where it has at most 8 items, and always by the SHA-256 of its items end to end.",
        "cases": cases,
        "records": record_vectors(),
        "proofs": proof_vectors(),
    }


if __name__ == "__main__":
    print(json.dumps(vectors(), indent=1))
