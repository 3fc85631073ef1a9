"""The state tree: accounts at their 32-byte keys, with counts that the root proves.

Bits of a key go from the most significant. An empty subtree is 32 zero bytes with count 0, a
subtree with one account is `state_leaf` of it at whatever depth, any other is `state_node` of
its halves. Accounts come packed: 120 bytes each, key ‖ account (88), strictly ascending by key.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from hashlib import sha256
from operator import index
from typing import Final

from ..errors import DecodeError

ZERO: Final = bytes(32)
MAX_COUNT: Final = (1 << 64) - 1
ACCOUNT: Final = 88
_RECORD: Final = 120  # key and account
_NODE: Final = 80  # left hash, left count, right hash, right count
_KEY_BITS: Final = 256


def need_bytes(name: str, value: bytes) -> None:
    if type(value) is not bytes:
        raise TypeError(f"{name} needs bytes, not {type(value).__name__}")


def need_int(name: str, value: int) -> int:
    """Exactly an int: a subclass may compare as it likes, and bounds are checked by comparing."""
    if not isinstance(value, int):
        raise TypeError(f"{name} needs an int, not {type(value).__name__}")
    return index(value)


def need_sized(name: str, value: bytes, size: int) -> None:
    need_bytes(name, value)
    if len(value) != size:
        raise DecodeError(f"{name}: {len(value)} bytes, must be {size}")


def _state_node(node: bytes) -> bytes:
    return sha256(b"\1" + node).digest()


def _pack(left: bytes, left_count: int, right: bytes, right_count: int) -> bytes:
    return left + left_count.to_bytes(8, "big") + right + right_count.to_bytes(8, "big")


def state_leaf(key: bytes, account: bytes) -> bytes:
    """The hash of a subtree with one account: key 32 bytes, account 88."""
    need_sized("key", key, 32)
    need_sized("account", account, ACCOUNT)
    return sha256(b"\0" + key + account).digest()


def state_node(left: bytes, left_count: int, right: bytes, right_count: int) -> bytes:
    """The hash of a subtree with two accounts or more, of its halves' hashes and counts.

    DecodeError where no such node exists: a zero hash without count 0 or the reverse, fewer
    than two accounts, a sum over 64 bits.
    """
    need_sized("left", left, 32)
    need_sized("right", right, 32)
    for name, count in (("left_count", left_count), ("right_count", right_count)):
        if not 0 <= need_int(name, count) <= MAX_COUNT:
            raise DecodeError(f"{name}: {count}, must be 0 to {MAX_COUNT}")
    if not _is_node(left, left_count, right, right_count):
        raise DecodeError(
            f"state node: counts {left_count} and {right_count} do not go with the hashes"
        )
    return _state_node(_pack(left, left_count, right, right_count))


def _is_node(left: bytes, left_count: int, right: bytes, right_count: int) -> bool:
    return (
        (left == ZERO) == (left_count == 0)
        and (right == ZERO) == (right_count == 0)
        and 2 <= left_count + right_count <= MAX_COUNT
    )


def need_place(name: str, data: bytes, each: int, depth: int, prefix: bytes) -> tuple[int, int]:
    """The keys that items of `each` bytes may have: from the first number to below the second."""
    need_bytes(name, data)
    depth = need_int("depth", depth)
    if not 0 <= depth <= _KEY_BITS:
        raise DecodeError(f"depth: {depth}, must be 0 to {_KEY_BITS}")
    need_sized("prefix", prefix, 32)
    if len(data) % each:
        raise DecodeError(f"{name}: {len(data)} bytes, must be a multiple of {each}")
    low = int.from_bytes(prefix, "big")
    span = 1 << (_KEY_BITS - depth)
    if low % span:
        raise DecodeError(f"prefix: bits beyond depth {depth} must be zero")
    return low, low + span


def need_threshold(threshold: int) -> int:
    threshold = need_int("threshold", threshold)
    if not 1 <= threshold <= MAX_COUNT:
        raise DecodeError(f"threshold: {threshold}, must be 1 to {MAX_COUNT}")
    return threshold


def _keys(packed: bytes, depth: int, prefix: bytes) -> list[int]:
    """The keys of packed accounts as numbers, checked: ascending, and under the prefix."""
    low, end = need_place("packed", packed, _RECORD, depth, prefix)
    keys = [int.from_bytes(packed[at : at + 32], "big") for at in range(0, len(packed), _RECORD)]
    previous = low - 1
    for i, key in enumerate(keys):
        if not low <= key < end:
            raise DecodeError(f"packed[{i}]: key lies outside the prefix")
        if key <= previous:
            raise DecodeError(f"packed[{i}]: keys must ascend strictly")
        previous = key
    return keys


Nodes = list[tuple[int, bytes, bytes]]


def fold_accounts(
    keys: list[int],
    packed: bytes,
    depth: int,
    threshold: int = MAX_COUNT,
    nodes: Nodes | None = None,
) -> bytes:
    """The hash of the subtree at `depth` over checked accounts, left to right in one pass.

    The stack holds finished left halves, each with its depth. After an account, everything
    that ends with it is folded: up to where the next key turns away from this one.
    """
    if not keys:
        return ZERO
    stack: list[tuple[int, bytes, int]] = []  # depth, hash, count
    node, count, shared_left = ZERO, 0, depth - 1
    for i, key in enumerate(keys):
        shared = depth - 1  # bits shared with the next key
        if i + 1 < len(keys):
            shared = _KEY_BITS - (key ^ keys[i + 1]).bit_length()
        node = sha256(b"\0" + packed[i * _RECORD : (i + 1) * _RECORD]).digest()
        count = 1
        for level in range(max(shared_left, shared), shared, -1):
            left, left_count, right, right_count = node, count, ZERO, 0
            if key >> (_KEY_BITS - 1 - level) & 1:
                left, left_count, right, right_count = ZERO, 0, node, count
                if stack and stack[-1][0] == level + 1:
                    _, left, left_count = stack.pop()
            record = _pack(left, left_count, right, right_count)
            node = _state_node(record)
            count = left_count + right_count
            if nodes is not None and count > threshold:
                free = _KEY_BITS - level
                nodes.append((level, (key >> free << free).to_bytes(32, "big"), record))
        stack.append((shared + 1, node, count))
        shared_left = shared
    return node


def state_subtree(packed: bytes, depth: int = 0, prefix: bytes = ZERO) -> tuple[bytes, int]:
    """(hash, count) of the subtree at `depth` (0 to 256) that holds the packed accounts.

    All keys lie under the first `depth` bits of `prefix`, whose other bits are zero.
    DecodeError if they do not, or if the accounts are not sorted.
    """
    keys = _keys(packed, depth, prefix)
    return fold_accounts(keys, packed, depth), len(keys)


def state_nodes(
    packed: bytes, depth: int = 0, prefix: bytes = ZERO, threshold: int = 16
) -> tuple[bytes, int, list[tuple[int, bytes, bytes]]]:
    """Like `state_subtree`, with a list of all nodes that hold more than `threshold` accounts.

    Each is (depth, prefix 32 bytes, left ‖ left_count u64 ‖ right ‖ right_count u64); halves
    come before what they are halves of.
    """
    keys = _keys(packed, depth, prefix)
    threshold = need_threshold(threshold)
    nodes: Nodes = []
    return fold_accounts(keys, packed, depth, threshold, nodes), len(keys), nodes


def state_proof(packed: bytes, key: bytes) -> list[bytes]:
    """The proof that `key` holds its account, or none, in the tree over all packed accounts.

    First the nodes (80 bytes, as in `state_nodes`) from the root down along the key's bits.
    Where they end, the subtree holds at most one account: the key's own, or nothing, or
    another one, which then follows as the last item (120 bytes, key ‖ account).
    """
    keys = _keys(packed, 0, ZERO)
    need_sized("key", key, 32)
    target = int.from_bytes(key, "big")
    low, high, depth, base = 0, len(keys), 0, 0
    siblings: list[tuple[int, bytes, int]] = []  # our bit, the other half's hash and count
    while high - low > 1:
        half = 1 << (_KEY_BITS - 1 - depth)
        split = bisect_left(keys, base + half, low, high)
        depth += 1
        bit = 1 if target & half else 0
        away = (low, split) if bit else (split, high)
        if bit:
            low, base = split, base + half
        else:
            high = split
        part = packed[away[0] * _RECORD : away[1] * _RECORD]
        siblings.append((bit, fold_accounts(keys[slice(*away)], part, depth), away[1] - away[0]))
    proof = []
    node, count = ZERO, high - low
    if count:
        record = packed[low * _RECORD : high * _RECORD]
        node = sha256(b"\0" + record).digest()
        if keys[low] != target:
            proof.append(record)
    for bit, other, other_count in reversed(siblings):
        pair = (other, other_count, node, count) if bit else (node, count, other, other_count)
        proof.append(_pack(*pair))
        node = _state_node(proof[-1])
        count += other_count
    return proof[::-1]


def verify_state_proof(
    root: bytes, key: bytes, account: bytes | None, proof: Sequence[bytes]
) -> bool:
    """Whether `key` (32 bytes) holds `account` (88 bytes), or none where `account` is None,
    in the state under `root`. The proof is as `state_proof` makes it."""
    need_sized("root", root, 32)
    need_sized("key", key, 32)
    if account is not None:
        need_sized("account", account, ACCOUNT)
    path = list(proof)
    for item in path:
        need_bytes("proof", item)
    other = path.pop() if path and len(path[-1]) == _RECORD else None
    end = _descend(root, key, path)
    if end is None:
        return False
    node, count = end
    if account is not None:
        return other is None and count in (None, 1) and node == state_leaf(key, account)
    if other is None:
        return count in (None, 0) and node == ZERO
    away = int.from_bytes(key, "big") ^ int.from_bytes(other[:32], "big")
    on_path = away != 0 and _KEY_BITS - away.bit_length() >= len(path)
    return on_path and count in (None, 1) and node == sha256(b"\0" + other).digest()


def _descend(root: bytes, key: bytes, path: list[bytes]) -> tuple[bytes, int | None] | None:
    """Follows the key's bits through nodes that must each be what the one above promised:
    (hash, count) of where they end, or None. Nothing promises the count of the root."""
    if len(path) > _KEY_BITS:
        return None
    target = int.from_bytes(key, "big")
    node, count = root, None
    for depth, item in enumerate(path):
        if len(item) != _NODE or _state_node(item) != node:
            return None
        left, left_count = item[:32], int.from_bytes(item[32:40], "big")
        right, right_count = item[40:72], int.from_bytes(item[72:], "big")
        if not _is_node(left, left_count, right, right_count):
            return None
        if count is not None and count != left_count + right_count:
            return None
        right_side = target >> (_KEY_BITS - 1 - depth) & 1
        node, count = (right, right_count) if right_side else (left, left_count)
    return node, count
