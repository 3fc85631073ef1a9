"""``moderntensor status``: a running node at a glance."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from .output import AsJson, console, count, duration, show, size
from .remote import Node, ask, emit_model, plain

if TYPE_CHECKING:
    from ..client import Client
    from ..client.model import NodeStatus, SyncState

DEFAULT_NODE = "http://127.0.0.1:8645"  # as the client has it, which is an extra


def status(node: Node = DEFAULT_NODE, as_json: AsJson = False) -> None:
    """Show what a running node is, where it is on the chain, and what is wrong with it."""

    async def look(client: Client) -> tuple[NodeStatus, SyncState]:
        told = await asyncio.gather(client.status(), client.sync())
        return told[0], told[1]

    told, sync = ask(node, look)
    if as_json:
        emit_model(told)
        return
    places = told.places
    show(
        {
            "node": told.node_id,
            "version": f"{told.version} ({told.engines} engines)",
            "up for": duration(told.uptime),
            "reached at": told.listen_address or "it does not listen",
            "chain": f"{told.chain_id}, network {told.network_id}, genesis {told.genesis_hash}",
            "phase": phase_line(told, sync),
            "head": f"{count(told.head.height)}  {told.head.hash}",
            "head's age": duration(told.head.age),
            "blocks": f"from {count(told.earliest_height)} on" if told.earliest_height else "all",
            "peers": f"{places.inbound} in, {places.outbound} out, {places.max_peers} at most; "
            f"{count(places.known_addresses)} addresses known",
            "mempool": f"{count(told.mempool.transactions)} transactions, "
            f"{size(told.mempool.bytes)}",
            "on disk": disk_line(told),
        }
    )
    out = console()
    for concern in told.warnings:
        out.print(
            f"{concern.severity}: {plain(concern.text)} ({plain(concern.hint)})", markup=False
        )


def phase_line(told: NodeStatus, sync: SyncState) -> str:
    """What it does, and how far it is with that."""
    line: str = told.phase
    if told.producing:
        # Who makes the blocks alone waits for nothing.
        alone = told.phase in ("idle", "waiting") and not sync.waiting
        line = "makes blocks" if alone else f"{line}, makes blocks"
    if not told.has_state:
        line += ", its accounts are not here yet"
    if told.phase in ("headers", "state", "blocks"):
        line += f", {sync.progress:.1%} of {count(sync.target_height)}"
        if sync.eta is not None:
            line += f", {duration(sync.eta)} to go"
    if sync.waiting:
        line += f": {plain(sync.waiting)}"
    return line


def disk_line(told: NodeStatus) -> str:
    """What its chain takes, and how much room is left."""
    line = size(told.database_bytes)
    return line if told.disk_free_bytes is None else f"{line}, {size(told.disk_free_bytes)} free"
