"""What all stages of a sync share."""

from __future__ import annotations

from dataclasses import dataclass

from ...blockchain.chain import Blockchain
from ...config import NodeConfig
from ...runtime import Runtime
from ..budget import ByteBudget
from .sources import SourcePool
from .status import Meter


@dataclass(frozen=True, slots=True)
class SyncContext:
    """One per SyncManager."""

    chain: Blockchain
    pool: SourcePool
    runtime: Runtime
    config: NodeConfig
    meter: Meter
    budget: ByteBudget
