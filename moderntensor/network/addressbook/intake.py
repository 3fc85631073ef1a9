"""What is believed of the addresses that others tell."""

from __future__ import annotations

from ...config import NodeConfig
from ...runtime import Runtime
from ..addresses import is_exempt, may_learn, netgroup
from ..limits import (
    ADDRESS_HORIZON,
    ADDRESS_PENALTY,
    ADDRESS_SOURCES,
    ADDRESS_UNKNOWN_AGE,
    ADDRESSES_BURST,
    ADDRESSES_PER_SECOND,
    OWN_ADDRESSES,
)
from ..rates import TokenBucket

__all__ = ["Intake"]

_FUTURE = 600  # seconds that the teller's clock may be ahead: Bitcoin Core


class Intake:
    """Judges single addresses, and how many a teller may have looked at."""

    def __init__(self, config: NodeConfig, runtime: Runtime, own_id: bytes) -> None:
        self._config = config
        self._runtime = runtime
        self._own_id = own_id
        self._own: dict[tuple[str, int], None] = {}
        self._allowances: dict[str, TokenBucket] = {}  # by the group of the teller

    def add_own(self, host: str, port: int) -> None:
        """This address is ourselves."""
        self._own.pop((host, port), None)
        self._own[host, port] = None
        if len(self._own) > OWN_ADDRESSES:
            del self._own[next(iter(self._own))]

    def is_own(self, host: str, port: int) -> bool:
        """Whether this address is known to be ourselves."""
        return (host, port) in self._own

    def usable(self, host: str, port: int, node_id: bytes, source: str) -> bool:
        """Whether a node can be there that is not ourselves, of which one at `source` may tell."""
        if port == 0 or node_id == self._own_id or (host, port) in self._own:
            return False
        return may_learn(host, source)

    def age(self, host: str, last_seen: int, source: str) -> int | None:
        """When an address was last seen that is said to have been at `last_seen` (Unix seconds);
        None if that is too long ago."""
        now = int(self._runtime.wall_time())
        # Claims about the future would keep an address in the book forever.
        if not last_seen or last_seen > now + _FUTURE:
            last_seen = now - ADDRESS_UNKNOWN_AGE
        seen = min(last_seen, now) - (0 if host == source else ADDRESS_PENALTY)
        return seen if seen >= now - ADDRESS_HORIZON else None

    def admits(self, source: str) -> bool:
        """Whether one more address is looked at that a node of the group of `source` told. The
        allowance is of the group, so that connecting anew does not renew it."""
        group = source if is_exempt(source, self._config) else netgroup(source)
        now = self._runtime.loop_time()
        allowance = self._allowances.pop(group, None)
        if allowance is None:
            allowance = TokenBucket(ADDRESSES_PER_SECOND, ADDRESSES_BURST, now)
        self._allowances[group] = allowance  # now the last to be forgotten
        if len(self._allowances) > ADDRESS_SOURCES:
            del self._allowances[next(iter(self._allowances))]
        return allowance.take(now)
