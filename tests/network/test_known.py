"""What is known of a peer is bounded, and tells repeats from what crossed on the way."""

from __future__ import annotations

from moderntensor.network.known import KnownSet, RecentBytes


def test_what_is_known_is_bounded() -> None:
    known = KnownSet(3)
    assert known.add(b"a")
    assert not known.add(b"a")
    known.update([b"b", b"c", b"d"])
    assert len(known) == 3
    assert b"a" not in known
    assert b"d" in known
    known.discard(b"d")
    assert known.add(b"d")


def test_of_much_that_is_known_the_oldest_goes_first() -> None:
    known = KnownSet(64)
    hashes = [number.to_bytes(4, "big") for number in range(1000)]
    for count, item in enumerate(hashes, 1):
        assert known.add(item)
        assert len(known) <= 64
        remembered = min(count, 60)  # all but a sixteenth, which is forgotten in one go
        assert all(one in known for one in hashes[count - remembered : count])


def test_what_both_told_of_at_once_is_no_repeat() -> None:
    known = KnownSet(8)
    known.add(b"told by us")
    assert not known.hear(b"told by us")
    assert known.hear(b"told by it")
    assert known.repeats == 0
    assert not known.hear(b"told by us")
    assert not known.hear(b"told by it")
    assert not known.add(b"told by it")
    assert known.repeats == 2
    known.discard(b"told by it")
    assert known.hear(b"told by it")
    for number in range(100):
        known.hear(bytes([number]))
        assert len(known) <= 8
    assert known.repeats == 2


def test_what_was_kept_last_is_there() -> None:
    recent = RecentBytes(5_000)
    for number in range(20):
        recent.add(bytes([number]) * 32, bytes(680))
        recent.add(bytes([number]) * 32, b"another")
        assert recent.size <= 5_000
    kept = [number for number in range(20) if bytes([number]) * 32 in recent]
    assert kept == [15, 16, 17, 18, 19]
    assert recent.get(bytes([19]) * 32) == bytes(680)
    assert recent.get(bytes([14]) * 32) is None
