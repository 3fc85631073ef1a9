"""Who is banned until when: by host, by network, by node id; by the node itself or its operator."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

from ..errors import ConfigError
from ..runtime import Runtime
from .addresses import canonical, format_address, parse_address
from .limits import BAN_GROWTH, BAN_MEMORY, BAN_TIME_MAX, BANS, NETGROUP_BANS

__all__ = [
    "FOREVER",
    "NETGROUP",
    "OPERATOR",
    "Ban",
    "Bans",
    "host_key",
    "netgroup_key",
    "new_ban",
    "parse_key",
    "room_for",
    "seconds_left",
]

OPERATOR: Final = "operator"
NETGROUP: Final = "netgroup"  # of which too many hosts were banned
FOREVER: Final = 100 * 365 * 86400  # seconds; the longest that can be asked for

_NODE_ID = re.compile(r"[0-9a-f]{64}")
_REASON = re.compile(r"[ -~]{1,64}")


def parse_key(text: str) -> str:
    """The one spelling of what is to be banned: an IP address, a network (``10.0.0.0/8``), one
    node of a host (``10.0.0.1:30303``) or a node id (64 hex digits). Raises `ConfigError`."""
    if _NODE_ID.fullmatch(text.lower()):
        return text.lower()
    try:
        if "%" in text:  # a zone of this machine
            raise ValueError(text)
        if "/" in text:
            return _network_key(text)
        if canonical(text) is not None:
            return host_key(text)
        host, port = parse_address(text)
        if canonical(host) is not None:
            return format_address(str(ip_address(host)), port)
    except (ValueError, ConfigError):
        pass
    raise ConfigError(
        f"{text!r}: needs an IP address, a network, host:port or a node id of 64 hex digits"
    )


def _network_key(text: str) -> str:
    network = ip_network(text, strict=False)
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is not None and network.prefixlen >= 96:
        network = IPv4Network((mapped, network.prefixlen - 96), strict=False)
    return str(network)


def host_key(host: str) -> str:
    """What a ban of a host falls on: its address; of IPv6 the /64, which everyone has whole."""
    ip = canonical(host)
    if ip is None or ":" not in ip:
        return ip or host
    return str(IPv6Network((ip, 64), strict=False))


def netgroup_key(host: str) -> str:
    """The network that one party may well hold: /16 of IPv4, /32 of IPv6."""
    ip = canonical(host)
    if ip is None:
        return host
    if ":" in ip:
        return str(IPv6Network((ip, 32), strict=False))
    return str(IPv4Network((ip, 16), strict=False))


@dataclass(frozen=True, slots=True)
class Ban:
    """One ban. `until` is a wall-clock time (Unix seconds), `seconds` its whole length, `reason`
    the name of an offence or the operator's words, `times` how often it was given in a row."""

    key: str
    until: int
    seconds: int
    reason: str
    times: int = 1

    def __post_init__(self) -> None:
        """Raises `ConfigError` where a value is out of range."""
        if parse_key(self.key) != self.key:
            raise ConfigError(f"ban of {self.key!r}: not the usual spelling")
        if not 0 < self.seconds <= FOREVER:
            raise ConfigError(f"ban of {self.key}: must last from 1 s to {FOREVER} s")
        if not 0 <= self.until < 2**40 or not 0 < self.times < 2**31:
            raise ConfigError(f"ban of {self.key}: its end or its count is out of range")
        if not _REASON.fullmatch(self.reason):
            raise ConfigError(f"ban of {self.key}: a reason has 1 to 64 printable ASCII characters")


def room_for(bans: Iterable[Ban], now: float, limit: int = BANS) -> list[Ban]:
    """The bans that are kept at Unix time `now`: not those that ended so long ago that they count
    no more; if still more than `limit`, those that end last, and the operator's before others."""
    kept = sorted(
        (ban for ban in bans if ban.until + BAN_MEMORY > now),
        key=lambda ban: (ban.reason == OPERATOR, ban.until),
    )
    return kept[max(0, len(kept) - limit) :]


@dataclass(slots=True)
class _Held:
    ban: Ban
    ends: float  # loop time
    group: str  # of the host that is banned; empty for what is no host


class Bans:
    """The bans of one node, and for a while those that are over: who comes back gets a longer one.

    Ends are kept as wall-clock times, so that they survive a restart; while the node runs they are
    counted down by the loop's clock, so that a wall clock that jumps ends and prolongs nothing.
    """

    def __init__(self, runtime: Runtime, limit: int = BANS) -> None:
        self._runtime = runtime
        self._limit = limit
        self._held: dict[str, _Held] = {}
        self._sizes: Counter[tuple[int, int]] = Counter()  # networks, by version and length
        # What is to be written to disk: the ban of a key, or None where it has none any more.
        self.changes: dict[str, Ban | None] = {}
        self.on_change: Callable[[], object] | None = None  # who writes them

    def __len__(self) -> int:
        """How many are in force."""
        return len(self.list())

    def __contains__(self, key: str) -> bool:
        """Whether `key` itself is banned now; a host of a banned network has no key of its own."""
        held = self._held.get(key)
        return held is not None and held.ends > self._runtime.loop_time()

    def list(self) -> list[Ban]:
        """The bans in force, the one that ends first in front. Their ends are shown as this
        machine's clock has them now."""
        now, wall = self._runtime.loop_time(), self._runtime.wall_time()
        return sorted(
            (
                replace(held.ban, until=max(0, round(wall + held.ends - now)))
                for held in self._held.values()
                if held.ends > now
            ),
            key=lambda ban: (ban.until, ban.key),
        )

    def by_reason(self) -> Counter[str]:
        """How many are in force, by their reasons."""
        now = self._runtime.loop_time()
        return Counter(held.ban.reason for held in self._held.values() if held.ends > now)

    def left(self, keys: Iterable[str], host: str = "", *, with_groups: bool = True) -> float:
        """For how many more seconds one of `keys` is banned, or a network around `host`; else 0.
        Without groups: not because too many other hosts of its netgroup are."""
        now = self._runtime.loop_time()
        longest = 0.0
        for key in (*keys, *self._networks_of(host)):
            held = self._held.get(key)
            if held is not None and (with_groups or held.ban.reason != NETGROUP):
                longest = max(longest, held.ends - now)
        return longest

    def _networks_of(self, host: str) -> Iterator[str]:
        ip = canonical(host) if host and self._sizes else None
        if ip is not None:
            version, network = (6, IPv6Network) if ":" in ip else (4, IPv4Network)
            for of, length in self._sizes:
                if of == version:
                    yield str(network((ip, length), strict=False))

    # --- changing ----------------------------------------------------------------------------

    def add(self, key: str, seconds: float, reason: str = OPERATOR, *, times: int = 1) -> Ban:
        """Ban `key` from now on, in place of a ban that it has. Raises `ConfigError`."""
        ban = new_ban(key, seconds, reason, self._runtime.wall_time(), times=times)
        self._put(ban, self._runtime.loop_time() + ban.seconds)
        self._changed(ban.key, ban)
        return ban

    def punish(self, key: str, seconds: float, reason: str) -> Ban:
        """Ban `key`, `BAN_GROWTH` times as long as the last time, if that is not long ago. A longer
        ban that it has stays."""
        held = self._held.get(key)
        if held is None:
            return self.add(key, seconds, reason)
        times = held.ban.times + (held.ban.reason != OPERATOR)
        length = min(seconds * BAN_GROWTH ** min(times - 1, 16), max(BAN_TIME_MAX, seconds))
        if held.ends >= self._runtime.loop_time() + length:
            return held.ban
        return self.add(key, length, reason, times=times)

    def spread(self, host: str) -> str | None:
        """The netgroup of `host`, once so many hosts of it are banned that it is to be. Of IPv6 one
        host may have a whole /48, which counts once."""
        group = netgroup_key(host)
        if group in self:
            return None
        now = self._runtime.loop_time()
        banned = {
            _site(held.ban.key)
            for held in self._held.values()
            if held.group == group and held.ends > now and held.ban.reason != OPERATOR
        }
        return group if len(banned) >= NETGROUP_BANS else None

    def lift(self, key: str) -> bool:
        """Forget a ban and what came before it; whether `key` was banned. Raises `ConfigError`."""
        key = parse_key(key)
        was = key in self
        if key in self._held:
            self._drop(key)
            self._changed(key, None)
        return was

    def tidy(self) -> None:
        """Forget what was over so long ago that it counts no more."""
        now = self._runtime.loop_time()
        for key in [k for k, held in self._held.items() if held.ends + BAN_MEMORY < now]:
            self._drop(key)
            self._changed(key, None)

    def everything(self) -> tuple[Ban, ...]:
        """The bans as they are on disk, those that are over included."""
        return tuple(held.ban for held in self._held.values())

    def take_over(self, table: Iterable[Ban]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Have the bans of `table`, except where `changes` say otherwise. Returns the keys that
        are banned now and were not, and those that were and are not."""
        before = [key for key in self._held if key in self]
        found = {ban.key: ban for ban in table if ban.key not in self.changes}
        for key in [k for k in self._held if k not in found and k not in self.changes]:
            self._drop(key)
        now, wall = self._runtime.loop_time(), self._runtime.wall_time()
        for key, ban in found.items():
            held = self._held.get(key)
            if held is None or held.ban != ban:
                self._put(ban, now + seconds_left(ban, wall))
        were = frozenset(before)
        banned = tuple(key for key in self._held if key in self and key not in were)
        return banned, tuple(key for key in before if key not in self)

    def _changed(self, key: str, ban: Ban | None) -> None:
        if self.on_change is not None:
            self.changes.pop(key, None)
            self.changes[key] = ban
            if len(self.changes) > 2 * self._limit:  # the disk is full, and strangers go on
                del self.changes[next(iter(self.changes))]
            self.on_change()

    def _put(self, ban: Ban, ends: float) -> None:
        self._drop(ban.key)
        self._held[ban.key] = _Held(ban, ends, _group_of(ban.key))
        size = _size(ban.key)
        if size is not None:
            self._sizes[size] += 1
        if len(self._held) > self._limit:
            # The one that ends first, or ended longest ago; the operator's last of all.
            least = min(
                self._held, key=lambda k: (self._held[k].ban.reason == OPERATOR, self._held[k].ends)
            )
            self._drop(least)
            self._changed(least, None)

    def _drop(self, key: str) -> None:
        if self._held.pop(key, None) is None:
            return
        size = _size(key)
        if size is not None:
            self._sizes[size] -= 1
            if not self._sizes[size]:
                del self._sizes[size]


def new_ban(key: str, seconds: float, reason: str, now: float, *, times: int = 1) -> Ban:
    """A ban that begins at Unix time `now`. Raises `ConfigError`."""
    if not 0 < seconds <= FOREVER:
        raise ConfigError(f"ban of {key}: must last from 1 s to {FOREVER} s")
    length = max(1, int(seconds))
    return Ban(parse_key(key), int(now) + length, length, reason, times)


def seconds_left(ban: Ban, now: float) -> float:
    """How long a ban from disk still lasts at Unix time `now`; negative when it is over. Never
    longer than it was meant to be, should the clock have been set back."""
    return min(ban.until - now, ban.seconds)


def _size(key: str) -> tuple[int, int] | None:
    """IP version and length of a network; None for any other key."""
    address, slash, length = key.partition("/")
    return (6 if ":" in address else 4, int(length)) if slash else None


def _site(key: str) -> str:
    """What one subscriber has, around a banned host: of IPv6 the /48."""
    host = key.partition("/")[0]
    return str(IPv6Network((host, 48), strict=False)) if ":" in host else host


def _group_of(key: str) -> str:
    """The netgroup of a banned host (an IPv6 one: its /64); empty for what is no host."""
    host, slash, length = key.partition("/")
    return netgroup_key(host) if canonical(host) and (not slash or length == "64") else ""
