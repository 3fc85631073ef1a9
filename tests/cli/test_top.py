"""What `top` makes of keys and terminals."""

from __future__ import annotations

import pytest

from moderntensor.cli.remote import url_of
from moderntensor.cli.top import Keys


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
