"""What peers have done wrong: points by address, and what follows from them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from heapq import nsmallest
from math import ceil, log2
from typing import Final, NamedTuple, Protocol

from ..config import NodeConfig
from ..runtime import Runtime
from .addresses import format_address, is_exempt
from .bans import NETGROUP, OPERATOR, Ban, Bans, host_key, parse_key
from .limits import DROP_LOGS_BURST, DROP_LOGS_PER_SECOND, SCORES
from .log_limit import LogLimit
from .messages import DisconnectCode
from .offences import BAN_AT, DISCONNECT_AT, Offence, offence_of_code
from .refusals import Refusals
from .text import printable

__all__ = [
    "AVOIDED",
    "BAN_AT",
    "CLOSED",
    "DISCONNECT_AT",
    "HALF_LIFE",
    "OTHER",
    "Counts",
    "Culprit",
    "Offence",
    "Reputation",
    "Verdict",
    "offence_of_code",
]

logger = logging.getLogger(__name__)

# Half of the points are forgotten in an hour: who comes back as soon as a refusal is over (ten
# minutes) still has nine tenths of them. (Lighthouse: ten minutes, for scores that good peers get.)
HALF_LIFE: Final = 3600.0

# Who was dropped with one of these, or drops us with one, is left alone for a while; the others
# say nothing about what will happen next time.
AVOIDED: Final = frozenset(
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


CLOSED: Final = "closed"  # a connection that ended without a word
OTHER: Final = "other"  # a code that the protocol does not have
_CODE_NAMES: Final[dict[int | None, str]] = {
    None: CLOSED,
    **{code: code.name.lower() for code in DisconnectCode},
}


class Culprit(Protocol):
    """What is asked about a peer that has done something."""

    address: str
    host_address: str
    dial_port: int
    node_id: bytes
    outbound: bool

    @property
    def proved_id(self) -> bytes | None:
        """Its id, where the transport has proved it."""

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent to it any more."""

    def disconnect(self, code: DisconnectCode, reason: str = "", *, retry_after: int = 0) -> None:
        """Tell it why, and close."""


class LostPeer(Culprit, Protocol):
    """What is asked about a peer that is gone."""

    drop_code: int | None
    dropped_by_us: bool
    offence: Offence | None


class Verdict(NamedTuple):
    """What an offence leads to."""

    drop: bool
    score: float
    key: str
    banned_for: float  # seconds; 0 if it is not banned
    refused_for: float  # seconds in which it is not let in again


class Counts:
    """How often what was done and what followed, by the name of the offence.

    Names are of our making, be the peers who they may: there are never many.
    """

    __slots__ = ("bans", "departures", "drops", "offences")

    def __init__(self) -> None:
        self.offences: Counter[str] = Counter()
        self.drops: Counter[str] = Counter()
        self.bans: Counter[str] = Counter()
        """Also by `OPERATOR` and `NETGROUP`."""
        self.departures: Counter[tuple[bool, str]] = Counter()
        """Of peers: whether we parted from it, and the code that was said, in lower case
        ("evicted"); `CLOSED` where none was, `OTHER` for one that the protocol does not have."""


class Reputation:
    """Points per address, with decay, and who is turned away because of them.

    Points fall on a host as a whole, since ports and ids are free; an address that the
    configuration exempts is told apart by the node: its id where the transport proves it, else the
    port that it listens on. At `BAN_AT` points an address is banned, and its netgroup once
    `NETGROUP_BANS` of its hosts are.
    """

    def __init__(
        self,
        config: NodeConfig,
        runtime: Runtime,
        bans: Bans,
        *,
        peers: Callable[[], Iterable[Culprit]] = tuple,
        limit: int = SCORES,
    ) -> None:
        """`peers` gives those who are connected, so that a ban can part from them."""
        self._config = config
        self._runtime = runtime
        self._peers = peers
        self._limit = limit
        # key → log2 of its points at loop time 0: what decays at one rate keeps its order.
        self._scores: dict[str, float] = {}
        self._refusals = Refusals()
        self._logs: LogLimit | None = None
        self.bans = bans
        self.counts = Counts()

    def __len__(self) -> int:
        """Addresses with points."""
        return len(self._scores)

    # --- keys ------------------------------------------------------------------------------

    def keys(self, host: str, port: int, node_id: bytes | None = None) -> tuple[str, ...]:
        """What refusals and points of a node fall on; `node_id` only if it is proved."""
        if not is_exempt(host, self._config):
            return (host_key(host),)
        id_key = (node_id.hex(),) if node_id is not None else ()
        return (format_address(host, port), *id_key) if port else id_key

    def keys_of(self, peer: Culprit) -> tuple[str, ...]:
        """What a connected peer answers with. The port that an exempt one says it listens on is
        hearsay: with a proved id it counts only where we have dialled it."""
        proved = peer.proved_id
        port = peer.dial_port if peer.outbound or proved is None else 0
        return self.keys(peer.host_address, port, proved)

    # --- asked -----------------------------------------------------------------------------

    def score(self, key: str) -> float:
        """The points that `key` has now."""
        scaled = self._scores.get(key)
        if scaled is None:
            return 0.0
        return float(2.0 ** min(scaled - self._runtime.loop_time() / HALF_LIFE, 64.0))

    def refused(self, host: str, port: int, node_id: bytes | None = None) -> float:
        """For how many more seconds a node is neither dialled nor admitted; 0 if it is welcome.

        `port` is where it listens (0: nowhere), `node_id` its id as far as it is known.
        """
        now = self._runtime.loop_time()
        keys = {*self.keys(host, port, node_id), format_address(host, port)}
        refused = max(self._refusals.remaining(key, now) for key in keys)
        keys.add(host_key(host))
        if node_id is not None:
            keys.add(node_id.hex())
        return max(refused, self.bans.left(keys, host))

    # --- misconduct ------------------------------------------------------------------------

    def punish(
        self, peer: Culprit, offence: Offence, detail: str = "", *, drop: bool = False
    ) -> Verdict:
        """Add the points of an offence. Returns what follows for `peer`, which is its own to do;
        a ban stands already, and hits others after `part_from_banned`. `drop`: it is to go in any
        case."""
        keys = self.keys_of(peer)
        who = f"{peer.address} {peer.node_id.hex()[:8]}"
        return self._judge(keys, peer.host_address, who, offence, detail, known=True, drop=drop)

    def punish_stranger(
        self, host: str, port: int, offence: Offence, detail: str = "", *, outbound: bool
    ) -> Verdict:
        """As `punish`, for who has not become a peer: its id does not count, and the port only
        where we have dialled it. Of who merely is another node than we look for, this one port is
        refused and not its host, where others may live."""
        keys = self.keys(host, port if outbound else 0)
        who = format_address(host, port)
        return self._judge(keys, host, who, offence, detail, known=offence.points > 0)

    def _judge(
        self,
        keys: tuple[str, ...],
        host: str,
        who: str,
        offence: Offence,
        detail: str,
        *,
        known: bool,
        drop: bool = False,
    ) -> Verdict:
        self.counts.offences[offence] += 1
        score = max((self._add(key, offence.points) for key in keys), default=offence.points)
        drop = drop or offence.drops or score >= DISCONNECT_AT
        banned = refused = 0.0
        if score >= BAN_AT and keys:
            banned = refused = self._ban(keys, host, offence)
        elif drop and offence.keeps_away:
            refused = self.refuse(keys if known else (who,))
        if drop:
            self.counts.drops[offence] += 1
        key = keys[0] if keys else who
        self._log(who, offence, detail, Verdict(drop, score, key, banned, refused))
        return Verdict(drop, score, key, banned, refused)

    def _add(self, key: str, points: float) -> float:
        if not points:
            return self.score(key)
        total = self.score(key) + points
        self._scores[key] = log2(total) + self._runtime.loop_time() / HALF_LIFE
        if len(self._scores) > self._limit:  # a quarter at a time, so that it is seldom
            least = nsmallest(self._limit // 4, self._scores, key=self._scores.__getitem__)
            for forgotten in least:
                del self._scores[forgotten]
        return total

    def _ban(self, keys: tuple[str, ...], host: str, offence: Offence) -> float:
        longest = 0.0
        for key in keys:
            ban = self.bans.punish(key, self._config.ban_time, offence)
            longest = max(longest, self.bans.left((key,)))
            # Paid for by the ban; who comes back and goes on gets a longer one.
            self._scores.pop(key, None)
        self.counts.bans[offence] += 1
        if not is_exempt(host, self._config):
            group = self.bans.spread(host)
            if group is not None:
                self.bans.punish(group, ban.seconds, NETGROUP)
                self.counts.bans[NETGROUP] += 1
                logger.warning("banned %s, of which too many hosts are banned", group)
        return longest

    def refuse(self, keys: Iterable[str], seconds: float | None = None) -> float:
        """Neither dial nor admit for a while (default: the configuration's `refusal_time`)."""
        length = self._config.refusal_time if seconds is None else seconds
        for key in keys:
            self._refusals.refuse(key, self._runtime.loop_time(), length)
        return length

    def parted(self, peer: LostPeer) -> float:
        """A peer is gone. Returns for how many seconds its address is left alone: who told us not
        to come back, or was sent away for what it is, gets no points but a refusal."""
        code, by_us = peer.drop_code, peer.dropped_by_us
        self.counts.departures[by_us, _CODE_NAMES.get(code, OTHER)] += 1
        # A ban of ours stands already, and can be lifted.
        ours = by_us and code == DisconnectCode.BANNED
        if peer.offence is None and code in AVOIDED and (by_us or peer.outbound) and not ours:
            # What one node told us says nothing about others of its host.
            dialled = (format_address(peer.host_address, peer.dial_port),)
            self.refuse(self.keys_of(peer) if by_us else dialled)
        port_is_hearsay = not peer.outbound and peer.proved_id is not None
        if port_is_hearsay and is_exempt(peer.host_address, self._config):
            return 0.0
        return self.refused(peer.host_address, peer.dial_port, peer.proved_id)

    # --- the operator ----------------------------------------------------------------------

    def ban(self, key: str, seconds: float, reason: str = OPERATOR) -> Ban:
        """Ban a host, a network, one node of a host or a node id, and part from those whom it
        hits. Raises `ConfigError`."""
        ban = self.bans.add(key, seconds, reason)
        self.counts.bans[OPERATOR] += 1
        self.part_from_banned()
        return ban

    def lift(self, key: str) -> bool:
        """Admit again: end a ban, and forget points and refusals of the same key; whether it was
        banned. Raises `ConfigError`."""
        key = parse_key(key)
        self._scores.pop(key, None)
        self._refusals.lift(key)
        return self.bans.lift(key)

    def bans_changed(self, banned: Iterable[str], lifted: Iterable[str]) -> None:
        """An operator's command has changed the bans on disk."""
        for key in lifted:
            self._scores.pop(key, None)
            self._refusals.lift(key)
            logger.info("%s is banned no more", key)
        for key in banned:
            logger.info("banned %s", key)
        self.part_from_banned()

    def part_from_banned(self) -> None:
        """Disconnect the peers whom a ban hits."""
        for peer in tuple(self._peers()):
            keys = (
                *self.keys_of(peer),
                host_key(peer.host_address),
                format_address(peer.host_address, peer.dial_port),
                peer.node_id.hex(),
            )
            # Who pays for some hosts of a netgroup must not cost us those whom we chose there.
            left = self.bans.left(keys, peer.host_address, with_groups=not peer.outbound)
            if left and not peer.closed:
                peer.disconnect(DisconnectCode.BANNED, "banned", retry_after=ceil(left))

    # --- the log ---------------------------------------------------------------------------

    def _log(self, who: str, offence: Offence, detail: str, verdict: Verdict) -> None:
        """One line for each offence, unless there were too many of late."""
        now = self._runtime.loop_time()
        if self._logs is None:
            self._logs = LogLimit(DROP_LOGS_PER_SECOND, DROP_LOGS_BURST, now)
        more = self._logs.admit(now)
        if more is None:
            return
        what = "dropped" if verdict.drop else "scored"
        after = f", banned for {verdict.banned_for:.0f} s" if verdict.banned_for else ""
        logger.log(
            logging.WARNING if verdict.drop else logging.INFO,
            "%s %s for %s: %s (score %.0f of %s%s)%s",
            what,
            who,
            offence.value,
            printable(detail) or "-",
            verdict.score,
            verdict.key,
            after,
            more,
        )
