"""Merkle trees: RFC 9162 lists, and the state tree of `state_tree.py` beside them.

Hashes are 32 bytes. A list's leaf is hashed behind a byte 00 and a node behind 01, and nothing
is ever duplicated; the root of an empty list is 32 zero bytes. This is the reference that
`ext/merkle.pyx` equals, results and errors included.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Final

from ..errors import DecodeError
from .state_records import state_records
from .state_tree import (
    MAX_COUNT,
    ZERO,
    need_bytes,
    need_int,
    state_leaf,
    state_node,
    state_nodes,
    state_proof,
    state_subtree,
    verify_state_proof,
)
from .state_update import NODE_LIMIT, StateTree

__all__ = [
    "NODE_LIMIT",
    "StateTree",
    "body_digests",
    "body_root",
    "list_proof",
    "list_root",
    "state_leaf",
    "state_node",
    "state_nodes",
    "state_proof",
    "state_records",
    "state_subtree",
    "verify_list_proof",
    "verify_state_proof",
]

_MAX_TX: Final = 131_068  # a signed transaction at its largest
_SIGNATURE: Final = 65  # v, r, s: the end of every transaction


def _leaf(data: bytes) -> bytes:
    return sha256(b"\0" + data).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right).digest()


def _root(hashes: Sequence[bytes]) -> bytes:
    """The root over leaf hashes. Each complete subtree is folded as soon as its right half is
    there: the number of folds after leaf n is the number of trailing ones of n."""
    stack: list[bytes] = []
    for n, digest in enumerate(hashes):
        node, bits = digest, n
        while bits & 1:
            node = _node(stack.pop(), node)
            bits >>= 1
        stack.append(node)
    if not stack:
        return ZERO
    node = stack.pop()
    while stack:
        node = _node(stack.pop(), node)
    return node


def _leaf_hashes(leaves: Sequence[bytes]) -> list[bytes]:
    for leaf in leaves:
        need_bytes("leaf", leaf)
    return [_leaf(leaf) for leaf in leaves]


def list_root(leaves: Sequence[bytes]) -> bytes:
    """The RFC 9162 tree hash of the leaves; 32 zero bytes for none."""
    return _root(_leaf_hashes(tuple(leaves)))


def list_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The inclusion proof of `leaves[index]`: sibling hashes from the leaf up.

    IndexError outside 0 to len(leaves) - 1.
    """
    hashes = _leaf_hashes(tuple(leaves))
    index = need_int("index", index)
    if not 0 <= index < len(hashes):
        raise IndexError("leaf index out of range")
    proof = []
    while len(hashes) > 1:
        split = 1 << (len(hashes) - 1).bit_length() - 1  # the largest power of two below
        if index < split:
            proof.append(_root(hashes[split:]))
            hashes = hashes[:split]
        else:
            proof.append(_root(hashes[:split]))
            hashes = hashes[split:]
            index -= split
    return proof[::-1]


def verify_list_proof(
    root: bytes, leaf: bytes, index: int, count: int, proof: Sequence[bytes]
) -> bool:
    """Whether `leaf` is item `index` of the list of `count` items under `root`."""
    need_bytes("root", root)
    need_bytes("leaf", leaf)
    index = need_int("index", index)
    count = need_int("count", count)
    path = tuple(proof)
    for sibling in path:
        need_bytes("proof", sibling)
    if not 0 <= index < count <= MAX_COUNT or any(len(sibling) != 32 for sibling in path):
        return False
    node, last = _leaf(leaf), count - 1
    for sibling in path:
        if last == 0:
            return False
        if index & 1 or index == last:
            node = _node(sibling, node)
            while not index & 1 and index:
                index >>= 1
                last >>= 1
        else:
            node = _node(node, sibling)
        index >>= 1
        last >>= 1
    return last == 0 and node == root


def _items(body: bytes) -> Iterator[bytes]:
    """The items of an encoded body; DecodeError once something else comes."""
    need_bytes("body", body)
    size = len(body)
    if size < 4:
        raise DecodeError(f"body: needs 4 bytes at offset 0, {size} left")
    count = int.from_bytes(body[:4], "big")
    if count * 4 > size - 4:
        raise DecodeError(f"body: {count} items need {count * 4} bytes, {size - 4} left")
    at = 4
    for i in range(count):
        if size - at < 4:
            raise DecodeError(f"body[{i}]: needs 4 bytes at offset {at}, {size - at} left")
        length = int.from_bytes(body[at : at + 4], "big")
        at += 4
        if length > _MAX_TX:
            raise DecodeError(f"body[{i}]: {length} bytes, at most {_MAX_TX}")
        if size - at < length:
            raise DecodeError(f"body[{i}]: needs {length} bytes at offset {at}, {size - at} left")
        yield body[at : at + length]
        at += length
    if at != size:
        raise DecodeError(f"body: {size - at} trailing bytes")


def body_root(body: bytes) -> tuple[bytes, int]:
    """The root over the transactions of an encoded block body, and how many there are.

    A body is a `list32[bytes32]`: a u32 count, then each transaction behind its u32 length,
    at most 131,068 bytes. DecodeError if it is anything else.
    """
    hashes = [_leaf(item) for item in _items(body)]
    return _root(hashes), len(hashes)


def body_digests(body: bytes, id_domain: bytes, signing_domain: bytes) -> tuple[list[bytes], bytes]:
    """The hashes that name a body's transactions, and what their senders signed.

    A hash is SHA-256(id_domain ‖ transaction). The second result is packed as
    `signatures.recover_many` takes it: for each transaction SHA-256(signing_domain ‖ all but its
    last 65 bytes), and those. DecodeError as `body_root`, or where one is shorter.
    """
    need_bytes("body", body)
    need_bytes("id_domain", id_domain)
    need_bytes("signing_domain", signing_domain)
    hashes, packed = [], []
    for i, item in enumerate(_items(body)):
        if len(item) < _SIGNATURE:
            raise DecodeError(f"body[{i}]: {len(item)} bytes, a signature has {_SIGNATURE}")
        hashes.append(sha256(id_domain + item).digest())
        packed.append(sha256(signing_domain + item[:-_SIGNATURE]).digest())
        packed.append(item[-_SIGNATURE:])
    return hashes, b"".join(packed)
