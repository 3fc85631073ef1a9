"""A Merkle tree as people write it: lists of hashes, level by level.

The hashes are those of RFC 9162 (0 before a leaf, 1 before a node, an odd node moves up), so that
its root is the one that the others find.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """The root over the leaves, 32 bytes; 32 zero bytes without leaves."""
    if not leaves:
        return bytes(32)
    level = [hashlib.sha256(b"\x00" + leaf).digest() for leaf in leaves]
    while len(level) > 1:
        above = []
        for i in range(0, len(level), 2):
            if i + 1 < len(level):
                above.append(hashlib.sha256(b"\x01" + level[i] + level[i + 1]).digest())
            else:
                above.append(level[i])
        level = above
    return level[0]
