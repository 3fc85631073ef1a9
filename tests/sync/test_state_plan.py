"""What to ask for of a state, without any network."""

from __future__ import annotations

import pytest
from helpers.state_peers import ZERO, Image, state_of

from moderntensor.backend import merkle
from moderntensor.blockchain.staging import Hole
from moderntensor.network.messages import StateNodesMessage
from moderntensor.network.sync.state_plan import (
    CHUNK_ACCOUNTS,
    CHUNK_FIRST,
    CHUNK_LEAST,
    SHARE_LEAST,
    WHOLE,
    chunk_accounts,
    is_deep,
    merged,
    packed_node,
    shares,
    verified_nodes,
)

IMAGE = Image(state_of(300))


def hole(bits: str, *, known: bool = False) -> Hole:
    """The subtree of the image under these bits."""
    prefix = int(bits.ljust(256, "0"), 2).to_bytes(32, "big")
    part = IMAGE.part(len(bits), prefix)
    digest, count, _, _ = merkle.state_records(part, len(bits), prefix)
    return Hole(len(bits), prefix, digest, count, known)


def places(holes: list[Hole]) -> list[tuple[int, bytes]]:
    return [(one.depth, one.prefix) for one in holes]


def test_halves_that_fit_together_are_one_and_it_is_the_right_one() -> None:
    parts = [hole(bits) for bits in ("000", "001", "01", "10", "110", "111")]
    assert merged(parts, 1000) == [Hole(0, ZERO, IMAGE.pivot.state_root, 300, known=True)]
    most = hole("0").count  # the other half is larger or smaller, both together are too large
    expected = ["0", "1"] if hole("1").count <= most else ["0", "10", "11"]
    assert places(merged(parts, most)) == places([hole(bits) for bits in expected])
    assert merged(parts, 1) == parts


def test_what_has_a_gap_between_stays_apart() -> None:
    parts = [hole(bits) for bits in ("000", "01", "10", "111")]
    assert merged(parts, 1000) == parts
    # Neighbours, but halves of different subtrees.
    parts = [hole(bits) for bits in ("001", "010")]
    assert merged(parts, 1000) == parts
    assert merged([], 1000) == []


@pytest.mark.parametrize(
    "count, known, deep",
    [(WHOLE, True, False), (WHOLE + 1, True, True), (512, False, False), (513, False, True)],
)
def test_what_may_be_here_in_part_or_is_too_large_is_descended(
    count: int, known: bool, deep: bool
) -> None:
    assert is_deep(Hole(3, ZERO, b"\1" * 32, count, known), 512) == deep


def test_chunks_are_what_the_fastest_peer_gives_in_a_second_within_bounds() -> None:
    assert chunk_accounts([]) == chunk_accounts([None], [None]) == CHUNK_FIRST
    assert chunk_accounts([None], [10.0, 500.0]) == 1200  # by what the headers came at
    assert chunk_accounts([300.0, None], [1e9]) == 300
    assert chunk_accounts([10.0, None]) == CHUNK_LEAST
    assert chunk_accounts([10.0, 1000.0]) == 1000
    assert chunk_accounts([1e9]) == CHUNK_ACCOUNTS


def test_all_holes_are_shared_out_and_nobody_gets_too_many_or_too_few() -> None:
    parts = [hole("0")] * 1000
    assert [len(part) for part in shares(parts, 4, 1024)] == [250] * 4
    assert [len(part) for part in shares(parts, 1, 300)] == [300, 300, 300, 100]
    assert {len(part) for part in shares(parts, 999, 1024)[:-1]} == {SHARE_LEAST}
    assert shares([], 4, 1024) == []
    assert shares(parts[:1], 0, 1024) == [parts[:1]]


def test_only_the_node_itself_is_taken_for_it() -> None:
    one = hole("01")
    raw = IMAGE.nodes[bytes([2]) + one.prefix]
    left, left_count = raw[:32], int.from_bytes(raw[32:40], "big")
    right, right_count = raw[40:72], int.from_bytes(raw[72:], "big")
    node = left, left_count, right, right_count
    assert packed_node(one, node) == raw
    assert packed_node(one._replace(count=0), node) == raw  # a root of unknown count
    for false in (
        (right, right_count, left, left_count),
        (left, left_count + 1, right, right_count - 1),
        (left, one.count, ZERO, 0),
        (left, 2**64 - 1, right, right_count),
        (ZERO, left_count, right, right_count),
        (ZERO, 0, ZERO, 0),
    ):
        assert packed_node(one, false) is None
    assert packed_node(one._replace(count=one.count + 1), node) is None
    assert packed_node(one._replace(hash=b"\1" * 32), node) is None


def test_a_false_node_is_found_wherever_it_stands() -> None:
    holes = [hole(bits) for bits in ("00", "01", "10", "11")]
    nodes = []
    for one in holes:
        raw = IMAGE.nodes[bytes([2]) + one.prefix]
        counts = [int.from_bytes(raw[at : at + 8], "big") for at in (32, 72)]
        nodes.append((raw[:32], counts[0], raw[40:72], counts[1]))
    reply = StateNodesMessage(request_id=1, nodes=tuple(nodes[:3]))
    found = verified_nodes(holes, reply)
    assert isinstance(found, list)
    assert [one for one, _ in found] == holes[:3]
    for at in range(3):
        false = [*nodes[:at], nodes[3], *nodes[at + 1 : 3]]
        assert verified_nodes(holes, reply.replace(nodes=tuple(false))) == holes[at]
