"""Where others see us: our own address, which a node behind a router cannot know by itself."""

from __future__ import annotations

import logging
from collections import Counter

from ..config import NodeConfig
from ..errors import ConfigError
from ..runtime import Runtime
from .addresses import Scope, canonical, is_exempt, may_learn, netgroup, scope
from .limits import EXTERNAL_GROUPS, EXTERNAL_VOTE_TIME, EXTERNAL_VOTES

__all__ = ["ExternalAddress"]

logger = logging.getLogger(__name__)


class ExternalAddress:
    """Learns our address from what peers say in HELLO that they see, or is told by the operator.

    Every netgroup has one vote for a day, the last that one of its nodes gave. Three groups must
    agree, and more than half of those that say anything about that family (IPv4, IPv6).
    """

    def __init__(self, config: NodeConfig, runtime: Runtime) -> None:
        """Raises `ConfigError` if `config.external_address` is no IP address of a node."""
        self._config = config
        self._runtime = runtime
        self._votes: dict[tuple[str, bool], tuple[float, str]] = {}  # by group and family
        self._hosts: tuple[str, ...] = ()
        self._fixed = config.external_address is not None
        if config.external_address is not None:
            host = canonical(config.external_address)
            if host is None or scope(host) is Scope.NOWHERE:
                raise ConfigError(
                    f"external_address: {config.external_address!r} is no IP address of a node"
                )
            self._hosts = (host,)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The addresses that are ours, at most one of IPv4, then one of IPv6."""
        if not self._fixed:
            self._count()
        return self._hosts

    def vote(self, teller: str, observed: str) -> bool:
        """A node at `teller` that we dialled sees us at `observed`; whether our address has
        changed. Who dialled us has no vote: it would cost nothing to dial us often.

        Exempt local nodes have none either: what they see is of no use to others.
        """
        observed = canonical(observed) or ""
        if self._fixed or is_exempt(teller, self._config) or is_exempt(observed, self._config):
            return False
        if not may_learn(observed, teller):
            return False
        key = (netgroup(teller), ":" in observed)
        self._votes.pop(key, None)
        self._votes[key] = (self._runtime.loop_time() + EXTERNAL_VOTE_TIME, observed)
        if len(self._votes) > EXTERNAL_VOTES:
            del self._votes[next(iter(self._votes))]
        return self._count()

    def _count(self) -> bool:
        """Count the votes; whether the outcome is another."""
        now = self._runtime.loop_time()
        self._votes = {key: vote for key, vote in self._votes.items() if vote[0] > now}
        hosts = []
        for family in (False, True):
            said = Counter(host for (_, six), (_, host) in self._votes.items() if six is family)
            for host, votes in said.most_common(1):
                if votes >= EXTERNAL_GROUPS and 2 * votes > said.total():
                    hosts.append(host)
        if tuple(hosts) == self._hosts:
            return False
        self._hosts = tuple(hosts)
        logger.info("others see us at %s", ", ".join(hosts) or "nothing that they agree on")
        return True
