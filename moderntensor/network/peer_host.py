"""What a peer needs of the node that it belongs to."""

from __future__ import annotations

from typing import Any, Protocol

from ..config import NodeConfig
from ..runtime import Runtime
from .budget import ByteBudget
from .dispatch import Router
from .messages import PongMessage
from .reputation import Reputation
from .tasks import TaskSet
from .traffic import Traffic

__all__ = ["PeerHost"]


class PeerHost(Protocol):
    """What a peer needs of the node that it belongs to."""

    config: NodeConfig
    runtime: Runtime
    budget: ByteBudget
    traffic: Traffic
    reputation: Reputation
    router: Router[Any]
    tasks: TaskSet

    def make_pong(self, nonce: int) -> PongMessage:
        """The answer to a PING."""

    def peer_gone(self, peer: Any) -> None:
        """The peer has left or was dropped; called once."""
