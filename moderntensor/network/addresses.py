"""Network addresses as text, as wire bytes, and in groups."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from ..errors import ConfigError

__all__ = [
    "canonical",
    "format_address",
    "from_wire",
    "is_local",
    "is_loopback",
    "may_learn",
    "netgroup",
    "parse_address",
    "to_wire",
]


def format_address(host: str, port: int) -> str:
    """``host:port``, IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of ``host:port`` or ``[ipv6]:port``. Raises `ConfigError`."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ConfigError(f"address {text!r}: an IPv6 address needs brackets")
    if not colon or not host or len(port) > 5 or not (port.isascii() and port.isdigit()):
        raise ConfigError(f"address {text!r}: needs host:port")
    if not 0 < int(port) < 65536:
        raise ConfigError(f"address {text!r}: port must be from 1 to 65535")
    return host, int(port)


@lru_cache(4096)
def _parsed(host: str) -> IPv4Address | IPv6Address | None:
    try:
        ip = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return (ip.ipv4_mapped or ip) if isinstance(ip, IPv6Address) else ip


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


def netgroup(host: str) -> str:
    """Addresses that one party may well hold together: /16 of IPv4, /32 of IPv6."""
    ip = _parsed(host)
    if ip is None:
        return host
    if isinstance(ip, IPv4Address):
        return f"v4:{ip.packed[:2].hex()}"
    return f"v6:{ip.packed[:4].hex()}"


def is_local(host: str) -> bool:
    """Whether it is this machine or a private network: many nodes may share such an address."""
    ip = _parsed(host)
    return ip is not None and (ip.is_loopback or ip.is_private or ip.is_link_local)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    ip = _parsed(host)
    return host == "localhost" if ip is None else ip.is_loopback


def may_learn(host: str, source: str) -> bool:
    """Whether a node at `source` can rightly tell of one at `host`: public addresses always,
    private ones within a private network, this machine only to itself."""
    ip, origin = _parsed(host), _parsed(source)
    if ip is None or ip.is_unspecified or ip.is_multicast or origin is None:
        return False
    if ip.is_loopback:
        return origin.is_loopback
    if ip.is_reserved:
        return False
    if ip.is_private or ip.is_link_local:
        return origin.is_private or origin.is_link_local
    return True
