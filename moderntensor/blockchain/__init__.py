"""What travels between nodes, and the rules that it obeys.

The names below are loaded when they are first used: importing one module of the chain loads
neither the store nor the network, and no cycle can form through this file.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .block import Block, BlockHeader
    from .chain import Blockchain
    from .crypto import KeyPair, keccak256
    from .genesis import ChainConfig
    from .mempool import Mempool
    from .merkle import MerkleTree
    from .producer import BlockProducer
    from .proofs import AccountProof
    from .state import Account, StateDB
    from .transaction import Transaction, TransactionReceipt
    from .validation import BlockValidator

__all__ = [
    "Account",
    "AccountProof",
    "Block",
    "BlockHeader",
    "BlockProducer",
    "BlockValidator",
    "Blockchain",
    "ChainConfig",
    "KeyPair",
    "Mempool",
    "MerkleTree",
    "StateDB",
    "Transaction",
    "TransactionReceipt",
    "keccak256",
]

_HOMES = {
    "Account": "state",
    "AccountProof": "proofs",
    "Block": "block",
    "BlockHeader": "block",
    "BlockProducer": "producer",
    "BlockValidator": "validation",
    "Blockchain": "chain",
    "ChainConfig": "genesis",
    "KeyPair": "crypto",
    "Mempool": "mempool",
    "MerkleTree": "merkle",
    "StateDB": "state",
    "Transaction": "transaction",
    "TransactionReceipt": "transaction",
    "keccak256": "crypto",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
