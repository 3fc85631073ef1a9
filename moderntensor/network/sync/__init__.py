"""How a node gets to the head of the chain and stays there."""

from __future__ import annotations

from .manager import SyncManager
from .status import SyncPhase, SyncResult, SyncStatus

__all__ = ["SyncManager", "SyncPhase", "SyncResult", "SyncStatus"]
