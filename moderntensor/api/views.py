"""A node's objects as the API's model has them."""

from __future__ import annotations

from collections.abc import Iterable

from ..blockchain.block import BlockHeader
from ..blockchain.transaction import Transaction as SignedTransaction
from ..client import model
from ..network.bans import Ban
from ..network.peer import Peer
from ..network.text import printable
from ..node import FullNode
from .concerns import produces_alone
from .limits import MAX_EXACT, PAGE_BYTES

__all__ = [
    "ban_view",
    "fitting",
    "header_view",
    "peer_view",
    "sync_view",
    "traffic_view",
    "transaction_view",
]


def header_view(header: BlockHeader, transactions: int | None = None) -> model.Header:
    """A header, with the number of its block's transactions."""
    return model.Header(
        height=header.height,
        hash=header.hash.hex(),
        timestamp=header.timestamp,
        previous_hash=header.previous_hash.hex(),
        state_root=header.state_root.hex(),
        txs_root=header.txs_root.hex(),
        receipts_root=header.receipts_root.hex(),
        validator=header.validator.hex(),
        gas_used=header.gas_used,
        gas_limit=header.gas_limit,
        extra_data=header.extra_data.hex(),
        signature=header.signature.hex(),
        transactions=transactions,
    )


def transaction_view(
    tx: SignedTransaction, height: int | None = None, position: int | None = None
) -> model.Transaction:
    """A transaction and where it is: one that is in a block has taken effect, else the block would
    be invalid."""
    included = height is not None
    return model.Transaction(
        hash=tx.hash.hex(),
        sender=f"0x{tx.sender.hex()}",
        to=None if tx.to is None else f"0x{tx.to.hex()}",
        value=str(tx.value),
        nonce=tx.nonce,
        gas_price=str(tx.gas_price),
        gas_limit=tx.gas_limit,
        data=tx.data.hex(),
        size=len(tx.encode()),
        height=height,
        position=position,
        succeeded=True if included else None,
        gas_used=tx.intrinsic_gas if included else None,
    )


def fitting(views: Iterable[model.Transaction]) -> list[model.Transaction]:
    """The first of them, up to `PAGE_BYTES` but at least one."""
    fit: list[model.Transaction] = []
    size = 0
    for view in views:
        size += view.size
        if fit and size > PAGE_BYTES:
            break
        fit.append(view)
    return fit


def peer_view(node: FullNode, peer: Peer) -> model.Peer:
    """A connected peer as it is now; the heights that it claims as far as numbers are exact."""
    info = peer.info
    reputation = node.p2p.reputation
    return model.Peer(
        address=info.address,
        node_id=info.node_id.hex(),
        outbound=info.outbound,
        purpose=info.purpose.name.lower(),
        user_agent=printable(info.user_agent),
        capabilities=[printable(name) for name in info.capabilities],
        listen_address=info.listen_address,
        best_height=min(info.best_height, MAX_EXACT),
        best_hash=info.best_hash.hex(),
        earliest_height=min(info.earliest_height, MAX_EXACT),
        latency=info.latency,
        min_latency=info.min_latency,
        connected_for=info.connected_for,
        bytes_sent=info.bytes_sent,
        bytes_received=info.bytes_received,
        messages_sent=info.messages_sent,
        messages_received=info.messages_received,
        requests_in_flight=info.requests_in_flight,
        requests_timed_out=info.requests_timed_out,
        bytes_held=info.bytes_held,
        score=max((reputation.score(key) for key in reputation.keys_of(peer)), default=0.0),
    )


def sync_view(node: FullNode) -> model.SyncState:
    """What the sync is doing now. Its heights take in the blocks that the node made itself; who
    makes them alone waits for nobody."""
    status = node.sync.status
    head = node.chain.head.height
    current = max(status.current_height, head)
    return model.SyncState(
        phase=status.phase.value,
        start_height=status.start_height,
        header_height=max(status.header_height, current),
        current_height=current,
        target_height=max(status.target_height, current),
        progress=status.progress,
        eta=status.eta_seconds,
        headers_per_second=status.headers_per_second,
        blocks_per_second=status.blocks_per_second,
        transactions_per_second=status.transactions_per_second,
        bytes_received=status.bytes_received,
        peers=status.peers,
        waiting=None if produces_alone(node) else status.waiting,
        pivot_height=status.pivot_height,
        accounts_done=status.accounts_done,
        accounts_total=status.accounts_total,
        accounts_per_second=status.accounts_per_second,
        backfilling=node.sync.backfilling,
    )


def ban_view(node: FullNode, ban: Ban) -> model.Ban:
    """A ban in force."""
    left = node.p2p.bans.left((ban.key,))
    return model.Ban(key=ban.key, reason=ban.reason, until=float(ban.until), seconds_left=left)


def traffic_view(node: FullNode) -> model.TrafficList:
    """What went in and out, by type."""
    return model.TrafficList(
        types=[
            model.Traffic(
                type=of.name,
                messages_received=of.messages_received,
                messages_sent=of.messages_sent,
                bytes_received=of.bytes_received,
                bytes_sent=of.bytes_sent,
            )
            for of in node.p2p.traffic.by_type()
        ]
    )
