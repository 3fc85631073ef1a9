"""Images of the state at fixed heights, kept for nodes that begin with one of them."""

from .file import RECORD_SIZE, Snapshot, SnapshotInfo
from .keeper import SnapshotKeeper

__all__ = ["RECORD_SIZE", "Snapshot", "SnapshotInfo", "SnapshotKeeper"]
