"""Who is banned until when: by host, by network, by node id; by the node itself or its operator."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

from ..errors import ConfigError
from ..runtime import Runtime
from .addresses import canonical, format_address, parse_address
from .limits import BAN_GROWTH, BAN_MEMORY, BAN_TIME_MAX, BANS, NETGROUP_BANS

__all__ = ["FOREVER", "OPERATOR", "Ban", "Bans", "host_key", "netgroup_key", "parse_key"]

OPERATOR: Final = "operator"
FOREVER: Final = 100 * 365 * 86400  # seconds; the longest that can be asked for

_NODE_ID = re.compile(r"[0-9a-f]{64}")
_REASON = re.compile(r"[ -~]{1,64}")


def parse_key(text: str) -> str:
    """The one spelling of what is to be banned: an IP address, a network (``10.0.0.0/8``), one
    node of a host (``10.0.0.1:30303``) or a node id (64 hex digits). Raises `ConfigError`."""
    if _NODE_ID.fullmatch(text.lower()):
        return text.lower()
    try:
        if "/" in text:
            return str(ip_network(text, strict=False))
        if canonical(text) is not None and "%" not in text:
            return host_key(text)
        host, port = parse_address(text)
        if canonical(host) is not None:
            return format_address(str(ip_address(host)), port)
    except (ValueError, ConfigError):
        pass
    raise ConfigError(
        f"{text!r}: needs an IP address, a network, host:port or a node id of 64 hex digits"
    )


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
        if not 0 <= self.until < 2**63 or not 0 < self.times < 2**31:
            raise ConfigError(f"ban of {self.key}: its end or its count is out of range")
        if not _REASON.fullmatch(self.reason):
            raise ConfigError(f"ban of {self.key}: a reason has 1 to 64 printable ASCII characters")


@dataclass(slots=True)
class _Held:
    ban: Ban
    ends: float  # loop time


class Bans:
    """The bans of one node, and for a while those that are over: who comes back gets a longer one.

    Ends are kept as wall-clock times, so that they survive a restart; while the node runs they are
    counted down by the loop's clock, so that a wall clock that jumps ends and prolongs nothing.
    """

    def __init__(self, runtime: Runtime, limit: int = BANS) -> None:
        self._runtime = runtime
        self._limit = limit
        self._held: dict[str, _Held] = {}
        self._prefixes: dict[tuple[int, int], int] = {}  # version, length → networks of that size

    def __len__(self) -> int:
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
            (_shown(held, now, wall) for held in self._held.values() if held.ends > now),
            key=lambda ban: ban.until,
        )

    def left(self, keys: Iterable[str], host: str = "") -> float:
        """For how many more seconds one of `keys` is banned, or a network around `host`; else 0."""
        now = self._runtime.loop_time()
        longest = 0.0
        for key in (*keys, *self._networks_of(host)):
            held = self._held.get(key)
            if held is not None:
                longest = max(longest, held.ends - now)
        return longest

    def _networks_of(self, host: str) -> Iterable[str]:
        ip = canonical(host) if host and self._prefixes else None
        if ip is None:
            return
        version = 6 if ":" in ip else 4
        for v, length in self._prefixes:
            if v == version:
                network = IPv6Network if v == 6 else IPv4Network
                yield str(network((ip, length), strict=False))

    # --- changing ----------------------------------------------------------------------------

    def add(self, key: str, seconds: float, reason: str = OPERATOR, *, times: int = 1) -> Ban:
        """Ban `key` from now on, in place of a ban that it has. Raises `ConfigError`."""
        wall = int(self._runtime.wall_time())
        length = max(1, int(seconds))
        ban = Ban(parse_key(key), wall + length, length, reason, times)
        self._put(ban, self._runtime.loop_time() + length)
        return ban

    def punish(self, key: str, seconds: float, reason: str) -> Ban:
        """Ban `key`, `BAN_GROWTH` times as long as the last time, if that is not long ago. A longer
        ban that it has stays."""
        held = self._held.get(key)
        times = held.ban.times + 1 if held is not None and held.ban.reason != OPERATOR else 1
        length = min(seconds * BAN_GROWTH ** min(times - 1, 16), max(BAN_TIME_MAX, seconds))
        if held is not None and held.ends >= self._runtime.loop_time() + length:
            return held.ban
        return self.add(key, length, reason, times=times)

    def spread(self, host: str) -> str | None:
        """The netgroup of `host`, once so many hosts of it are banned that it is to be."""
        group = netgroup_key(host)
        if group in self:
            return None
        now = self._runtime.loop_time()
        banned = sum(
            held.ends > now and held.ban.reason != OPERATOR and _host_in(key, group)
            for key, held in self._held.items()
        )
        return group if banned >= NETGROUP_BANS else None

    def lift(self, key: str) -> bool:
        """Forget a ban and what came before it; whether `key` was banned. Raises `ConfigError`."""
        key = parse_key(key)
        was = key in self
        self._drop(key)
        return was

    def _put(self, ban: Ban, ends: float) -> None:
        self._drop(ban.key)
        self._held[ban.key] = _Held(ban, ends)
        if (size := _prefix(ban.key)) is not None:
            self._prefixes[size] = self._prefixes.get(size, 0) + 1
        if len(self._held) > self._limit:
            self._forget_one()

    def _drop(self, key: str) -> None:
        if self._held.pop(key, None) is None:
            return
        size = _prefix(key)
        if size is not None:
            self._prefixes[size] -= 1
            if not self._prefixes[size]:
                del self._prefixes[size]

    def _forget_one(self) -> None:
        """The one that ends first, or ended longest ago; the operator's last of all."""
        self._drop(
            min(
                self._held, key=lambda k: (self._held[k].ban.reason == OPERATOR, self._held[k].ends)
            )
        )

    def tidy(self) -> None:
        """Forget what was over so long ago that it counts no more."""
        now = self._runtime.loop_time()
        for key in [k for k, held in self._held.items() if held.ends + BAN_MEMORY < now]:
            self._drop(key)


def _shown(held: _Held, now: float, wall: float) -> Ban:
    ban = held.ban
    return Ban(ban.key, max(0, int(wall + held.ends - now)), ban.seconds, ban.reason, ban.times)


def _prefix(key: str) -> tuple[int, int] | None:
    address, slash, length = key.partition("/")
    return (6 if ":" in address else 4, int(length)) if slash else None


def _host_in(key: str, group: str) -> bool:
    """Whether `key` is a host (an IPv6 one: its /64) of the network `group`."""
    host, slash, length = key.partition("/")
    return (not slash or length == "64") and netgroup_key(host) == group and key != group
