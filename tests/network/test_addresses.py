"""What an address is: its spelling, its group, from where it can be reached, who may tell of it."""

from __future__ import annotations

import pytest

from moderntensor.config import NodeConfig
from moderntensor.errors import ConfigError
from moderntensor.network.addresses import (
    NodeAddress,
    Scope,
    from_wire,
    is_exempt,
    is_local,
    may_learn,
    netgroup,
    parse_address,
    parse_node_address,
    scope,
    to_wire,
)

LOOPBACK = "127.0.0.1"


@pytest.mark.parametrize(
    ("host", "where"),
    [
        ("8.8.8.8", Scope.PUBLIC),
        ("2a00:1450::1", Scope.PUBLIC),
        ("::ffff:8.8.8.8", Scope.PUBLIC),
        ("2002:0808:0808::1", Scope.PUBLIC),  # 6to4
        ("64:ff9b::808:808", Scope.PUBLIC),  # NAT64
        (LOOPBACK, Scope.LOOPBACK),
        ("127.200.0.1", Scope.LOOPBACK),
        ("::1", Scope.LOOPBACK),
        ("::ffff:127.0.0.1", Scope.LOOPBACK),
        ("10.1.2.3", Scope.PRIVATE),
        ("100.64.0.1", Scope.PRIVATE),
        ("192.168.1.1", Scope.PRIVATE),
        ("fd00::1", Scope.PRIVATE),
        ("fe80::1%eth0", Scope.PRIVATE),
        ("0.0.0.0", Scope.NOWHERE),  # noqa: S104
        ("::", Scope.NOWHERE),
        ("::5", Scope.NOWHERE),
        ("192.0.2.1", Scope.NOWHERE),
        ("198.51.100.7", Scope.NOWHERE),
        ("203.0.113.7", Scope.NOWHERE),
        ("198.19.0.1", Scope.NOWHERE),
        ("224.0.0.1", Scope.NOWHERE),
        ("240.0.0.1", Scope.NOWHERE),
        ("255.255.255.255", Scope.NOWHERE),
        ("2001:db8::1", Scope.NOWHERE),
        ("ff02::1", Scope.NOWHERE),
        ("2002:7f00:1::1", Scope.NOWHERE),  # 6to4 of this machine
        ("2002:0a00:1::1", Scope.NOWHERE),  # 6to4 of a private network
        ("64:ff9b::7f00:1", Scope.NOWHERE),
        ("name.example", Scope.NAME),
        ("", Scope.NAME),
    ],
)
def test_from_where_an_address_can_be_reached(host: str, where: Scope) -> None:
    assert scope(host) is where


def test_local_addresses_stay_where_they_mean_something() -> None:
    public, private, loop = "8.8.8.8", "10.0.0.1", LOOPBACK
    table = [
        (public, public, True),
        (public, loop, True),
        (private, private, True),
        (private, loop, True),
        (private, public, False),
        (loop, loop, True),
        (loop, private, False),
        (loop, public, False),
        ("name.example", public, False),
        ("192.0.2.1", loop, False),
        (public, "name.example", False),
    ]
    for host, source, allowed in table:
        assert may_learn(host, source) is allowed, (host, source)
    assert is_local("::1")
    assert is_local("192.168.1.1")
    assert not is_local("8.8.8.8")


def test_local_addresses_are_exempt_only_where_the_configuration_says_so() -> None:
    spared, strict = NodeConfig(), NodeConfig(exempt_local=False)
    for host in (LOOPBACK, "::1", "10.0.0.1", "fd00::1"):
        assert is_exempt(host, spared)
        assert not is_exempt(host, strict)
    for host in ("8.8.8.8", "name.example", "192.0.2.1"):
        assert not is_exempt(host, spared)


@pytest.mark.parametrize(
    ("host", "group"),
    [
        ("20.1.2.3", "v4:1401"),
        ("::ffff:20.1.2.3", "v4:1401"),
        ("2002:1401:203::1", "v4:1401"),  # 6to4
        ("2001:0:4136:e378:8000:63bf:ebfe:fdfc", "v4:1401"),  # Teredo: the client, inverted
        ("64:ff9b::1401:203", "v4:1401"),  # NAT64
        ("::ffff:0:1401:203", "v4:1401"),  # SIIT
        ("2a00:1450:4001::5", "v6:2a001450"),
        ("name.example", "name.example"),
    ],
)
def test_a_group_is_of_who_holds_the_addresses(host: str, group: str) -> None:
    assert netgroup(host) == group


@pytest.mark.parametrize("host", ["1.2.3.4", "127.0.0.1", "2001:db8::5", "::1"])
def test_addresses_survive_the_wire(host: str) -> None:
    assert len(to_wire(host)) == 16
    assert from_wire(to_wire(host)) == host


def test_addresses_are_read_strictly() -> None:
    assert parse_address("host.example:80") == ("host.example", 80)
    assert parse_address("[::1]:80") == ("::1", 80)
    for text in (
        "host",
        "host:",
        ":80",
        "host:x",
        "host:0",
        "host:65536",
        "host:" + "1" * 5000,
        "::1:80",
        "h:8 0",
        "h:٣",
        "[name]:80",
        "[[::1]]:80",
    ):
        with pytest.raises(ConfigError):
            parse_address(text)
        with pytest.raises(ConfigError):
            parse_node_address(text)


def test_an_address_may_carry_the_id_that_must_be_there() -> None:
    node_id = bytes(range(32))
    for address in (
        NodeAddress("host.example", 80),
        NodeAddress("host.example", 80, node_id),
        NodeAddress("::1", 30303, node_id),
    ):
        assert parse_node_address(str(address)) == address
    assert parse_node_address(node_id.hex().upper() + "@h:1").node_id == node_id
    spaced = " ".join(["00"] * 21) + "00"  # 64 characters
    for name in ("", "00", "0" * 63, "0" * 65, "g" * 64, spaced, "٣" * 64, "a@" + "0" * 64):
        with pytest.raises(ConfigError, match="id needs 64 hex digits"):
            parse_node_address(f"{name}@host:1")
