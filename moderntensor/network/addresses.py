"""Network addresses as text, as wire bytes, and in groups."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from ..config import NodeConfig
from ..errors import ConfigError

__all__ = [
    "NodeAddress",
    "Scope",
    "canonical",
    "format_address",
    "from_wire",
    "is_exempt",
    "is_local",
    "is_loopback",
    "may_learn",
    "netgroup",
    "parse_address",
    "parse_node_address",
    "scope",
    "to_wire",
]

_ID_DIGITS = 64  # a node id in hex


class Scope(Enum):
    """From where an address can be reached."""

    NAME = "a host name, or no address at all"
    LOOPBACK = "this machine"
    PRIVATE = "a private network"
    PUBLIC = "everywhere"
    NOWHERE = "no node is there: unspecified, multicast, reserved, documentation"


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """A place to dial, and the id of the node that must be there (None: whoever is)."""

    host: str
    port: int
    node_id: bytes | None = None

    def __str__(self) -> str:
        address = format_address(self.host, self.port)
        return address if self.node_id is None else f"{self.node_id.hex()}@{address}"


def format_address(host: str, port: int) -> str:
    """``host:port``, IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of ``host:port`` or ``[ipv6]:port``. Raises `ConfigError`."""
    host, colon, port = text.rpartition(":")
    if ":" in host:
        if not (host.startswith("[") and host.endswith("]")):
            raise ConfigError(f"address {text!r}: an IPv6 address needs brackets")
        host = host[1:-1]
    if "[" in host or "]" in host:
        raise ConfigError(f"address {text!r}: brackets are for an IPv6 address")
    if not colon or not host or len(port) > 5 or not (port.isascii() and port.isdigit()):
        raise ConfigError(f"address {text!r}: needs host:port")
    if not 0 < int(port) < 65536:
        raise ConfigError(f"address {text!r}: port must be from 1 to 65535")
    return host, int(port)


def parse_node_address(text: str) -> NodeAddress:
    """Of ``host:port`` or ``id@host:port``, the id in 64 hex digits. Raises `ConfigError`."""
    name, at, address = text.rpartition("@")
    host, port = parse_address(address)
    if not at:
        return NodeAddress(host, port)
    try:
        if len(name) != _ID_DIGITS or not name.isalnum():  # fromhex() admits spaces
            raise ValueError
        return NodeAddress(host, port, bytes.fromhex(name))
    except ValueError:
        raise ConfigError(f"address {text!r}: the id needs {_ID_DIGITS} hex digits") from None


# --- what an address is ------------------------------------------------------------------------

# The special-purpose registries of IANA (RFC 6890), as far as the standard library's own
# attributes differ between the versions of Python or mix what is private with what is nowhere.
_PRIVATE = (
    "10.0.0.0/8",
    "100.64.0.0/10",  # behind a carrier's translation
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "fc00::/7",
    "fe80::/10",
)
_NOWHERE = (
    "0.0.0.0/8",
    "192.0.0.0/24",
    "192.0.2.0/24",  # documentation, as the next two
    "198.51.100.0/24",
    "203.0.113.0/24",
    "192.88.99.0/24",
    "198.18.0.0/15",  # benchmarks
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/96",  # unspecified; IPv4-compatible, which is long gone
    "100::/64",
    "2001:2::/48",  # benchmarks
    "2001:10::/28",  # hashes of keys (ORCHID), as the next one
    "2001:20::/28",
    "2001:db8::/32",  # documentation, as the next one
    "3fff::/20",
    "fec0::/10",
    "ff00::/8",
)


def _ranges(version: int) -> tuple[list[int], list[tuple[int, Scope]]]:
    """First addresses in order, and to each the last one and where those between are."""
    kinds = ((_PRIVATE, Scope.PRIVATE), (_NOWHERE, Scope.NOWHERE))
    found = sorted(
        (int(network[0]), int(network[-1]), kind)
        for texts, kind in kinds
        for network in map(ip_network, texts)
        if network.version == version
    )
    return [first for first, _, _ in found], [(last, kind) for _, last, kind in found]


_RANGES = {version: _ranges(version) for version in (4, 6)}
_TRANSLATED = (IPv6Network("64:ff9b::/96"), IPv6Network("::ffff:0:0:0/96"))  # NAT64, SIIT


@lru_cache(4096)
def _parsed(host: str) -> IPv4Address | IPv6Address | None:
    try:
        ip = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return (ip.ipv4_mapped or ip) if isinstance(ip, IPv6Address) else ip


def _embedded(ip: IPv6Address) -> Iterator[IPv4Address]:
    """The IPv4 address of the party that an IPv6 address of a transition technique leads to."""
    if ip.sixtofour is not None:
        yield ip.sixtofour
    elif ip.teredo is not None:
        yield ip.teredo[1]
    elif any(ip in network for network in _TRANSLATED):
        yield IPv4Address(ip.packed[-4:])


def _scope(ip: IPv4Address | IPv6Address) -> Scope:
    if ip.is_loopback:
        return Scope.LOOPBACK
    firsts, rest = _RANGES[ip.version]
    before = bisect(firsts, int(ip)) - 1
    if before >= 0 and int(ip) <= rest[before][0]:
        return rest[before][1]
    if isinstance(ip, IPv6Address):
        for inner in _embedded(ip):
            # Nobody can have reached this machine or a private network by way of a translator.
            return Scope.PUBLIC if _scope(inner) is Scope.PUBLIC else Scope.NOWHERE
    return Scope.PUBLIC


@lru_cache(4096)
def scope(host: str) -> Scope:
    """From where an address can be reached."""
    ip = _parsed(host)
    return Scope.NAME if ip is None else _scope(ip)


def canonical(host: str) -> str | None:
    """The one spelling of an IP address (mapped IPv4 as IPv4), or None for a name."""
    ip = _parsed(host)
    return None if ip is None else str(ip)


def to_wire(host: str) -> bytes:
    """16 bytes, IPv4 mapped into IPv6; zeros for what is no IP address."""
    ip = _parsed(host)
    if ip is None:
        return bytes(16)
    return ip.packed if isinstance(ip, IPv6Address) else b"\x00" * 10 + b"\xff\xff" + ip.packed


def from_wire(ip: bytes) -> str:
    """The text of 16 wire bytes."""
    address = IPv6Address(ip)
    return str(address.ipv4_mapped or address)


@lru_cache(4096)
def netgroup(host: str) -> str:
    """Addresses that one party may well hold together: /16 of IPv4 (also of one that is wrapped
    in an IPv6 address: 6to4, Teredo, NAT64), /32 of IPv6."""
    ip = _parsed(host)
    if ip is None:
        return host
    if isinstance(ip, IPv6Address):
        ip = next(_embedded(ip), ip)
    if isinstance(ip, IPv4Address):
        return f"v4:{ip.packed[:2].hex()}"
    return f"v6:{ip.packed[:4].hex()}"


def is_local(host: str) -> bool:
    """Whether it is this machine or a private network: many nodes may share such an address."""
    return scope(host) in (Scope.LOOPBACK, Scope.PRIVATE)


def is_exempt(host: str, config: NodeConfig) -> bool:
    """Whether the rules that tell strangers apart by their addresses (netgroups, bans of hosts,
    one attempt per interval) spare this one: it is local, and the configuration exempts those."""
    return config.exempt_local and is_local(host)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    return host == "localhost" or scope(host) is Scope.LOOPBACK


def may_learn(host: str, source: str) -> bool:
    """Whether a node at `source` can rightly tell of one at `host`: public addresses always,
    private ones within a private network, this machine only to itself."""
    there, teller = scope(host), scope(source)
    if teller is Scope.NAME:
        return False
    if there is Scope.LOOPBACK:
        return teller is Scope.LOOPBACK
    if there is Scope.PRIVATE:
        return teller in (Scope.LOOPBACK, Scope.PRIVATE)
    return there is Scope.PUBLIC
