"""What blocks changed, kept to take them back, and to see the state as it was before them.

A block's record holds the accounts that it changed as they were before it. Records are kept as
far down as a reorganisation may go, and further, down to the last height whose state is to be
kept for others: an image of it is made while blocks are put on top.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..storage import ReadTransaction
from . import tables
from .genesis import ChainConfig

_RECORD: Final = 108  # address ‖ account
_NO_ACCOUNT: Final = bytes(88)


def encode_undo(before: Mapping[bytes, bytes | None]) -> bytes:
    """Accounts (88 bytes) by address as they were before a block; None where there was none."""
    return b"".join(
        address + (_NO_ACCOUNT if account is None else account)
        for address, account in before.items()
    )


def decode_undo(record: bytes) -> dict[bytes, bytes | None]:
    """What `encode_undo` was given."""
    found: dict[bytes, bytes | None] = {}
    for at in range(0, len(record), _RECORD):
        account = record[at + 20 : at + _RECORD]
        found[record[at : at + 20]] = None if account == _NO_ACCOUNT else account
    return found


def kept_above(txn: ReadTransaction, config: ChainConfig, head: int) -> int:
    """The height above which the blocks of a chain that ends at `head` keep their records.

    Far behind the known headers, where no state is kept for others, that is as far as a
    reorganisation may go; so a record may be missing above the last snapshot height.
    """
    final = head - config.max_reorg_depth
    interval = config.snapshot_interval
    snapshot = head - head % interval
    candidate = txn.get(tables.META, tables.META_CANDIDATE)
    tip = head if candidate is None else tables.parse_height(candidate)
    # By the time that the head is within an interval of the tip, there is a later one.
    if tip > snapshot + 2 * interval:
        return final
    return min(final, snapshot)
