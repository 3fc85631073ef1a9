"""The peer-to-peer network layer of a layer-1 blockchain.

The names below are loaded when they are first used, so that ``import moderntensor`` stays light.
"""

from __future__ import annotations

from importlib import import_module

from . import _version

TYPE_CHECKING = False  # type checkers know it by its name; `typing` would be most of the import
if TYPE_CHECKING:
    from .blockchain.block import Block, BlockHeader
    from .blockchain.chain import Blockchain
    from .blockchain.crypto import KeyPair
    from .blockchain.genesis import ChainConfig
    from .blockchain.state import Account, StateDB
    from .blockchain.transaction import Transaction, TransactionReceipt
    from .blockchain.validation import BlockValidator
    from .config import NodeConfig
    from .errors import ModernTensorError
    from .network.extensions import Extension, extension_message
    from .network.identity import NodeIdentity
    from .network.messages import Message, MessageCodec, MessageType
    from .network.p2p import P2PNode
    from .network.peer import Peer, PeerInfo
    from .network.sync import SyncManager, SyncStatus
    from .node import FullNode

__version__ = _version.VERSION

__all__ = [
    "Account",
    "Block",
    "BlockHeader",
    "BlockValidator",
    "Blockchain",
    "ChainConfig",
    "Extension",
    "FullNode",
    "KeyPair",
    "Message",
    "MessageCodec",
    "MessageType",
    "ModernTensorError",
    "NodeConfig",
    "NodeIdentity",
    "P2PNode",
    "Peer",
    "PeerInfo",
    "StateDB",
    "SyncManager",
    "SyncStatus",
    "Transaction",
    "TransactionReceipt",
    "__version__",
    "extension_message",
]

_HOMES = {
    "Account": "blockchain.state",
    "Block": "blockchain.block",
    "BlockHeader": "blockchain.block",
    "BlockValidator": "blockchain.validation",
    "Blockchain": "blockchain.chain",
    "ChainConfig": "blockchain.genesis",
    "Extension": "network.extensions",
    "FullNode": "node",
    "KeyPair": "blockchain.crypto",
    "Message": "network.messages",
    "MessageCodec": "network.messages",
    "MessageType": "network.messages",
    "ModernTensorError": "errors",
    "NodeConfig": "config",
    "NodeIdentity": "network.identity",
    "P2PNode": "network.p2p",
    "Peer": "network.peer",
    "PeerInfo": "network.peer",
    "StateDB": "blockchain.state",
    "SyncManager": "network.sync",
    "SyncStatus": "network.sync",
    "Transaction": "blockchain.transaction",
    "TransactionReceipt": "blockchain.transaction",
    "extension_message": "network.extensions",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'moderntensor' has no attribute {name!r}")
    value: object = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
