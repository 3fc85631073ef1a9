"""Rows 50, 51, 53 and 54: clocks, ends, partitions."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest

from . import scene, wire
from .conftest import Live, Row
from .hostile import Hostile, until
from .server import ChainServer, serving

pytestmark = pytest.mark.long


def test_row_50_the_wall_clock_jumps(row: Row) -> None:
    """Durations do not follow it: nobody is dropped, nothing times out, bans do not end."""
    peer = row.meet()
    for ahead in (86_400.0, -86_400.0, 10.0 * 365 * 86_400, 0.0):
        row.live.ask("wall", ahead=ahead)
        assert peer.answers()
    row.undisturbed()


def test_row_50_a_header_is_judged_by_the_clock_of_its_moment(
    row: Row, another_live: Callable[..., Live]
) -> None:
    """Too early by a clock that is behind; good when that has been set right."""
    node = another_live()
    block = scene.maker().block(scene.chain()[-1], gap=60)
    node.ask("wall", ahead=scene.chain()[-1].header.timestamp - time.time())
    server = ChainServer([*scene.chain(), block])
    with serving(node.target, server) as served:
        until(lambda: any(asked.kind == wire.GET_HEADERS for asked in server.asked))
        row.undisturbed()
        assert node.state()["height"] == scene.HEIGHT
        node.ask("wall", ahead=0.0)
        node.advance(30)
        until(lambda: node.state()["height"] == scene.HEIGHT + 1)
        assert not served.ended.is_set()


@pytest.mark.long
def test_row_51_the_end_amid_everything(row: Row, another_live: Callable[..., Live]) -> None:
    """With handshakes half done, frames half read and replies owed, it ends at once and well."""
    node = another_live()
    half_open = [Hostile(node.target) for _ in range(5)]
    peers = [Hostile.meet(node.target) for _ in range(5)]
    for peer in peers:
        peer.send(wire.get_blocks(1, 1, scene.HEIGHT, 512) * 8, b"\0\0\4\0")
    began = time.monotonic()
    node.stop()  # AssertionError if its exit code is not 0
    for peer in (*half_open, *peers):
        peer.close()
    row.measure(seconds_to_end=time.monotonic() - began)


def test_row_51_killed_and_started_again(row: Row, another_live: Callable[..., Live]) -> None:
    """SIGKILL while it is asked: nothing that was committed is lost, nothing locked."""
    node = another_live()
    with Hostile.meet(node.target) as peer:
        peer.send(wire.get_blocks(1, 1, scene.HEIGHT, 512) * 8)
        assert node.signal(signal.SIGKILL) == -signal.SIGKILL
        node.kill()
    again = another_live(directory_of=node)
    assert again.state()["hash"] == scene.chain()[-1].hash.hex()
    row.undisturbed()


def test_row_53_partition_and_healing(row: Row, another_live: Callable[..., Live]) -> None:
    """Two sides that grew apart agree on the longer branch once they meet."""
    maker, base = scene.maker(), scene.chain()[-1]
    left = maker.run(base, 3, gap=3)
    right = maker.run(base, 6, gap=4)
    one = another_live(blocks=[*scene.chain(), *left])
    two = another_live(blocks=[*scene.chain(), *right])
    address = {"host": "127.0.0.1", "port": two.target.port}
    assert one.ask("connect", **address) == "connected"
    until(lambda: one.state()["hash"] == two.state()["hash"] == right[-1].hash.hex())
    row.undisturbed()


def test_row_54_all_peers_gone_during_a_sync(row: Row, another_live: Callable[..., Live]) -> None:
    """It waits, and goes on with whoever comes next."""
    node = another_live()
    more = scene.maker().run(scene.chain()[-1], 12, gap=5, transfers=1)
    server = ChainServer([*scene.chain(), *more])
    withheld = []

    def leaves(asked: wire.Asked) -> bytes | None:
        if asked.kind == wire.GET_BLOCK_BODIES:
            withheld.append(asked)
            return None
        return server(asked)

    height, block_hash = server.claim
    with serving(node.target, leaves, best_height=height, best_hash=block_hash):
        until(lambda: withheld)
    until(lambda: not node.peers())
    assert node.state()["height"] == scene.HEIGHT
    node.advance(30)
    with serving(node.target, server):
        until(lambda: node.state()["hash"] == block_hash.hex())
    row.undisturbed()
