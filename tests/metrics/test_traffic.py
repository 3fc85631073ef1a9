"""The counters on the way of messages: what leaves one node is what comes to the other."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import pytest
from helpers.rawpeer import RawPeer, quiet_node, until
from helpers.sockets import Owner
from helpers.sync_nodes import SETTINGS, connect, grown, serving, syncing
from hypothesis import given
from hypothesis import strategies as st

from moderntensor.backend import framing
from moderntensor.errors import RequestTimeoutError
from moderntensor.network.latencies import BOUNDS, Latencies
from moderntensor.network.messages import (
    GetPeersMessage,
    MessageType,
    NewBlockHashesMessage,
    PeersMessage,
    PingMessage,
    Status,
)
from moderntensor.network.offences import Offence
from moderntensor.network.p2p import P2PNode
from moderntensor.network.traffic import FRAME_HEADER, Flow, Traffic, type_name


def nonzero(flow: Flow) -> dict[int, tuple[int, int]]:
    return {kind: (n, flow.bytes[kind]) for kind, n in enumerate(flow.messages) if n}


def counted(frames: list[tuple[int, bytes]]) -> dict[int, tuple[int, int]]:
    found: dict[int, tuple[int, int]] = {}
    for kind, payload in frames:
        messages, size = found.get(kind, (0, 0))
        found[kind] = messages + 1, size + FRAME_HEADER + len(payload)
    return found


# --- adding up ---------------------------------------------------------------------------------

SOME_FRAMES = st.lists(st.tuples(st.sampled_from([0, 1, 0x20, 0x80, 0xFF]), st.binary(max_size=9)))


@given(frames=SOME_FRAMES, same=st.integers(0, 20))
def test_frames_that_leave_together_are_counted_one_by_one(
    frames: list[tuple[int, bytes]], same: int
) -> None:
    """Alike or not, few or many."""
    for some in (frames, [(0x21, b"xy")] * same, frames + [(0x21, b"")] * same):
        flow = Flow()
        encoded = [framing.encode_frame(kind, payload) for kind, payload in some]
        flow.add_frames(encoded, sum(map(len, encoded)))
        assert nonzero(flow) == counted(some)


@given(frames=SOME_FRAMES, apart=st.sets(st.integers(0, 20)))
def test_headers_that_stand_alone_are_counted_with_their_payload(
    frames: list[tuple[int, bytes]], apart: set[int]
) -> None:
    parts: list[bytes] = []
    for number, (kind, payload) in enumerate(frames):
        frame = framing.encode_frame(kind, payload)
        alone = number in apart and payload  # whose payload looks like a header, as it may
        parts += (frame[:FRAME_HEADER], frame[FRAME_HEADER:]) if alone else (frame,)
    flow = Flow()
    flow.add_parts(parts)
    assert nonzero(flow) == counted(frames)


def test_rows_are_of_all_types_that_are_known_and_of_those_that_occurred() -> None:
    traffic = Traffic({0x84: "chat/1 Say"})
    kinds = [*map(int, MessageType), 0x84]  # from the first on, or a rate would miss it
    assert [row.type for row in traffic.by_type()] == kinds
    traffic.received.add(0x83, 2, 10)
    row = traffic.by_type()[-2]
    assert (row.name, row.messages_received, row.bytes_received) == ("0x83", 2, 20)
    assert (row.messages_sent, row.bytes_sent) == (0, 0)
    traffic.sent.add(0x84, 1, 7)
    assert [row.name for row in traffic.by_type()[-2:]] == ["0x83", "chat/1 Say"]
    assert type_name(MessageType.GET_PEERS) == traffic.name_of(MessageType.GET_PEERS) == "GET_PEERS"


def test_what_took_long_is_in_the_bucket_of_its_bound() -> None:
    latencies = Latencies()
    for seconds in (*BOUNDS, 0.0, 99.0):
        latencies.observe(MessageType.GET_PEERS, seconds)
    latency = latencies.by_type[MessageType.GET_PEERS]
    assert latency.buckets == [2, *[1] * len(BOUNDS)]  # "up to" a bound has the bound in it
    assert latency.count == len(BOUNDS) + 2
    assert latency.seconds == pytest.approx(sum(BOUNDS) + 99)
    assert list(latencies.by_type) == [MessageType.GET_PEERS]
    assert list(itertools.pairwise(BOUNDS)) == sorted(itertools.pairwise(BOUNDS))


# --- connections -------------------------------------------------------------------------------

Send = Callable[[Owner, int, bytes], None]


@pytest.mark.parametrize(
    "send",
    [
        lambda owner, kind, payload: owner.connection.send_payload(kind, payload),
        lambda owner, kind, payload: owner.connection.send(framing.encode_frame(kind, payload)),
        lambda owner, kind, payload: owner.connection.send_now(framing.encode_frame(kind, payload)),
    ],
    ids=["send_payload", "send", "send_now"],
)
async def test_each_way_of_sending_counts(send: Send) -> None:
    flow, frames = (
        Flow(),
        [(1, b""), (2, b"x" * 20_000), (1, b"abc"), (2, b"y" * 300_000), (1, b"")],
    )
    sender, receiver = Owner(sent=flow), Owner()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: receiver.connection, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        await loop.create_connection(lambda: sender.connection, "127.0.0.1", port)
        for kind, payload in frames:
            send(sender, kind, payload)
        assert await receiver.until(len(frames)) == frames
        assert nonzero(flow) == counted(frames)
        assert sum(flow.bytes) == sender.connection.bytes_sent == receiver.connection.bytes_received
        sender.connection.close()
        await asyncio.gather(sender.until_closed(), receiver.until_closed())


@pytest.mark.parametrize("transport", ["plaintext", "secure"])
async def test_what_one_node_sends_the_other_receives(transport: str) -> None:
    """A sync, type by type; in plaintext also to the byte that the sockets saw."""
    settings = SETTINGS.replace(transport=transport, ping_interval=60.0, ping_timeout=60.0)
    chain = grown(20, 2)
    async with serving(chain, settings=settings) as server, syncing(settings=settings) as sync:
        await connect(sync, server)
        result = await sync.sync()
        assert result.head_hash == chain.head.hash
        ours, theirs = sync.node.traffic, server.traffic
        await until(lambda: nonzero(ours.sent) == nonzero(theirs.received))
        await until(lambda: nonzero(theirs.sent) == nonzero(ours.received))
        assert {MessageType.HELLO, MessageType.GET_HEADERS, MessageType.GET_BLOCK_BODIES} <= set(
            nonzero(ours.sent)
        )
        asked = {kind: latency.count for kind, latency in ours.requests.by_type.items()}
        assert asked == {kind: n for kind, (n, _) in nonzero(ours.sent).items() if kind in asked}
        answered = {kind: latency.count for kind, latency in theirs.answers.by_type.items()}
        assert answered == asked
        assert not ours.timeouts and not ours.late_replies and not theirs.busy_replies
        (peer,) = sync.node.table
        if transport == "plaintext":
            assert sum(ours.sent.bytes) == peer.info.bytes_sent
            assert sum(ours.received.bytes) == peer.info.bytes_received
        assert peer.info.messages_waiting == peer.info.requests_waiting == 0


# --- what goes wrong ---------------------------------------------------------------------------


async def test_what_is_malformed_or_too_much_has_come_all_the_same() -> None:
    async with quiet_node(rate_limits=0.01) as node, await RawPeer.meet(node) as raw:
        hashes = NewBlockHashesMessage(hashes=((b"\x01" * 32, 1),))
        received, refused = node.traffic.received, node.traffic.refused
        raw.send(*[hashes] * 200)  # all there is, and more: those behind them are too many
        await until(lambda: received.messages[MessageType.NEW_BLOCK_HASHES] == 200)
        raw.send(*[hashes] * 20, *[PingMessage(nonce=n) for n in range(20)])
        await until(lambda: received.messages[MessageType.PING] == 20)
        assert received.messages[MessageType.NEW_BLOCK_HASHES] == 220
        assert refused[MessageType.NEW_BLOCK_HASHES] == 20
        assert refused[MessageType.PING] > 0  # they count in the sum of all messages, too
        raw.write(framing.encode_frame(MessageType.PING, b"\0"))
        await until(lambda: node.reputation.counts.offences[Offence.MALFORMED])
        assert received.messages[MessageType.PING] == 21
        assert received.messages[MessageType.HELLO] == 1


async def test_requests_that_wait_and_are_refused_are_told() -> None:
    """Of two kinds: ours without an answer in time, and theirs beyond what we allow."""
    async with quiet_node(max_per_type=1, max_inflight=1) as node, await RawPeer.meet(node) as raw:
        (peer,) = node.table
        with pytest.raises(RequestTimeoutError):
            await peer.request(GetPeersMessage(max_peers=1), timeout=0.01)
        assert node.traffic.timeouts == {MessageType.GET_PEERS: 1}
        asked = await raw.read(PingMessage)
        assert asked.TYPE is MessageType.PING
        late = await raw.read(GetPeersMessage)
        raw.send(PeersMessage(request_id=late.request_id))
        await until(lambda: node.traffic.late_replies == 1)
        assert not node.traffic.requests.by_type

        gate = asyncio.Event()

        async def slow(_: object, request: GetPeersMessage) -> PeersMessage:
            await gate.wait()
            return PeersMessage(request_id=request.request_id)

        node.register_handler(MessageType.GET_PEERS, slow)
        raw.send(*[GetPeersMessage(request_id=n, max_peers=1) for n in (1, 2, 3)])
        for _ in range(2):
            assert (await raw.read(PeersMessage)).status == Status.BUSY
        assert node.traffic.busy_replies == {MessageType.GET_PEERS: 2}
        gate.set()
        assert (await raw.read(PeersMessage)).status == Status.OK
        assert node.traffic.answers.by_type[MessageType.GET_PEERS].count == 1


async def test_counters_outlive_the_peers_that_they_count() -> None:
    async with quiet_node() as node:
        for _ in range(3):
            async with await RawPeer.meet(node):
                await until(lambda: len(node.table))
            await until(lambda: not len(node.table))
        assert node.traffic.received.messages[MessageType.HELLO] == 3
        assert node.traffic.sent.messages[MessageType.HELLO] == 3
        assert departures(node) == {(False, "closed"): 3}


def departures(node: P2PNode) -> dict[tuple[bool, str], int]:
    return dict(node.reputation.counts.departures)
