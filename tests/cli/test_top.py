"""What `top` makes of keys and terminals."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from moderntensor.cli.remote import url_of
from moderntensor.cli.top import Keys
from moderntensor.cli.top_display import Look, View


@pytest.mark.parametrize("typed", [b"q", b"Q", b"\x03", b"\x04", b"xxq", b"\x1b[Aq", b"\x1bq"])
def test_keys_that_quit(typed: bytes) -> None:
    assert Keys().quit(typed)


# Arrows, a wheel, F1 to F5 (F2 is ESC O Q), with modifiers, Home, ESC itself, other letters.
OTHERS = [b"\x1b[A", b"\x1bOA" * 3, b"\x1bOP", b"\x1bOQ", b"\x1b[12~", b"\x1b[1;5Q", b"\x1b[H",
          b"\x1b", b"\x1b[<64;10;10M", b"x", b"\r"]  # fmt: skip


@pytest.mark.parametrize("typed", OTHERS)
def test_keys_that_do_not(typed: bytes) -> None:
    assert not Keys().quit(typed)
    keys = Keys()
    assert not any(keys.quit(typed[at : at + 1]) for at in range(len(typed)))
    assert keys.quit(b"q") or typed == b"\x1b" * len(typed)


def test_a_sequence_without_end_is_not_held() -> None:
    keys = Keys()
    for _ in range(1000):
        keys.quit(b"\x1b[" + b"1" * 62)
        keys.quit(b"1" * 64)
    assert len(keys._held) <= 64


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("127.0.0.1:8645", "http://127.0.0.1:8645"),
        ("[::1]:8645", "http://[::1]:8645"),
        ("node.example:80", "http://node.example:80"),
        ("https://node.example", "https://node.example"),
        ("nowhere", "nowhere"),
        ("user:1@host:2", "user:1@host:2"),
    ],
)
def test_a_node_is_given_as_http_has_it(given: str, url: str) -> None:
    assert url_of(given) == url


def look(height: int, *, life: int = 1, phase: str = "waiting", producing: bool = True) -> Look:
    """At a node whose sync does nothing."""
    status: Any = SimpleNamespace(
        phase=phase, producing=producing, started_at=life, head=SimpleNamespace(height=height)
    )
    kinds = ("headers", "accounts", "blocks", "transactions")
    sync: Any = SimpleNamespace(**{f"{kind}_per_second": 0.0 for kind in kinds})
    return Look(status, sync, [], [])


def test_who_makes_the_blocks_alone_has_a_rate_too() -> None:
    """No sync counts them."""
    view = View("node")
    for second in range(0, 120, 2):
        view.take(look(second * 3), second)
    assert view.rates == "3 blocks/s"
    view.take(look(400, life=2), 120)
    assert not view.rates  # of two lives at once there is none
    for second in range(122, 242, 2):
        view.take(look(400 + second // 12, life=2), second)
    assert view.rates == "5 blocks/min"
    view.take(look(5000, life=2, phase="state"), 242)
    assert not view.rates  # which it has not made


def test_blocks_of_others_are_counted_by_the_sync() -> None:
    view = View("node")
    for second in range(5):
        view.take(look(second * 100, producing=False), second)
    assert not view.rates
