"""The block whose state a fast sync fetches: which it may be, and what is known of it then."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from ...backend import headers as engine
from ...blockchain.genesis import ChainConfig
from ...blockchain.staging import Pivot

HeaderBatch = engine.HeaderBatch

BLOCKS_ABOVE: Final = 64  # that must follow the pivot; protocol, section 7
LEAST_SAVED: Final = 64  # blocks that need not be executed, or the state is not worth fetching

HeaderAt = Callable[[int], HeaderBatch]
"""The one checked header at a height above the executed head; none where there is none."""


def highest_pivot(tip: int, signers: Iterable[bytes], validators: int) -> int | None:
    """The highest height that may be a pivot: followed by `BLOCKS_ABOVE` blocks, and by blocks of
    more than two thirds of the chain's validators, of which there are `validators` (0: anybody).

    `signers` are the keys of the blocks from `tip` down. None where they are too few.
    """
    seen: set[bytes] = set()
    for above, signer in enumerate(signers, 1):
        seen.add(signer)
        if above >= BLOCKS_ABOVE and 3 * len(seen) > 2 * validators:
            return tip - above
    return None


def usable(
    announced: Iterable[tuple[int, bytes]], interval: int, lowest: int, highest: int
) -> list[tuple[int, bytes]]:
    """Of what peers announce (height, hash) the snapshots from height `lowest` to `highest`, the
    newest first. Elsewhere than at multiples of the chain's interval nobody makes one."""
    found = {
        (height, block_hash)
        for height, block_hash in announced
        if lowest <= height <= highest and height % interval == 0
    }
    return sorted(found, reverse=True)


def choose(snapshots: Iterable[tuple[int, bytes]], header_at: HeaderAt) -> Pivot | None:
    """The first of these snapshots that is on our own header chain."""
    for height, block_hash in snapshots:
        batch = header_at(height)
        if len(batch) and batch.hash(0) == block_hash:
            return Pivot(height, block_hash, batch.state_root(0))
    return None


def why_not_at(height: int, interval: int, head: int, highest: int | None) -> str | None:
    """Why the pivot cannot be at this height whatever peers announce, on a chain that is executed
    up to `head` and may have its pivot at `highest` at the most; None if it can."""
    if height % interval:
        return f"snapshots are of every {interval}th block"
    if height <= head:
        return f"the chain is at block {head} already"
    if highest is None:
        return "too few blocks follow it"
    if height > highest:
        return f"too few blocks follow it; block {highest} is the last that enough do"
    return None


def signers_down(
    headers: Callable[[int, int], HeaderBatch], tip: int, bottom: int, at_once: int = 1024
) -> Iterator[bytes]:
    """The validators of the blocks from `tip` down to above `bottom`; `headers(start, count)`
    reads them."""
    while tip > bottom:
        start = max(bottom + 1, tip + 1 - at_once)
        batch = headers(start, tip + 1 - start)
        for i in reversed(range(len(batch))):
            yield batch.validator(i)
        tip = start - 1


def what_is_proved(
    config: ChainConfig, height: int, tip: int, *, assumed: bool
) -> tuple[str, bool]:
    """What stands behind the state of block `height` on a chain whose headers end at `tip`, in
    words, and whether that is enough to rely on it. `assumed`: the block of `assume_valid` is
    on that chain, so that signatures up to it were not checked."""
    covering = [at for at in config.checkpoints if height <= at <= tip]
    if covering:
        at = min(covering)
        return (
            f"it is fixed by the hash of block {at} ({config.checkpoints[at].hex()[:16]}), which "
            "this node was told to trust; no transaction up to there is executed",
            True,
        )
    if not config.validators:
        return (
            "anybody may sign blocks of this chain, and no checkpoint or trusted head covers it: "
            "nothing speaks for it but that no peer has shown a longer chain",
            False,
        )
    signed = "all validator signatures are checked"
    if assumed and config.assume_valid is not None:
        signed = (
            f"validator signatures above block {config.assume_valid[0]} are checked, those up to "
            "there are assumed to be valid"
        )
    return (
        f"{signed}, and more than two thirds of {len(config.validators)} validators have built on "
        "it; no transaction up to it is executed, and no checkpoint or trusted head covers it",
        True,
    )
