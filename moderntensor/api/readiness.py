"""Whether a node is fit to be asked by others, for probes."""

from __future__ import annotations

from statistics import median_low
from typing import Final

from ..network.sync import SyncPhase
from ..node import FullNode
from .concerns import produces_alone

__all__ = ["why_not_ready"]

BEHIND: Final = 10  # blocks, before what is said here is old


def why_not_ready(node: FullNode, *, has_state: bool, stopping: bool) -> str | None:
    """In words; None if it follows the chain with a peer, or makes it alone."""
    if stopping:
        return "the node is stopping"
    if not node.p2p.running:
        return "the node is not running"
    if not has_state:
        return "the accounts of the chain are not here yet"
    return None if produces_alone(node) else _why_not_following(node)


def _why_not_following(node: FullNode) -> str | None:
    peers = list(node.p2p.table)
    if not peers:
        return "there are no peers"
    phase = node.sync.status.phase
    if phase is not SyncPhase.FOLLOWING:
        return f"the node is syncing ({phase.value})"
    # Of most of them: one peer alone could claim anything.
    behind = median_low(peer.best_height for peer in peers) - node.chain.head.height
    if behind > BEHIND:
        return f"the node is {behind} blocks behind its peers"
    return None
