"""What the operator of a node should know, in plain words."""

from __future__ import annotations

from typing import Final

from ..client.model import Concern
from ..network.sync import SyncPhase
from ..node import FullNode

__all__ = ["concerns"]

ALONE_FOR: Final = 30.0  # seconds in which a node that has just started may find its peers
FEW_PEERS: Final = 3  # fewer are soon none, and can agree on a lie
STALE_SLOTS: Final = 10
STALE_LEAST: Final = 30.0  # seconds on top, for blocks on their way
DISK_WARNING: Final = 5 * 1024**3  # bytes
DISK_CRITICAL: Final = 1024**3
_MIB: Final = 1024 * 1024


def concerns(
    node: FullNode, *, uptime: float, age: float, has_state: bool, disk_free: int | None
) -> list[Concern]:
    """All that is to be said now, the worst first. `age` is the head's, in seconds."""
    found = [
        *_peers(node, uptime),
        *_disk(disk_free),
        *_clock(node),
        *_sync(node, has_state=has_state),
        *_tip(node, age),
    ]
    order = ("critical", "warning", "notice")
    return sorted(found, key=lambda concern: order.index(concern.severity))


def produces_alone(node: FullNode) -> bool:
    """Whether it makes the blocks and was given nobody to make them with."""
    return node.producer is not None and not node.p2p.bootstrap_nodes and not len(node.p2p.table)


def _peers(node: FullNode, uptime: float) -> list[Concern]:
    count = len(node.p2p.table)
    if count >= FEW_PEERS or uptime < ALONE_FOR or produces_alone(node):
        return []
    if count:
        if node.settings.target_outbound < FEW_PEERS:
            return []
        return [
            Concern(
                code="few_peers",
                severity="notice",
                text=f"Connected to {count} peer{'s' if count > 1 else ''} only.",
                hint="Add more with --peer, and let others reach this node's port.",
            )
        ]
    given = node.p2p.bootstrap_nodes
    hint = (
        "Check that this machine is online and that the nodes given with --peer are up."
        if given
        else "Start it with --peer, or add one: moderntensor peers add HOST:PORT."
    )
    return [
        Concern(
            code="no_peers",
            severity="critical",
            text="Not connected to any other node: nothing new arrives here.",
            hint=hint,
        )
    ]


def _disk(free: int | None) -> list[Concern]:
    if free is None or free >= DISK_WARNING:
        return []
    return [
        Concern(
            code="disk_short",
            severity="critical" if free < DISK_CRITICAL else "warning",
            text=f"{free // _MIB} MiB are left on the disk of the data directory.",
            hint="Free some, or move the data directory: a node whose disk is full stops.",
        )
    ]


def _clock(node: FullNode) -> list[Concern]:
    clock = node.p2p.clock_offset
    if not clock.off or clock.seconds is None:
        return []
    direction = "behind" if clock.seconds > 0 else "ahead of"
    return [
        Concern(
            code="clock_off",
            severity="warning",
            text=f"This machine's clock seems to be {abs(clock.seconds):.0f} s {direction} that of "
            "the others.",
            hint="Set it right (NTP): else blocks are refused, or made in vain.",
        )
    ]


def _sync(node: FullNode, *, has_state: bool) -> list[Concern]:
    found = []
    waiting = node.sync.status.waiting
    if waiting is not None and not produces_alone(node):
        found.append(
            Concern(
                code="sync_waiting",
                severity="warning",
                text=f"The sync does not move: {waiting}.",
                hint="It goes on by itself once that is over; more peers help.",
            )
        )
    if not has_state:
        found.append(
            Concern(
                code="no_state",
                severity="notice",
                text="The accounts of the chain are not here yet.",
                hint="They are fetched from peers that have a snapshot; or load them: moderntensor "
                "state load.",
            )
        )
    return found


def _tip(node: FullNode, age: float) -> list[Concern]:
    status = node.sync.status
    following = status.phase in (SyncPhase.FOLLOWING, SyncPhase.IDLE, SyncPhase.WAITING)
    if not following or age < STALE_SLOTS * node.chain.config.block_time + STALE_LEAST:
        return []
    return [
        Concern(
            code="tip_stale",
            severity="warning",
            text=f"The last block is {_span(age)} old.",
            hint="Either nobody makes blocks, or this node does not hear of them: compare its head "
            "with another node's.",
        )
    ]


def _span(seconds: float) -> str:
    for length, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {name}"
    return f"{seconds:.0f} seconds"
