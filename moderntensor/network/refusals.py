"""Addresses that are kept away for a while."""

from __future__ import annotations

from .addresses import format_address, is_local
from .limits import REFUSALS
from .messages import DisconnectCode

__all__ = ["PUNISHED", "Refusals", "refusal_key"]

# A peer dropped for one of these is kept away; the others say nothing about its conduct.
PUNISHED = frozenset(
    {
        DisconnectCode.PROTOCOL_ERROR,
        DisconnectCode.WRONG_NETWORK,
        DisconnectCode.WRONG_GENESIS,
        DisconnectCode.UNSUPPORTED_VERSION,
        DisconnectCode.LIMITS,
        DisconnectCode.BAD_HEADER,
        DisconnectCode.BAD_BLOCK,
        DisconnectCode.BAD_TRANSACTION,
        DisconnectCode.BAD_STATE,
        DisconnectCode.BANNED,
        DisconnectCode.USELESS,
        DisconnectCode.IDENTITY,
    }
)


def refusal_key(host: str, port: int) -> str:
    """What a refusal falls on: a public address as a whole, since ports and ids are free; one
    port of a local one, where many honest nodes may live."""
    return format_address(host, port) if is_local(host) else host


class Refusals:
    """Until when which address is refused (loop time); the soonest over is forgotten first."""

    def __init__(self, limit: int = REFUSALS) -> None:
        self._until: dict[str, float] = {}
        self._limit = limit

    def __len__(self) -> int:
        return len(self._until)

    def refuse(self, key: str, now: float, seconds: float) -> None:
        """Refuse `key` for `seconds` from now, or for as long as it is refused already."""
        self._until[key] = max(now + seconds, self._until.get(key, 0.0))
        if len(self._until) > self._limit:
            del self._until[min(self._until, key=self._until.__getitem__)]

    def remaining(self, key: str, now: float) -> float:
        """For how many more seconds `key` is refused; 0 if it is welcome."""
        until = self._until.get(key)
        if until is None:
            return 0.0
        if until <= now:
            del self._until[key]
            return 0.0
        return until - now
