"""What goes with a block that broke a rule: all that is known to stand on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..errors import InvalidBlockError
from ..storage import WriteTransaction
from . import candidates, side
from .invalid import InvalidBlocks
from .lookup import pending_headers

# Headers standing on an invalid block that are remembered with it. Later ones are refused as
# well: no batch of headers reaches them but through the block itself.
MAX_CONDEMNED: Final = 1024


def condemn(
    txn: WriteTransaction,
    invalid: InvalidBlocks,
    error: InvalidBlockError,
    descendants: Sequence[bytes],
    head_height: int,
) -> None:
    """Remember a block, and what is known to stand on it, as invalid, and forget it."""
    doomed = dict.fromkeys(descendants[:MAX_CONDEMNED], "ancestor")
    on_side = side.descendants(txn, error.hash, error.height)
    doomed |= dict.fromkeys((block_hash for _, block_hash in on_side), "ancestor")
    pending = pending_headers(txn, error.height, MAX_CONDEMNED)
    if len(pending) and pending.hash(0) == error.hash:
        doomed |= dict.fromkeys(pending[1:].hashes(), "ancestor")
        candidates.cut(txn, error.height, head_height)
    if side.holds(txn, error.height, error.hash):
        on_side.append((error.height, error.hash))
    for height, block_hash in on_side:
        side.forget(txn, height, block_hash)
    for block_hash in doomed:
        invalid.add(txn, block_hash, "ancestor")
    invalid.add(txn, error.hash, error.rule)
