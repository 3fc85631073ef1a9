"""What to ask for, of what is missing of a state: nodes to descend by, or whole subtrees.

Pure functions over holes, which are subtrees whose proved hash and count are known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from ...backend import merkle
from ...blockchain.staging import Hole
from ...errors import DecodeError
from ..messages import StateNodesMessage
from .pace import TARGET_SECONDS

# Accounts of a subtree that is fetched whole though some of it may be here already: another level
# of nodes costs as much as it saves.
WHOLE: Final = 64
# Accounts asked for at once, if the peers are fast: 440 KiB, some 5 ms of work for each side.
CHUNK_ACCOUNTS: Final = 4096
CHUNK_LEAST: Final = 256  # for peers that are very slow: still more than a round trip is worth
CHUNK_FIRST: Final = 512  # from peers of whom nothing is known: 55 KiB

HEADER_ACCOUNTS: Final = 2.4  # accounts of 108 bytes in the bytes of a header

SHARE_LEAST: Final = 64  # nodes of one request: fewer are not worth another peer's round trip

_Node = tuple[bytes, int, bytes, int]


def chunk_accounts(rates: Iterable[float | None], header_rates: Iterable[float | None] = ()) -> int:
    """How many accounts to ask for at once, by what peers deliver per second: what the fastest of
    them does in about a second, so that the slower ones are none too late. While no account has
    come the bytes of headers tell."""
    known = [rate for rate in rates if rate is not None]
    if not known:
        known = [rate * HEADER_ACCOUNTS for rate in header_rates if rate is not None]
    if not known:
        return CHUNK_FIRST
    return max(CHUNK_LEAST, min(CHUNK_ACCOUNTS, int(max(known) * TARGET_SECONDS)))


def is_deep(hole: Hole, chunk: int) -> bool:
    """Whether to ask for the hole's node first: it is too large, or some of it may be here."""
    return hole.count > chunk or (hole.known and hole.count > WHOLE)


def merged(holes: Sequence[Hole], chunk: int) -> list[Hole]:
    """The same holes, of which those that make up a whole subtree of at most `chunk` accounts are
    one: asking once is cheaper. In the order of keys, as `holes` are."""
    result: list[Hole] = []
    for hole in holes:
        result.append(hole)
        while len(result) > 1 and _are_halves(*result[-2:]):
            left, right = result[-2:]
            count = left.count + right.count
            if count > chunk:
                break
            digest = merkle.state_node(left.hash, left.count, right.hash, right.count)
            result[-2:] = [Hole(left.depth - 1, left.prefix, digest, count, known=True)]
    return result


def shares(holes: Sequence[Hole], workers: int, most: int) -> list[Sequence[Hole]]:
    """The holes in runs of up to `most`, so that every one of `workers` requests gets some."""
    size = min(most, max(SHARE_LEAST, -(-len(holes) // max(1, workers))))
    return [holes[i : i + size] for i in range(0, len(holes), size)]


def packed_node(hole: Hole, node: _Node) -> bytes | None:
    """The 80 bytes of a node; None if it is not the hole's."""
    left, left_count, right, right_count = node
    try:
        digest = merkle.state_node(left, left_count, right, right_count)
    except DecodeError:
        return None
    if digest != hole.hash or hole.count not in (0, left_count + right_count):
        return None
    return left + left_count.to_bytes(8, "big") + right + right_count.to_bytes(8, "big")


def verified_nodes(
    holes: Sequence[Hole], reply: StateNodesMessage
) -> list[tuple[Hole, bytes]] | Hole:
    """Each hole that was answered with its node, or the first that was answered falsely."""
    found = []
    for hole, node in zip(holes, reply.nodes, strict=False):
        packed = packed_node(hole, node)
        if packed is None:
            return hole
        found.append((hole, packed))
    return found


def _are_halves(left: Hole, right: Hole) -> bool:
    """Whether these are the two halves of one subtree."""
    if left.depth != right.depth or left.depth == 0:
        return False
    bit = 1 << (256 - left.depth)
    path = int.from_bytes(left.prefix, "big")
    return not path & bit and int.from_bytes(right.prefix, "big") == path | bit
