"""Rows 29 to 38: chains of headers that are not what they should be."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from helpers.forks import STRANGER, VALIDATORS

from moderntensor.blockchain.block import Block

from . import scene, wire
from .conftest import Live, Row
from .hostile import refused, until
from .server import ChainServer, serving

pytestmark = pytest.mark.long

MAX_SIDE_BLOCKS = 1024  # docs/security.md
MAX_DRIFT = 15  # s, docs/protocol.md, section 5
REQUEST_TIMEOUT = 15.0


def tip() -> Block:
    return scene.chain()[-1]


def served_code(row: Row, server: ChainServer) -> int | None:
    """How the node parts from whoever serves this chain."""
    with serving(row.target, server) as served:
        code = served.code()
        row.hostile.append(served.peer)
    return code


BROKEN: dict[str, dict[str, Any]] = {
    "previous-hash": {"previous_hash": b"\x29" * 32},
    "height": {"height": scene.HEIGHT + 3},
    "version": {"version": 2},
    "gas-limit": {"gas_limit": 30_000_001},
    "gas-used": {"gas_used": 30_000_001},
}


@pytest.mark.parametrize("name", BROKEN)
def test_row_29_a_header_that_breaks_a_rule(row: Row, name: str) -> None:
    """Well signed, and wrong: nobody can have made it by mistake, so its host is banned."""
    good = scene.maker().block(tip())
    bad = scene.maker().block(good, **BROKEN[name])
    server = ChainServer([*scene.chain(), good, bad])
    assert served_code(row, server) == wire.BAD_HEADER
    assert row.live.banned(row.hostile[-1].host)
    assert row.live.state()["header_height"] == scene.HEIGHT


def test_row_29_a_header_that_breaks_a_rule_as_news(row: Row) -> None:
    """The same, announced as a new block."""
    broken = {**BROKEN, "height-down": {"height": scene.HEIGHT}}
    del broken["previous-hash"]  # an unknown parent is no fault by itself
    peers = {name: row.meet() for name in broken}
    for name, peer in peers.items():
        bad = scene.maker().block(tip(), gap=2, **broken[name])
        peer.send(wire.new_block(bad.header.encode()))
    for name, peer in peers.items():
        assert peer.code() == wire.BAD_HEADER, name
        assert row.live.banned(peer.host), name


def test_row_29_roots_of_another_length(row: Row) -> None:
    """Headers are of one layout: a shorter root makes all of it no header."""
    raw = tip().header.encode()
    peer = row.meet()
    peer.send(wire.new_block(raw[:100] + raw[101:]))
    assert peer.code() == wire.PROTOCOL_ERROR


@pytest.mark.parametrize("name", ["bad signature", "stranger's key", "another's turn"])
def test_row_30_signed_by_nobody_who_may(row: Row, name: str) -> None:
    maker = scene.maker()
    good = maker.block(tip())
    turn = VALIDATORS[maker.config.slot_of(good.header.timestamp) % len(VALIDATORS)]
    other = next(key for key in VALIDATORS if key != turn)
    bad = {
        "bad signature": lambda: maker.block(tip(), signature=bytes(64)),
        "stranger's key": lambda: maker.block(tip(), key=STRANGER),
        "another's turn": lambda: maker.block(tip(), key=other),
    }[name]()
    host_of = served_code(row, ChainServer([*scene.chain(), bad]))
    assert host_of == wire.BAD_HEADER
    row.live.advance(31)
    assert refused(row.target, row.hostile[-1].host)


def test_row_31_from_the_future(row: Row, another_live: Callable[..., Live]) -> None:
    """Held back without blame, and taken when its time has come."""
    node = another_live()
    early = 600
    node.ask("wall", ahead=tip().header.timestamp + 5 - time.time())
    block = scene.maker().block(tip(), gap=early)
    server = ChainServer([*scene.chain(), block])
    with serving(node.target, server) as served:
        until(lambda: any(asked.kind == wire.GET_HEADERS for asked in server.asked))
        served.peer.send(wire.new_block(block.header.encode()))
        row.undisturbed()
        assert not served.ended.is_set()
        assert node.state()["height"] == scene.HEIGHT
        node.ask("wall", ahead=tip().header.timestamp + early - time.time())
        node.advance(30)
        until(lambda: node.state()["height"] == scene.HEIGHT + 1)
    row.measure(early_seconds=early)


@pytest.mark.parametrize("gap", [0, -1, -3])
def test_row_32_time_that_stands_still_or_runs_back(row: Row, gap: int) -> None:
    """Slots strictly grow: of one slot there is one block at most."""
    bad = scene.maker().block(tip(), gap=gap)
    assert served_code(row, ChainServer([*scene.chain(), bad])) == wire.BAD_HEADER


class Endless(ChainServer):
    """Always has one header more, each well signed, and never a body."""

    def __init__(self, slots: int) -> None:
        super().__init__(scene.chain())
        config, last = scene.maker().config, tip().header
        for _ in range(slots):
            slot = config.slot_of(last.timestamp) + 1
            key = VALIDATORS[slot % len(VALIDATORS)]
            last = last.replace(
                height=last.height + 1,
                timestamp=last.timestamp + config.block_time,
                previous_hash=last.hash,
                txs_root=b"\x33" * 32,
                validator=key.public_key,
            ).sign(key)
            self.heights[last.hash] = last.height
            self.headers.append(last.encode())

    claim = (2**40, b"\x33" * 32)


def test_row_33_headers_without_end(row: Row, another_live: Callable[..., Live]) -> None:
    """No more of them are taken than slots have passed: the last is `MAX_DRIFT` ahead."""
    node = another_live()
    passed = 200
    node.ask("wall", ahead=tip().header.timestamp + passed - time.time())
    server = Endless(passed + 400)
    with serving(node.target, server):
        until(lambda: any(asked.kind == wire.GET_HEADERS for asked in server.asked))
        row.undisturbed()
        node.advance(REQUEST_TIMEOUT)
        state = node.state()
    most = scene.HEIGHT + passed + MAX_DRIFT + 60  # the test itself takes its time
    assert state["header_height"] <= most
    assert state["height"] == scene.HEIGHT
    row.measure(offered=len(server.headers), taken=state["header_height"])


@pytest.mark.parametrize("reply", ["nothing", "not found", "a shorter chain"])
def test_row_34_claims_that_are_not_kept(row: Row, reply: str) -> None:
    """The claim is dismissed, others are asked; who goes on claiming is useless."""
    server = ChainServer(scene.chain()[:-5] if reply == "a shorter chain" else scene.chain())

    def answer(asked: wire.Asked) -> bytes | None:
        if asked.kind == wire.GET_HEADERS and reply != "a shorter chain":
            status = wire.OK if reply == "nothing" else wire.NOT_FOUND
            return wire.headers(asked.request_id, [], status)
        return server(asked)

    height = scene.HEIGHT + 1000
    with serving(row.target, answer, best_height=height, best_hash=b"\x34" * 32) as served:
        for _ in range(20):
            if served.ended.wait(0.1):
                break
            row.live.advance(5)
        assert served.code() == wire.USELESS
    assert row.live.state()["height"] == scene.HEIGHT
    assert not row.live.banned(served.peer.host)


def test_row_35_many_short_forks(row: Row) -> None:
    """Kept in a bounded number; the chain itself does not move."""
    base, before = scene.chain()[-3], row.before["side_blocks"]
    sent = 0
    for _ in range(3):
        peer = row.meet()
        for _ in range(100):
            sent += 1
            block = scene.maker().block(base, gap=2 + sent)
            peer.send(wire.new_block(block.header.encode()))
        assert peer.answers()
    until(lambda: row.live.state()["side_blocks"] > before + 20)  # some of them are kept
    row.undisturbed()
    state = row.live.state()
    # One peer's news come no faster than its rate, however many forks it makes up.
    assert state["side_blocks"] - before < sent / 2
    assert state["side_blocks"] <= MAX_SIDE_BLOCKS
    assert state["hash"] == tip().hash.hex()
    row.measure(forks=sent, kept=state["side_blocks"] - before)


def test_row_36_a_fork_below_finality(row: Row) -> None:
    """Refused and said loudly: it may be we who are wrong, so nobody is banned."""
    maker, base = scene.maker(), scene.chain()[3]
    fork = maker.run(base, scene.HEIGHT, gap=3)
    server = ChainServer([*scene.chain()[:4], *fork])
    assert served_code(row, server) == wire.USELESS
    assert not row.live.banned(row.hostile[-1].host)
    assert row.live.state()["hash"] == tip().hash.hex()
    assert any("ERROR" in line or "WARNING" in line for line in row.live.log("fork"))


def test_row_37_two_headers_of_one_validator_at_one_height(row: Row) -> None:
    """Both are kept as evidence."""
    before = row.live.state()["evidence"]
    base = scene.chain()[-2]
    twin = scene.maker().block(base, gap=2 + 3 * 9)  # the same validator's turn
    assert twin.header.validator == tip().header.validator
    server = ChainServer([*scene.chain()[:-1], twin])
    with serving(row.target, server) as served:
        served.peer.send(wire.new_block(twin.header.encode()))
        until(lambda: row.live.state()["evidence"] > before)
        assert not served.ended.is_set()


def test_row_38_headers_of_unknown_parents(row: Row) -> None:
    """The first leads to one question, many of them to the end."""
    lost = scene.maker().block(tip(), previous_hash=b"\x38" * 32, height=scene.HEIGHT + 7)

    def unknown(asked: wire.Asked) -> bytes:
        return wire.empty_reply(wire.REQUESTS[asked.kind], asked.request_id, wire.NOT_FOUND)

    with serving(row.target, unknown) as served:
        served.peer.send(wire.new_block(lost.header.encode()))
        until(lambda: any(asked.kind == wire.GET_HEADERS for asked in served.asked))
        assert not served.ended.is_set()
        for n in range(200):
            other = scene.maker().block(
                tip(), previous_hash=bytes([n]) * 32, height=scene.HEIGHT + 8 + n % 50
            )
            if not served.peer.try_send(wire.new_block(other.header.encode())):
                break
        # Whichever is noticed first: ever more of them, or that it cannot show what it claims.
        assert served.code() in (wire.BAD_HEADER, wire.USELESS)
        row.undisturbed()
        assert not row.live.banned(served.peer.host)
    assert not row.live.state()["header_height"] > scene.HEIGHT
