"""What chains, nodes and syncs are, as JSON for programs: the twins of what people are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..blockchain.state_slots import active
from ..blockchain.tables import TX_INDEX

if TYPE_CHECKING:
    from pathlib import Path

    from ..blockchain.block import Block
    from ..blockchain.chain import Blockchain
    from ..blockchain.crypto import KeyPair
    from ..blockchain.proofs import AccountProof
    from ..blockchain.transaction import Transaction
    from ..network.sync import SyncResult
    from ..node import FullNode

Facts = dict[str, object]


def chain_facts(path: Path, chain: Blockchain) -> Facts:
    """A chain on this disk."""
    head, config = chain.head, chain.config
    with chain.store.read() as txn:
        accounts, transactions = txn.count(active(txn).accounts), txn.count(TX_INDEX)
    return {
        "directory": str(path),
        "chain_id": config.chain_id,
        "genesis_hash": chain.genesis_hash.hex(),
        "validators": [key.hex() for key in config.validators],
        "block_time": config.block_time,
        "height": head.height,
        "head_hash": head.hash.hex(),
        "state_root": head.state_root.hex(),
        "earliest_height": chain.earliest_height,
        "transactions": transactions,
        "accounts": accounts if chain.has_state else None,
        "bytes_on_disk": chain.store.size_on_disk(),
    }


def block_facts(block: Block) -> Facts:
    """A block, with the hashes of all its transactions."""
    header = block.header
    return {
        "height": header.height,
        "hash": header.hash.hex(),
        "previous_hash": header.previous_hash.hex(),
        "timestamp": header.timestamp,
        "validator": header.validator.hex(),
        "state_root": header.state_root.hex(),
        "gas_used": header.gas_used,
        "gas_limit": header.gas_limit,
        "size": len(block.encode()),
        "transactions": [each.hash.hex() for each in block.transactions],
    }


def transaction_facts(transaction: Transaction, height: int, position: int) -> Facts:
    """A transaction of a block. Amounts are decimal strings, as in the HTTP API."""
    return {
        "hash": transaction.hash.hex(),
        "height": height,
        "position": position,
        "sender": "0x" + transaction.sender.hex(),
        "to": "0x" + transaction.to.hex() if transaction.to else None,
        "value": str(transaction.value),
        "nonce": transaction.nonce,
        "gas_price": transaction.gas_price,
        "gas_limit": transaction.gas_limit,
        "data": transaction.data.hex(),
    }


def account_facts(chain: Blockchain, address: bytes) -> Facts:
    """An account, with its latest transactions."""
    account = chain.get_account(address)
    return {
        "address": "0x" + address.hex(),
        "balance": str(account.balance),
        "nonce": account.nonce,
        "height": chain.head.height,
        "block_hash": chain.head.hash.hex(),
        "transactions": [each.hex() for each in chain.transactions_of(address, limit=10)],
    }


def proof_facts(proof: AccountProof, *, trusted: bool) -> Facts:
    """What a proof that holds says; `trusted`: under a root or block that was given."""
    account = proof.account
    return {
        "address": "0x" + proof.address.hex(),
        "exists": account is not None,
        "balance": str(account.balance) if account else "0",
        "nonce": account.nonce if account else 0,
        "height": proof.height,
        "block_hash": proof.block_hash.hex(),
        "state_root": proof.state_root.hex(),
        "steps": len(proof.path),
        "trusted": trusted,
    }


def key_facts(path: Path, key: KeyPair) -> Facts:
    """The public half of a key."""
    return {
        "file": str(path),
        "address": "0x" + key.address.hex(),
        "validator_key": key.public_key.hex(),
    }


def node_facts(node: FullNode) -> Facts:
    """What a node does now."""
    status, head = node.sync.status, node.chain.head
    return {
        "phase": status.phase.value,
        "height": head.height,
        "head_hash": head.hash.hex(),
        "target_height": status.target_height,
        "progress": status.progress,
        "eta": status.eta_seconds,
        "blocks_per_second": status.blocks_per_second,
        "peers": len(node.p2p.peers),
        "has_state": node.chain.has_state,
        "accounts_done": status.accounts_done,
        "accounts_total": status.accounts_total,
        "earliest_height": node.chain.earliest_height,
        "clock_offset": node.p2p.clock_offset.seconds,
        "bytes_on_disk": node.chain.store.size_on_disk(),
    }


def sync_facts(result: SyncResult) -> Facts:
    """What a sync did."""
    return {
        "headers": result.headers,
        "accounts": result.accounts,
        "blocks": result.blocks,
        "transactions": result.transactions,
        "bytes_received": result.bytes_received,
        "seconds": result.seconds,
    }
