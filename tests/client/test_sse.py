"""Server-sent events out of bytes, however they are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderntensor.client.sse import MAX_EVENT, EventParser, EventTooLongError, ServerEvent

STREAM = (
    "\ufeff: a comment\n\n"
    "id: a-1\nevent: head\ndata: {}\n\n"
    "data:first\ndata: second\r\n\r\n"
    "event: nothing\rid: a-2\r\r"
    "id: has\0null\ndata\nunknown: field\n\n"
    "id\ndata: é…\n\n"
    "data: never ends\n"
).encode()
EVENTS = [
    ServerEvent("head", "{}", "a-1"),
    ServerEvent("message", "first\nsecond", "a-1"),
    ServerEvent("message", "", "a-2"),
    ServerEvent("message", "é…", ""),
]


@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=30))
def test_events_are_the_same_however_the_bytes_are_cut(cuts: list[int]) -> None:
    parser, found = EventParser(), []
    edges = [0, *sorted(cuts), len(STREAM)]
    for start, end in pairwise(edges):
        found += parser.feed(STREAM[start:end])
    assert found == EVENTS


def test_every_byte_alone() -> None:
    parser = EventParser()
    assert [event for i in STREAM for event in parser.feed(bytes([i]))] == EVENTS


@given(data=st.binary(max_size=300))
def test_no_bytes_are_too_strange(data: bytes) -> None:
    list(EventParser().feed(data))


@pytest.mark.parametrize("piece", [b"x" * 1000, b"data: x\n" * 100, b":\r" * 500])
def test_an_event_without_end_is_not_held(piece: bytes) -> None:
    parser = EventParser()
    with pytest.raises(EventTooLongError):
        for _ in range(2 * MAX_EVENT // len(piece) + 8):
            list(parser.feed(piece))


def test_the_time_for_lines_is_proportional_to_them() -> None:
    """Counted, not measured: a search that begins anew at each line looks at n² bytes."""
    looked_at = 0

    class Counted(bytes):
        def rfind(self, *given: object) -> int:
            nonlocal looked_at
            looked_at += len(self)
            return bytes.rfind(self, *given)

    parser = EventParser()
    parser._buffer = NoSearch()
    pieces = [b"\n" * 1000, b"data: x", b"\n\n", b"y" * 1000]
    found = [event for piece in pieces for event in parser.feed(Counted(piece))]
    assert [event.data for event in found] == ["x"]
    assert looked_at <= 2 * sum(map(len, pieces))


class NoSearch(bytearray):
    """What has come before is not searched again."""

    def find(self, *given: object) -> int:
        raise AssertionError("searched again")

    rfind = index = find


def test_an_id_holds_without_data_too() -> None:
    parser = EventParser()
    assert list(parser.feed(b": hello\n\n")) == [] and parser.settled_id is None
    assert list(parser.feed(b"id: a-7\n")) == [] and parser.settled_id is None
    assert list(parser.feed(b"\nid: a-8\ndata: x\n")) == [] and parser.settled_id == "a-7"
