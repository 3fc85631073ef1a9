"""Settings are checked where they are made, and the error names the field."""

from __future__ import annotations

import pytest

from moderntensor.config import NodeConfig
from moderntensor.errors import ConfigError


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_peers", 0),
        ("max_peers", True),
        ("max_peers", 2.5),
        ("ping_interval", -1.0),
        ("ping_interval", float("nan")),
        ("ping_interval", float("inf")),
        ("ping_interval", "15"),
        ("max_inflight", 256),
        ("blocks_per_request", 513),
        ("discovery", 1),
        ("transport", "tls"),
        ("user_agent", "bell\x07"),
        ("user_agent", "a" * 256),
        ("listen_host", None),
    ],
)
def test_a_bad_setting_is_named(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        NodeConfig(**{field: value})  # type: ignore[arg-type]


def test_a_copy_with_changes_is_checked_too() -> None:
    assert NodeConfig().replace(max_peers=3).max_peers == 3
    with pytest.raises(ConfigError, match="max_peers"):
        NodeConfig().replace(max_peers=0)
    with pytest.raises(ConfigError, match="no such setting: max_pears"):
        NodeConfig().replace(max_pears=3)


@pytest.mark.parametrize(
    ("max_peers", "max_inbound", "limit"),
    [(50, None, 42), (4, None, 2), (1, None, 1), (16, None, 8), (50, 10, 10), (5, 10, 5)],
)
def test_strangers_cannot_take_every_slot(
    max_peers: int, max_inbound: int | None, limit: int
) -> None:
    config = NodeConfig(max_peers=max_peers, max_inbound=max_inbound)
    assert config.inbound_limit == limit
